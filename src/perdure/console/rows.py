"""The SQL of the read model: rows of one open read transaction, as records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

from perdure.storage.records import ActorStatus, Address, Life, OutcomeStatus, RecordKind, RecordStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

DELAYED_COUNTED = 100_000
"""Delayed messages that are counted; they have an index by time alone."""

NAMES_COMPARED = 5_000
"""Names that an unknown one is compared with."""


@frozen
class ActorRow:
    """A row of `actor`."""

    id: int
    kind: str
    key: str
    owner: str | None
    epoch: int
    tail: int
    cursor: int
    status: ActorStatus
    reason: str | None
    parent: int | None
    created: float
    life: Life
    restart_at: float | None
    supervisor: int | None


@frozen
class MessageRow:
    """A row of `message` with its outcome, its turn, its actor and what of its journal is open."""

    seq: int
    id: str
    kind: str
    key: str
    handler: str
    number: int | None
    outcome: OutcomeStatus | None
    cursor: int
    actor_status: ActorStatus
    owner: str | None
    retry_at: float | None
    steps: int
    waits: int
    reason: str | None
    life: Life
    restart_at: float | None

    @property
    def is_head(self) -> bool:
        """Whether it is its actor's to handle now."""
        return self.outcome is None and self.number == self.cursor + 1


@frozen
class Content:
    """The rest of a message: what it carried and what came of it."""

    args: str
    codec: str
    sent: float
    due: float | None
    expires: float | None
    cause: int | None
    chain: str | None
    result: str | None
    error: str | None
    changes: str | None
    started: float | None
    finished: float | None
    attempts: int
    blame: int
    failure: str | None
    begun: float | None


@frozen
class RecordRow:
    """A row of `journal`."""

    key: str
    kind: RecordKind
    name: str
    digest: bytes | None
    status: RecordStatus
    attempt: int
    position: int | None
    result: str | None
    error: str | None
    target: int | None
    due: float | None
    started: float
    finished: float | None


_ACTOR = """
actor.id, actor.kind, actor.key, owner, epoch, tail, cursor, status, reason, parent, created, life, restart_at,
(SELECT supervisor FROM child WHERE child.actor = actor.id)
"""
_RECORD = "key, kind, name, digest, status, attempt, position, result, error, target, due, started, finished"
_IDLE = "(cursor >= tail AND status <> 'parked' AND life = 'running')"
_OPEN = "SELECT count(*) FROM journal WHERE journal.message = message.seq AND journal.status = 'started'"
_IS_HEAD = "outcome.status IS NULL AND number = actor.cursor + 1"
_PLACE = f"""
message.seq, message.id, actor.kind, actor.key, handler, number, outcome.status, actor.cursor, actor.status,
actor.owner, retry_at,
CASE WHEN {_IS_HEAD} THEN ({_OPEN} AND journal.kind = 'step' AND coalesce(journal.due <= :now, 1)) ELSE 0 END,
CASE WHEN {_IS_HEAD} THEN ({_OPEN} AND journal.kind IN ('ask', 'receipt', 'sleep')) ELSE 0 END,
actor.reason, actor.life, actor.restart_at
"""
_PLACES = 16  # columns of _PLACE
_CONTENT = """
args, codec, sent, message.due, expires, cause, chain, result, outcome.error, changes, outcome.started, finished,
coalesce(attempts, 0), coalesce(blame, 0), turn.error,
(SELECT min(journal.started) FROM journal WHERE journal.message = message.seq)
"""
_MESSAGE = """
message JOIN actor ON actor.id = message.actor LEFT JOIN outcome ON outcome.message = message.seq
LEFT JOIN turn ON turn.message = message.seq
"""


_NAMED = "({0} = :error OR substr({0}, -length(:error) - 1) = '.' || :error)"
_LINEAGE = "json_each(outcome.error, '$.lineage') AS base"
_OF_CLASS = f"""
(:error IS NULL OR CASE WHEN json_valid(outcome.error) THEN {_NAMED.format("outcome.error ->> '$.type'")}
 OR EXISTS (SELECT 1 FROM {_LINEAGE} WHERE {_NAMED.format("base.value")}) ELSE 0 END)
"""  # noqa: S608  # constant condition


def fetch(connection: sqlite3.Connection, sql: str, **parameters: Any) -> list[Any]:  # noqa: ANN401  # what SQLite stores
    """All rows of a query."""
    return connection.execute(sql, parameters).fetchall()


# nodes and actors -----------------------------------------------------------------------------------------------------


def nodes(connection: sqlite3.Connection, ids: Iterable[str] | None = None) -> list[tuple[Any, ...]]:
    """Rows of `node`: those with these ids, or those that have not left."""
    sql = """SELECT id, pid, host, python, version, started, status FROM node WHERE CASE WHEN :ids IS NULL
             THEN status = 'live' ELSE id IN (SELECT value FROM json_each(:ids)) END ORDER BY started DESC LIMIT 1000"""
    return fetch(connection, sql, ids=None if ids is None else json.dumps(list(ids)))


def actors(
    connection: sqlite3.Connection, kind: str | None, limit: int, after: tuple[bool, str, str] | None
) -> list[ActorRow]:
    """Actors with mail or parked, then the others, each by kind and key; `after` is the last of the page before."""
    sql = f"""SELECT {_ACTOR} FROM actor WHERE (:kind IS NULL OR kind = :kind)
              AND (:after_kind IS NULL OR ({_IDLE}, kind, key) > (:idle, :after_kind, :after_key))
              ORDER BY {_IDLE}, kind, key LIMIT :limit"""  # noqa: S608  # constant columns
    idle, after_kind, after_key = after or (None, None, None)
    found = fetch(connection, sql, kind=kind, limit=limit, idle=idle, after_kind=after_kind, after_key=after_key)
    return [ActorRow(*row) for row in found]


def actor(connection: sqlite3.Connection, address: Address) -> ActorRow | None:
    """An actor by its address."""
    sql = f"SELECT {_ACTOR} FROM actor WHERE kind = :kind AND key = :key"  # noqa: S608  # constant columns
    found = fetch(connection, sql, kind=address.kind, key=address.key)
    return ActorRow(*found[0]) if found else None


def actor_numbered(connection: sqlite3.Connection, number: int) -> ActorRow | None:
    """An actor by its row's number."""
    found = fetch(connection, f"SELECT {_ACTOR} FROM actor WHERE id = :id", id=number)  # noqa: S608  # constant columns
    return ActorRow(*found[0]) if found else None


def actor_counts(connection: sqlite3.Connection, kind: str | None) -> tuple[int, int, int, int]:
    """How many actors there are, how many have mail, are parked, have failed."""
    sql = """SELECT count(*), coalesce(sum(cursor < tail), 0), coalesce(sum(status = 'parked'), 0),
             coalesce(sum(life = 'failed'), 0) FROM actor WHERE :kind IS NULL OR kind = :kind"""
    ((total, busy, parked, failed),) = fetch(connection, sql, kind=kind)
    return total, busy, parked, failed


def delayed(connection: sqlite3.Connection) -> dict[int, int]:
    """How many messages that are not yet due each actor has."""
    sql = """SELECT actor, count(*) FROM (SELECT seq, actor FROM message WHERE number IS NULL LIMIT :limit)
             WHERE NOT EXISTS (SELECT 1 FROM outcome WHERE outcome.message = seq) GROUP BY actor"""
    return dict(fetch(connection, sql, limit=DELAYED_COUNTED))


def snapshot(connection: sqlite3.Connection, number: int) -> tuple[int, str, str, str | None] | None:
    """An actor's version, codec, state and initial state."""
    sql = "SELECT version, codec, state, initial FROM snapshot WHERE actor = :actor"
    found = fetch(connection, sql, actor=number)
    return found[0] if found else None


# messages -------------------------------------------------------------------------------------------------------------


def message(connection: sqlite3.Connection, id_: str, now: float) -> tuple[MessageRow, Content] | None:
    """A message by its id."""
    sql = f"SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.id = :id"  # noqa: S608  # constant columns
    found = _contents(fetch(connection, sql, id=id_, now=now))
    return found[0] if found else None


def head(connection: sqlite3.Connection, row: ActorRow, now: float) -> tuple[MessageRow, Content] | None:
    """The message at the head of a mailbox."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE}
              WHERE message.actor = :actor AND number = :number"""  # noqa: S608  # constant columns
    found = _contents(fetch(connection, sql, actor=row.id, number=row.cursor + 1, now=now))
    return found[0] if found else None


def newest(connection: sqlite3.Connection, number: int, limit: int, now: float) -> list[tuple[MessageRow, Content]]:
    """An actor's newest messages in its mailbox, newest first."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.actor = :actor AND number IS NOT NULL
              ORDER BY number DESC LIMIT :limit"""  # noqa: S608  # constant columns
    return _contents(fetch(connection, sql, actor=number, limit=limit, now=now))


def undue(connection: sqlite3.Connection, number: int, limit: int, now: float) -> list[tuple[MessageRow, Content]]:
    """An actor's messages that are not yet due, soonest first."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.seq IN (
              SELECT seq FROM (SELECT seq, actor FROM message WHERE number IS NULL LIMIT {DELAYED_COUNTED})
              WHERE actor = :actor) AND outcome.status IS NULL ORDER BY message.due, message.seq LIMIT :limit"""  # noqa: S608  # constant columns
    return _contents(fetch(connection, sql, actor=number, limit=limit, now=now))


def dead(
    connection: sqlite3.Connection, error: str | None, limit: int, before: int | None, now: float
) -> list[tuple[MessageRow, Content]]:
    """Dead letters, newest first, older than message number `before`; of one class of errors, if it is named."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE outcome.status = 'dead' AND {_OF_CLASS}
              AND (:before IS NULL OR outcome.message < :before)
              ORDER BY outcome.message DESC LIMIT :limit"""  # noqa: S608  # constant columns
    return _contents(fetch(connection, sql, error=error, limit=limit, before=before, now=now))


def dead_ids(connection: sqlite3.Connection, error: str | None) -> list[str]:
    """Ids of dead letters, oldest first."""
    sql = f"""SELECT id FROM outcome JOIN message ON message.seq = outcome.message
              WHERE outcome.status = 'dead' AND {_OF_CLASS} ORDER BY outcome.message"""  # noqa: S608  # constant condition
    return [id_ for (id_,) in fetch(connection, sql, error=error)]


def dead_count(connection: sqlite3.Connection, error: str | None = None) -> int:
    """How many dead letters there are."""
    sql = f"SELECT count(*) FROM outcome WHERE outcome.status = 'dead' AND {_OF_CLASS}"  # noqa: S608  # constant condition
    ((count,),) = fetch(connection, sql, error=error)
    return int(count)


def states(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, OutcomeStatus | None]:
    """How messages ended, if they have, by their ids; those that are not there are left out."""
    sql = """SELECT id, status FROM message LEFT JOIN outcome ON outcome.message = message.seq
             WHERE id IN (SELECT value FROM json_each(:ids))"""
    return dict(fetch(connection, sql, ids=json.dumps(list(ids))))


def _contents(found: list[Any]) -> list[tuple[MessageRow, Content]]:
    return [(MessageRow(*row[:_PLACES]), Content(*row[_PLACES:])) for row in found]


def places(connection: sqlite3.Connection, seqs: Iterable[int], now: float) -> dict[int, MessageRow]:
    """Messages by their numbers; those no longer kept are left out."""
    sql = f"""SELECT {_PLACE} FROM {_MESSAGE}
              WHERE message.seq IN (SELECT value FROM json_each(:seqs))"""  # noqa: S608  # constant columns
    return {row[0]: MessageRow(*row) for row in fetch(connection, sql, seqs=json.dumps(sorted(set(seqs))), now=now)}


def sent_after(
    connection: sqlite3.Connection, seq: int, limit: int
) -> list[tuple[int, int | None, float, float | None]]:
    """The messages after one, in order: number, cause, when sent and when ended."""
    sql = """SELECT seq, cause, sent, finished FROM message LEFT JOIN outcome ON outcome.message = seq
             WHERE seq > :seq ORDER BY seq LIMIT :limit"""
    return fetch(connection, sql, seq=seq, limit=limit)


# journals -------------------------------------------------------------------------------------------------------------


def records(connection: sqlite3.Connection, seq: int, limit: int, offset: int = 0) -> list[RecordRow]:
    """A turn's journal in order of start; items of one fan_out start at once, so then by their keys' numbers."""
    sql = f"""SELECT {_RECORD} FROM journal WHERE message = :seq
              ORDER BY started, length(key), key LIMIT :limit OFFSET :offset"""  # noqa: S608  # constant columns
    return [RecordRow(*row) for row in fetch(connection, sql, seq=seq, limit=limit, offset=offset)]


def begun(connection: sqlite3.Connection, seq: int) -> list[RecordRow]:
    """What a turn has begun and not ended, in order of start."""
    sql = f"""SELECT {_RECORD} FROM journal WHERE message = :seq AND status = 'started' AND kind <> 'value'
              ORDER BY started, length(key), key"""  # noqa: S608  # constant columns
    return [RecordRow(*row) for row in fetch(connection, sql, seq=seq)]


def limits(connection: sqlite3.Connection, seq: int, node: str | None) -> dict[str, int]:
    """The limits that a turn waits for where it runs, and how many of its steps, or itself, wait for each."""
    sql = """SELECT slot.name, count(*) FROM slot, json_each(slot.waiting) AS one
             WHERE slot.node = :node AND one.value = :seq GROUP BY slot.name ORDER BY slot.name"""
    return dict(fetch(connection, sql, seq=seq, node=node))


def did(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    """What turns did: kind, name, and how many succeeded, failed, are open; in order of the first start."""
    sql = """SELECT message, kind, name, sum(status = 'completed'), sum(status IN ('failed', 'cancelled')),
             sum(status = 'started') FROM journal WHERE message IN (SELECT value FROM json_each(:seqs))
             GROUP BY message, kind, name ORDER BY message, min(started), kind, name"""
    grouped: dict[int, list[tuple[Any, ...]]] = {}
    for seq, *counted in fetch(connection, sql, seqs=json.dumps(list(seqs))):
        grouped.setdefault(seq, []).append(tuple(counted))
    return grouped


# names for suggestions ------------------------------------------------------------------------------------------------


def kinds(connection: sqlite3.Connection) -> list[str]:
    """The kinds there are, each found by one step in the index."""
    sql = """WITH RECURSIVE known (kind) AS (SELECT min(kind) FROM actor UNION ALL
             SELECT (SELECT min(kind) FROM actor WHERE kind > known.kind) FROM known WHERE known.kind IS NOT NULL)
             SELECT kind FROM known WHERE kind IS NOT NULL LIMIT 1000"""
    return [kind for (kind,) in fetch(connection, sql)]


def keys(connection: sqlite3.Connection, kind: str) -> list[str]:
    """Keys of a kind."""
    sql = "SELECT key FROM actor WHERE kind = :kind ORDER BY key LIMIT :limit"
    return [key for (key,) in fetch(connection, sql, kind=kind, limit=NAMES_COMPARED)]


def addresses_with_key(connection: sqlite3.Connection, key: str) -> list[str]:
    """Addresses of up to three actors with a key, of whatever kind."""
    sql = "SELECT kind, key FROM actor WHERE key = :key LIMIT 3"
    return [f"{kind}/{found}" for kind, found in fetch(connection, sql, key=key)]


def ids(connection: sqlite3.Connection) -> list[str]:
    """Ids of the newest messages."""
    sql = "SELECT id FROM message ORDER BY seq DESC LIMIT :limit"
    return [id_ for (id_,) in fetch(connection, sql, limit=NAMES_COMPARED)]
