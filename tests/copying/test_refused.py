"""What `perdure backup` and `perdure copy` are told wrongly, and what is left of them when they are ended."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perdure.console.cli import main
from perdure.storage.copying import backup
from tests.copying.written import write
from tests.unit.observing import files_in

ENDED = """
import os, signal, sys
from perdure.console.cli import main
from perdure.storage.copying.partial import Partial
Partial.publish = lambda _: os.kill(os.getpid(), signal.Signals[sys.argv[1]])
main(sys.argv[2:])
"""
"""A command that is told to end when all is written, and nothing has its name yet."""


def run(*args: str) -> Result:
    """A command."""
    return CliRunner().invoke(main, args, env={"COLUMNS": "300"})


def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a folder be one that nobody may write to, whoever runs the tests."""

    def access(path: Path, _: int) -> bool:
        return folder not in (Path(path), *Path(path).parents)

    monkeypatch.setattr(os, "access", access)


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("command", ["backup", "copy"])
def test_what_is_told_to_end_leaves_nothing(command: str, number: str, code: int, tmp_path: Path) -> None:
    """Ctrl-C and a job's time limit leave no gigabytes behind, and are not taken for a copy that differs."""
    write(tmp_path / "a.db", 100)
    old, new = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    arguments = ["copy", old, new] if command == "copy" else ["backup", "--db", old, new]
    ended = subprocess.run(
        [sys.executable, "-c", ENDED, number, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert [name for name in files_in(tmp_path) if not name.endswith("-lock")] == ["a.db"]


@pytest.mark.parametrize("beside", ["-wal", "-shm", "-journal", "-lock", "-node-0123"])
def test_what_belongs_to_a_database_is_not_replaced(beside: str, tmp_path: Path) -> None:
    """A slip with --force costs neither the commits in a WAL, nor the lock that keeps two writers apart."""
    write(tmp_path / "a.db", 1)
    place = tmp_path / f"a.db{beside}"
    place.write_bytes(b"theirs")
    result = run("backup", "--force", "--db", str(tmp_path / "a.db"), str(place))
    assert result.exit_code == 2
    assert "belongs to the database a.db" in result.stderr
    assert place.read_bytes() == b"theirs"


def test_a_full_disk_is_the_backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no room for a backup is not told to look for damage in the database."""

    def full(_: object) -> None:
        with closing(sqlite3.connect(":memory:")) as small:
            small.execute("PRAGMA max_page_count = 1")
            small.execute("CREATE TABLE t (a)")

    write(tmp_path / "a.db", 1)
    monkeypatch.setattr(backup, "_counts", full)
    result = run("backup", "--db", str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    assert result.exit_code == 2
    assert f"{tmp_path}/b.db: its disk is full" in result.stderr
    assert not (tmp_path / "b.db").exists()


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong FILE is answered in a line that says what to do, and shows no password."""
    write(tmp_path / "a.db", 1)
    (tmp_path / "folder").mkdir()
    for place, said in (
        ("postgresql://me:s3cret@127.0.0.1/x", "a backup is a file, and no URL"),
        (str(tmp_path / ("b" * 300)), "File name too long"),
        (str(tmp_path / ("b" * 240)), "File name too long"),
        (str(tmp_path / "folder"), "is no file"),
    ):
        for force in ([], ["--force"]):
            result = run("backup", *force, "--db", str(tmp_path / "a.db"), place)
            assert result.exit_code == 2, place
            assert said in result.stderr
            assert "s3cret" not in result.stderr
    read_only(tmp_path / "folder", monkeypatch)
    result = run("backup", "--db", str(tmp_path / "a.db"), str(tmp_path / "folder" / "b.db"))
    assert result.exit_code == 2
    assert f"{tmp_path}/folder is read-only" in result.stderr


def test_what_is_read_only_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on a disk that was mounted for reading can be brought to another, and compared with it."""
    (tmp_path / "old").mkdir()
    old, new = tmp_path / "old" / "a.db", tmp_path / "b.db"
    write(old, 1)
    read_only(old.parent, monkeypatch)
    copied = run("copy", str(old), str(new))
    assert copied.exit_code == 0, copied.stderr
    assert run("copy", "--verify-only", str(new), str(old)).exit_code == 0


@pytest.mark.parametrize(
    "target", ["mysql://me:s3cret@host/x", "postgresql+psycopg://me:s3@cret@host/x?password=s3cret"]
)
def test_a_url_of_something_else_is_not_shown(target: str, tmp_path: Path) -> None:
    """A password in a URL that perdure does not know is not printed either."""
    write(tmp_path / "a.db", 1)
    for arguments in (["ps", "--db", target], ["copy", target, "b.db"], ["copy", str(tmp_path / "a.db"), target]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "cret" not in result.stderr
        assert f"'{target.partition(':')[0]}://…'" in result.stderr
        assert "postgresql://…" in result.stderr
