"""The files that are inspected: live, dead, at rest, foreign or missing; and that none is ever changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from perdure.console.database import (
    ForeignDatabaseError,
    Moment,
    NoDatabaseError,
    NotADatabaseError,
    UnreadableError,
)
from perdure.console.inspect import Inspector
from perdure.console.targets import database_of
from perdure.errors import SchemaTooNewError, TargetError
from tests.unit.inspected import Rows

WRITER = """
import itertools, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.inspected import Rows
rows = Rows(Path(sys.argv[1]))
actor = rows.actor()
for number in itertools.count():
    rows.connection.execute("BEGIN IMMEDIATE")
    rows.outcome(rows.message(actor, args={"n": number}), result=str(number))
    rows.connection.execute("COMMIT")
    if number % 50 == 0:
        rows.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    print(number, flush=True)
    if number == int(sys.argv[3]):
        os._exit(9)
"""
ROOT = Path(__file__).parents[2]


def write(path: Path, last: int) -> subprocess.Popen[str]:
    """A process that writes messages one by one, and dies without closing the database after the last."""
    command = [sys.executable, "-c", WRITER, str(path), str(ROOT), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def at_rest(path: Path) -> Path:
    """A database with one actor, closed properly."""
    rows = Rows(path)
    rows.actor()
    rows.connection.close()
    return path


def listing(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a folder, with sizes, times and content."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}


def test_a_live_database_is_read_beside_its_writer(tmp_path: Path) -> None:
    """People look at a running system without slowing or disturbing it, and see one consistent moment."""
    path = tmp_path / "agents.db"
    with write(path, last=100) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        looks = 0
        while writer.poll() is None and looks < 1000:
            history = Inspector(path).actor("Researcher/r1", limit=1)
            (message,) = history.messages
            assert message.number == history.actor.handled
            assert message.state == "succeeded"
            looks += 1
        assert writer.wait() == 9
        assert int(writer.stdout.read().split()[-1]) == 100
    assert looks > 1


def test_what_a_killed_process_left_is_read_with_all_its_commits(tmp_path: Path) -> None:
    """After a crash the last acknowledged message is seen, and the evidence is left as it was."""
    path = tmp_path / "agents.db"
    with write(path, last=20) as writer:
        writer.communicate()
    log = Path(f"{path}-wal").read_bytes()
    assert log
    before = path.read_bytes()
    assert Inspector(path).actor("Researcher/r1").actor.handled == 21
    assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == (before, log)


def test_a_database_at_rest_stays_as_it_is(tmp_path: Path) -> None:
    """Looking leaves no files behind, so a copy or a removal finds what was there before."""
    path = at_rest(tmp_path / "agents.db")
    before = listing(tmp_path)
    assert set(before) == {"agents.db"}
    Inspector(path).overview()
    Inspector(path).actor("Researcher/r1")
    assert listing(tmp_path) == before


def test_a_database_that_is_opened_during_a_look_is_read_again(tmp_path: Path) -> None:
    """A system that starts just now is not misread."""
    path = at_rest(tmp_path / "agents.db")
    answers: list[int] = []

    def query(moment: Moment) -> int:
        ((count,),) = moment.fetch("SELECT count(*) FROM actor")
        count = int(count)
        answers.append(count)
        if len(answers) == 1:
            rows = Rows(path)
            rows.insert("actor", kind="Critic", key="c1", created=0.0)
            rows.connection.close()
        return count

    assert database_of(path).read(query) == 2
    assert answers == [1, 2]


@pytest.mark.parametrize("name", ["a?mode=rwc.db", "a#b.db", "a%20b.db", "a b;c'd\".db", "ä→日本.db", "a&immutable=0"])
def test_odd_file_names_are_only_names(tmp_path: Path, name: str) -> None:
    """Whatever a file is called, that file is read."""
    path = at_rest(tmp_path / name)
    assert Inspector(path).overview().total == 1
    assert Inspector(f"sqlite:///{path}").overview().total == 1
    with write(path, last=1) as writer:
        writer.communicate()
    assert Inspector(path).overview().total == 1


def test_a_name_that_is_not_text_is_read(tmp_path: Path) -> None:
    """File names are bytes on POSIX, and so here."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")
    with suppress(OSError):  # some file systems refuse such names
        path = at_rest(tmp_path / "agents.db")
        path.rename(name)
        assert Inspector(name).overview().total == 1


@pytest.mark.parametrize("target", [":memory:", "sqlite://", "", "mysql://host/db", "a\0b"])
def test_targets_that_name_no_file(target: str) -> None:
    """A target that cannot be read from outside says so."""
    with pytest.raises(NoDatabaseError):
        Inspector(target)


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    """A typing error makes no empty database; the file that was meant is suggested."""
    at_rest(tmp_path / "agents.db")
    with pytest.raises(NoDatabaseError, match=r"no such file.*agents\.db"):
        Inspector(tmp_path / "agent.db").overview()
    assert not (tmp_path / "agent.db").exists()
    with pytest.raises(NoDatabaseError, match="no such file"):
        Inspector(tmp_path / "nowhere" / "agents.db").overview()
    with pytest.raises(NoDatabaseError, match="directory"):
        Inspector(tmp_path).overview()


def test_what_is_not_a_database(tmp_path: Path) -> None:
    """A log file given by mistake is called what it is."""
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and not a database at all\n" * 100)
    with pytest.raises(NotADatabaseError, match="not a SQLite database"):
        Inspector(path).overview()


def test_a_damaged_database(tmp_path: Path) -> None:
    """Damage is named, with what helps."""
    path = at_rest(tmp_path / "agents.db")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xab" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(TargetError, match="damaged"):
        Inspector(path).overview()


def test_a_disk_that_fails_during_a_look(tmp_path: Path) -> None:
    """What is wrong with the disk is told, and not that SQLite has ended the transaction for it."""
    path = tmp_path / "agents.db"
    Rows(path).connection.close()

    def failing(moment: Moment) -> None:
        moment.fetch("ROLLBACK")  # as SQLite does
        msg = "disk I/O error"
        raise sqlite3.OperationalError(msg)

    with pytest.raises(UnreadableError, match="disk I/O error"):
        database_of(path).read(failing)


def test_another_applications_database(tmp_path: Path) -> None:
    """A browser's history is not shown as actors."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE actor (id)")
    with pytest.raises(ForeignDatabaseError, match="another application"):
        Inspector(path).overview()


def test_an_empty_database(tmp_path: Path) -> None:
    """A file that no system has opened yet is told apart from one of somebody else."""
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(ForeignDatabaseError, match="is empty"):
        Inspector(path).overview()


def test_a_database_of_a_newer_perdure(tmp_path: Path) -> None:
    """Unknown columns are not guessed at."""
    path = at_rest(tmp_path / "agents.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaTooNewError, match="Upgrade perdure"):
        Inspector(path).overview()


def test_unmerged_commits_that_cannot_be_read(tmp_path: Path) -> None:
    """Where SQLite cannot map the file it needs beside the WAL, people learn what to do."""
    path = tmp_path / "agents.db"
    with write(path, last=1) as writer:
        writer.communicate()
    Path(f"{path}-shm").unlink()
    Path(f"{path}-shm").symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(UnreadableError, match=r"agents\.db-wal.*copy"):
        Inspector(path).overview()


def _as_nobody(check: Callable[[], None]) -> bool:
    """Whether a check holds for a user without privileges: root may write everywhere."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            check()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_that_is_read_only() -> None:
    """A database at rest is read from a read-only medium; one with unmerged commits says why it cannot be."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        path = at_rest(folder / "agents.db")
        dead = folder / "dead.db"
        with write(dead, last=1) as writer:
            writer.communicate()
        Path(f"{dead}-shm").unlink()
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)

        def check() -> None:
            assert Inspector(path).overview().total == 1
            with pytest.raises(UnreadableError, match="read-only"):
                Inspector(dead).overview()

        try:
            assert _as_nobody(check)
        finally:
            folder.chmod(0o700)
