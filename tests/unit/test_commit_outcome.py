"""A COMMIT whose answer is lost: acknowledged if it is on disk, told as failed if not, never guessed."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from perdure import Actor, ActorSystem, StorageError, handler, step
from perdure.storage.sqlite import SQLiteStore


class Tally(Actor, kind="commit.tally"):
    total: int = 0

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

    @handler
    async def work(self) -> int:
        self.total += await one()
        self.total += await one()
        return self.total


@step
async def one() -> int:
    """The least of a step."""
    return 1


class FailingDisk(SQLiteStore):
    """Plays a disk that fails at the n-th COMMIT, before or after it took effect."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.fail_at: int | None = None
        self.commits = 0
        self.after = False

    def fail(self, nth: int, *, after: bool) -> None:
        """Count from here, and fail once."""
        self.commits, self.fail_at, self.after = 0, nth, after

    def _check_inode(self) -> None:
        super()._check_inode()
        self.commits += 1
        if self.after and self.commits == self.fail_at:
            msg = "disk I/O error"
            raise sqlite3.OperationalError(msg)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with super()._transaction() as connection:
            yield connection
            if not self.after and self.commits + 1 == self.fail_at:
                self.commits += 1
                msg = "disk I/O error"
                raise sqlite3.OperationalError(msg)


@pytest.mark.parametrize("after", [True, False], ids=["after the commit", "before the commit"])
@pytest.mark.parametrize("nth", range(1, 7))
async def test_lost_answers(tmp_path: Path, nth: int, *, after: bool) -> None:
    """Whichever commit's answer is lost, every acknowledged message is handled once, and the others not at all."""
    disk = FailingDisk(tmp_path / "a.db")
    async with ActorSystem(disk) as system:
        ref = system.get(Tally, "t")
        assert await ref.add(100) == 100
        disk.fail(nth, after=after)
        accepted = 0
        with anyio.fail_after(20):
            for call in (ref.work, ref.work):
                try:
                    receipt = await call.tell()
                except StorageError:
                    continue
                accepted += 1
                await receipt.result()
            assert disk.commits >= nth
            assert await ref.add(0) == 100 + 2 * accepted
        assert accepted == 2 if after else accepted >= 1
