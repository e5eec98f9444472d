"""Where a demo keeps its files, and what the journal in its database says, read as any SQLite tool would."""

from __future__ import annotations

import hashlib
import platform
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Record:
    """A step in the journal."""

    key: str
    name: str
    status: str


@frozen
class Journal:
    """What the database holds about one message.

    Attributes:
        outcome: How the message ended, or empty.
        steps: Its steps.
    """

    outcome: str = ""
    steps: tuple[Record, ...] = ()

    def completed(self, name: str | None = None) -> frozenset[str]:
        """Keys of the steps whose completion is on disk."""
        return frozenset(step.key for step in self.steps if step.status == "completed" and name in {None, step.name})

    def pages(self) -> int:
        """How many pages have been read to the end."""
        return sum(step.status == "completed" and step.name.endswith("summarise") for step in self.steps)


@frozen
class Place:
    """The folder of a demo, and the question asked there.

    Attributes:
        folder: Holds one database for every question, and a ledger for each.
        question: In plain words.
    """

    folder: Path
    question: str

    @property
    def message(self) -> str:
        """The id of the message that asks: asked again, it is the same one. Each Python has pages of its own."""
        asked = f"{platform.python_version()} {self.question}"
        return "research/" + hashlib.sha256(asked.encode()).hexdigest()[:12]

    @property
    def database(self) -> Path:
        """The actors' database."""
        return self.folder / "perdure-demo.db"

    @property
    def ledger(self) -> Path:
        """What the steps did outside."""
        return self.folder / f"perdure-demo.{self.message.rpartition('/')[2]}.ledger"

    @property
    def log(self) -> Path:
        """What the child wrote to standard error."""
        return self.folder / "perdure-demo.log"

    def make(self) -> None:
        """Make the folder, unless it is there; a new one is left out of any repository around it."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def clear(self) -> None:
        """Remove an earlier demo's files, and nothing else."""
        for file in self.folder.glob("perdure-demo.*"):
            file.unlink()

    def journal(self) -> Journal:
        """What is on disk about the question now."""
        if not self.database.exists():
            return Journal()
        address = f"file:{quote(str(self.database.resolve()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return _journal(connection, self.message)


def _journal(connection: sqlite3.Connection, message: str) -> Journal:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone():
        return Journal()  # killed before the database was made
    outcome = connection.execute(
        "SELECT status FROM outcome JOIN message ON seq = message WHERE id = ?", (message,)
    ).fetchone()
    steps = connection.execute(
        "SELECT key, name, status FROM journal JOIN message ON seq = message WHERE id = ? AND kind = 'step'", (message,)
    ).fetchall()
    return Journal(outcome[0] if outcome else "", tuple(Record(*step) for step in steps))
