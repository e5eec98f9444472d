"""Databases written row by row, so that what reads them is tested against every state there is."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import psycopg
import pytest
from psycopg import sql as composing

from perdure.storage import postgres_open, sqlite_open
from perdure.storage.postgres_connection import PostgresConnection
from perdure.storage.postgres_link import Link
from perdure.storage.targets import is_postgres

Value: TypeAlias = str | bytes | int | float | None

NOW = 1_800_000_000.0
"""What the readers' clock says."""


STORES = ["sqlite", "postgres"]
"""What is read alike, wherever it lies."""

in_a_file = pytest.mark.parametrize("rows", ["sqlite"], indirect=True)
"""For what has nothing to do with where it lies."""


class Cursor(Protocol):
    """What a statement found."""

    def fetchone(self) -> Any: ...  # noqa: ANN401  # a row, of whatever was asked for

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """What rows are written through."""

    def execute(self, sql: str, parameters: Sequence[Value] = ..., /) -> Cursor: ...

    def close(self) -> None: ...


class Postgres:
    """See `Connection`: with SQLite's `?`."""

    def __init__(self, target: str) -> None:
        where = postgres_open.place(target)
        self._raw = Link(where, "rows").raw
        self._raw.deadline = None
        postgres_open.prepare(self._raw, where)
        self._raw.execute(composing.SQL("SET search_path = {}").format(composing.Identifier(where.schema)))

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Cursor:
        """One statement."""
        return PostgresConnection(self._raw, None).send(sql, *parameters)

    def close(self) -> None:
        """End it."""
        self._raw.close()


def target_of(request: pytest.FixtureRequest, folder: Path) -> str:
    """A new place, in the kind of database that the fixture's parameter names."""
    return str(folder / "agents.db") if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


def named(target: str) -> str:
    """What people read of a target."""
    return postgres_open.place(target).name if is_postgres(target) else target


class Rows:
    """Writes rows into a database with perdure's schema."""

    def __init__(self, target: str | Path) -> None:
        self.target = str(target)
        self.connection: Connection
        if is_postgres(self.target):
            self.connection = Postgres(self.target)
        else:
            self.connection = file = sqlite3.connect(target, isolation_level=None)
            sqlite_open.prepare(file, self.target)
        self._actors = count(1)
        self._messages = count(1)

    def insert(self, table: str, **values: Value) -> None:
        """One row."""
        names, places = ", ".join(values), ", ".join("?" * len(values))
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(values.values()))

    def node(self, id_: str = "n1", status: str = "live", pid: int = 4242) -> str:
        """A process."""
        self.insert(
            "node", id=id_, pid=pid, host="box", python="3.12.1", version="0.1.0", started=NOW - 60, status=status
        )
        return id_

    def actor(self, kind: str = "Researcher", key: str = "r1", **values: Value) -> int:
        """An actor; its tail follows its messages unless it is given."""
        actor = next(self._actors)
        self.insert("actor", id=actor, kind=kind, key=key, created=NOW - 50, **values)
        return actor

    def message(self, actor: int, id_: str = "", handler: str = "run", args: object = None, **values: Value) -> int:
        """A message in the mailbox; `number=None` for one that is not yet due."""
        seq = next(self._messages)
        if "number" not in values:
            self.connection.execute("UPDATE actor SET tail = tail + 1 WHERE id = ?", (actor,))
            (values["number"],) = self.connection.execute("SELECT tail FROM actor WHERE id = ?", (actor,)).fetchone()
        row: dict[str, Value] = {"codec": "json", "chosen": 1, "sent": NOW - 40 + seq, **values}
        text = args if isinstance(args, str) else json.dumps(args or {})
        self.insert("message", seq=seq, id=id_ or f"m{seq}", actor=actor, handler=handler, args=text, **row)
        return seq

    def outcome(self, seq: int, status: str = "succeeded", **values: Value) -> None:
        """A message's end; the cursor follows."""
        self.insert("outcome", message=seq, status=status, finished=NOW - 10, **values)
        sql = "UPDATE actor SET cursor = m.number FROM message AS m WHERE m.seq = ? AND actor.id = m.actor"
        self.connection.execute(sql, (seq,))

    def record(self, seq: int, key: str, kind: str = "step", status: str = "completed", **values: Value) -> None:
        """A row of a journal."""
        name = key.rpartition("/")[2].partition("#")[0]
        row: dict[str, Value] = {"name": name, "started": NOW - 20, **values}
        self.insert("journal", message=seq, key=key, kind=kind, status=status, **row)

    def child(self, supervisor: int, actor: int, position: int = 0, restart: str = "permanent", **values: Value) -> int:
        """A supervisor's child."""
        self.insert("child", actor=actor, supervisor=supervisor, position=position, restart=restart, **values)
        return actor

    def failure(self, actor: int, message: int | None = None, attempt: int = 1, **values: Value) -> None:
        """A failure as a supervisor was told of it."""
        row: dict[str, Value] = {"at": NOW - 5, "error": failure(), "decision": "try again", **values}
        self.insert("failure", actor=actor, message=message, attempt=attempt, **row)


def failure(type_: str = "builtins.ValueError", text: str = "no", **members: object) -> str:
    """A stored failure."""
    traceback = f"Traceback\n  {type_}: {text}\n"
    return json.dumps({"type": type_, "text": text, "args": [text], "traceback": traceback, **members})


@contextmanager
def alive(database: str, node: str) -> Generator[None]:
    """Hold a node's lock, or its connection, as its process does while it lives."""
    if is_postgres(database):
        with psycopg.connect(postgres_open.place(database).conninfo, application_name=f"perdure {node}"):
            yield
        return
    descriptor = os.open(f"{database}-node-{node}", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)
