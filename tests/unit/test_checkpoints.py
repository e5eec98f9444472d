"""Checkpoints of the write-ahead log beside those who read for long."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, handler
from perdure.storage import sqlite_checkpoints
from tests.unit.crashing import sqlite_of


class Tally(Actor, kind="checkpoints.tally"):
    total: int = 0

    @handler
    async def add(self, number: int, padding: str = "") -> int:
        """Count."""
        self.total += number
        return self.total


async def test_writers_do_not_wait_for_a_long_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup reads one snapshot for as long as it takes; checkpoints meanwhile do not hold the writer lock for it."""
    monkeypatch.setattr(sqlite_checkpoints, "_RESTART_PAGES", 8)
    path = tmp_path / "a.db"
    async with ActorSystem(path) as system:
        store = sqlite_of(system)
        store._checkpoints._restart_at = 8  # noqa: SLF001  # as it would be after a start with that many pages
        tally = system.get(Tally, "t")
        await tally.add(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchall()
            began = time.monotonic()
            for _ in range(10):
                await tally.add(1, "x" * 10_000)
                store._checkpoints._written = 1_000_000  # noqa: SLF001  # so that the next commit is followed by a checkpoint
                await store.checkpoint()
            assert time.monotonic() - began < sqlite_checkpoints.BUSY_SECONDS  # a single wait as for a writer is longer
            reader.execute("ROLLBACK")
