"""Two versions of a class on one database, as in a rolling deployment: what newer code wrote is safe from the older."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from perdure import Actor, ActorSystem, handler
from perdure.actors.names import kinds
from tests.unit.observing import until


class Newer(Actor, kind="versions.pet", version=2):
    name: str = ""
    tricks: list[str] = []

    @handler
    async def learn(self, trick: str) -> list[str]:
        self.tricks.append(trick)
        return self.tricks


del kinds["versions.pet"]


class Older(Actor, kind="versions.pet"):
    name: str = ""

    @handler
    async def learn(self, trick: str) -> list[str]:
        self.name = trick
        return [trick]


async def test_older_code_leaves_newer_state_alone(tmp_path: Path) -> None:
    """A process of the old deployment drops nothing that it does not know: the actor waits for a newer one."""
    path = tmp_path / "a.db"
    kinds["versions.pet"] = Newer
    async with ActorSystem(path) as system:
        assert await system.get(Newer, "p").learn("sit") == ["sit"]
    kinds["versions.pet"] = Older
    async with ActorSystem(path) as system:
        receipt = await system.get(Older, "p").learn.tell("roll")

        async def parked() -> bool:
            return await receipt.status() == "parked"

        await until(parked)
    with closing(sqlite3.connect(path)) as raw:
        ((reason, version, state),) = raw.execute(
            "SELECT reason, version, state FROM actor JOIN snapshot ON actor = id"
        ).fetchall()
    assert "of version 2, written by newer code" in reason
    assert (version, state) == (2, '{"name":"","tricks":["sit"]}')
    kinds["versions.pet"] = Newer
    async with ActorSystem(path) as system:
        assert await system.receipt(receipt.id, Newer.learn).result(timeout=20) == ["sit", "roll"]
