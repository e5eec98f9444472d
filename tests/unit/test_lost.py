"""Actors whose commits failed come back, whoever has had them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perdure import Actor, ActorSystem, handler
from perdure.errors import StorageError
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Segment, Settled, Write
from tests.unit.crashing import disown_actors
from tests.unit.observing import until


class Loser(Actor, kind="lost.loser"):
    @handler
    async def add(self, n: int) -> int:
        """A commit."""
        return n + 1


class Full(SQLiteStore):
    """Has no room for what handlers did, as often as it is told to."""

    outages = 0

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """See `Store.write`."""
        if self.outages and any(isinstance(one, Segment) for one in batch):
            self.outages -= 1
            raise StorageError("the disk is full")
        return await super().write(batch)


async def test_who_is_lost_twice_comes_back_once_more(tmp_path: Path) -> None:
    """It was freed after the first time, as after a commit in doubt, and belongs to its process under another epoch."""
    store = Full(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        loser = system.get(Loser, "a")
        assert await loser.add(0) == 1
        store.outages = 1
        first = await loser.add.tell(1)
        await until(lambda: store.outages == 0)
        disown_actors(system)
        store.outages = 1
        second = await loser.add.tell(2)
        await until(lambda: store.outages == 0)
        assert [await one.result(timeout=20) for one in (first, second)] == [2, 3]
