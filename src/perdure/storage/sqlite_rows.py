"""Many rows in few statements.

Python releases its global lock around every step of a statement, and a busy event loop may keep it for milliseconds
each time. So a batch writes its rows with multi-row statements: a few steps a batch, not one a row.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

Value: TypeAlias = str | bytes | int | float | None

_CHUNKS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


class Statement:
    """A statement over rows of values, written as `before VALUES (?,…),… after`.

    Every column costs a quarter of a microsecond a row: rows that are mostly constants have a statement of their own.

    Args:
        before: What stands before the rows.
        row: One row: a number of columns, or how it is spelled where some are constants.
        after: What follows the rows; it may take parameters of its own.
    """

    def __init__(self, before: str, row: int | str, after: str = "") -> None:
        one = row if isinstance(row, str) else f"({','.join('?' * row)})"
        self._sql = {size: f"{before} VALUES {','.join([one] * size)} {after}" for size in _CHUNKS}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Value]], *after: Value) -> int:
        """Execute over all rows; the number of rows changed."""
        changed = start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                values = (*chain.from_iterable(rows[start : start + size]), *after)
                changed += connection.execute(self._sql[size], values).rowcount
                start += size
            if start == len(rows):
                break
        return changed


def fetch(connection: sqlite3.Connection, sql: str, *parameters: Value) -> list[Any]:
    """All rows of a query."""
    return connection.execute(sql, parameters).fetchall()


INSERT_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, parent, created)", 11
)
# The fence, once more in the statement that writes: a row that is not the writer's any more does not change, and the
# count of changed rows tells.
ADVANCE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column3, cursor = new.column4 FROM (",
    4,
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 AND actor.owner IS ?",
)
UPDATE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column4, cursor = new.column5, status = new.column6, reason = new.column7 FROM (",
    7,
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 AND actor.owner IS new.column3",
)
MOVE_ACTORS = Statement(
    "UPDATE actor SET epoch = new.column2, owner = new.column3, tail = new.column4, cursor = new.column5, "
    "status = new.column6, reason = new.column7 FROM (",
    7,
    ") AS new WHERE actor.id = new.column1 AND actor.epoch <= new.column2",
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
INSERT_PLAIN_MESSAGES = Statement(
    "INSERT INTO message (seq, id, actor, number, handler, args, sent, codec, chosen)", "(?,?,?,?,?,?,?,'json',0)"
)
INSERT_OUTCOMES = Statement("INSERT INTO outcome (message, status, result, error, changes, started, finished)", 7)
INSERT_SUCCESSES = Statement(
    "INSERT INTO outcome (message, result, changes, started, finished, status)", "(?,?,?,?,?,'succeeded')"
)
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
