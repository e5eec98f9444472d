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
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

from perdure.errors import NodeBuried, PerdureError, StorageError, SystemClosedError
from perdure.loops import elsewhere
from perdure.storage.writes import Adopt, Begin, Declare, Order, Release, Segment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from perdure.storage.store import Store
    from perdure.storage.writes import Settled, Write

Told: TypeAlias = "Callable[[Write, Settled | PerdureError, asyncio.Future[Any] | None], None]"
"""What is called with a write, what became of it, and the future it was submitted with."""

_LOG = logging.getLogger("perdure.storage")
_BATCH = 2_000
_SLICE = 128
_CLOSED = "the system is closed. Use it inside `async with ActorSystem(...)`."

_committers: WeakSet[Committer] = WeakSet()


def _refuse_in_child() -> None:
    for committer in list(_committers):
        committer.forked()


os.register_at_fork(after_in_child=_refuse_in_child)


class Committer:
    """Serialises the writes of one system.

    Args:
        store: Where they go.
        idle: Called after every transaction.
        rejoin: Called when this node was buried; has it enter under another identity.
    """

    def __init__(
        self,
        store: Store,
        idle: Callable[[], Awaitable[None]] | None = None,
        rejoin: Callable[[NodeBuried], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._after = idle
        self._rejoin = rejoin
        # three lists side by side: a tuple for each write would be three more objects for the garbage collector
        self._queue: list[Write] = []
        self._owners: list[Told] = []
        self._futures: list[asyncio.Future[Any] | None] = []
        self._news: deque[Iterator[tuple[Write, Told, asyncio.Future[Any] | None, Settled | PerdureError]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._wake: asyncio.Event = asyncio.Event()
        self._closing = False
        self._refusal: str | None = _CLOSED
        self._pid = os.getpid()
        self.transactions = 0
        self.writes = 0

    def __repr__(self) -> str:
        return f"<Committer {len(self._queue)} queued, {self.writes} writes in {self.transactions} transactions>"

    def start(self) -> None:
        """Begin to commit."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="perdure-committer")
        self._task.add_done_callback(self._ended)
        self._refusal = None
        _committers.add(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._refusal = _CLOSED
        del task

    def forked(self) -> None:
        """Refuse every write: this is a copy in a forked process, without the thread and the loop."""
        self._refusal = (
            f"the system was opened in process {self._pid} and is used in its fork {os.getpid()}. "
            "Open one in each process."
        )

    async def close(self) -> None:
        """Commit what is queued, then end."""
        self._closing = True
        self._refusal = _CLOSED
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._teller is not None:
            await self._teller

    def submit(
        self, write: Write, told: Told, future: asyncio.Future[Any] | None = None, *, first: bool = False
    ) -> None:
        """Queue a write. `told` is called in the event loop with what became of it, and must not raise.

        One that is to be `first` goes before all that wait.
        """
        if self._refusal is not None:
            raise SystemClosedError(self._refusal)
        if not self._queue:
            self._wake.set()
        if first:
            self._queue.insert(0, write)
            self._owners.insert(0, told)
            self._futures.insert(0, future)
            return
        self._queue.append(write)
        self._owners.append(told)
        self._futures.append(future)

    def check_loop(self) -> None:
        """Refuse a caller in another loop, or in a fork, before anything is done. Raises `SystemClosedError`."""
        if asyncio.get_running_loop() is not self._loop:
            raise SystemClosedError(self._refusal) if self._refusal is not None else elsewhere()

    async def write(self, write: Write, *, first: bool = False) -> Settled:
        """Commit one write and give what became of it; raises its error. Cancelling the caller does not undo it."""
        self.check_loop()
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self.submit(write, settle, future, first=first)
        return await future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                owners, self._owners = self._owners[:_BATCH], self._owners[_BATCH:]
                futures, self._futures = self._futures[:_BATCH], self._futures[_BATCH:]
                settled = await self._commit(batch)
                if isinstance(settled, PerdureError):
                    await self._failed(batch, owners, futures, settled)
                else:
                    self._news.append(zip(batch, owners, futures, settled, strict=True))
                if self._teller is None and self._news:
                    self._tell_slice()
                    if self._news:
                        self._teller = asyncio.get_running_loop().create_task(self._tell_rest(), name="perdure-teller")
                if self._after is not None:
                    await self._after()
                # Tasks that this commit woke run now; what they begin joins the next batch.
                await asyncio.sleep(0)
            if self._closing:
                return

    async def _commit(self, batch: Sequence[Write]) -> Sequence[Settled] | PerdureError:
        try:
            settled = await self._store.write(batch)
        except PerdureError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whoever wrote must hear of it
            _LOG.exception("a transaction of %d writes failed", len(batch))
            return StorageError(f"the transaction failed: {type(error).__name__}: {error}. This is a bug.")
        self.transactions += 1
        self.writes += len(batch)
        if len(settled) != len(batch):
            # Cannot happen; and if it does, nobody may be told that his write is durable.
            return StorageError(f"the store settled {len(settled)} of {len(batch)} writes. This is a bug; start again.")
        return settled

    async def _failed(
        self,
        batch: Sequence[Write],
        owners: Sequence[Told],
        futures: Sequence[asyncio.Future[Any] | None],
        error: PerdureError,
    ) -> None:
        """Tell everybody concerned before anything else is committed.

        Activations run ahead of their commits: what one of them has queued rests on what was lost here, and is lost
        with it. If the node was buried, it goes on as another one: every activation is lost, with what was decided
        for its children, which whoever has it by now decides anew; and what others have written is tried again.
        """
        again = False
        if isinstance(error, NodeBuried) and self._rejoin is not None:
            try:
                await self._rejoin(error)
                again = True
            except PerdureError as refused:
                error = refused
        mine = {(write.actor, write.epoch) for write in batch if isinstance(write, Segment | Release)}
        before = len(batch)
        queued = zip([*batch, *self._queue], [*owners, *self._owners], [*futures, *self._futures], strict=True)
        self._queue, self._owners, self._futures = [], [], []
        lost: list[tuple[Write, Told, asyncio.Future[Any] | None, Settled | PerdureError]] = []
        for number, (write, owner, future) in enumerate(queued):
            if again:
                owned = isinstance(write, Segment | Release | Adopt | Begin | Declare | Order)
            else:
                owned = isinstance(write, Segment | Release) and (write.actor, write.epoch) in mine
            if owned or (number < before and not again):
                lost.append((write, owner, future, error))
            else:
                self._queue.append(write)
                self._owners.append(owner)
                self._futures.append(future)
        self._news.append(iter(lost))
        while self._news:
            self._tell_slice()

    async def _tell_rest(self) -> None:
        while self._news:
            await asyncio.sleep(0)
            self._tell_slice()
        self._teller = None

    def _tell_slice(self) -> None:
        told = 0
        for write, owner, future, settled in islice(self._news[0], _SLICE):
            told += 1
            try:
                owner(write, settled, future)
            except Exception:  # noqa: BLE001  # said below
                # One who cannot take the news must not keep it from the others.
                _LOG.exception("a write's owner failed when it was told of %r", settled)
        if told < _SLICE:
            self._news.popleft()


def settle(_: Write, settled: Settled | PerdureError, future: asyncio.Future[Any] | None) -> None:
    """Give a future what became of a write, if anybody still waits."""
    if future is None or future.done():
        return
    if isinstance(settled, PerdureError):
        future.set_exception(settled)
    else:
        future.set_result(settled)
