"""A SQLite connection inside a transaction, which excludes all others: nothing needs a lock of its own."""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache, partial
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from perdure.errors import StorageError
from perdure.storage.sqlite_filing import NEWEST

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from perdure.storage.sql.cache import Cache
    from perdure.storage.sql.connection import Parameter, Value
    from perdure.storage.sql.rows import Statement

CACHED_ROWS = 100_000
TAIL = """(CASE WHEN actor.owner IS NULL THEN actor.tail ELSE max(actor.tail, (
SELECT coalesce(max(mailbox.number), 0) FROM mailbox WHERE mailbox.actor = actor.id)) END)"""
"""The last number given in an actor's mailbox.

What an actor's owner sends to it is counted by its mailbox alone: a row less to write for every message. The last of a
mailbox leaves it once it is handled, and the cursor, which a row's tail is never behind, says so.
"""

_CHUNKS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
_MACROS = (
    (re.compile(r"\b(?:numbers|texts)\((\?\d*)\)"), r"json_each(\1)"),
    (re.compile(r"\bpairs\((\?\d*)\)"), r"(SELECT value ->> 0 AS a, value ->> 1 AS b FROM json_each(\1))"),
    (re.compile(r"\brunnable\(\)"), "owner IS NULL AND status = 'ready' AND life = 'running' AND cursor < tail"),
    (re.compile(r"\btail\(\)"), TAIL),
    (re.compile(r"\bmailbox\(\)"), "mailbox"),
    (re.compile(r"\bnewest\((\?\d+), (\?\d+)\)"), NEWEST),
    (re.compile(r"\bmember\(([\w.]+), (\w+)\)"), r"(CASE WHEN json_valid(\1) THEN \1 ->> '$.\2' END)"),
    (
        re.compile(r"\bmembers\(([\w.]+), (\w+)\)"),
        r"json_each(CASE WHEN json_valid(\1) THEN \1 ELSE '{}' END, '$.\2')",
    ),
)


@lru_cache(maxsize=1_000)
def _text(sql: str) -> str:
    for macro, here in _MACROS:
        sql = macro.sub(here, sql)
    return sql


@lru_cache(maxsize=100)
def _chunks(statement: Statement) -> dict[int, str]:
    row = statement.row
    texts = {size: f"{statement.before} VALUES {','.join([row] * size)} {statement.after}" for size in _CHUNKS[:-1]}
    return {**texts, 1: statement.alone}


class SQLiteConnection:
    """See `sql.connection.Connection`."""

    shared = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.raw = connection

    def __repr__(self) -> str:
        return f"<SQLiteConnection {self.raw!r}>"

    def fetch(self, sql: str, *parameters: Parameter) -> list[Any]:
        """All rows of a query."""
        return self.raw.execute(_text(sql), _values(parameters)).fetchall()

    def ahead(self, sql: str, *parameters: Parameter) -> Callable[[], list[Any]]:
        """The rows of a query, when they are asked for: nothing is sent anywhere."""
        return partial(self.fetch, sql, *parameters)

    def execute(self, sql: str, *parameters: Parameter) -> int:
        """Change something; the number of rows changed."""
        return self.raw.execute(_text(sql), _values(parameters)).rowcount

    def put(self, statement: Statement, rows: Sequence[Sequence[Value]], *after: Value, exact: bool = False) -> None:
        """Execute a statement over all rows; if `exact`, raises `StorageError` unless it changed as many."""
        wanted = len(rows)
        if wanted == 1:
            changed = self.raw.execute(statement.alone, (*rows[0], *after)).rowcount
        else:
            changed = self._put_many(statement, rows, after)
        if exact and changed != wanted:
            lost = wanted - changed
            raise StorageError(f"{lost} actors changed hands inside a transaction: the cached rows were wrong")

    def _put_many(self, statement: Statement, rows: Sequence[Sequence[Value]], after: Sequence[Value]) -> int:
        chunks, execute = _chunks(statement), self.raw.execute
        changed = start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                values = (*chain.from_iterable(rows[start : start + size]), *after)
                changed += execute(chunks[size], values).rowcount
                start += size
            if start == len(rows):
                break
        return changed

    def keep_numbers(self) -> None:
        """Numbers are taken above the highest there is; what is removed makes no room for one to be given twice."""
        self.raw.execute("UPDATE removed SET seq = max(seq, (SELECT coalesce(max(seq), 0) FROM message))")

    def holds_still(self, node: str) -> bool:
        """Nobody writes beside this transaction."""
        del node
        return True

    def clock(self) -> float:
        """The machine's time, which is that of all processes of the file."""
        return time.time()

    def refresh(self, cache: Cache) -> bool:
        """Keep the cached rows as long as no other connection has committed (`PRAGMA data_version` tells)."""
        version: int = self.raw.execute("PRAGMA data_version").fetchone()[0]
        others_wrote = version != cache.version
        if others_wrote or len(cache.by_id) > CACHED_ROWS:
            cache.clear()
            cache.version = version
        if not cache.numbered:
            self._number(cache)
        return others_wrote

    def forget(self, cache: Cache) -> None:
        """Know no row any more."""
        cache.clear()
        self._number(cache)

    def _number(self, cache: Cache) -> None:
        sql = "SELECT (SELECT coalesce(max(id), 0) FROM actor), \
               max((SELECT coalesce(max(seq), 0) FROM message), (SELECT max(seq) FROM removed))"
        actor, seq = self.raw.execute(sql).fetchone()
        cache.actors, cache.seqs, cache.numbered = count(actor + 1), count(seq + 1), True
        sql = "SELECT awaits FROM journal WHERE awaits IS NOT NULL"
        cache.awaited = {target for (target,) in self.raw.execute(sql)}


def _values(parameters: Sequence[Parameter]) -> Sequence[Value]:
    """Lists travel as JSON."""
    return [json.dumps(one) if isinstance(one, list) else one for one in parameters]
