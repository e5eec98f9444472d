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

    def add(self, batch: Sequence[Write], settled: list[Settled]) -> list[Settled]:
        """One more; what became of it."""
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


class CountingStore(SQLiteStore):
    """The SQLite store, counted."""

    counts: Counts

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        return self.counts.add(batch, await super().write(batch))


class CountingPostgresStore(PostgresStore):
    """The store on PostgreSQL, counted."""

    counts: Counts

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        return self.counts.add(batch, await super().write(batch))


def counting(target: str) -> CountingStore | CountingPostgresStore:
    """The store that a target names."""
    store = CountingPostgresStore(target) if target.startswith("postgresql:") else CountingStore(target)
    store.counts = Counts()
    return store
