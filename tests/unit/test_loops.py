"""A system is used in the loop that opened it: from any other, nothing is sent, and whoever tries is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, handler, query
from perdure.errors import SystemClosedError


class Tally(Actor, kind="loops.tally"):
    total: int = 0

    @handler
    async def add(self, number: int) -> int:
        """Count."""
        self.total += number
        return self.total

    @query
    async def held(self) -> int:
        """What was counted."""
        return self.total


def _receipt(system: ActorSystem) -> Callable[[], Awaitable[object]]:
    return lambda: system.receipt("first", Tally.add).result(timeout=20)


USES: dict[str, Callable[[ActorSystem], Callable[[], Awaitable[object]]]] = {
    "ask": lambda system: lambda: system.get(Tally, "t").add(1),
    "tell": lambda system: lambda: system.get(Tally, "t").add.tell(1),
    "delayed": lambda system: lambda: system.get(Tally, "t").add.options(delay=0.01).tell(1),
    "query": lambda system: system.get(Tally, "t").held,
    "spawn": lambda system: lambda: system.spawn(Tally, "new", total=3),
    "result": _receipt,
    "status": lambda system: system.receipt("first", Tally.add).status,
}


@pytest.mark.parametrize("use", USES)
async def test_another_loop(tmp_path: Path, use: str) -> None:
    """A thread with a loop of its own reaches for the system: refused, with nothing of it done."""

    async def elsewhere() -> object:
        async with asyncio.timeout(30):
            return await USES[use](system)()

    async with ActorSystem(tmp_path / "a.db") as system:
        tally = system.get(Tally, "t")
        await tally.add.options(id="first")(1)
        with pytest.raises(SystemClosedError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert await tally.add(1) == 2
