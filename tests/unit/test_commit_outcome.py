"""A COMMIT whose answer is lost: acknowledged if it is on disk, told as failed if not, never guessed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
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
    return 1


class Disk:
    """Plays a disk that fails at the n-th COMMIT, before or after it took effect."""

    def __init__(self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_at: int | None = None
        self.commits = 0
        self.after = False
        check: Callable[[], None] = store._check_inode
        begin = store._transaction

        def checked() -> None:
            check()
            self.commits += 1
            if self.after and self.commits == self.fail_at:
                msg = "disk I/O error"
                raise sqlite3.OperationalError(msg)

        @contextmanager
        def transaction() -> Generator[sqlite3.Connection]:
            with begin() as connection:
                yield connection
                if not self.after and self.commits + 1 == self.fail_at:
                    self.commits += 1
                    msg = "disk I/O error"
                    raise sqlite3.OperationalError(msg)

        monkeypatch.setattr(store, "_check_inode", checked)
        monkeypatch.setattr(store, "_transaction", transaction)


@pytest.mark.parametrize("after", [True, False], ids=["after the commit", "before the commit"])
@pytest.mark.parametrize("nth", range(1, 7))
async def test_lost_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, *, after: bool) -> None:
    """Whichever commit's answer is lost, every acknowledged message is handled once, and the others not at all."""
    async with ActorSystem(tmp_path / "a.db") as system:
        store = system._store
        assert isinstance(store, SQLiteStore)
        ref = system.get(Tally, "t")
        assert await ref.add(100) == 100
        disk = Disk(store, monkeypatch)
        disk.after, disk.fail_at = after, nth
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
