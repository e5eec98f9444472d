"""A schema of PostgreSQL as an end of a copy, through COPY in binary: rows stream, none wait in memory.

Everything is one transaction at either end. A source's keeps nodes out by a lock on their table, taken before its
snapshot; a destination's is committed when what it holds was read again and is right. Sequences are not part of
transactions, so a copy that was cut may leave numbers unused in a schema that is empty.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql as composing

from perdure.errors import CannotCopyError, InUseError, NotEmptyError, StorageError, TargetError
from perdure.storage.copying.ends import Process, listed
from perdure.storage.copying.tables import OF_A_PLACE, Numbers, newest, tables
from perdure.storage.postgres_connection import BLOCK
from perdure.storage.postgres_link import Link, said
from perdure.storage.postgres_open import Place, place, prepare, refuse

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from perdure.storage.copying.tables import Row, Table
    from perdure.storage.postgres_connection import Bounded

LEASE_SECONDS = 18.0
"""How long a node may give no sign of life: a lease, and a heartbeat."""

_LOOK_SECONDS = 0.5
_TYPES = {"INTEGER": "int8", "REAL": "float8", "TEXT": "text", "BLOB": "bytea"}
_SETTINGS = (
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "lock_timeout = '5s'",
    "synchronous_commit = on",
)


class _End:
    def __init__(self, raw: Bounded, where: Place) -> None:
        self._raw = raw
        self._where = where
        self.name = where.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def rows(self, table: Table) -> Generator[Row]:
        """A table's rows, in whatever order they lie."""
        query = composing.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(*self._named(table))
        with _driver_errors(self.name), self._raw.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types([_TYPES[type_] for type_ in table.types])
            yield from copy.rows()

    def _named(self, table: Table) -> tuple[composing.Composable, composing.Composable]:
        columns = composing.SQL(", ").join(map(composing.Identifier, table.columns))
        return columns, composing.Identifier(self._where.schema, table.name)

    def _one(self, query: str, *values: str | int) -> Any:  # noqa: ANN401  # whatever was asked for
        ((found,),) = self._raw.execute(query.encode(), values).fetchall()
        return found


class PostgresSource(_End):
    """See `Source`."""

    running: frozenset[str] = frozenset()

    def numbers(self) -> Numbers:
        """See `Source.numbers`. A sequence has given a whole block with its last value."""
        last = "SELECT CASE WHEN is_called THEN last_value + {0} ELSE last_value - 1 END FROM {1}"
        highest = "SELECT coalesce(max({0}), 0) FROM {1}"
        actor = max(self._one(last.format(BLOCK - 1, "actor_id")), self._one(highest.format("id", "actor")))
        message = max(self._one(last.format(BLOCK - 1, "message_seq")), self._one(highest.format("seq", "message")))
        failure = max(self._one(last.format(0, "failure_seq_seq")), self._one(highest.format("seq", "failure")))
        return Numbers(actor, message, failure)


class PostgresDestination(_End):
    """See `Destination`."""

    holds_nul = False

    def fill(self, table: Table, rows: Iterable[Row]) -> None:
        """See `Destination.fill`."""
        columns, name = self._named(table)
        query = composing.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(name, columns)
        with _driver_errors(self.name), self._raw.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types([_TYPES[type_] for type_ in table.types])
            for row in rows:
                copy.write_row(row)

    def complete(self, numbers: Numbers) -> None:
        """See `Destination.complete`."""
        with _driver_errors(self.name):
            for sequence, highest in (
                ("actor_id", numbers.actor),
                ("message_seq", numbers.message),
                ("failure_seq_seq", numbers.failure),
            ):
                self._one("SELECT setval(($1::text)::regclass, $2, false)", sequence, highest + 1)

    def publish(self) -> None:
        """See `Destination.publish`."""
        try:
            committed = self._raw.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            raise StorageError(
                f"{self.name}: whether the copy was committed is not known ({said(error)}). It is there whole, or not "
                "at all: look with --verify-only."
            ) from error
        if committed != "COMMIT":
            raise StorageError(f"{self.name}: COMMIT was answered {committed}. Nothing was written.")
        with _driver_errors(self.name):  # plans for tables that were empty would be poor ones
            for table in tables():
                self._raw.execute(composing.SQL("ANALYZE {}").format(self._named(table)[1]))


@contextmanager
def reading(target: str, *, running: bool) -> Generator[PostgresSource]:
    """Read a schema as it is at one moment. Raises `InUseError` while a system runs on it, unless that may be."""
    with _connected(target) as (raw, where):
        _check(raw, where)
        silent: dict[str, tuple[Process, int]] = {}
        if not running:
            silent = _silent(raw, where)
        _begin(raw, where, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        source = PostgresSource(raw, where)
        if running:
            source.running = frozenset(_live(raw, where))
        else:
            raw.execute("LOCK TABLE node IN SHARE MODE")
            now = {node: beats for node, (_, beats) in _live(raw, where).items()}
            if now != {node: beats for node, (_, beats) in silent.items()}:
                raise InUseError(f"{where.name}: a process opened it just now. Stop what runs on it, and try again.")
        yield source
        raw.execute("ROLLBACK")


@contextmanager
def filling(target: str) -> Generator[PostgresDestination]:
    """Fill a schema that is empty."""
    with _connected(target) as (raw, where):
        prepare(raw, where)
        _begin(raw, where, "BEGIN")
        # whoever opens it waits until it is whole
        raw.execute("LOCK TABLE node, actor IN SHARE ROW EXCLUSIVE MODE")
        for name in ["node", *(table.name for table in tables())]:
            condition = " WHERE status = 'live'" if name == "node" else ""
            if raw.execute(f"SELECT 1 FROM {name}{condition} LIMIT 1".encode()).fetchall():  # noqa: S608  # our names
                what = "a system runs on it" if name == "node" else f"its table {name} has rows"
                raise NotEmptyError(f"{where.name}: {what}. Name an empty schema with ?schema=…; nothing was written.")
        yield PostgresDestination(raw, where)


@contextmanager
def _connected(target: str) -> Generator[tuple[Bounded, Place]]:
    where = place(target)
    link = Link(where, f"copy-{secrets.token_hex(6)}")
    try:
        try:
            raw = link.raw
        except psycopg.Error as error:
            raise refuse(error, where.name) from error
        with _driver_errors(where.name):
            yield raw, where
    finally:
        link.close()  # and with it whatever was not committed


@contextmanager
def _driver_errors(name: str) -> Generator[None]:
    """Have the driver's errors be ours."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise InUseError(f"{name}: somebody writes to it. Stop what runs on it first.") from error
    except psycopg.Error as error:
        raise StorageError(f"{name}: {said(error)}. Nothing of the copy is left.") from error


def _begin(raw: Bounded, where: Place, how: str) -> None:
    """Begin a transaction, without taking its snapshot yet: a lock is to come before it."""
    raw.execute(how.encode())
    raw.execute(composing.SQL("SET LOCAL search_path = {}").format(composing.Identifier(where.schema)))
    for setting in _SETTINGS:
        raw.execute(f"SET LOCAL {setting}".encode())


def _check(raw: Bounded, where: Place) -> None:
    """Raise `TargetError` if the schema is not perdure's, of this version, with just the tables that are known."""
    sql = "SELECT table_name::text, column_name::text FROM information_schema.columns \
           WHERE table_schema = $1 AND is_generated = 'NEVER'"
    found = {(table, column) for table, column in raw.execute(sql, [where.schema]).fetchall()}
    if ("perdure_migration", "number") not in found:
        raise TargetError(f"{where.name}: has no system of perdure in it. Name its schema with ?schema=….")
    number = composing.SQL("SELECT max(number) FROM {}").format(composing.Identifier(where.schema, "perdure_migration"))
    ((version,),) = raw.execute(number).fetchall()
    if version != newest("postgres"):
        remedy = "Upgrade perdure." if version > newest("postgres") else "Open it once with ActorSystem."
        raise TargetError(f"{where.name}: has schema {version}, and this perdure has {newest('postgres')}. {remedy}")
    wanted = {(table.name, column) for table in tables() for column in table.columns}
    beside = {*OF_A_PLACE, "perdure_migration"}
    other = {one for one in found if one[0] not in beside} ^ wanted
    if other:
        table, column = min(other)
        raise CannotCopyError(f"{where.name}: column {table}.{column} is in one of the schemas only. This is a bug.")


def _live(raw: Bounded, where: Place) -> dict[str, tuple[Process, int]]:
    sql = composing.SQL("SELECT id, pid, host, version, beats FROM {} WHERE status = 'live'")
    found = raw.execute(sql.format(composing.Identifier(where.schema, "node"))).fetchall()
    return {row[0]: (Process(*row[:4]), row[4]) for row in found}


def _silent(raw: Bounded, where: Place) -> dict[str, tuple[Process, int]]:
    """The nodes that have not left and give no sign of life for so long. Raises `InUseError` for one that does."""
    before = _live(raw, where)
    end = time.monotonic() + LEASE_SECONDS
    while before:
        now = _live(raw, where)
        names = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'perdure %'"
        connected: set[str] = set()
        if not where.pooler:
            connected.update(name for (name,) in raw.execute(names).fetchall())
        living = [
            one
            for node, (one, beats) in now.items()
            if f"perdure {node}" in connected or node not in before or beats != before[node][1]
        ]
        if living:
            raise InUseError(
                f"{where.name}: {listed(living)} runs on it, and would go on there after the copy, so that there are "
                "two of the system. Stop it first; `perdure backup` copies a running one."
            )
        if time.monotonic() > end:
            return now
        time.sleep(_LOOK_SECONDS)
    return before
