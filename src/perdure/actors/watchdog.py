"""A thread that notices when a handler blocks the event loop, and names it.

    the loop ticks ──► nothing is wrong
      └─ it missed a tick ──► short looks: the same turn, still? ──► said, once ──► the turn has failed
                                └─ another turn, or a tick ──► nothing is wrong

A block is measured by the thread's own short looks, not by a clock: a process that is stopped (SIGSTOP, a laptop's
sleep) or starved stops the thread as well, so at most one look counts. Only where the loop's thread has computed
meanwhile does a longer time count: then it held the interpreter's lock (a regular expression does), and nobody could
look; where a third thread is the next to get it, that is missed. A loop that is busy with many turns, one after the
other, is not blocked.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from attrs import define

from perdure.actors.idle import context_of
from perdure.actors.scope import current
from perdure.actors.stacks import is_debugged, stack_of_thread
from perdure.actors.stops import Blocked
from perdure.actors.stubborn import stop_handler
from perdure.errors import BlockedLoopError
from perdure.warning_types import BlockedLoopWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.actors.activation import Activation
    from perdure.actors.host import Host
    from perdure.actors.stacks import Stack
    from perdure.actors.turn import Turn
    from perdure.limits import Limits

_LOG = logging.getLogger("perdure.actors")
_LONGEST_REST_SECONDS = 5.0
_LOOKS = 10
"""Looks within the shorter threshold."""
_REMEDY = "Await instead of blocking, or call what blocks in a plain `@step def`, which runs in a thread."


@define
class Block:
    """What holds the loop up.

    Attributes:
        seconds: For how long it surely has.
        looks: How often it was seen.
    """

    task: asyncio.Task[Any] | None
    turn: Turn | None
    seconds: float = 0.0
    looks: int = 0
    told: bool = False
    failed: bool = False


class Watchdog:
    """Watches the loop that one node runs on. `start` and `stop` are called there."""

    def __init__(self, host: Host, limits: Limits) -> None:
        self._host = host
        self._loop = host.loop
        self._warn_after, self._fail_after = limits.blocked_warning, limits.blocked_failure
        least = min(self._warn_after, self._fail_after)
        self._never = least == float("inf")
        self._rest = min(least / 2, _LONGEST_REST_SECONDS)
        self._short = self._rest * 2 / _LOOKS
        self._ticks, self._ticked = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = threading.Event()
        self._watched = threading.get_ident()
        self._stopwatch = _Stopwatch(self._watched)

    def __repr__(self) -> str:
        return f"<Watchdog: {self._ticks} ticks>"

    def start(self) -> None:
        """Begin to tick and to watch."""
        if not self._never:
            self._tick()
            threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end."""
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        self._ticked = time.thread_time()
        self._timer = self._loop.call_later(self._rest, self._tick)

    # in the thread ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        seen, pause = 0, self._rest
        block: Block | None = None
        while not self._closed.wait(pause) and not self._loop.is_closed():
            seconds, ticks = self._stopwatch.lap(pause), self._ticks - seen
            seen += ticks
            # the loop's thread has computed since it ticked, and let nobody look
            unwatched = max(0.0, min(seconds, self._stopwatch.since(self._ticked)) - 2 * self._rest)
            if (ticks and not unwatched) or not self._loop.is_running():
                pause, block = self._rest, None
                continue
            if ticks:  # it was before
                block = None
            block = self._look(block, unwatched if block is None else seconds)
            pause = self._short
            self._judge(block)

    def _look(self, before: Block | None, seconds: float) -> Block:
        """See what the loop is at, and for how much longer."""
        task = asyncio.current_task(self._loop)
        turn = _turn_of(task)
        if before is not None and (before.task is not task or before.turn is not turn):
            return Block(task, turn)
        block = before or Block(task, turn)
        if not is_debugged(self._watched):
            block.seconds += seconds
            block.looks += 1
        return block

    def _judge(self, block: Block) -> None:
        """Say what there is to say of a block, and fail its turn. One look alone fails nobody."""
        turn = block.turn
        if block.seconds >= self._warn_after and not block.told:
            block.told = True
            self._tell(block)
        if turn is None or turn.seat.port is not self._host:
            return
        if block.seconds >= self._fail_after and block.looks > 1 and not block.failed:
            block.failed = True
            stack = stack_of_thread(self._watched)
            turn.blocked = BlockedLoopError(_describe(turn, block, stack), stack.text)
            self._on_loop(self._fail, turn)

    def _tell(self, block: Block) -> None:
        stack = stack_of_thread(self._watched)
        if block.turn is None:
            name = "something" if block.task is None else f"task '{block.task.get_name()}'"
            where = f"{name} blocks the event loop at {stack.file}:{stack.line}"
            _LOG.warning("%s, and with it every actor here. %s\n%s", where, _REMEDY, stack.text)
        elif block.turn.seat.port is self._host:
            _LOG.warning("%s\n%s", _describe(block.turn, block, stack), stack.text)
            self._on_loop(self._warn, block, stack)

    def _on_loop(self, action: Callable[..., None], *args: object) -> None:
        """Have something done when the loop runs again: a warning that is an error has somebody to hear it there."""
        with suppress(RuntimeError):  # it was closed meanwhile
            self._loop.call_soon_threadsafe(action, *args)

    # on the loop ------------------------------------------------------------------------------------------------------

    def _warn(self, block: Block, stack: Stack) -> None:
        if block.turn is not None:
            text = f"{_describe(block.turn, block, stack)}\n{stack.text}"
            warnings.warn_explicit(text, BlockedLoopWarning, stack.file, stack.line)

    def _fail(self, turn: Turn) -> None:
        """The handler goes on, if it has not ended; it is stopped."""
        if not turn.ended:
            stop_handler(cast("Activation", turn.seat), turn, Blocked(str(turn.blocked)))


class _Stopwatch:
    """Time as a thread lives it that is to look at another one again and again."""

    def __init__(self, watched: int) -> None:
        clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)  # not on macOS
        self._clock = None if clock is None else clock(watched)
        self._at, self._computed = time.monotonic(), self._cpu()

    def _cpu(self) -> float:
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # that thread has ended
            return 0.0

    def since(self, computed: float) -> float:
        """Seconds that the watched thread has computed since it had computed so many; zero or less if nobody knows."""
        return self._cpu() - computed

    def lap(self, meant: float) -> float:
        """Seconds since the last lap, no more than were meant unless the watched thread computed for longer."""
        at, computed = time.monotonic(), self._cpu()
        passed = min(at - self._at, max(meant, computed - self._computed))
        self._at, self._computed = at, computed
        return passed


def _turn_of(task: asyncio.Task[Any] | None) -> Turn | None:
    """The turn that a task is part of."""
    context = None if task is None else context_of(task)
    scope = None if context is None else context.get(current)
    return None if scope is None else scope.turn


def _describe(turn: Turn, block: Block, stack: Stack) -> str:
    return (
        f"{turn.seat.address}: '{turn.mail.handler}' (message '{turn.mail.id}') blocked the event loop for "
        f"{block.seconds:.2g} s at {stack.file}:{stack.line}, and with it every actor here. {_REMEDY}"
    )
