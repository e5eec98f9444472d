"""A node whose turns and steps are under limits: `main` runs until its process is stopped, one way or another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from perdure import Actor, Limit, Retry, handler, step
from tests.acceptance.many import node
from tests.acceptance.torture.facts import WORLD

SLOTS = 3
LONGEST_SECONDS = 0.3


@contextmanager
def noted(limit: str, work: str) -> Generator[None]:
    """Put on the ledger when something under a limit begins and ends; it ends with its process at the latest."""
    WORLD.write("begin", limit=limit, work=f"{limit} {work}")
    try:
        yield
    finally:
        WORLD.write("end", limit=limit, work=f"{limit} {work}")


@step(limit=Limit("many.step", concurrent=SLOTS), retry=Retry(20))
async def costly(work: str) -> None:
    """What costs."""
    with noted("step", work):
        await asyncio.sleep(random.uniform(0, LONGEST_SECONDS))


class Caller(Actor, kind="many.caller"):
    @handler
    async def work(self, number: int) -> int:
        await costly(f"{self.key}/{number}")
        return number


class Holder(Actor, kind="many.holder", limit=Limit("many.turn", concurrent=SLOTS)):
    @handler
    async def work(self, number: int) -> int:
        with noted("turn", f"{self.key}/{number}"):
            await asyncio.sleep(random.uniform(0, LONGEST_SECONDS))
        return number


def main(target: str, folder: Path, lease: float) -> None:
    """Run, and write what happens into the folder's ledger; the lease is in seconds."""
    node.main(target, folder, lease)
