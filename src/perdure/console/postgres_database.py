"""A schema of PostgreSQL, read and never written: each read is one short transaction on a connection of its own.

It is READ ONLY, sees one moment, ends itself on the server, and holds nobody up but vacuum. All that it needs is set in
it, so it works through a pooler, on a standby, and for a user who may only read.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from perdure.console.database import ForeignDatabaseError, SlowReadError, UnreadableError, positional
from perdure.errors import SchemaTooNewError, TargetError
from perdure.storage.copying.tables import newest
from perdure.storage.postgres_connection import PostgresConnection
from perdure.storage.postgres_link import Link, said
from perdure.storage.postgres_open import IDLE_MILLISECONDS, Place, place, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.console.database import Moment
    from perdure.storage.postgres_connection import Bounded
    from perdure.storage.sql.connection import Parameter

R = TypeVar("R")

READ_SECONDS = 5.0
"""A reader that stays longer keeps vacuum from removing what others have changed."""

_ANSWER_SECONDS = 2.0  # for the server to say that it gave a read up
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SETTINGS = """
SELECT set_config('search_path', ?, true), set_config('statement_timeout', ?, true),
       set_config('idle_in_transaction_session_timeout', ?, true)
"""
_SCHEMAS = """
SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = 'perdure_migration' AND relkind = 'r' ORDER BY nspname LIMIT 4
"""
_TABLES = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = ? AND relkind IN ('r', 'p', 'v')
"""
# Each of a node's connections is named after it, whatever the user may see of others.
_CONNECTED = """
SELECT DISTINCT split_part(application_name, ' ', 2) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'perdure %'
"""


class PostgresMoment:
    """See `Moment`."""

    def __init__(self, raw: Bounded, where: Place, end: float) -> None:
        self._connection = PostgresConnection(raw, None)
        self._where = where
        self._end = end

    def __repr__(self) -> str:
        return f"<PostgresMoment of {self._where.name}>"

    def fetch(self, sql: str, **parameters: Parameter) -> list[Any]:
        """See `Moment.fetch`."""
        if time.monotonic() > self._end:
            raise _slow(self._where)
        text, values = positional(sql, parameters)
        return self._connection.fetch(text, *values)

    def now(self) -> float:
        """By the server's clock; this machine's may be another."""
        return self._connection.clock()

    def live(self, nodes: Collection[str]) -> dict[str, bool | None]:
        """Whether they are connected to the server. A pooler's connections and a standby's say nothing of them."""
        if not nodes or self._where.pooler or self._connection.fetch("SELECT pg_is_in_recovery()") != [(False,)]:
            return dict.fromkeys(nodes)
        connected = {node for (node,) in self._connection.fetch(_CONNECTED)}
        return {node: node in connected for node in nodes}


class PostgresDatabase:
    """See `Database`."""

    def __init__(self, target: str) -> None:
        self._where = place(target)
        self.target = target
        self.name = self._where.name

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self.name}>"

    def read(self, query: Callable[[Moment], R]) -> R:
        """See `Database.read`."""
        link = Link(self._where, f"look-{secrets.token_hex(6)}")
        try:
            try:
                raw = link.raw
            except psycopg.Error as error:
                raise UnreadableError(str(refuse(error, self.name))) from error
            end = time.monotonic() + READ_SECONDS
            raw.deadline = end + _ANSWER_SECONDS
            raw.prepare_threshold = None  # nothing is asked often enough, and some poolers know none
            try:
                return self._transact(raw, query, end)
            except psycopg.Error as error:
                raise self._explain(error, end) from error
        finally:
            link.close()

    def _transact(self, raw: Bounded, query: Callable[[Moment], R], end: float) -> R:
        connection = PostgresConnection(raw, None)
        connection.send(_BEGIN)
        try:
            milliseconds = str(max(1, int(READ_SECONDS * 1_000)))
            connection.send(_SETTINGS, self._where.schema, milliseconds, IDLE_MILLISECONDS)
            self._check(connection)
            return query(PostgresMoment(raw, self._where, end))
        finally:
            with suppress(psycopg.Error):  # a pooler keeps the connection for others
                connection.send("ROLLBACK")

    def _check(self, connection: PostgresConnection) -> None:
        tables = connection.fetch(_TABLES, self._where.schema)
        if ("perdure_migration",) not in tables:
            what = f"belongs to another application ({len(tables)} tables)" if tables else "holds no system of perdure"
            found = [name for (name,) in connection.fetch(_SCHEMAS)]
            near = f" (there is {', '.join(found[:3])}{', …' if found[3:] else ''})" if found else ""
            raise ForeignDatabaseError(
                f"{self.name}: the schema '{self._where.schema}' {what}. Name the target that your program gives to "
                f"ActorSystem, with its ?schema=…{near}."
            )
        # by its full name: a schema that this user may not use is left out of the search path without a word
        table = f'"{self._where.schema}".perdure_migration'
        ((version,),) = connection.fetch(f"SELECT coalesce(max(number), 0) FROM {table}")  # noqa: S608  # letters only
        known = newest("postgres")
        if version > known:
            raise SchemaTooNewError(
                f"{self.name}: was written by a newer perdure (schema {version}; this one knows {known}). "
                "Upgrade perdure."
            )
        if version < known:
            raise ForeignDatabaseError(
                f"{self.name}: has the older schema {version} (this perdure reads {known}). Open it once with "
                "ActorSystem."
            )

    def _explain(self, error: psycopg.Error, end: float) -> TargetError:
        if isinstance(error, psycopg.errors.QueryCanceled) or time.monotonic() > end:
            return _slow(self._where)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            may = f"USAGE on the schema '{self._where.schema}', and SELECT on its tables"
            return UnreadableError(f"{self.name}: {said(error)}. Grant this user {may}.")
        if isinstance(error, psycopg.OperationalError):
            return UnreadableError(f"{self.name}: the connection was lost ({said(error)}). Try again.")
        return UnreadableError(f"{self.name}: {said(error)}. See to the server.")


def _slow(where: Place) -> SlowReadError:
    return SlowReadError(
        f"{where.name}: the read took longer than {READ_SECONDS:g} s and was given up, so that vacuum is not held "
        "back. Ask for less, with --limit or --kind."
    )
