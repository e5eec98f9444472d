"""A limit holds across processes, and does not end with one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.limited import SLOTS, most

ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 120.0
_LEASE_SECONDS = 5.0


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the processes of a test work."""
    on_postgres = request.param == "postgres"
    return request.getfixturevalue("postgres") if on_postgres else str(tmp_path / "app.db")


@contextmanager
def _process(
    folder: Path, database: str, name: str, count: int, seconds: float, *more: str
) -> Generator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.acceptance.limited", database, str(folder / "ledger"), name]
    with subprocess.Popen([*command, str(count), str(seconds), str(_LEASE_SECONDS), *more], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def _lines(folder: Path) -> list[str]:
    ledger = folder / "ledger"
    return ledger.read_text("utf-8").splitlines() if ledger.exists() else []


def _await(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_processes_share_a_limit(tmp_path: Path, database: str) -> None:
    """Three processes together call no more at once than one may, and as many; each gets to the end."""
    with (
        _process(tmp_path, database, "a", 8, 0.1) as one,
        _process(tmp_path, database, "b", 8, 0.1) as two,
        _process(tmp_path, database, "c", 8, 0.1) as three,
    ):
        assert [process.wait(_PATIENCE_SECONDS) for process in (one, two, three)] == [0, 0, 0]
    lines = _lines(tmp_path)
    counts = Counter(line.split()[0] for line in lines)
    assert (counts["-step"], counts["-turn"]) == (24, 24)
    assert (most(lines, "step"), most(lines, "turn")) == (SLOTS, SLOTS)


def test_a_killed_process_frees_its_slots(tmp_path: Path, database: str) -> None:
    """What it had is the others' as soon as its actors are, and no sooner; nobody waits for it for ever."""
    with _process(tmp_path, database, "killed", SLOTS, 600) as killed:
        _await(lambda: _lines(tmp_path).count(f"+step {killed.pid}") == SLOTS)
        _await(lambda: _lines(tmp_path).count(f"+turn {killed.pid}") == SLOTS)
        with _process(tmp_path, database, "other", 1, 0.01, "stays") as other:
            _await(lambda: f"up {other.pid}" in _lines(tmp_path))
            time.sleep(1.5)  # it would have begun by now; it asks once a second
            assert f"+step {other.pid}" not in _lines(tmp_path)
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
            # its own, which waited first, and then the dead one's, which goes on here
            _await(lambda: _lines(tmp_path).count(f"+step {other.pid}") == SLOTS + 1)
            _await(lambda: _lines(tmp_path).count(f"+turn {other.pid}") == SLOTS + 1)
    lines = [line for line in _lines(tmp_path) if line.split()[1] == str(other.pid)]
    assert (most(lines, "step"), most(lines, "turn")) == (SLOTS, SLOTS)
