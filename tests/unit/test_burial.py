"""What a dead process had becomes free in parts, whatever happens between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from perdure import Actor, ActorSystem, handler
from perdure.errors import StorageError
from perdure.storage.records import NodeRecord
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Buried, Bury, Settled, Write
from perdure.testing.conformance.nodes import SENT, Node, started, want
from tests.conformance.places import SQLiteFile
from tests.unit.crashing import host_of
from tests.unit.observing import until

KEYS = "abcde"


class Heir(Actor, kind="burial.heir"):
    @handler
    async def add(self, n: int) -> int:
        return n + 1


class OneByOne(SQLiteStore):
    """Buries an actor at a time; after the first, the disk is full for longer than wake-ups come."""

    burials = looks = 0

    async def changed(self) -> bool:
        self.looks += 1
        return await super().changed()

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        for write in batch:
            if isinstance(write, Bury):
                self.burials += 1
                if self.burials in range(2, 10):
                    raise StorageError("the disk is full")
        return await super().write([replace(one, limit=1) if isinstance(one, Bury) else one for one in batch])


class Interrupted(SQLiteStore):
    """The disk is away for a moment when this node enters under another name."""

    outages = 0

    async def rejoin(self, node: NodeRecord) -> None:
        """See `Store.rejoin`."""
        await super().rejoin(node)
        self.outages = 1

    async def departed(self) -> list[str]:
        """See `Store.departed`."""
        if self.outages:
            self.outages -= 1
            raise StorageError("the disk is away")
        return await super().departed()


async def send(node: Node) -> None:
    """Have a node own an actor that has nothing to do, and then some with mail."""
    await node.finish(await node.append("first", kind="burial.heir"))
    for key in KEYS:
        await node.append(key, kind="burial.heir", id=key)


async def answers(system: ActorSystem) -> list[int]:
    """What came of that mail."""
    return [await system.receipt(key, Heir.add).result(timeout=20) for key in KEYS]


async def test_a_burial_that_was_cut_is_ended(tmp_path: Path) -> None:
    """The process that took up what a dead one had dies as well: the next that starts finds the rest."""
    place = SQLiteFile(tmp_path)
    dead, next_ = await started(place.store()), await started(place.store())
    await send(dead)
    await place.kill(dead.store)
    assert want(Buried, await next_.settle(Bury(dead.id, 5, SENT, limit=2))).more
    await place.kill(next_.store)
    async with ActorSystem(tmp_path / "actors.db") as system:
        assert await answers(system) == [2] * len(KEYS)


async def test_a_burial_that_fails_in_the_middle_goes_on(tmp_path: Path) -> None:
    """A full disk costs the dead process's actors seconds, not the time until somebody happens to look."""
    place, store = SQLiteFile(tmp_path), OneByOne(tmp_path / "actors.db")
    dead = await started(place.store())
    await send(dead)
    async with ActorSystem(store) as system:
        await until(lambda: store.looks > 0)
        await store.changed()  # so that there is nothing else to look for
        await place.kill(dead.store)
        assert await answers(system) == [2] * len(KEYS)
    assert store.burials > 9 + len(KEYS)


async def test_who_was_buried_begins_anew_after_an_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it had is taken up again, and an outage is told as one."""
    store = Interrupted(tmp_path / "actors.db")
    async with ActorSystem(store) as system, ActorSystem.client(f"sqlite:///{tmp_path / 'actors.db'}") as client:
        await host_of(client).committer.write(Bury(host_of(system).node, 5, SENT))
        assert await system.get(Heir, "a").add(1) == 2
        await until(lambda: "the disk is away" in caplog.text)
        assert await client.get(Heir, "b").add(1) == 2
    assert store.outages == 0
    assert "never retrieved" not in caplog.text
