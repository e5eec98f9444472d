"""The gate before messages that may have killed their process (see `BlameRule`)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from perdure.supervision.strategy import BlameRule


class BlameGate:
    """Admits blamed messages a few at a time; messages without blame pass freely."""

    def __init__(self, rule: BlameRule) -> None:
        self._rule = rule
        self._executing: list[int] = []
        self._freed: asyncio.Condition = asyncio.Condition()

    def __repr__(self) -> str:
        return f"<BlameGate {self._executing} executing>"

    @asynccontextmanager
    async def admitted(self, blame: int) -> AsyncGenerator[None]:
        """Wait for a slot and hold it."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._rule.admits(blame, self._executing))
            self._executing.append(blame)
        try:
            yield
        finally:
            self._executing.remove(blame)
            async with self._freed:
                self._freed.notify_all()
