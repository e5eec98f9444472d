"""Many rows in few statements.

Python releases its global lock around every step of a statement, and a busy event loop may keep it for milliseconds
each time. So a batch writes its rows with multi-row statements: a few steps a batch, not one a row.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

Value: TypeAlias = str | bytes | int | float | None

_CHUNKS = (128, 16, 4, 1)


class Statement:
    """A statement over rows of values, written as `before VALUES (?,…),… after`."""

    def __init__(self, before: str, columns: int, after: str = "") -> None:
        row = f"({','.join('?' * columns)})"
        self._sql = {size: f"{before} VALUES {','.join([row] * size)} {after}" for size in _CHUNKS}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Value]]) -> int:
        """Execute over all rows; the number of rows changed."""
        if not rows:
            return 0
        if len(rows) == 1:
            return connection.execute(self._sql[1], rows[0]).rowcount
        changed = 0
        for chunk in _chunks(rows):
            changed += connection.execute(self._sql[len(chunk)], tuple(chain.from_iterable(chunk))).rowcount
        return changed


def _chunks(rows: Sequence[Sequence[Value]]) -> Iterator[Sequence[Sequence[Value]]]:
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def fetch(connection: sqlite3.Connection, sql: str, *parameters: Value) -> list[Any]:
    """All rows of a query."""
    return connection.execute(sql, parameters).fetchall()


INSERT_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, parent, created)", 11
)
# The fence, once more in the statement that writes: a row that is not the writer's any more does not change, and the
# count of changed rows tells.
UPDATE_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, created)",
    10,
    "ON CONFLICT (id) DO UPDATE SET tail = excluded.tail, cursor = excluded.cursor, status = excluded.status, "
    "reason = excluded.reason WHERE actor.owner IS excluded.owner AND actor.epoch = excluded.epoch",
)
MOVE_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, created)",
    10,
    "ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, tail = excluded.tail, "
    "cursor = excluded.cursor, status = excluded.status, reason = excluded.reason WHERE actor.epoch <= excluded.epoch",
)
PUT_SNAPSHOTS = Statement(
    "INSERT INTO snapshot (actor, version, codec, state, initial)",
    5,
    "ON CONFLICT (actor) DO UPDATE SET version = excluded.version, codec = excluded.codec, state = excluded.state, "
    "initial = coalesce(excluded.initial, initial)",
)
INSERT_MESSAGES = Statement(
    "INSERT INTO message (seq, id, actor, number, handler, args, codec, chosen, cause, chain, sent, due, expires)", 13
)
INSERT_OUTCOMES = Statement("INSERT INTO outcome (message, status, result, error, changes, started, finished)", 7)
PUT_TURNS = Statement(
    "INSERT INTO turn (message, attempts, blame, suspect, executing, retry_at, error)",
    7,
    "ON CONFLICT (message) DO UPDATE SET attempts = excluded.attempts, blame = excluded.blame, "
    "suspect = excluded.suspect, executing = excluded.executing, retry_at = excluded.retry_at, error = excluded.error",
)
PUT_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, digest, status, attempt, position, result, error, target, due, "
    "started, finished)",
    14,
    "ON CONFLICT (message, key) DO UPDATE SET digest = excluded.digest, status = excluded.status, "
    "attempt = excluded.attempt, position = excluded.position, result = excluded.result, error = excluded.error, "
    "target = excluded.target, due = excluded.due, finished = excluded.finished",
)
# Completing and numbering touch records that other writes own; the columns that the table demands and the conflict
# leaves alone are filled with nothing.
COMPLETE_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, status, result, error, started, finished)",
    9,
    "ON CONFLICT (message, key) DO UPDATE SET status = excluded.status, result = excluded.result, "
    "error = excluded.error, finished = excluded.finished WHERE journal.status = 'started'",
)
NUMBER_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, status, started, position)",
    7,
    "ON CONFLICT (message, key) DO UPDATE SET position = excluded.position",
)
