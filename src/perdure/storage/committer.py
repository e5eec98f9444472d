"""The group committer: one writer, one transaction for all that arrived while the previous one was running.

    submit ──► queue ──► one batch, one transaction ──► told, in order
                 ▲                                        │
                 └───── what that lets happen arrives ◄───┘

Writes are committed in the order they were submitted, so whoever sees a write acknowledged knows that all submitted
before it are durable. If a transaction fails, all of its writes are told the same error: nothing of it is on disk.

A large batch is told in slices, with a pass of the loop after each: what the first slice lets happen is in the next
transaction while the event loop still works on the others, so that two processors have work.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from perdure.errors import PerdureError, StorageError, SystemClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perdure.storage.store import Store
    from perdure.storage.writes import Settled, Write

Told: TypeAlias = "Callable[[Settled | PerdureError], None]"

_LOG = logging.getLogger("perdure.storage")
_BATCH = 2_000
_SLICE = 128


class Committer:
    """Serialises the writes of one system."""

    def __init__(self, store: Store, idle: Callable[[], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._after = idle
        self._queue: deque[tuple[Write, Told]] = deque()
        self._news: deque[tuple[Told, Settled | PerdureError]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._wake: asyncio.Event = asyncio.Event()
        self._closing = False
        self._pid = os.getpid()
        self.transactions = 0
        self.writes = 0

    def __repr__(self) -> str:
        return f"<Committer {len(self._queue)} queued, {self.writes} writes in {self.transactions} transactions>"

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="perdure-committer")

    async def close(self) -> None:
        """Commit what is queued, then end."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._teller is not None:
            await self._teller

    def submit(self, write: Write, told: Told) -> None:
        """Queue a write. `told` is called in the event loop with what became of it, and must not raise."""
        if os.getpid() != self._pid:
            raise SystemClosedError(
                f"the system was opened in process {self._pid} and is used in its fork {os.getpid()}. "
                "Open one in each process."
            )
        if self._closing or self._task is None or self._task.done():
            raise SystemClosedError("the system is closed. Use it inside `async with ActorSystem(...)`.")
        self._queue.append((write, told))
        if len(self._queue) == 1:
            self._wake.set()

    async def write(self, write: Write) -> Settled:
        """Commit one write and give what became of it; raises its error. Cancelling the caller does not undo it."""
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self.submit(write, lambda settled: settle(future, settled))
        return await future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if not self._queue and self._closing:
                return
            self._wake.clear()
            # Tasks that the last commit woke run now; what they begin joins this batch.
            await asyncio.sleep(0)
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
                settled = await self._commit([write for write, _ in batch])
                self._news.extend((told, result) for (_, told), result in zip(batch, settled, strict=True))
                if self._teller is None:
                    self._tell_slice()
                    if self._news:
                        self._teller = asyncio.get_running_loop().create_task(self._tell_rest(), name="perdure-teller")
                if self._after is not None:
                    await self._after()
                await asyncio.sleep(0)

    async def _commit(self, batch: list[Write]) -> Sequence[Settled | PerdureError]:
        try:
            settled = await self._store.write(batch)
        except PerdureError as error:
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001  # whoever wrote must hear of it
            _LOG.exception("a transaction of %d writes failed", len(batch))
            bug = StorageError(f"the transaction failed: {type(error).__name__}: {error}. This is a bug.")
            return [bug] * len(batch)
        self.transactions += 1
        self.writes += len(batch)
        if len(settled) != len(batch):
            # Cannot happen; and if it does, nobody may be told that his write is durable.
            bug = StorageError(f"the store settled {len(settled)} of {len(batch)} writes. This is a bug; start again.")
            return [bug] * len(batch)
        return settled

    async def _tell_rest(self) -> None:
        while self._news:
            await asyncio.sleep(0)
            self._tell_slice()
        self._teller = None

    def _tell_slice(self) -> None:
        for _ in range(min(len(self._news), _SLICE)):
            told, settled = self._news.popleft()
            try:
                told(settled)
            except Exception:  # noqa: BLE001  # said below
                # One who cannot take the news must not keep it from the others.
                _LOG.exception("a write's owner failed when it was told of %r", settled)


def settle(future: asyncio.Future[Settled], settled: Settled | PerdureError) -> None:
    """Give a future what became of a write, if anybody still waits."""
    if future.done():
        return
    if isinstance(settled, PerdureError):
        future.set_exception(settled)
    else:
        future.set_result(settled)
