"""What a turn asks, tells and spawns leaves once, with the durable point that follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Backoff, DeadLetterError, Ref, Rejected, Retry, handler, query
from tests.unit.crashing import crashing
from tests.unit.observing import until
from tests.unit.shapes import effect, forget, pauses, ran


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's world outside."""
    forget()


class Partner(Actor, kind="replay.partner"):
    calls: int = 0

    @handler
    async def call(self, x: int) -> int:
        self.calls += 1
        return x + self.calls

    @handler
    async def never(self) -> None:
        self.calls += 1
        raise Rejected("no")

    @query
    async def count(self) -> int:
        return self.calls


class Caller(Actor, kind="replay.caller"):
    children: list[Ref[Partner]] = []

    @handler
    async def go(self, partner: Ref[Partner]) -> list[int]:
        first = await partner.call(10)
        await partner.call.tell(0)
        child = await self.spawn(Partner, calls=5)
        self.children.append(child)
        second = await child.call(10)
        try:
            await partner.never()
        except Rejected:
            second += 1000
        await effect("stay")
        return [first, second]


async def test_asks_and_spawns_are_not_repeated(tmp_path: Path) -> None:
    """What a turn sent, asked and began before a crash is not sent, asked or begun again."""
    pauses["stay"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Caller, "c").go.options(id="m").tell(system.get(Partner, "p"))
        await until(lambda: len(ran) >= 1)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Caller.go).result(timeout=20) == [11, 1016]
        assert await system.get(Partner, "p").count() == 2


async def test_sends_of_an_unfinished_segment_do_not_leave(tmp_path: Path) -> None:
    """A handler that fails has sent nothing since its last durable point."""

    class Failing(Actor, kind="replay.failing"):
        @handler(retry=Retry(2, backoff=Backoff(0.01)))
        async def go(self, partner: Ref[Partner]) -> None:
            await partner.call.tell(1)
            await effect("a")
            await partner.call.tell(1)
            msg = "no"
            raise ValueError(msg)

    async with ActorSystem(tmp_path / "a.db") as system:
        partner = system.get(Partner, "p")
        with pytest.raises(DeadLetterError):
            await system.get(Failing, "f").go(partner)
        assert await partner.call(0) == 2
    assert len(ran) == 1
