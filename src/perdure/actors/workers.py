"""The tasks that handlers run in: kept, and lent to one activation after the other.

    has mail ──► ready ──► a worker takes it ──► its messages, turn by turn ──► the next one that is ready
                               └─ a handler waits ──► another worker goes on with those that are ready

A task made for every message costs more than most handlers do. So there are as many workers as handlers that wait, and
one more that comes whenever something is ready. What a handler leaves behind in its task (a context variable, a
cancellation) must not reach the next handler: a worker that is not as it was ends, and a new one takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import copy_context
from typing import Any, Protocol

from perdure.actors.scope import current
from perdure.actors.stops import STUBBORN_SECONDS

_LOG = logging.getLogger("perdure.actors")
_KEPT = 64
"""Workers that may wait for work; a burst of waiting handlers leaves no more behind."""


class Workload(Protocol):
    """An activation, as a worker sees it."""

    async def work(self, worker: asyncio.Task[None]) -> bool:
        """Handle what mail there is; whether the worker's task is as it was before."""
        ...


class Workers:
    """The workers of one node."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._ready: deque[Workload] = deque()
        self._idle: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.left: set[asyncio.Task[Any]] = set()
        self._coming = False
        self._closing = False

    def __repr__(self) -> str:
        return f"<Workers: {len(self.tasks)}, {len(self._idle)} of them idle, {len(self._ready)} actors ready>"

    def run(self, workload: Workload) -> None:
        """Have an activation worked on soon."""
        self._ready.append(workload)
        if not self._coming:
            self._call()

    def _call(self) -> None:
        """Have a worker come."""
        self._coming = True
        while self._idle:
            _, waiting = self._idle.popitem()
            if not waiting.done():  # somebody may cancel every task of the loop
                waiting.set_result(None)
                return
        # not as an argument of create_task, which older task factories do not take
        task = self._context.copy().run(self._loop.create_task, self._serve())
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._idle.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            _LOG.critical("a worker ended, which cannot happen; another goes on", exc_info=task.exception())
        # It may have been the one that was to come; one too many does no harm.
        self._coming = False
        if self._ready:
            self._call()

    async def _serve(self) -> None:
        me = asyncio.current_task()
        if me is None:
            raise RuntimeError("a worker runs outside a task")
        await asyncio.sleep(0)  # an eager task factory runs it inside the call that wanted it
        while True:
            self._coming = False
            while self._ready:
                workload = self._ready.popleft()
                if self._ready and not self._coming:
                    self._call()  # should this one's handler wait
                if not await workload.work(me):
                    return
                del workload  # an idle worker must not keep an actor in memory
            if self._closing or len(self._idle) >= _KEPT:
                return
            current.set(None)
            me.set_name("perdure worker")
            waiting = self._idle[me] = self._loop.create_future()
            await waiting

    def leave(self, *tasks: asyncio.Task[Any] | None) -> None:
        """Go on without tasks whose handler does not stop. They are told once more."""
        for task in tasks:
            if task is not None and not task.done():
                self.left.add(task)
                task.add_done_callback(self.left.discard)
                task.cancel()

    async def close(self) -> None:
        """Let the idle ones end, and the others as they get ready; returns when the idle ones have.

        Tasks that were left behind may end now. Those that do not are let go, so that `asyncio.run`, which waits for
        every task there is, ends all the same.
        """
        self._closing = True
        idle = list(self._idle.items())
        for _, waiting in idle:
            if not waiting.done():
                waiting.set_result(None)
        if idle:
            await asyncio.wait([task for task, _ in idle])
        if self.left:
            for task in self.left:
                task.cancel()
            _, stubborn = await asyncio.wait(self.left, timeout=STUBBORN_SECONDS)
            for task in stubborn:
                _LOG.error("%s does not stop; the program ends without it", task.get_name())
                asyncio._unregister_task(task)  # noqa: SLF001  # documented, for those who make tasks
                undestroyed: Any = task
                undestroyed._log_destroy_pending = False  # noqa: SLF001  # as asyncio does itself
