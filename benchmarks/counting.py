"""Stores that count what becomes durable: how a measure knows that the last outcome is on disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from perdure.storage.postgres import PostgresStore
from perdure.storage.sqlite import SQLiteStore

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

    def add(self, ended: int) -> None:
        """One more, which ended so many."""
        self.transactions += 1
        self.ended += ended
        self._grew.set()

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
        settled = await super().write(batch)
        self.counts.add(len(self._news.ended))
        return settled


class CountingPostgresStore(PostgresStore):
    """The store on PostgreSQL, counted."""

    counts: Counts

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and count it."""
        settled = await super().write(batch)
        self.counts.add(len(self._news.ended))
        return settled


def counting(target: str) -> CountingStore | CountingPostgresStore:
    """The store that a target names."""
    store = CountingPostgresStore(target) if target.startswith("postgresql:") else CountingStore(target)
    store.counts = Counts()
    return store
