"""A PostgreSQL connection inside a transaction, beside those of others.

Whole transactions are pipelined: what changes rows is sent without waiting for its answer, and only what is read costs
a round trip. Many rows travel as one array a column, in binary.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.types.array import ListBinaryDumper
from psycopg.types.numeric import FloatBinaryDumper, Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

from perdure.errors import StorageError
from perdure.storage.sql.connection import Again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg.abc import PQGen

    from perdure.storage.sql.cache import Cache
    from perdure.storage.sql.connection import Parameter, Value
    from perdure.storage.sql.rows import Statement

R = TypeVar("R")

_LOCK = "hashtextextended(current_schema() || ' ' || ?, 7065)"
BLOCK = 32
"""How many numbers a sequence gives at once; its increment."""
KEPT_IDS = 1_000_000

_TYPES = {"i": "bigint", "r": "double precision", "t": "text", "b": "bytea"}
# PostgreSQL has no text for some characters that JSON can name, and would refuse all of a document that has one.
_JSON = r"regexp_replace(\1, '\\\\u(0000|[dD][89a-fA-F])', '/u\\1', 'g')::json"
# OFFSET has a document parsed once.
_MEMBERS = rf"""(
SELECT json_array_elements_text(CASE json_typeof(list) WHEN 'array' THEN list ELSE '[]' END) AS value
FROM (SELECT CASE WHEN left(\1, 1) = '{{' THEN {_JSON} -> '\2' END AS list OFFSET 0) AS one)"""  # noqa: S608  # constant parts
_MACROS = (
    (re.compile(r"\bnumbers\((\$\d+)\)"), r"(SELECT unnest(\1::bigint[]) AS value)"),
    (re.compile(r"\btexts\((\$\d+)\)"), r"(SELECT unnest(\1::text[]) AS value)"),
    (
        re.compile(r"\bpairs\((\$\d+)\)"),
        r"(SELECT value ->> 0 AS a, value ->> 1 AS b FROM json_array_elements(\1::json) AS one (value))",
    ),
    (re.compile(r"\brunnable\(\)"), "runnable"),  # a column, for the planner would not find the index by the condition
    (re.compile(r"\btail\(\)"), "actor.tail"),  # the row is locked whenever a number is given, and may as well say it
    (re.compile(r"\bmailbox\(\)"), "(SELECT actor, number, seq AS message FROM message WHERE number IS NOT NULL)"),
    (
        re.compile(r"\bnewest\((\$\d+), (\$\d+)\)"),
        r"(SELECT seq FROM message WHERE actor = \1 AND number IS NOT NULL ORDER BY number DESC LIMIT \2)",
    ),
    (re.compile(r"\bmember\(([\w.]+), (\w+)\)"), rf"(CASE WHEN left(\1, 1) = '{{' THEN {_JSON} ->> '\2' END)"),
    (re.compile(r"\bmembers\(([\w.]+), (\w+)\)"), _MEMBERS),
    (re.compile(r"\bCROSS JOIN\b"), "JOIN"),
    (re.compile(r"/\* lock \*/"), "FOR NO KEY UPDATE OF actor NOWAIT"),
    (re.compile(r"/\* lock, wait \*/"), "FOR NO KEY UPDATE OF actor"),
    (re.compile(r"/\* lock, skip \*/"), "FOR NO KEY UPDATE OF actor SKIP LOCKED"),
    (re.compile(r"/\* lock, limit \*/"), "FOR NO KEY UPDATE OF allowance"),
)


@lru_cache(maxsize=1_000)
def _text(sql: str, first: int = 1) -> bytes:
    """A statement with PostgreSQL's parameters, numbered from `first` where it does not number them itself."""
    count = first - 1

    def parameter(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${match[1] or count}"

    sql = re.sub(r"\?(\d*)", parameter, sql)
    for pattern, here in _MACROS:
        sql = pattern.sub(here, sql)
    return sql.encode()


@lru_cache(maxsize=100)
def _bulk(statement: Statement) -> bytes:
    arrays = ", ".join(f"${n}::{_TYPES[type_]}[]" for n, type_ in enumerate(statement.types, 1))
    columns = ", ".join(f"column{n}" for n in range(1, len(statement.types) + 1))
    constants = f", {statement.constants}" if statement.constants else ""
    rows = f"SELECT {columns}{constants} FROM unnest({arrays}) AS new ({columns})"  # noqa: S608  # constant parts
    after = _text(statement.after, len(statement.types) + 1).decode()
    return f"{statement.before} {rows} {after}".encode()


def adapters() -> AdaptersMap:
    """How values travel: one type for each of Python's, so that a statement is prepared once."""
    adapt = AdaptersMap(psycopg.adapters)
    for type_, dumper in (
        (int, Int8BinaryDumper), (float, FloatBinaryDumper), (str, StrBinaryDumper), (bytes, BytesBinaryDumper),
        (list, ListBinaryDumper),
    ):  # fmt: skip
        adapt.register_dumper(type_, dumper)
    return adapt


class Bounded(psycopg.Connection[Any]):
    """A connection whose every wait ends at a deadline.

    Nothing else bounds them all: the server's own timeouts need a server that answers, and those of TCP a peer whose
    kernel does not acknowledge.
    """

    deadline: float | None = None
    """On the clock of `time.monotonic`."""

    def wait(self, gen: PQGen[R], interval: float = 0.1, timeout: float | None = None) -> R:
        """Wait for the server, no longer than until the deadline."""
        if self.deadline is not None:
            left = max(0.001, self.deadline - time.monotonic())
            timeout = left if timeout is None else min(timeout, left)
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.Error:
            # What a lost connection leaves half-done fails once more when it is thrown away, and nobody would hear.
            with suppress(psycopg.Error, RuntimeError):
                gen.close()
            raise


class Blocks:
    """Numbers from a sequence, a few blocks at a time: as many as the last transaction took."""

    def __init__(self, sequence: str) -> None:
        self._sql = f"SELECT nextval('{sequence}') FROM generate_series(1, ?)"  # noqa: S608  # our own names
        self._free: Iterator[int] = iter(())
        self._blocks = self._taken = 0
        self.connection: PostgresConnection | None = None

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        for number in self._free:
            return number
        if self.connection is None:
            raise StorageError("a number was asked for outside a transaction. This is a bug.")
        wanted = max(1, self._blocks, self._taken)
        starts = [start for (start,) in self.connection.fetch(self._sql, wanted)]
        self._taken += wanted
        self._free = chain.from_iterable(range(start, start + BLOCK) for start in starts)
        return next(self._free)

    def begin(self, connection: PostgresConnection) -> None:
        """Another transaction begins."""
        self._blocks, self._taken = self._taken, 0
        self.connection = connection


class PostgresConnection:
    """See `sql.connection.Connection`."""

    shared = True

    def __init__(self, connection: Bounded, pipeline: psycopg.Pipeline | None) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._exact: list[tuple[psycopg.Cursor[Any], int]] = []

    def __repr__(self) -> str:
        return f"<PostgresConnection {self._connection!r}>"

    def send(self, sql: str, *parameters: Parameter) -> psycopg.Cursor[Any]:
        """Execute a statement; where statements are pipelined, its answer comes when it is asked for."""
        return self._connection.execute(_text(sql), parameters)

    def fetch(self, sql: str, *parameters: Parameter) -> list[Any]:
        """All rows of a query."""
        try:
            return self.send(sql, *parameters).fetchall()
        except psycopg.errors.LockNotAvailable:
            raise Again([]) from None

    def ahead(self, sql: str, *parameters: Parameter) -> Callable[[], list[Any]]:
        """Send a query whose rows are asked for later; not one that refuses to wait for locks."""
        return self.send(sql, *parameters).fetchall

    def execute(self, sql: str, *parameters: Parameter) -> int:
        """Change something; the number of rows changed."""
        cursor = self.send(sql, *parameters)
        if self._pipeline is not None:
            self._pipeline.sync()
        return cursor.rowcount

    def put(self, statement: Statement, rows: Sequence[Sequence[Value]], *after: Value, exact: bool = False) -> None:
        """Execute a statement over all rows; if `exact`, `check` raises unless it changed as many."""
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            cursor = self._connection.execute(_bulk(statement), [*columns, *after])
            if exact:
                self._exact.append((cursor, len(rows)))

    def check(self) -> None:
        """Raise `StorageError` if a statement changed fewer rows than it was to. They were locked, so it cannot be."""
        for cursor, wanted in self._exact:
            if cursor.rowcount != wanted:
                raise StorageError(
                    f"{wanted - cursor.rowcount} actors changed hands although their rows were locked. This is a bug; "
                    "stop this process, and report it."
                )

    def lock(self, node: str) -> None:
        """Take the lock of a node's transactions: no other of them is under way until this one has ended."""
        self.send(f"SELECT pg_advisory_xact_lock({_LOCK})", node)  # a constant

    def holds_still(self, node: str) -> bool:
        """Take the lock that every transaction of that node holds, if it is free."""
        ((taken,),) = self.fetch(f"SELECT pg_try_advisory_xact_lock({_LOCK})", node)  # a constant
        return bool(taken)

    def clock(self) -> float:
        """The server's time, not that of the transaction's beginning."""
        ((now,),) = self.fetch("SELECT extract(epoch FROM clock_timestamp())::double precision")
        return float(now)

    def refresh(self, cache: Cache) -> bool:
        """Rows are others' as soon as a transaction ends: only the ids of actors are kept, and free numbers."""
        self.forget(cache)
        cache.awaited = None
        if not cache.numbered:
            cache.actors, cache.seqs, cache.numbered = Blocks("actor_id"), Blocks("message_seq"), True
        for numbers in (cache.actors, cache.seqs):
            cast("Blocks", numbers).begin(self)
        return False

    def forget(self, cache: Cache) -> None:
        """Know no row any more."""
        cache.by_address.clear()
        cache.by_id.clear()
        if len(cache.ids) > KEPT_IDS:
            cache.ids.clear()

    def keep_numbers(self) -> None:
        """A sequence gives no number twice."""
