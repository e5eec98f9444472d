"""Stores that count what becomes durable: how a measure knows that the last outcome is on disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from perdure.storage.postgres import PostgresStore
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Committed, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.storage.writes import Settled, Write


class Counts:
    """What a store has committed.

    Attributes:
        transactions: How many.
        ended: Messages that have a durable outcome.
    """

    def __init__(self) -> None:
        self.transactions = self.ended = 0
        self._grew = asyncio.Event()

    def add(self, batch: Sequence[Write], settled: Sequence[Settled]) -> None:
        """One more."""
        self.transactions += 1
        self.ended += sum(
            isinstance(write, Segment) and write.end is not None and isinstance(told, Committed)
            for write, told in zip(batch, settled, strict=True)
        )
        self._grew.set()

    async def until_ended(self, messages: int) -> None:
        """Wait until so many messages have a durable outcome."""
        while self.ended < messages:
            self._grew.clear()
            await self._grew.wait()


class CountingStore(SQLiteStore):
    """The SQLite store, counted."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.counts = Counts()

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        settled = await super().write(batch)
        self.counts.add(batch, settled)
        return settled


class CountingPostgresStore(PostgresStore):
    """The store on PostgreSQL, counted."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.counts = Counts()

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        settled = await super().write(batch)
        self.counts.add(batch, settled)
        return settled


def counting(target: str) -> CountingStore | CountingPostgresStore:
    """The store that a target names."""
    return CountingPostgresStore(target) if target.startswith("postgresql:") else CountingStore(target)
