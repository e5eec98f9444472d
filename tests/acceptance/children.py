"""Programs of the promise tests as processes: started, awaited, killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

from perdure.storage.writer_lock import FileLock
from tests.acceptance.torture.facts import Fact, read_facts

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.02


def stand_still(pid: int, database: Path) -> None:
    """Stop a process (SIGSTOP) where it holds nobody up: within a transaction, nobody else could write."""
    lock = FileLock(database.with_name(f"{database.name}-lock"))
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        if lock.try_acquire():
            time.sleep(_POLL_SECONDS)  # a thread of it that still ran stands in front of the lock by now
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(_POLL_SECONDS)
    else:
        raise AssertionError("it is always within a transaction")
    lock.close()


class Child:
    """A program of `programs.py` at work in a directory."""

    def __init__(self, directory: Path, program: str, *args: str) -> None:
        self.directory = directory
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with (directory / "errors").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.programs", program, str(directory), *args],
                stdin=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
            )

    def wait(self) -> int:
        """Wait for its end; its exit status, negative if a signal ended it."""
        return self._process.wait(PATIENCE_SECONDS)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """See to it that nothing of it is left."""
        if self.is_alive():
            self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def leave(self) -> int:
        """Ask it to leave; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait()

    def wait_for(self, event: str, count: int = 1) -> list[Fact]:
        """Wait until that many facts of a kind are on the ledger."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := [fact for fact in ledger(self.directory) if fact.event == event]) < count:
            if time.monotonic() > deadline or not self.is_alive():
                time.sleep(_POLL_SECONDS)
                found = [fact for fact in ledger(self.directory) if fact.event == event]
                if len(found) >= count:
                    break
                raise AssertionError(f"{len(found)} of {count} {event}; {self.errors()}")
            time.sleep(_POLL_SECONDS)
        return found

    def errors(self) -> str:
        """The end of what it said on standard error."""
        return (self.directory / "errors").read_text(encoding="utf-8")[-3000:]


def ledger(directory: Path) -> list[Fact]:
    """What the programs of a directory did in the world."""
    return read_facts(directory / "ledger")


def events(directory: Path, event: str) -> list[Fact]:
    """The ledger's facts of one kind."""
    return [fact for fact in ledger(directory) if fact.event == event]


@contextlib.contextmanager
def child(directory: Path, program: str, *args: str) -> Generator[Child]:
    """A program that is gone when the block ends."""
    running = Child(directory, program, *args)
    try:
        yield running
    finally:
        running.end()


def run_to_end(directory: Path, program: str, *args: str) -> int:
    """Run a program until it ends; its exit status."""
    with child(directory, program, *args) as running:
        return running.wait()
