"""A node that may soon be taken for dead begins nothing, and goes on once it may."""

from __future__ import annotations

import asyncio

from perdure import Actor, ActorSystem, handler
from tests.unit.crashing import host_of


class Tally(Actor, kind="stale.tally"):
    total: int = 0

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total


async def test_mail_waits_until_something_may_begin() -> None:
    """Nobody asks again and again meanwhile, and what came is handled in order afterwards."""
    async with ActorSystem(":memory:") as system:
        tally = system.get(Tally, "t")
        assert await tally.add(1) == 1
        host, looks = host_of(system), 0

        def stale() -> bool:
            nonlocal looks
            looks += 1
            return True

        holds, host.stale = host.stale, stale
        receipts = [await tally.add.tell(1) for _ in range(3)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert [await receipt.status() for receipt in receipts] == ["pending"] * 3
        assert looks <= 2 * len(receipts)
        host.stale = holds
        host.renewed()
        assert [await receipt.result(10) for receipt in receipts] == [2, 3, 4]
