"""What lies on disk while no process lives: a copy of the database, read into records."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.mailbox import misplaced


@frozen
class Message:
    """A row of the mailbox, with the names the workload gave it."""

    seq: int
    id: str
    actor: int
    number: int | None
    handler: str
    cause: int | None
    due: float | None
    tag: str
    n: int


@frozen
class Outcome:
    """How a message ended; `result` and `error` decoded."""

    status: str
    result: Any
    error: Any


@define
class ActorOnDisk:
    """An actor's row and its committed state."""

    id: int
    name: str
    tail: int
    cursor: int
    status: str
    state: dict[str, Any]

    @property
    def history(self) -> list[str]:
        """The tags of its succeeded turns, in order, as its own state has them."""
        return list(self.state.get("history", []))


@frozen
class StepOnDisk:
    """A step's record."""

    message: int
    key: str
    name: str
    status: str
    sid: str
    error: str


@define
class Disk:
    """Everything on disk at one moment."""

    actors: dict[int, ActorOnDisk] = field(factory=dict[int, ActorOnDisk])
    messages: dict[int, Message] = field(factory=dict[int, Message])
    outcomes: dict[int, Outcome] = field(factory=dict[int, Outcome])
    steps: list[StepOnDisk] = field(factory=list[StepOnDisk])
    attempts: dict[int, int] = field(factory=dict[int, int])
    integrity: str = "ok"

    @property
    def completed(self) -> set[str]:
        """The ids of the steps whose completion is on disk."""
        return {step.sid for step in self.steps if step.status == "completed"}


def copy_database(database: Path, into: Path) -> Path:
    """Copy a database that no process has open, with the write-ahead log that belongs to it."""
    for path in (database, database.with_name(f"{database.name}-wal")):
        if path.exists():
            shutil.copyfile(path, into / path.name)
    return into / database.name


def read_disk(database: Path) -> Disk:
    """Read a dead process's database, from a copy, through a connection that cannot write."""
    if not database.exists():
        return Disk()
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_database(database, Path(folder))
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            return _read(connection) if "message" in tables else Disk()


def count_unfinished(database: Path) -> int:
    """How many messages have no outcome yet, while a process may be at work."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        sql = "SELECT count(*) FROM message WHERE seq NOT IN (SELECT message FROM outcome)"
        ((count,),) = connection.execute(sql).fetchall()
        return int(count)


def _read(connection: sqlite3.Connection) -> Disk:
    disk = Disk()
    disk.integrity = "; ".join(text for (text,) in connection.execute("PRAGMA integrity_check"))
    wrong = misplaced(connection)
    if wrong:
        disk.integrity = f"not where it belongs: {wrong[:10]}"
    for row in connection.execute(
        "SELECT id, kind || '/' || key, CASE WHEN owner IS NULL THEN tail ELSE max(tail, coalesce(last, 0)) END, \
         cursor, status, coalesce(state, '{}') FROM actor LEFT JOIN snapshot ON snapshot.actor = actor.id \
         LEFT JOIN (SELECT actor AS receiver, max(number) AS last FROM message GROUP BY actor) ON receiver = actor.id"
    ):
        disk.actors[row[0]] = ActorOnDisk(*row[:5], state=json.loads(row[5]))
    for *columns, args in connection.execute("SELECT seq, id, actor, number, handler, cause, due, args FROM message"):
        given = json.loads(args)
        disk.messages[columns[0]] = Message(*columns, tag=given.get("tag", columns[1]), n=given.get("n", 0))
    for seq, status, result, error in connection.execute("SELECT message, status, result, error FROM outcome"):
        disk.outcomes[seq] = Outcome(status, _decode(result), _decode(error))
    for message, key, name, status, result, error in connection.execute(
        "SELECT message, key, name, status, result, error FROM journal WHERE kind = 'step'"
    ):
        done: dict[str, Any] = _decode(result) if (result or "").startswith('{"sid"') else {}
        disk.steps.append(StepOnDisk(message, key, name, status, str(done.get("sid", "")), error or ""))
    disk.attempts = dict(connection.execute("SELECT message, attempts FROM turn").fetchall())
    return disk


def _decode(text: str | None) -> Any:  # noqa: ANN401  # any JSON value
    return None if text is None else json.loads(text)
