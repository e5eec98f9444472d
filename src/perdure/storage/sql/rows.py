"""Many rows in few statements.

Python releases its global lock around every step of a statement, and a busy event loop may keep it for milliseconds
each time. So a batch writes its rows with multi-row statements: a few steps a batch, not one a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.storage.failure import told_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.storage.records import Outcome, Record
    from perdure.storage.sql.connection import Value


class Statement:
    """A statement over rows of values; what follows may take parameters of its own.

    Every column costs a quarter of a microsecond a row: rows that are mostly constants have a statement of their own.

    Args:
        before: What stands before the rows.
        types: A letter for each column: `i` integer, `r` real, `t` text, `b` bytes. The columns of rows that stand in
            parentheses are called `column1`, `column2`, ….
        after: What follows the rows.
        constants: Columns that are the same in every row, behind the others.
        alone: The same for one row, without a table of rows, which SQLite would make for that one.
    """

    __slots__ = ("after", "alone", "before", "constants", "types")

    def __init__(self, before: str, types: str, after: str = "", *, constants: str = "", alone: str = "") -> None:
        self.before = before
        self.types = types
        self.after = after
        self.constants = constants
        self.alone = alone or f"{before} VALUES {self.row} {after}"

    def __repr__(self) -> str:
        return f"<Statement {self.before}>"

    @property
    def row(self) -> str:
        """One row, of parameters and constants."""
        constants = f",{self.constants}" if self.constants else ""
        return f"({','.join('?' * len(self.types))}{constants})"


INSERT_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, parent, created)", "itttiiittir"
)
# The fence, once more in the statement that writes: a row that is not the writer's any more does not change, and the
# count of changed rows tells.
ADVANCE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column3, cursor = new.column4 FROM (",
    "iiii",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 AND actor.owner = ?",
    alone="UPDATE actor SET tail = ?3, cursor = ?4 WHERE id = ?1 AND epoch = ?2 AND owner = ?5",
)
UPDATE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column4, cursor = new.column5, status = new.column6, reason = new.column7 FROM (",
    "iitiitt",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 "
    "AND coalesce(actor.owner, '') = coalesce(new.column3, '')",
    alone="UPDATE actor SET tail = ?4, cursor = ?5, status = ?6, reason = ?7 "
    "WHERE id = ?1 AND epoch = ?2 AND owner IS ?3",
)
MOVE_ACTORS = Statement(
    "UPDATE actor SET epoch = new.column2, owner = new.column3, tail = new.column4, cursor = new.column5, "
    "status = new.column6, reason = new.column7, offered = new.column8 FROM (",
    "iitiittt",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch <= new.column2",
    alone="UPDATE actor SET epoch = ?2, owner = ?3, tail = ?4, cursor = ?5, status = ?6, reason = ?7, offered = ?8 "
    "WHERE id = ?1 AND epoch <= ?2",
)
PUT_SNAPSHOTS = Statement(
    "INSERT INTO snapshot (actor, version, codec, state, initial)",
    "iittt",
    "ON CONFLICT (actor) DO UPDATE SET version = excluded.version, codec = excluded.codec, state = excluded.state, "
    "initial = coalesce(excluded.initial, snapshot.initial)",
)
INSERT_MESSAGES = Statement(
    "INSERT INTO message (seq, id, actor, number, handler, args, codec, chosen, cause, chain, sent, due, expires)",
    "itiitttiitrrr",
)
INSERT_PLAIN_MESSAGES = Statement(
    "INSERT INTO message (seq, id, actor, number, handler, args, sent, codec, chosen)",
    "itiittr",
    constants="'json', 0",
)
INSERT_OUTCOMES = Statement(
    "INSERT INTO outcome (message, status, result, error, changes, started, finished)", "ittttrr"
)
INSERT_SUCCESSES = Statement(
    "INSERT INTO outcome (message, result, changes, started, finished, status)", "ittrr", constants="'succeeded'"
)
PUT_TURNS = Statement(
    "INSERT INTO turn (message, attempts, blame, suspect, executing, retry_at, error)",
    "iiiitrt",
    "ON CONFLICT (message) DO UPDATE SET attempts = excluded.attempts, blame = excluded.blame, "
    "suspect = excluded.suspect, executing = excluded.executing, retry_at = excluded.retry_at, error = excluded.error",
)
_RECORD_AGAIN = (
    "ON CONFLICT (message, key) DO UPDATE SET digest = excluded.digest, status = excluded.status, "
    "attempt = excluded.attempt, position = excluded.position, result = excluded.result, error = excluded.error, "
    "target = excluded.target, due = excluded.due, started = excluded.started, finished = excluded.finished"
)
PUT_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, digest, status, attempt, position, result, error, target, due, "
    "started, finished)",
    "ittt" "btii" "tti" "rrr",
    _RECORD_AGAIN,
)  # fmt: skip
PUT_STARTED_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, digest, attempt, target, due, started, status)",
    "itttbiirr",
    _RECORD_AGAIN,
    constants="'started'",
)
PUT_COMPLETED_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, digest, attempt, position, result, started, finished, status)",
    "itttbiitrr",
    _RECORD_AGAIN,
    constants="'completed'",
)
COMPLETE_RECORDS = Statement(
    "UPDATE journal SET status = new.column3, result = new.column4, error = new.column5, finished = new.column6 FROM (",
    "ittttr",
    ") AS new WHERE journal.message = new.column1 AND journal.key = new.column2 AND journal.status = 'started'",
    alone="UPDATE journal SET status = ?3, result = ?4, error = ?5, finished = ?6 "
    "WHERE message = ?1 AND key = ?2 AND status = 'started'",
)
NUMBER_RECORDS = Statement(
    "UPDATE journal SET position = new.column3 FROM (",
    "iti",
    ") AS new WHERE journal.message = new.column1 AND journal.key = new.column2",
    alone="UPDATE journal SET position = ?3 WHERE message = ?1 AND key = ?2",
)
RENEW = (
    "UPDATE journal SET status = 'cancelled', position = 0, result = NULL, error = NULL, target = NULL, due = NULL "
    "WHERE "
)
"""What began is to begin anew: its key is kept, its result is not."""
RENEW_RECORDS = Statement(
    f"{RENEW}(message, key) IN (",
    "it",
    ")",
    alone=f"{RENEW}message = ? AND key = ?",
)


_OPEN = (None, None, None, None)
"""Position, result, error and end of a record that has none of them yet."""


def records(
    found: Iterable[tuple[tuple[int, str], Record]],
) -> Sequence[tuple[Statement, Sequence[Sequence[Value]]]]:
    """Rows of records, by message and key, with the narrowest statement that has room for each."""
    started: list[Sequence[Value]] = []
    completed: list[Sequence[Value]] = []
    others: list[Sequence[Value]] = []
    for (seq, _), r in found:
        if r.status == "completed" and r.error is None and r.target is None and r.due is None:
            completed.append(
                (seq, r.key, r.kind, r.name, r.digest, r.attempt, r.position, r.result, r.started, r.finished)
            )
        elif r.status == "started" and (r.position, r.result, r.error, r.finished) == _OPEN:
            started.append((seq, r.key, r.kind, r.name, r.digest, r.attempt, r.target, r.due, r.started))
        else:
            others.append((
                seq, r.key, r.kind, r.name, r.digest, r.status, r.attempt, r.position, r.result, r.error, r.target,
                r.due, r.started, r.finished,
            ))  # fmt: skip
    return (PUT_STARTED_RECORDS, started), (PUT_COMPLETED_RECORDS, completed), (PUT_RECORDS, others)


def completion(seq: int, key: str, outcome: Outcome, now: float) -> Sequence[Value]:
    """A row for `COMPLETE_RECORDS`."""
    if outcome.status == "succeeded":
        return seq, key, "completed", outcome.result, None, now
    return seq, key, "failed", outcome.result, told_failure(outcome.status, outcome.error), now
