"""A store that counts what becomes durable: how a measure knows that the last outcome is on disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Committed, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from perdure.storage.writes import Settled, Write


class CountingStore(SQLiteStore):
    """The SQLite store, with counters."""

    def __init__(self, target: str | PathLike[str]) -> None:
        super().__init__(target)
        self.transactions = 0
        self.ended = 0
        self._grew = asyncio.Event()

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        settled = await super().write(batch)
        self.transactions += 1
        self.ended += sum(
            isinstance(write, Segment) and write.end is not None and isinstance(told, Committed)
            for write, told in zip(batch, settled, strict=True)
        )
        self._grew.set()
        return settled

    async def until_ended(self, messages: int) -> None:
        """Wait until so many messages have a durable outcome."""
        while self.ended < messages:
            self._grew.clear()
            await self._grew.wait()
