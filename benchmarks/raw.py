"""The limit: the least that any durable mailbox must do, in plain sqlite3 on one connection in one thread.

A message is inserted in one transaction; its actor's state and cursor are updated in a later one. Ids are unique,
because a message sent twice is to be handled once. No outcomes, no history, no routing, and no Python but the loop.
"""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from itertools import count, islice
from typing import TYPE_CHECKING

from benchmarks.sample import Sample, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ACTORS = 1_000
TEXT = "x" * 100
"""What a message carries, here and in perdure's measures."""

ARGS = f'{{"n":1,"text":"{TEXT}"}}'
_MESSAGE = """
    CREATE TABLE message
    (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, actor INTEGER NOT NULL, args TEXT NOT NULL) STRICT
"""
_ACTOR = "CREATE TABLE actor (id INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, state TEXT NOT NULL) STRICT"
INSERT = "INSERT INTO message VALUES (?, ?, ?, ?)"
UPDATE = "UPDATE actor SET cursor = ?, state = ? WHERE id = ?"
# SQLite's own checkpoint, every 1,000 pages: a mailbox that never checkpoints would not be one.
_PRAGMAS = ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 1000", "cache_size = -65536")


class Batches(ABC):
    """Messages in batches, each of which is two transactions."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._prefix = os.urandom(10).hex()
        self._numbers = count(1)

    def run(self, seconds: float) -> Sample:
        """Messages for so many seconds."""
        watch = Stopwatch()
        batches = 0
        while batches == 0 or watch.seconds < seconds:
            self._one_batch()
            batches += 1
        return watch.sample(batches * self._size, batches * 2)

    def _next(self) -> list[int]:
        return list(islice(self._numbers, self._size))

    @abstractmethod
    def _one_batch(self) -> None:
        """Insert one, and update its actors."""

    @abstractmethod
    def close(self) -> None:
        """Close the database."""


class RawMailbox(Batches):
    """A mailbox of nothing but SQL, filled and emptied in batches."""

    def __init__(self, folder: Path, batch: int) -> None:
        super().__init__(batch)
        self._connection = opened(folder)

    def _one_batch(self) -> None:
        numbers = self._next()
        commit(self._connection, INSERT, ((n, f"{self._prefix}-{n:x}", n % ACTORS, ARGS) for n in numbers))
        commit(self._connection, UPDATE, ((n, f'{{"total":{n}}}', n % ACTORS) for n in numbers))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def opened(folder: Path) -> sqlite3.Connection:
    """A new database with its actors."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None, check_same_thread=False)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for statement in (_MESSAGE, _ACTOR):
        connection.execute(statement)
    connection.executemany("INSERT INTO actor VALUES (?, 0, '')", ((actor,) for actor in range(ACTORS)))
    return connection


def commit(connection: sqlite3.Connection, statement: str, rows: Iterable[tuple[int | str, ...]]) -> None:
    """One transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, rows)
    connection.execute("COMMIT")
