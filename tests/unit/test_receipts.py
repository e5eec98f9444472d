"""Receipts: the way back to an outcome, in the same turn, in another one, in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Receipt, Ref, handler
from perdure.errors import StorageError
from perdure.storage.history_writes import Purge, Purged
from perdure.storage.records import Found
from perdure.storage.sqlite import SQLiteStore
from perdure.testing.conformance.nodes import LATER
from tests.unit.crashing import host_of
from tests.unit.observing import until


class Worker(Actor, kind="receipts.worker"):
    @handler
    async def double(self, n: int) -> int:
        return n * 2


class Boss(Actor, kind="receipts.boss"):
    jobs: list[Receipt[int]] = []

    @handler
    async def at_once(self, worker: Ref[Worker]) -> int:
        receipt = await worker.double.tell(4)
        return await receipt.result()

    @handler
    async def begin(self, worker: Ref[Worker]) -> None:
        self.jobs.append(await worker.double.tell(5))

    @handler
    async def collect(self) -> int:
        return sum([await job.result() for job in self.jobs])


class Holder(Actor, kind="receipts.holder"):
    @handler
    async def hold(self) -> None:
        await held[self.key].wait()


class Blind(SQLiteStore):
    """Looks messages up only when the test lets it."""

    looks = 0

    async def find_all(self, ids: Collection[str]) -> list[tuple[str, Found]]:
        """See `Store.find_all`."""
        await sees.wait()
        self.looks += 1
        return await super().find_all(ids)


held: dict[str, asyncio.Event] = {}
sees = asyncio.Event()


async def test_tell_and_wait_in_one_segment(tmp_path: Path) -> None:
    """A turn may send and then wait for the outcome, with nothing in between."""
    async with ActorSystem(tmp_path / "a.db") as system:
        worker = system.get(Worker, "w")
        assert await system.get(Boss, "b").at_once(worker) == 8
        assert await system.get(Boss, "b").at_once(worker) == 8


async def test_receipts_in_state(tmp_path: Path) -> None:
    """A receipt kept in state leads to the outcome after a restart."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Boss, "b").begin(system.get(Worker, "w"))
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Boss, "b").collect() == 10


async def test_receipt_without_a_handler(tmp_path: Path) -> None:
    """An id alone is enough to get at a result."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Worker, "w").double.options(id="x").tell(4)
        assert await system.receipt("x").result(timeout=5) == 8


async def test_an_outcome_that_is_removed_before_it_is_seen(tmp_path: Path) -> None:
    """Whoever stood still for longer than outcomes are kept is told so, and does not wait for ever."""
    store = Blind(tmp_path / "a.db")
    held["h"] = asyncio.Event()
    sees.set()
    async with ActorSystem(tmp_path / "a.db") as first, ActorSystem(store) as second:
        receipt = await first.get(Holder, "h").hold.tell()
        waiting = asyncio.create_task(second.receipt(receipt.id).result(timeout=10))
        await until(lambda: store.looks > 0)
        sees.clear()
        held["h"].set()
        await receipt.result(timeout=10)
        assert await host_of(first).committer.write(Purge(LATER, LATER, keep=0)) == Purged(1, None)
        sees.set()
        with pytest.raises(StorageError, match="is not kept any more"):
            await waiting
