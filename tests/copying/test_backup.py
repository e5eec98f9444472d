"""`perdure backup`: beside a running system, right or not there."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from perdure import ActorSystem
from perdure.errors import CopyDiffersError, NotEmptyError, TargetError
from perdure.storage.copying import backup
from perdure.storage.copying.backup import back_up
from perdure.storage.copying.partial import Partial
from tests.copying import town
from tests.copying.conftest import Kind, NewTarget
from tests.copying.town import Worker
from tests.copying.written import query, write
from tests.unit.observing import files_in

of_each = pytest.mark.parametrize("of", ["sqlite", "postgres"])


@of_each
async def test_a_backup_beside_a_running_system_is_of_one_moment(
    of: Kind, new_target: NewTarget, tmp_path: Path
) -> None:
    """What a backup holds fits together, however much is written while it is made; and the writers go on meanwhile."""
    target, place = new_target(of), tmp_path / "backup.db"
    async with ActorSystem(target) as system:
        workers = [system.get(Worker, f"w{number}") for number in range(5)]
        stop = False

        async def write_on(worker: Worker) -> int:
            count = 0
            while not stop:
                await worker.note("x" * 500)
                count += 1
            return count

        writing = [asyncio.create_task(write_on(worker)) for worker in workers]
        await asyncio.sleep(0.3)
        before = query(target, "SELECT count(*) FROM outcome")[0][0]
        made = await asyncio.to_thread(back_up, target, place)
        stop = True
        total = sum(await asyncio.gather(*writing))
    counts = dict(made.counts)
    assert before <= counts["outcome"] <= total
    assert counts["actor"] == counts["snapshot"] == 5
    assert query(str(place), "SELECT sum(cursor) FROM actor") == [(counts["outcome"],)]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert not [name for name in files_in(tmp_path) if "partial" in name]
    async with ActorSystem(place) as system:
        for number in range(5):
            notes = await system.get(Worker, f"w{number}").note("more")
            assert notes[-1] == "more"


@of_each
async def test_what_was_under_way_goes_on_from_a_backup(of: Kind, new_target: NewTarget, tmp_path: Path) -> None:
    """A machine that was lost costs what came after the backup, nothing else."""
    town.forget()
    target = new_target(of)
    await town.begin(target)
    back_up(target, tmp_path / "backup.db")
    await town.go_on(str(tmp_path / "backup.db"))


def test_a_closed_database_is_left_as_it_was(tmp_path: Path) -> None:
    """A backup of a database that nobody has open makes no files beside it but the lock."""
    write(tmp_path / "a.db", 100)
    (tmp_path / "there").mkdir()
    made = back_up(str(tmp_path / "a.db"), tmp_path / "there" / "b.db")
    assert dict(made.counts)["message"] == 100
    assert made.size == (tmp_path / "there" / "b.db").stat().st_size
    assert files_in(tmp_path) == ["a.db", "a.db-lock", "there"]
    assert files_in(tmp_path / "there") == ["b.db"]


def test_what_is_there_is_replaced_only_if_it_is_said(tmp_path: Path) -> None:
    """Yesterday's backup is not lost by accident, and today's takes its place at once and whole."""
    write(tmp_path / "a.db", 3)
    back_up(str(tmp_path / "a.db"), tmp_path / "b.db")
    query(str(tmp_path / "a.db"), "DELETE FROM outcome WHERE message = 3")
    with pytest.raises(NotEmptyError, match="--force"):
        back_up(str(tmp_path / "a.db"), tmp_path / "b.db")
    assert query(str(tmp_path / "b.db"), "SELECT count(*) FROM outcome") == [(3,)]
    back_up(str(tmp_path / "a.db"), tmp_path / "b.db", replaces=True)
    assert query(str(tmp_path / "b.db"), "SELECT count(*) FROM outcome") == [(2,)]


async def test_no_database_in_use_is_replaced(tmp_path: Path) -> None:
    """Not even with --force: a system would go on writing into a file that nobody can open any more."""
    write(tmp_path / "a.db", 3)
    async with ActorSystem(tmp_path / "b.db") as system:
        with pytest.raises(NotEmptyError, match="in use"):
            await asyncio.to_thread(back_up, str(tmp_path / "a.db"), tmp_path / "b.db", replaces=True)
        assert await system.get(Worker, "w").note("still") == ["still"]
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    for itself in ("a.db", "link.db"):
        with pytest.raises(TargetError, match="itself"):
            back_up(str(tmp_path / "a.db"), tmp_path / itself, replaces=True)


def test_what_is_no_system_is_refused(tmp_path: Path) -> None:
    """Nobody keeps a backup of something else for years."""
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 100)
    sqlite3.connect(tmp_path / "empty.db").close()
    for wrong in ("text", "empty.db", "missing.db"):
        with pytest.raises(TargetError):
            back_up(str(tmp_path / wrong), tmp_path / "b.db")
    with pytest.raises(TargetError, match="directory"):
        back_up(str(tmp_path / "text"), tmp_path / "missing" / "b.db")
    assert not [name for name in files_in(tmp_path) if name.startswith("b.db")]


def test_a_damaged_backup_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that returns something else than was written is found out now, not on the day of need."""
    write(tmp_path / "a.db", 500)
    copy_pages = backup._copy_pages  # noqa: SLF001  # between the writing and the verifying

    def damaged(path: Path, to: Partial) -> tuple[tuple[str, int], ...]:
        counts = copy_pages(path, to)
        size = to.path.stat().st_size
        with to.path.open("r+b") as file:
            file.seek(size // 8192 * 4096)
            file.write(b"\xff" * 4096)
        return counts

    monkeypatch.setattr(backup, "_copy_pages", damaged)
    with pytest.raises((CopyDiffersError, TargetError)):
        back_up(str(tmp_path / "a.db"), tmp_path / "b.db")
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]
