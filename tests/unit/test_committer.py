"""The group committer: one transaction for all that came meanwhile, in order, and everybody told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from attrs import define, field

from perdure.errors import FencedError, PerdureError, StorageError, SystemClosedError
from perdure.storage.committer import Committer
from perdure.storage.records import Address, Envelope, NodeRecord
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.store import Store
from perdure.storage.writes import Append, Appended, Settled, Write

NODE = NodeRecord("node", 1, "here", "3.11", "0", 0.0)


def append(id_: str) -> Append:
    """A message by its id."""
    return Append(Envelope(id_, Address("Till", "a"), "add", "{}", "json", 0.0, chosen=True))


def all_well(batch: Sequence[Write]) -> list[Settled]:
    """What most transactions come to."""
    return [True for _ in batch]


@define(eq=False)
class Edge:
    """The edge of a store: a script of what each transaction comes to, and a gate that holds it open."""

    script: list[Exception | Callable[[Sequence[Write]], list[Settled]]] = field(
        factory=list[Exception | Callable[[Sequence[Write]], list[Settled]]]
    )
    batches: list[list[str]] = field(factory=list[list[str]])
    running: asyncio.Event = field(factory=asyncio.Event)
    gate: asyncio.Event = field(factory=asyncio.Event)

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Keep the batch's ids, wait at the gate, and do what the script says."""
        self.batches.append([write.envelope.id for write in batch if isinstance(write, Append)])
        self.running.set()
        await self.gate.wait()
        act = self.script.pop(0) if self.script else all_well
        if isinstance(act, Exception):
            raise act
        return act(batch)


@asynccontextmanager
async def committing(edge: Edge, *, is_open: bool = True) -> AsyncGenerator[Committer]:
    """A committer over an edge, closed at the end."""
    committer = Committer(cast(Store, edge))
    committer.start()
    if is_open:
        edge.gate.set()
    try:
        yield committer
    finally:
        edge.gate.set()
        await committer.close()


async def submitted(committer: Committer, *ids: str) -> list[tuple[str, Settled | PerdureError]]:
    """Submit writes at once and wait until all are told: who was told what, in order."""
    told: list[tuple[str, Settled | PerdureError]] = []
    done = asyncio.Event()

    def tell(write: Write, settled: Settled | PerdureError, future: object) -> None:
        assert isinstance(write, Append)
        assert future is None
        told.append((write.envelope.id, settled))
        if len(told) == len(ids):
            done.set()

    for id_ in ids:
        committer.submit(append(id_), tell)
    await done.wait()
    return told


async def test_order() -> None:
    """Writes are committed, and told, in the order they were submitted."""
    edge = Edge()
    async with committing(edge) as committer:
        ids = [str(number) for number in range(5_000)]
        told = await submitted(committer, *ids)
    assert [id_ for id_, _ in told] == ids
    assert [id_ for batch in edge.batches for id_ in batch] == ids


async def test_what_comes_meanwhile_is_one_transaction() -> None:
    """While one transaction runs, all that arrives waits for the next, together: many senders cost one sync."""
    edge = Edge()
    async with committing(edge, is_open=False) as committer:
        first = asyncio.create_task(committer.write(append("first")))
        await edge.running.wait()
        others = [asyncio.create_task(committer.write(append(str(number)))) for number in range(100)]
        await asyncio.sleep(0)
        assert edge.batches == [["first"]]
        edge.gate.set()
        await asyncio.gather(first, *others)
    assert edge.batches == [["first"], [str(number) for number in range(100)]]
    assert (committer.transactions, committer.writes) == (2, 101)


async def test_each_is_told_its_own() -> None:
    """A write that was refused is its sender's trouble alone."""
    edge = Edge([lambda _: [True, FencedError("not yours"), False]])
    async with committing(edge) as committer:
        writes = [committer.write(append(id_)) for id_ in "abc"]
        a, b, c = await asyncio.gather(*writes, return_exceptions=True)
    assert (a, c) == (True, False)
    assert isinstance(b, FencedError)


@pytest.mark.parametrize("error", [StorageError("disk full"), OSError("gone")], ids=["expected", "unexpected"])
async def test_failed_transaction_is_told_to_all(error: Exception) -> None:
    """When a transaction fails, nobody in it believes that his write is durable; the next one is not affected."""
    edge = Edge([error])
    async with committing(edge) as committer:
        told = await submitted(committer, "a", "b", "c")
        assert [(id_, isinstance(settled, StorageError)) for id_, settled in told] == [(id_, True) for id_ in "abc"]
        assert str(error) in str(told[0][1])
        assert await submitted(committer, "d") == [("d", True)]
    assert committer.transactions == 1


async def test_store_that_answers_too_little() -> None:
    """When a store does not say what became of each write, nobody is told that his is durable."""
    edge = Edge([lambda _: [True]])
    async with committing(edge) as committer:
        told = await submitted(committer, "a", "b")
    assert all(isinstance(settled, StorageError) for _, settled in told)


@pytest.mark.parametrize("failed", [False, True], ids=["committed", "failed"])
async def test_who_cannot_be_told_stops_nobody(caplog: pytest.LogCaptureFixture, *, failed: bool) -> None:
    """One owner that breaks when told keeps the news from no other, and the committer goes on."""
    edge = Edge([StorageError("disk full")] if failed else [])
    told: list[str] = []

    def tell(write: Write, *_: object) -> None:
        assert isinstance(write, Append)
        told.append(write.envelope.id)

    def breaks(*_: object) -> None:
        raise RuntimeError("broken owner")

    async with committing(edge) as committer:
        committer.submit(append("a"), tell)
        committer.submit(append("b"), breaks)
        committer.submit(append("c"), tell)
        with caplog.at_level(logging.CRITICAL):
            await submitted(committer, "d")
    assert told == ["a", "c"]


async def test_close_drains() -> None:
    """What was submitted before the close is committed before it ends."""
    edge = Edge()
    committer = Committer(cast(Store, edge))
    committer.start()
    told: list[Settled | PerdureError] = []

    def tell(_: Write, settled: Settled | PerdureError, __: object) -> None:
        told.append(settled)

    for number in range(10):
        committer.submit(append(str(number)), tell)
    closing = asyncio.create_task(committer.close())
    await edge.running.wait()
    with pytest.raises(SystemClosedError):
        committer.submit(append("late"), tell)
    edge.gate.set()
    await closing
    assert told == [True] * 10


async def test_not_started_and_closed() -> None:
    """A write that nobody would commit is refused at once."""
    committer = Committer(cast(Store, Edge()))
    with pytest.raises(SystemClosedError):
        await committer.write(append("early"))
    committer.start()
    await committer.close()
    with pytest.raises(SystemClosedError):
        await committer.write(append("late"))


async def test_cancelled_writer() -> None:
    """A sender that stops waiting does not undo its write, nor disturb those in its batch."""
    edge = Edge()
    async with committing(edge, is_open=False) as committer:
        gone = asyncio.create_task(committer.write(append("gone")))
        stays = asyncio.create_task(committer.write(append("stays")))
        await edge.running.wait()
        gone.cancel()
        edge.gate.set()
        assert await stays is True
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert edge.batches == [["gone", "stays"]]


async def test_housekeeping_between_transactions() -> None:
    """Housekeeping runs after a transaction, before the next, never beside one."""
    events: list[str] = []
    edge = Edge()
    edge.gate.set()

    async def idle() -> None:
        events.append("idle")

    committer = Committer(cast(Store, edge), idle)
    committer.start()
    for id_ in "ab":
        await committer.write(append(id_))
        await asyncio.sleep(0)
        events.append(id_)
    await committer.close()
    assert events == ["idle", "a", "idle", "b"]


async def test_over_a_real_store() -> None:
    """Many senders at once: every one has its message on disk when it is told, numbered in their order."""
    store = SQLiteStore(":memory:")
    await store.open(NODE, lambda kind: True)
    committer = Committer(store)
    committer.start()
    settled = await asyncio.gather(*(committer.write(append(str(number))) for number in range(500)))
    assert [one.mail.number for one in settled if isinstance(one, Appended)] == list(range(1, 501))
    assert committer.transactions < 10
    await committer.close()
    await store.close()
