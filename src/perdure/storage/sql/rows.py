"""Many rows in few statements.

Python releases its global lock around every step of a statement, and a busy event loop may keep it for milliseconds
each time. So a batch writes its rows with multi-row statements: a few steps a batch, not one a row.
"""

from __future__ import annotations


class Statement:
    """A statement over rows of values; what follows may take parameters of its own.

    Every column costs a quarter of a microsecond a row: rows that are mostly constants have a statement of their own.

    Args:
        before: What stands before the rows.
        types: A letter for each column: `i` integer, `r` real, `t` text, `b` bytes. The columns of rows that stand in
            parentheses are called `column1`, `column2`, ….
        after: What follows the rows.
        constants: Columns that are the same in every row, behind the others.
    """

    __slots__ = ("after", "before", "constants", "types")

    def __init__(self, before: str, types: str, after: str = "", *, constants: str = "") -> None:
        self.before = before
        self.types = types
        self.after = after
        self.constants = constants

    def __repr__(self) -> str:
        return f"<Statement {self.before}>"


INSERT_ACTORS = Statement(
    "INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, status, reason, parent, created)", "itttiiittir"
)
# The fence, once more in the statement that writes: a row that is not the writer's any more does not change, and the
# count of changed rows tells.
ADVANCE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column3, cursor = new.column4 FROM (",
    "iiii",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 AND actor.owner = ?",
)
UPDATE_ACTORS = Statement(
    "UPDATE actor SET tail = new.column4, cursor = new.column5, status = new.column6, reason = new.column7 FROM (",
    "iitiitt",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch = new.column2 "
    "AND coalesce(actor.owner, '') = coalesce(new.column3, '')",
)
MOVE_ACTORS = Statement(
    "UPDATE actor SET epoch = new.column2, owner = new.column3, tail = new.column4, cursor = new.column5, "
    "status = new.column6, reason = new.column7, offered = new.column8 FROM (",
    "iitiittt",
    ") AS new WHERE actor.id = new.column1 AND actor.epoch <= new.column2",
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
PUT_RECORDS = Statement(
    "INSERT INTO journal (message, key, kind, name, digest, status, attempt, position, result, error, target, due, "
    "started, finished)",
    "ittt" "btii" "tti" "rrr",
    "ON CONFLICT (message, key) DO UPDATE SET digest = excluded.digest, status = excluded.status, "
    "attempt = excluded.attempt, position = excluded.position, result = excluded.result, error = excluded.error, "
    "target = excluded.target, due = excluded.due, finished = excluded.finished",
)  # fmt: skip
COMPLETE_RECORDS = Statement(
    "UPDATE journal SET status = new.column3, result = new.column4, error = new.column5, finished = new.column6 FROM (",
    "ittttr",
    ") AS new WHERE journal.message = new.column1 AND journal.key = new.column2 AND journal.status = 'started'",
)
NUMBER_RECORDS = Statement(
    "UPDATE journal SET position = new.column3 FROM (",
    "iti",
    ") AS new WHERE journal.message = new.column1 AND journal.key = new.column2",
)
ERASE_RECORDS = Statement("DELETE FROM journal WHERE (message, key) IN (", "it", ")")
