"""Facts: what happened, written where a SIGKILL cannot take it back.

A fact is one line of JSON, put down by one `write` on a file opened for appending. The kernel keeps it whoever dies
next, and lines of many threads and processes never mix; one whose writer is killed in that very call may be torn, and
has not been put down: each begins with a mark, as in RFC 7464. Two files hold them: the *ledger* is the world outside,
which steps and handlers change; the *diary* is what the sender outside saw.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from pathlib import Path


_BEGIN = b"\x1e"


@frozen
class Fact:
    """One line: what happened, when, in which run of the program, and its particulars."""

    event: str
    time: float = 0.0
    run: int = 0
    about: dict[str, Any] = field(factory=dict[str, Any])

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # any JSON value
        """One of the particulars."""
        return self.about[name]

    def __str__(self) -> str:
        about = ", ".join(f"{name}={value}" for name, value in self.about.items())
        return f"{self.event}({about}) in run {self.run}"


class FactFile:
    """An append-only file of facts."""

    def __init__(self, path: Path, run: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._run = run

    def write(self, event: str, **about: Any) -> None:  # noqa: ANN401  # any JSON value
        """Put one fact down; when this returns, SIGKILL cannot take it back."""
        line = json.dumps([event, time.time(), self._run, about], separators=(",", ":"))
        os.write(self._descriptor, _BEGIN + f"{line}\n".encode())


class FactReader:
    """Reads a file of facts as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self) -> list[Fact]:
        """What came since the last look, in the order it was written; what is being written just now comes later."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            *lines, _ = file.read().split(b"\n")
        self._offset += sum(len(line) + 1 for line in lines)
        return [Fact(*json.loads(line.rpartition(_BEGIN)[2])) for line in lines]


def read_facts(path: Path) -> list[Fact]:
    """Every fact of a file."""
    return FactReader(path).news()


class World:
    """The world outside, as the program sees it: the ledger, and things that happen only a set number of times."""

    def __init__(self) -> None:
        self._ledger: FactFile | None = None
        self._marks: Path | None = None

    def open(self, directory: Path, run: int) -> None:
        """Begin to write into a run's directory."""
        self._ledger = FactFile(directory / "ledger", run)
        self._marks = directory / "marks"
        self._marks.mkdir(exist_ok=True)

    def write(self, event: str, **about: Any) -> None:  # noqa: ANN401  # any JSON value
        """Put a fact on the ledger."""
        if self._ledger is not None:
            self._ledger.write(event, **about)

    def happens(self, name: str, times: int) -> bool:
        """Whether this is one of the first `times` calls with that name, whatever process asked before."""
        if self._marks is None:
            return False
        for turn in range(times):
            mark = self._marks / f"{name.replace('/', '-')}.{turn}"
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                continue
            return True
        return False


WORLD = World()
