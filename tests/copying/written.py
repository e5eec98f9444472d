"""Systems for these tests that are written quickly, and looked into."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from perdure.storage.copying.tables import tables
from perdure.storage.postgres_open import place
from perdure.storage.sqlite_open import prepare


def write(path: Path, messages: int, bytes_each: int = 10) -> None:
    """A system at rest with so many handled messages."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, str(path))
        connection.execute("BEGIN")
        sql = "INSERT INTO actor (id, kind, key, created, tail, cursor) VALUES (1, 'copying.old', 'o', 0, ?, ?)"
        connection.execute(sql, (messages, messages))
        sql = "INSERT INTO message (seq, id, actor, number, handler, args, codec, chosen, sent) \
               VALUES (?1, 'm' || ?1, 1, ?1, 'old', ?2, 'json', 0, 1.5)"
        text = f'"{"x" * bytes_each}"'
        connection.executemany(sql, ((number, text) for number in range(1, messages + 1)))
        connection.execute("INSERT INTO outcome (message, status, finished) SELECT seq, 'succeeded', 2.5 FROM message")
        connection.execute("COMMIT")


def query(target: str, sql: str) -> list[Any]:
    """What a database says."""
    if target.startswith("postgresql://"):
        where = place(target)
        with psycopg.connect(where.conninfo, options=f"-c search_path={where.schema}", autocommit=True) as server:
            cursor = server.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def holds_nothing(target: str) -> bool:
    """Whether there is no system there, not a part of one either."""
    if not target.startswith("postgresql://"):
        return not Path(target).exists()
    there = {
        name
        for (name,) in query(
            target, "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text = current_schema()"
        )
    }
    return not any(table.name in there and query(target, f"SELECT 1 FROM {table.name} LIMIT 1") for table in tables())
