"""A node of the many-process tests: `node.py TARGET LEDGER` runs until it is stopped, one way or another."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from perdure import Actor, ActorSystem, Limits, Retry, handler, sleep, step, step_id
from tests.acceptance.torture.facts import WORLD

LEASE_SECONDS = 2.0
LIMITS = Limits(lease=LEASE_SECONDS, heartbeat=0.2, deaths=1_000, restarts=1_000)


@step(retry=Retry(20))
async def effect(name: str) -> str:
    """An effect outside."""
    WORLD.write("begin", work=name, sid=step_id())
    await asyncio.sleep(0.02)
    WORLD.write("end", work=name, sid=step_id())
    return name


class Accountant(Actor, kind="many.accountant", retry=Retry(20), mailbox_limit=100_000):
    """Notes what it is told, in order, and asks another one now and then."""

    seen: list[int] = []

    @handler
    async def add(self, number: int, other: str | None, *, naps: bool = False) -> int:
        await effect(f"{self.key}/{number}")
        if naps:
            await sleep(0.05)
        if other is not None:
            await self.system.get(Accountant, other).confirm(-number)
        self.seen.append(number)
        return number

    @handler
    async def confirm(self, number: int) -> int:
        self.seen.append(number)
        return number

    @handler
    async def all(self) -> list[int]:
        return self.seen


async def main(target: str) -> None:
    """Run."""
    logging.basicConfig(format=f"[{os.getpid()}] %(message)s")
    async with ActorSystem(target, limits=LIMITS) as system:
        await system.serve()


if __name__ == "__main__":
    WORLD.open(Path(sys.argv[2]), os.getpid())
    asyncio.run(main(sys.argv[1]))
