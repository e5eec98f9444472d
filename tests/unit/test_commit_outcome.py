"""A COMMIT whose answer is lost: acknowledged if it is on disk, told as failed if not, never guessed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import anyio
import pytest

from perdure import Actor, ActorSystem, OutcomeUnknownError, StorageError, handler, step
from perdure.errors import DatabaseReplacedError, FencedError
from perdure.storage.history_writes import Purge, Purged
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.sqlite_connection import SQLiteConnection
from perdure.storage.sqlite_thread import ThreadConnection
from perdure.testing.conformance.nodes import LATER, ended, started, want

P = ParamSpec("P")


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
        self.after = self.gone = self.full = False

    async def _connect(self) -> ThreadConnection:
        if self.gone:
            msg = "unable to open database file"
            raise sqlite3.OperationalError(msg)
        return await super()._connect()

    def fail(self, nth: int, *, after: bool) -> None:
        """Count from here, and fail once."""
        self.commits, self.fail_at, self.after = 0, nth, after

    def _check_inode(self) -> None:
        super()._check_inode()
        self.commits += 1
        if self.after and self.commits == self.fail_at:
            msg = "disk I/O error"
            raise sqlite3.OperationalError(msg)

    def _in_transaction(
        self, work: Callable[Concatenate[SQLiteConnection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        def failing(connection: SQLiteConnection, *args: P.args, **kwargs: P.kwargs) -> None:
            work(connection, *args, **kwargs)
            if self.full:
                connection.raw.execute("ROLLBACK")
                msg = "database or disk is full"
                raise sqlite3.OperationalError(msg)
            if not self.after and self.commits + 1 == self.fail_at:
                self.commits += 1
                msg = "disk I/O error"
                raise sqlite3.OperationalError(msg)

        super()._in_transaction(failing, *args, **kwargs)


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


async def test_a_disk_that_is_full_in_the_middle(tmp_path: Path) -> None:
    """Who sends is told what is wrong, although SQLite has taken the transaction back by itself."""
    disk = FailingDisk(tmp_path / "a.db")
    node = await started(disk)
    await node.append("a")
    disk.full = True
    with pytest.raises(StorageError, match=r"disk is full\. Free space"):
        await node.append("a")
    disk.full = False
    assert (await node.append("a")).mail.number == 2
    await disk.close()


@pytest.mark.parametrize("after", [True, False], ids=["after the commit", "before the commit"])
async def test_an_outcome_that_cannot_be_looked_up(tmp_path: Path, *, after: bool) -> None:
    """Where nobody knows, nothing else is said; sent again under its id, the message is handled once."""
    disk = FailingDisk(tmp_path / "a.db")
    async with ActorSystem(disk) as system:
        ref = system.get(Tally, "t")
        assert await ref.add(100) == 100
        disk.fail(1, after=after)
        disk.gone = True
        with anyio.fail_after(20):
            with pytest.raises(OutcomeUnknownError if after else StorageError) as raised:
                await ref.add.options(id="once").tell(1)
            assert isinstance(raised.value, OutcomeUnknownError) is after
            with pytest.raises(StorageError, match="unable to open"):
                await ref.add.tell(10)
            disk.gone = False
            assert await ref.add.options(id="once")(1) == 101
            assert await ref.add(0) == 101


async def test_an_end_that_is_history_at_once(tmp_path: Path) -> None:
    """A lost answer is found out, too, where the same commit has removed the row that it would be known by."""
    disk = FailingDisk(tmp_path / "a.db")
    node = await started(disk)
    first = await node.append("a")
    disk.fail(1, after=True)
    _, purged = await node.write(ended(first), Purge(history=LATER, ids=LATER, keep=0))
    assert want(Purged, purged).removed == 1
    assert disk.commits >= 1
    await disk.close()


async def test_what_was_written_after_all(tmp_path: Path) -> None:
    """A message of which nobody knew is handled as soon as its process can look, whether it is sent again or not."""
    disk = FailingDisk(tmp_path / "a.db")
    async with ActorSystem(disk) as system:
        ref = system.get(Tally, "t")
        assert await ref.add(100) == 100
        disk.fail(1, after=True)
        disk.gone = True
        with pytest.raises(OutcomeUnknownError):
            await ref.add.options(id="once").tell(1)
        disk.gone = False
        assert await system.get(Tally, "another").add(1) == 1
        assert await system.receipt("once").result(timeout=20) == 101


async def test_actors_are_given_up_for_what_was_written_after_all(tmp_path: Path) -> None:
    """Whoever believes that his write failed can write nothing more: what he has in memory is not what is there."""
    disk = FailingDisk(tmp_path / "a.db")
    node = await started(disk)
    first = await node.append("a")
    disk.fail(1, after=True)
    disk.gone = True
    with pytest.raises(OutcomeUnknownError):
        await node.append("a", id="once")
    disk.gone = False
    assert isinstance(await node.settle(ended(first)), FencedError)
    assert (await node.find("once")).outcome is None
    await disk.close()


async def test_a_file_that_is_gone_when_it_is_opened_again(tmp_path: Path) -> None:
    """No other file is made in its place, in which what was acknowledged would be missing."""
    path = tmp_path / "a.db"
    disk = FailingDisk(path)
    async with ActorSystem(disk) as system:
        ref = system.get(Tally, "t")
        assert await ref.add(100) == 100
        path.rename(tmp_path / "b.db")
        disk.fail(1, after=False)
        for _ in range(2):
            with pytest.raises(DatabaseReplacedError):
                await ref.add.tell(1)
    assert not path.exists()
