"""What tests of limits share: who is inside, and systems that are several nodes of one file."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from perdure import ActorSystem


class Meter:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.entries = 0
        self.gate = asyncio.Event()

    async def pass_through(self) -> None:
        """Stay inside until the gate is open."""
        self.inside += 1
        self.entries += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1


async def opened(stack: AsyncExitStack, path: Path, count: int) -> list[ActorSystem]:
    """Several systems on one file."""
    return [await stack.enter_async_context(ActorSystem(path)) for _ in range(count)]
