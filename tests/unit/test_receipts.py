"""Receipts: the way back to an outcome, in the same turn, in another one, in another process."""

from __future__ import annotations

from pathlib import Path

from perdure import Actor, ActorSystem, Receipt, Ref, handler


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
        assert await system.receipt("x").result(timeout=20) == 8
