"""The limit on PostgreSQL: what `raw.py` does on SQLite, in batches through the same driver.

Rows travel as one array a column, in binary, and a transaction is one round trip: nothing that psycopg can do is faster
here, but for COPY, which answers no conflicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from benchmarks.raw import ACTORS, ARGS, Batches
from perdure.storage.postgres_connection import adapters
from perdure.storage.postgres_open import place

if TYPE_CHECKING:
    from typing import Any

_TABLES = """
CREATE TABLE raw_message (seq bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, actor bigint, args text);
CREATE TABLE raw_actor (id bigint PRIMARY KEY, cursor bigint NOT NULL, state text NOT NULL) WITH (fillfactor = 50);
"""
_INSERT = "INSERT INTO raw_message SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::text[])"
_UPDATE = """
UPDATE raw_actor SET cursor = new.cursor, state = new.state
FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) AS new (id, cursor, state) WHERE raw_actor.id = new.id
"""


class RawPostgresMailbox(Batches):
    """A mailbox of nothing but SQL, filled and emptied in batches."""

    def __init__(self, target: str, batch: int) -> None:
        super().__init__(batch)
        where = place(target)
        self._connection: psycopg.Connection[Any] = psycopg.connect(
            where.conninfo, options=f"-c search_path={where.schema}", autocommit=True, context=_Adapted()
        )
        for statement in _TABLES.strip().splitlines():
            self._connection.execute(statement.encode())
        self._connection.execute(
            "INSERT INTO raw_actor SELECT n, 0, '' FROM generate_series(0, %s) AS numbers (n)", [ACTORS - 1]
        )

    def _one_batch(self) -> None:
        numbers = self._next()
        actors = [n % ACTORS for n in numbers]
        self._transaction(_INSERT, numbers, [f"{self._prefix}-{n:x}" for n in numbers], actors, [ARGS] * len(numbers))
        self._transaction(_UPDATE, actors, numbers, [f'{{"total":{n}}}' for n in numbers])

    def _transaction(self, sql: str, *columns: list[int] | list[str]) -> None:
        with self._connection.pipeline():
            self._connection.execute("BEGIN")
            self._connection.execute(sql.encode(), columns)
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Adapted:
    """How values travel: as in the store."""

    adapters = adapters()
    connection = None
