"""A node of the many-process tests: `node.py TARGET FOLDER LEASE` runs until it is stopped, one way or another."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from pathlib import Path

import attrs

from perdure import Actor, ActorSystem, Limits, Retry, handler, sleep, step, step_id
from tests.acceptance.torture.facts import WORLD

LEASE_SECONDS = 2.0
EFFECT_SECONDS = 0.2  # at the most


def shared(lease: float) -> Limits:
    """The limits that are the same for a fleet and its clients. The lease is in seconds."""
    return Limits(lease=lease, heartbeat=lease / 10)


@step(retry=Retry(20))
async def effect(name: str) -> str:
    """An effect outside."""
    WORLD.write("begin", work=name, sid=step_id())
    await asyncio.sleep(random.uniform(0, EFFECT_SECONDS))
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


def main(target: str, folder: Path, lease: float = LEASE_SECONDS) -> None:
    """Run, and write what happens into the folder's ledger; the lease is in seconds."""
    WORLD.open(folder, os.getpid())
    logging.basicConfig(format=f"[{os.getpid()}] %(message)s")
    asyncio.run(_serve(target, lease))


async def _serve(target: str, lease: float) -> None:
    limits = attrs.evolve(shared(lease), deaths=10_000, restarts=10_000)  # what the fleet is there for
    async with ActorSystem(target, limits=limits) as system:
        await system.serve()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
