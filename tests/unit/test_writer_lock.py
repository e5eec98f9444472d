"""The kernel lock between processes: one at a time, all in turn, and free when its holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.errors import StorageError, WriterLockTimeout
from perdure.storage.writer_lock import FileLock

HOLDER = """
import sys
from pathlib import Path
from perdure.storage.writer_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire(60)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""

# Takes the lock again and again, and notes each turn in a file that would lose some if two wrote at once, until it has
# had a hundred turns and has seen twenty of another.
TAKER = """
import os, sys
from pathlib import Path
from perdure.storage.writer_lock import FileLock
lock, turns, name = FileLock(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
mine, seen = 0, ""
while mine < 100 or len(seen) - mine < 20:
    lock.acquire(60)
    seen = turns.read_text()
    os.sched_yield()
    turns.write_text(seen + name)
    mine += 1
    lock.release()
print(mine, flush=True)
"""


@contextmanager
def running(program: str, *args: object) -> Generator[subprocess.Popen[str]]:
    """Another process that has said its first word."""
    command = [sys.executable, "-c", program, *map(str, args)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            heard(process)
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """The next word of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A side file."""
    return tmp_path / "actors.db-lock"


def test_two_processes_exclude_each_other(path: Path) -> None:
    """Two processes never write one database at once."""
    with running(HOLDER, path) as holder:
        lock = FileLock(path)
        assert not lock.try_acquire()
        go_on(holder)
        assert heard(holder) == "released"
        assert lock.try_acquire()
        lock.close()


def test_two_processes_both_get_turns(path: Path, tmp_path: Path) -> None:
    """Two processes that write all the time lose nothing, and neither starves."""
    turns = tmp_path / "turns"
    turns.write_text("")
    with running(TAKER, path, turns, "a") as first, running(TAKER, path, turns, "b") as second:
        for process in (first, second):
            go_on(process)
        counts = [int(heard(process)) for process in (first, second)]
    assert [turns.read_text().count(name) for name in "ab"] == counts


def test_waiting_takes_the_lock_when_it_is_free(path: Path) -> None:
    """A process that waits goes on as soon as the other is done."""
    with running(HOLDER, path) as holder:
        lock = FileLock(path)
        taken = threading.Event()

        def take() -> None:
            lock.acquire(60)
            taken.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        assert not taken.wait(0.1)
        go_on(holder)
        waiting.join(60)
        assert taken.is_set()
        assert not FileLock(path).try_acquire()
        lock.close()


def test_deadline_names_the_file(path: Path) -> None:
    """When another process hangs with the lock, the error says which file to look at, and nothing is left behind."""
    with running(HOLDER, path) as holder:
        lock = FileLock(path)
        with pytest.raises(WriterLockTimeout, match=str(path)):
            lock.acquire(0.05)
        go_on(holder)
        assert heard(holder) == "released"
        deadline = time.monotonic() + 60
        while not lock.try_acquire():  # the thread that waited gives its turn back as soon as it has it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.close()


def test_free_after_sigkill(path: Path) -> None:
    """A process that was killed holds up nobody."""
    with running(HOLDER, path) as holder:
        lock = FileLock(path)
        assert not lock.try_acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(60)
        lock.acquire(60)
        lock.close()


def test_killed_while_others_wait(path: Path) -> None:
    """A process that waits for one that is killed goes on."""
    with running(HOLDER, path) as holder:
        lock = FileLock(path)
        killer = threading.Timer(0.05, holder.kill)
        killer.start()
        lock.acquire(60)
        killer.join()
        lock.close()


FORKS = """
import os, sys
from pathlib import Path
from perdure.storage.writer_lock import FileLock
path = Path(sys.argv[1])
lock = FileLock(path)
lock.acquire(60)
child = os.fork()
if child == 0:
    {child}
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not FileLock(path).try_acquire(), "the child freed its parent's lock"
lock.close()
assert FileLock(path).try_acquire()
print("ok", flush=True)
"""


@pytest.mark.parametrize("child", ["pass", "lock.release()", "lock.close()", "del lock", "lock.forget()"])
def test_forked_child_frees_nothing(path: Path, child: str) -> None:
    """A forked child that closes what it inherited does not open its parent's database to a second writer."""
    with running(FORKS.replace("{child}", child), path) as process:
        assert process.wait(60) == 0


def test_forked_child_holds_nothing(path: Path) -> None:
    """A child that outlives its parent does not keep the database from the next process."""
    program = FORKS.replace("{child}", "print('child', flush=True); sys.stdin.readline()")
    program = program.replace("assert os.waitstatus", "os.kill(os.getpid(), 9); assert os.waitstatus")
    with running(program, path) as process:
        process.wait(60)
        lock = FileLock(path)
        assert lock.try_acquire()
        lock.close()
        go_on(process)


def test_started_programs_hold_nothing(path: Path) -> None:
    """A program that a process starts does not inherit its lock."""
    lock = FileLock(path)
    lock.acquire(60)
    command = [sys.executable, "-c", "import sys; print('on', flush=True); sys.stdin.readline()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False
    ) as process:
        assert heard(process) == "on"
        lock.close()
        other = FileLock(path)
        assert other.try_acquire()
        other.close()
        go_on(process)


def test_taken_again_and_again(path: Path) -> None:
    """A lock serves every transaction of a process's life, with one file."""
    lock = FileLock(path)
    for _ in range(100):
        lock.acquire(60)
        lock.release()
    lock.release()
    lock.close()
    lock.close()
    assert lock.try_acquire()
    lock.close()


def test_file_is_private_and_no_link(path: Path, tmp_path: Path) -> None:
    """Nobody else can hold up a database, nor have its lock lie somewhere else."""
    lock = FileLock(path)
    lock.acquire(60)
    assert path.stat().st_mode & 0o777 == 0o600
    lock.close()
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StorageError, match=str(link)):
        FileLock(link).acquire(60)
