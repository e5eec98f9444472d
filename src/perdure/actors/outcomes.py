"""Who outside waits for a message's outcome: told by this node's commits, or found by looking into the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from perdure.actors.silence import why_silent
from perdure.errors import ActorFailed, ActorStopped, AskTimeout, PerdureError, StorageError, SystemClosedError
from perdure.storage.failure import encode_failure
from perdure.storage.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable

    from perdure.actors.receipt import Receipt
    from perdure.storage.records import Found
    from perdure.storage.store import Store

_POLL_SECONDS, _POLL_SHARE = 0.25, 0.05
"""How soon an outcome is found whose wake-up was lost; and how much of the time may go into looking for such."""


class Outcomes:
    """The waiting callers of one system.

    Args:
        store: Where outcomes come about.
        spawn_task: Runs something in the background, by its name.
    """

    def __init__(self, store: Store, spawn_task: Callable[[Coroutine[Any, Any, None], str], None]) -> None:
        self._store = store
        self._spawn_task = spawn_task
        self._polls = False
        self._waiters: dict[int, list[asyncio.Future[Outcome]]] = {}
        self._awaited: dict[asyncio.Future[Outcome], int] = {}
        self._ids: dict[int, str] = {}
        self._elsewhere: set[int] = set()
        self._closed: SystemClosedError | None = None

    def __repr__(self) -> str:
        return f"<Outcomes awaited for {len(self._waiters)} messages>"

    def ended(self, seq: int, outcome: Outcome) -> None:
        """Tell whoever waits for a message."""
        if seq not in self._waiters:
            return
        del self._ids[seq]
        self._elsewhere.discard(seq)
        for future in self._waiters.pop(seq):
            del self._awaited[future]
            if not future.done():
                future.set_result(outcome)

    def expect(self, seq: int, id_: str, future: asyncio.Future[Outcome]) -> None:
        """Have a future told of a message's outcome, which this node's commits bring about."""
        if self._closed is not None:
            _refuse(future, self._closed)
            return
        self._waiters.setdefault(seq, []).append(future)
        self._awaited[future] = seq
        self._ids[seq] = id_

    def gone(self, messages: Iterable[int]) -> None:
        """The actors of these messages have gone to another node, which is to tell how those end that are awaited."""
        awaited = self._waiters.keys() & messages
        if awaited:
            self._elsewhere |= awaited
            self._store.await_ends(awaited)
            self._poll()

    def forget(self, future: asyncio.Future[Outcome]) -> None:
        """Whoever waited does so no more."""
        seq = self._awaited.pop(future, None)
        if seq is None:
            return
        waiting = self._waiters[seq]
        waiting.remove(future)
        if not waiting:
            del self._waiters[seq], self._ids[seq]
            self._elsewhere.discard(seq)

    async def wait(self, seq: int, receipt: Receipt[Any], end: float | None, *, local: bool) -> Outcome:
        """Wait for a message's outcome: told by this node's commits, or found by looking.

        Raises:
            AskTimeout: It has not come about until `end`, on the loop's clock.
            StorageError: It comes about elsewhere, and cannot be looked for, or was removed before it was seen.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self.expect(seq, receipt.id, future)
        if not local and self._closed is None:
            self._elsewhere.add(seq)
            self._store.await_ends([seq])
            self._poll()
        try:
            if end is None:
                return await future
            async with asyncio.timeout_at(end):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():  # in the last moment
                return future.result()
            raise await self._too_late(receipt, local=local) from None
        finally:
            self.forget(future)

    def _poll(self) -> None:
        if not self._polls:
            self._polls = True
            self._spawn_task(self._poll_elsewhere(), "perdure outcomes")

    async def _poll_elsewhere(self) -> None:
        """Look for what comes about elsewhere, one read for all, for as long as anybody waits for any of it."""
        loop, pause = asyncio.get_running_loop(), _POLL_SECONDS
        try:
            while self._elsewhere:
                await asyncio.sleep(pause)
                begun = loop.time()
                try:
                    await self.look(self._elsewhere)
                except PerdureError as error:
                    for seq in self._elsewhere:
                        self._refuse_all(seq, error)
                pause = max(_POLL_SECONDS, (loop.time() - begun) / _POLL_SHARE)
        finally:
            self._polls = False

    async def _too_late(self, receipt: Receipt[Any], *, local: bool) -> AskTimeout:
        text = f"no reply to message '{receipt.id}' in time; it goes on. Rejoin it with error.receipt."
        found = None if local else await self._store.find(receipt.id)
        if found is not None:
            text = f"{text} {await why_silent(self._store, found.actor)}"
        return AskTimeout(text, receipt)

    async def look(self, messages: Collection[int] | None = None) -> None:
        """Find outcomes that came about elsewhere: of all that are awaited, for their actors may have gone there."""
        ids = {seq: self._ids[seq] for seq in (self._ids if messages is None else messages) if seq in self._ids}
        for _, found in await self._store.find_all([*ids.values()]) if ids else ():
            answer = _answer(found) if found.seq in ids else None  # or another under an id that was used anew
            ids.pop(found.seq, None)
            if answer is not None:
                self.ended(found.seq, answer)
        for seq, id_ in ids.items():
            self._refuse_all(seq, removed(id_))
        if messages is None and self._elsewhere:
            self._store.await_ends(self._elsewhere)  # a node that has come since may be the one that ends them

    def _refuse_all(self, seq: int, error: PerdureError) -> None:
        for future in self._waiters.get(seq, ()):
            _refuse(future, error)

    def refuse(self) -> None:
        """The system closes: nobody here will be told any more."""
        closed = SystemClosedError(
            "the system closed while a reply was awaited; the message goes on. Rejoin it by its id."
        )
        self._closed = closed
        for future in self._awaited:
            _refuse(future, closed)


def removed(id_: str) -> StorageError:
    """That nobody can tell any more how a message ended."""
    return StorageError(f"no message '{id_}' is kept here. Its retention may have passed, or the id is another's.")


def _answer(found: Found) -> Outcome | None:
    """How a message ended; or that its actor does not run, so that nobody waits for what may never come."""
    if found.outcome is not None or found.life not in {"failed", "terminated"}:
        return found.outcome
    error = ActorFailed if found.life == "failed" else ActorStopped
    text = f"{found.actor} does not run ({found.reason}); the message waits. Restart it: perdure restart {found.actor}"
    return Outcome("rejected", error=encode_failure(error(text), with_traceback=False))


def _refuse(future: asyncio.Future[Outcome], error: PerdureError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever was cancelled meanwhile will not ask for it
