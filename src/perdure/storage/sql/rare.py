"""The writes that are rare: what fell due, a dead node's estate, old history, a stopped actor's mail.

They work on the tables directly; the transaction has put its rows down before, and forgets what it knew after.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perdure.errors import ActorStopped
from perdure.storage.failure import encode_failure
from perdure.storage.history_writes import Purged
from perdure.storage.records import Completion, Mail, Outcome
from perdure.storage.sql.held import is_held, no_reply
from perdure.storage.sql.nodes import resume
from perdure.storage.writes import Appended, Buried, Committed, Fired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perdure.storage.history_writes import Purge
    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.sql.connection import Connection
    from perdure.storage.sql.gather import Gathering
    from perdure.storage.writes import Bury, Due


_DELAYED = """
SELECT seq, id, actor, handler, args, codec, sent, cause, chain, expires FROM message
WHERE number IS NULL AND due <= ? ORDER BY due, seq LIMIT ?
"""
_SLEEPERS = """
SELECT DISTINCT actor.id FROM journal CROSS JOIN message ON message.seq = journal.message
JOIN actor ON actor.id = message.actor AND message.number = actor.cursor + 1
WHERE wakes <= ? AND actor.status = 'waiting' LIMIT ?
"""


def due(transaction: Gathering, write: Due) -> Fired:
    """Give delayed messages their numbers, and make evicted sleepers runnable."""
    connection = transaction.connection
    delayed = connection.fetch(_DELAYED, write.now, write.limit)
    while transaction.hold({actor for _, _, actor, *_ in delayed}):
        delayed = connection.fetch(_DELAYED, write.now, write.limit)
    appended: list[Appended] = []
    finished = Committed()
    for seq, id_, actor, handler, args, codec, sent, cause, chain, expires in delayed:
        row = transaction.row(actor)
        if row is None:
            continue
        row.tail += 1
        transaction.touch(row)
        connection.execute("UPDATE message SET number = ? WHERE seq = ?", row.tail, seq)
        if row.status == "stopped":
            row.cursor = row.tail
            outcome = _to_stopped(row, handler)
            transaction.end(seq, outcome, changes=None, started=None, finished=write.now)
            transaction.load_awaited([seq])
            transaction.complete(seq, outcome, finished)
            continue
        if is_held(row):  # it was not in the mailbox when those were told who waited for what was
            transaction.load_awaited([seq])
            transaction.complete(seq, no_reply(row, handler), finished)
        elif row.status == "ready":
            transaction.own(row)
        mail = Mail(seq, row.tail, id_, handler, args, codec, sent, cause, tuple(json.loads(chain or "[]")), expires)
        appended.append(Appended(transaction.place(row), mail))
    woken = list(finished.woken)
    sleepers = connection.fetch(_SLEEPERS, write.now, write.limit)
    transaction.hold(actor for (actor,) in sleepers)
    for (actor,) in sleepers:
        row = transaction.row(actor)
        if row is not None and row.status == "waiting":
            row.status = "ready"
            transaction.own(transaction.touch(row))
            woken.append(transaction.place(row))
    more = len(delayed) == write.limit or len(sleepers) == write.limit
    return Fired(tuple(appended), tuple(woken), more, tuple(finished.completions))


def dead_letter_rest(transaction: Gathering, row: ActorRow, done: Committed, now: float) -> None:
    """Dead-letter what a stopped actor had not handled."""
    sql = "SELECT seq, handler FROM mailbox() AS place CROSS JOIN message ON seq = place.message \
           WHERE place.actor = ? AND place.number > ? ORDER BY place.number"
    rest = transaction.connection.fetch(sql, row.id, row.cursor)
    transaction.load_awaited([seq for seq, _ in rest])
    told = list(done.ended)
    for seq, handler in rest:
        outcome = _to_stopped(row, handler)
        transaction.end(seq, outcome, changes=None, started=None, finished=now)
        told.append((seq, outcome))
        transaction.complete(seq, outcome, done)
    done.ended = told
    row.cursor = row.tail
    transaction.touch(row)


def _to_stopped(row: ActorRow, handler: str) -> Outcome:
    error = ActorStopped(f"{row.kind}/{row.key} has stopped; '{handler}' was not handled. Use another key.")
    return Outcome("dead", error=encode_failure(error, with_traceback=False))


_EXECUTING = """
SELECT turn.message, message.actor FROM turn JOIN message ON message.seq = turn.message WHERE executing = ?
"""
_BLAME = """
UPDATE turn SET blame = blame + 1, executing = NULL, suspect = 1
WHERE message IN (SELECT value FROM numbers(?) AS executing)
"""
_AWAKE = """
UPDATE actor SET status = 'ready' WHERE status = 'waiting' AND id IN (SELECT value FROM numbers(?) AS freed)
"""
_SUSPECT = """
INSERT INTO turn (message, suspect) SELECT head.message, 1 FROM numbers(?) AS freed
CROSS JOIN actor ON actor.id = freed.value JOIN mailbox() AS head ON head.actor = actor.id AND number = cursor + 1
WHERE actor.status = 'ready' ON CONFLICT (message) DO UPDATE SET suspect = 1
"""
_FREE = """
UPDATE actor SET owner = NULL, epoch = epoch + 1, tail = tail()
WHERE owner = ? AND id IN (SELECT value FROM numbers(?) AS freed)
"""
_BLAMED = """
SELECT message.id, message.seq, actor.id, actor.kind, actor.key, blame FROM numbers(?) AS blamed
CROSS JOIN turn ON turn.message = blamed.value JOIN message ON message.seq = turn.message
JOIN actor ON actor.id = message.actor WHERE message.number = actor.cursor + 1
"""
_CALLERS = """
SELECT journal.message, journal.key, message.actor FROM journal JOIN message ON message.seq = journal.message
WHERE awaits = ?
"""


def bury(transaction: Gathering, write: Bury, ended: Callable[[int, Outcome], None]) -> Buried:
    """End a dead node, or go on with that: blame what it was executing, suspect its mailboxes' heads, free its actors.

    It writes nothing after the first part of it, and so is given no actor either.
    """
    connection, node = transaction.connection, write.node
    owned = connection.fetch("SELECT id FROM actor WHERE owner = ? LIMIT ?", node, write.limit)
    actors, more = [actor for (actor,) in owned], len(owned) == write.limit
    transaction.hold(actors)
    executing = [seq for seq, actor in connection.fetch(_EXECUTING, node) if not more or actor in {*actors}]
    connection.execute(_BLAME, executing)
    connection.execute(_AWAKE, actors)  # who waited was in memory, and may have gone on
    connection.execute(_SUSPECT, actors)
    blamed = connection.fetch(_BLAMED, executing)
    dead = [row for row in blamed if row[5] >= write.deaths]
    completions: list[Completion] = []
    for id_, seq, actor, kind, key, blame in dead:
        text = f"its process died {blame} times while {kind}/{key} was handling '{id_}'"
        error = json.dumps({"type": "perdure.errors.DeadLetterError", "text": text})
        sql = "INSERT INTO outcome (message, status, error, finished) VALUES (?, 'dead', ?, ?)"
        connection.execute(sql, seq, error, write.now)
        connection.execute("UPDATE actor SET cursor = cursor + 1 WHERE id = ?", actor)
        completions.extend(_complete_callers(transaction, seq, error, write.now))
        ended(seq, Outcome("dead", error=error))
    freed = connection.execute(_FREE, node, actors)
    undertaker = transaction.node if more else None
    sql = "UPDATE node SET status = 'dead', ended = ?, undertaker = ? WHERE id = ?"
    connection.execute(sql, write.now, undertaker, node)
    connection.execute("DELETE FROM query WHERE asker = ?", node)
    connection.execute("DELETE FROM slot WHERE node = ?", node)
    if not more:
        resume(connection)  # it may be its code, and not that of who lives, that something does not fit
    return Buried(freed, tuple(row[0] for row in blamed), tuple(row[0] for row in dead), tuple(completions), more)


def _complete_callers(transaction: Gathering, seq: int, error: str, now: float) -> Iterator[Completion]:
    connection = transaction.connection
    told = json.dumps({**json.loads(error), "status": "dead"})
    callers = connection.fetch(_CALLERS, seq)
    if transaction.hold(actor for _, _, actor in callers):
        callers = connection.fetch(_CALLERS, seq)  # one may have given its ask up before it was held
    for message, key, actor in callers:
        sql = "UPDATE journal SET status = 'failed', error = ?, finished = ? WHERE message = ? AND key = ?"
        connection.execute(sql, told, now, message, key)
        connection.execute("UPDATE actor SET status = 'ready' WHERE id = ? AND status = 'waiting'", actor)
        yield Completion(actor, message, key, Outcome("dead", error=error))


# What is looked at: without a bound, whoever finds less than it may remove reads every message that is kept.
_WINDOW = """
SELECT count(*), max(message), min(finished), (SELECT max(message) FROM outcome) FROM
(SELECT message, finished FROM outcome WHERE message > ? AND status <> 'dead' ORDER BY message LIMIT ?) AS looked_at
"""
# Handled, below its actor's cursor, not a dead letter, and old enough or beyond what is kept. What a turn sent stays
# until that turn ends, what a dead letter sent as long as that: tried again, it may send the same under the same id.
_PURGEABLE = """
SELECT outcome.message FROM outcome JOIN message ON message.seq = outcome.message
JOIN actor ON actor.id = message.actor
WHERE outcome.message > ?5 AND outcome.message <= ?6 AND message.seq > ?5 AND message.seq <= ?6
  AND outcome.status <> 'dead' AND message.number <= actor.cursor AND finished < ?7
  AND NOT EXISTS (SELECT 1 FROM message AS causing LEFT JOIN outcome AS ending ON ending.message = causing.seq
      WHERE causing.seq = message.cause AND coalesce(ending.status, 'dead') = 'dead')
  AND CASE chosen WHEN 1 THEN finished < ?1
      ELSE finished < ?2 OR outcome.message <= ?3 END
ORDER BY outcome.message LIMIT ?4
"""


def purge(connection: Connection, write: Purge) -> Purged:
    """Remove handled messages, of those that are next. Processes that are gone as long go, too.

    Later messages end later, more or less: where none of those that are looked at is old, none of the rest is searched.
    """
    gone = min(write.history, write.recent)
    sql = "DELETE FROM node WHERE status <> 'live' AND undertaker IS NULL AND coalesce(ended, started) < ?"
    connection.execute(sql, gone)
    connection.execute("DELETE FROM query WHERE deadline < ?", gone)
    ((count, last, oldest, newest),) = connection.fetch(_WINDOW, write.after, write.looks)
    if count == 0:
        return Purged(0, None)
    beyond = newest - write.keep
    old = connection.fetch(_PURGEABLE, write.ids, write.history, beyond, write.limit, write.after, last, write.recent)
    removed = remove(connection, [seq for (seq,) in old])
    if len(old) == write.limit:
        return Purged(removed, write.after)
    ends = count < write.looks or oldest >= write.recent or (oldest >= write.history and last > beyond)
    return Purged(removed, None if ends else last)


def remove(connection: Connection, messages: Iterable[int]) -> int:
    """Remove messages with all that belongs to them; how many there were."""
    old = list(messages)
    connection.keep_numbers()
    for table in ("journal", "turn", "outcome", "failure"):
        sql = f"DELETE FROM {table} WHERE message IN (SELECT value FROM numbers(?) AS old)"  # noqa: S608  # constant names
        connection.execute(sql, old)
    return connection.execute("DELETE FROM message WHERE seq IN (SELECT value FROM numbers(?) AS old)", old)
