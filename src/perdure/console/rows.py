"""The SQL of the read model: rows of one moment, as records."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import frozen

from perdure.storage.records import ActorStatus, Address, Life, OutcomeStatus, RecordKind, RecordStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.console.database import Moment

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
actor.id, actor.kind, actor.key, owner, epoch, tail(), cursor, status, reason, parent, created, life, restart_at,
(SELECT supervisor FROM child WHERE child.actor = actor.id)
"""
_RECORD = "key, kind, name, digest, status, attempt, position, result, error, target, due, started, finished"
_IDLE = "CASE WHEN cursor >= tail() AND status <> 'parked' AND life = 'running' THEN 1 ELSE 0 END"
_OPEN = "SELECT count(*) FROM journal WHERE journal.message = message.seq AND journal.status = 'started'"
_IS_HEAD = "outcome.status IS NULL AND number = actor.cursor + 1"
_PLACE = f"""
message.seq, message.id, actor.kind, actor.key, handler, number, outcome.status, actor.cursor, actor.status,
actor.owner, retry_at,
CASE WHEN {_IS_HEAD} THEN ({_OPEN} AND journal.kind = 'step' AND (journal.due IS NULL OR journal.due <= :now))
 ELSE 0 END,
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


_NAMED = "substr('.' || {0}, length({0}) - length(:error) + 1) = '.' || :error"
# A name ends a text in JSON: what has it nowhere at an end need not be parsed.
_IS_OF_CLASS = f"""
CASE WHEN replace(outcome.error, :end, '') <> outcome.error
 THEN EXISTS (SELECT 1 FROM members(outcome.error, lineage) AS base WHERE {_NAMED.format("base.value")})
  OR {_NAMED.format("member(outcome.error, type)")} ELSE FALSE END
"""  # noqa: S608  # constant condition


# nodes and actors -----------------------------------------------------------------------------------------------------


def nodes(moment: Moment, ids: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
    """Rows of `node`: those with these ids, or those that have not left."""
    which = "status = 'live'" if ids is None else "id IN (SELECT value FROM texts(:ids) AS given)"
    sql = f"""SELECT id, pid, host, python, version, started, status FROM node WHERE {which}
              ORDER BY started DESC, id LIMIT 1000"""  # noqa: S608  # one of two conditions
    return moment.fetch(sql, ids=list(ids or ()))


def actors(moment: Moment, kind: str | None, limit: int, after: tuple[bool, str, str] | None) -> list[ActorRow]:
    """Actors with mail or parked, then the others, each by kind and key; `after` is the last of the page before."""
    conditions = ["kind = :kind"] * (kind is not None)
    conditions += [f"({_IDLE}, kind, key) > (:idle, :after_kind, :after_key)"] * (after is not None)
    sql = f"""SELECT {_ACTOR} FROM actor WHERE {" AND ".join(conditions) or "1 = 1"}
              ORDER BY {_IDLE}, kind, key LIMIT :limit"""  # noqa: S608  # constant conditions
    idle, after_kind, after_key = after or (False, "", "")
    found = moment.fetch(sql, kind=kind, limit=limit, idle=int(idle), after_kind=after_kind, after_key=after_key)
    return [ActorRow(*row) for row in found]


def actor(moment: Moment, address: Address) -> ActorRow | None:
    """An actor by its address."""
    sql = f"SELECT {_ACTOR} FROM actor WHERE kind = :kind AND key = :key"  # noqa: S608  # constant columns
    found = moment.fetch(sql, kind=address.kind, key=address.key)
    return ActorRow(*found[0]) if found else None


def addresses(moment: Moment, numbers: Iterable[int]) -> dict[int, Address]:
    """Addresses of actors, by their rows' numbers."""
    sql = "SELECT id, kind, key FROM actor WHERE id IN (SELECT value FROM numbers(:ids) AS given)"
    return {id_: Address(kind, key) for id_, kind, key in moment.fetch(sql, ids=sorted(set(numbers)))}


def actor_counts(moment: Moment, kind: str | None) -> tuple[int, int, int, int]:
    """How many actors there are, how many have mail, are parked, have failed."""
    sql = f"""SELECT count(*), count(*) FILTER (WHERE cursor < tail()), count(*) FILTER (WHERE status = 'parked'),
              count(*) FILTER (WHERE life = 'failed')
              FROM actor{"" if kind is None else " WHERE kind = :kind"}"""  # noqa: S608  # constant condition
    ((total, busy, parked, failed),) = moment.fetch(sql, kind=kind)
    return total, busy, parked, failed


def delayed(moment: Moment) -> dict[int, int]:
    """How many messages that are not yet due each actor has."""
    sql = """SELECT actor, count(*) FROM (SELECT seq, actor FROM message WHERE number IS NULL LIMIT :limit) AS undue
             WHERE NOT EXISTS (SELECT 1 FROM outcome WHERE outcome.message = seq) GROUP BY actor"""
    return dict(moment.fetch(sql, limit=DELAYED_COUNTED))


def snapshot(moment: Moment, number: int) -> tuple[int, str, str, str | None] | None:
    """An actor's version, codec, state and initial state."""
    sql = "SELECT version, codec, state, initial FROM snapshot WHERE actor = :actor"
    found = moment.fetch(sql, actor=number)
    return found[0] if found else None


# messages -------------------------------------------------------------------------------------------------------------


def message(moment: Moment, id_: str, now: float) -> tuple[MessageRow, Content] | None:
    """A message by its id."""
    sql = f"SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.id = :id"  # noqa: S608  # constant columns
    found = _contents(moment.fetch(sql, id=id_, now=now))
    return found[0] if found else None


def heads(moment: Moment, numbers: Sequence[int], now: float) -> list[tuple[MessageRow, Content]]:
    """The messages at the heads of actors' mailboxes."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.seq IN (
              SELECT head.message FROM numbers(:ids) AS given CROSS JOIN actor ON actor.id = given.value
              CROSS JOIN mailbox() AS head ON head.actor = actor.id AND head.number = actor.cursor + 1)"""  # noqa: S608  # constant columns
    return _contents(moment.fetch(sql, ids=list(numbers), now=now))


def newest(moment: Moment, number: int, limit: int, now: float) -> list[tuple[MessageRow, Content]]:
    """An actor's newest messages in its mailbox, newest first."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.seq IN newest(:actor, :limit)
              ORDER BY number DESC"""  # noqa: S608  # constant columns
    return _contents(moment.fetch(sql, actor=number, limit=limit, now=now))


def undue(moment: Moment, number: int, limit: int, now: float) -> list[tuple[MessageRow, Content]]:
    """An actor's messages that are not yet due, soonest first."""
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.seq IN (
              SELECT seq FROM (SELECT seq, actor FROM message WHERE number IS NULL LIMIT {DELAYED_COUNTED}) AS undue
              WHERE undue.actor = :actor) AND outcome.status IS NULL ORDER BY message.due, message.seq LIMIT :limit"""  # noqa: S608  # constant columns
    return _contents(moment.fetch(sql, actor=number, limit=limit, now=now))


def dead(
    moment: Moment, error: str | None, limit: int, after: tuple[float, int] | None, now: float
) -> list[tuple[MessageRow, Content]]:
    """Dead letters, those first that died last; of one class of errors, if it is named.

    `after` is when the last of the page before died, and its number. Numbers alone are no order of time: processes are
    given blocks of them.
    """
    older = "" if after is None else " AND (finished, outcome.message) < (:finished, :before)"
    sql = f"""SELECT {_PLACE}, {_CONTENT} FROM {_MESSAGE} WHERE message.seq IN (
              SELECT outcome.message FROM outcome WHERE {_dead(error)}{older}
              ORDER BY finished DESC, outcome.message DESC LIMIT :limit)
              ORDER BY finished DESC, message.seq DESC"""  # noqa: S608  # constant columns and conditions
    finished, before = after or (0.0, 0)
    named = {"error": error, "end": _end(error)}
    return _contents(moment.fetch(sql, **named, limit=limit, finished=finished, before=before, now=now))


def dead_ids(moment: Moment, error: str | None) -> list[str]:
    """Ids of dead letters, in the order they were sent."""
    sql = f"""SELECT id FROM outcome JOIN message ON message.seq = outcome.message
              WHERE {_dead(error)} ORDER BY sent, seq"""  # noqa: S608  # constant condition
    return [id_ for (id_,) in moment.fetch(sql, error=error, end=_end(error))]


def dead_count(moment: Moment, error: str | None = None) -> int:
    """How many dead letters there are."""
    sql = f"SELECT count(*) FROM outcome WHERE {_dead(error)}"  # noqa: S608  # constant condition
    ((count,),) = moment.fetch(sql, error=error, end=_end(error))
    return int(count)


def _end(name: str | None) -> str:
    """How a text ends in JSON that ends with a name."""
    return json.dumps(name or "", ensure_ascii=False)[1:]


def _dead(error: str | None) -> str:
    return "outcome.status = 'dead'" + ("" if error is None else f" AND {_IS_OF_CLASS}")


def states(moment: Moment, ids: Sequence[str]) -> dict[str, OutcomeStatus | None]:
    """How messages ended, if they have, by their ids; those that are not there are left out."""
    sql = """SELECT id, status FROM message LEFT JOIN outcome ON outcome.message = message.seq
             WHERE id IN (SELECT value FROM texts(:ids) AS given)"""
    return dict(moment.fetch(sql, ids=list(ids)))


def _contents(found: list[Any]) -> list[tuple[MessageRow, Content]]:
    return [(MessageRow(*row[:_PLACES]), Content(*row[_PLACES:])) for row in found]


def places(moment: Moment, seqs: Iterable[int], now: float) -> dict[int, MessageRow]:
    """Messages by their numbers; those no longer kept are left out."""
    sql = f"""SELECT {_PLACE} FROM {_MESSAGE}
              WHERE message.seq IN (SELECT value FROM numbers(:seqs) AS given)"""  # noqa: S608  # constant columns
    return {row[0]: MessageRow(*row) for row in moment.fetch(sql, seqs=sorted(set(seqs)), now=now)}


def caused(moment: Moment, seq: int, limit: int) -> list[tuple[int, int, float]]:
    """Messages that one caused, and theirs, the nearest first: number, cause and when it was sent."""
    sql = """WITH RECURSIVE family (seq, cause, sent) AS (
             SELECT seq, cause, sent FROM message WHERE cause = :seq UNION ALL
             SELECT message.seq, message.cause, message.sent FROM family
             CROSS JOIN message ON message.cause = family.seq WHERE message.cause IS NOT NULL)
             SELECT seq, cause, sent FROM family LIMIT :limit"""
    return moment.fetch(sql, seq=seq, limit=limit)


# journals -------------------------------------------------------------------------------------------------------------


def records(moment: Moment, seq: int, limit: int, offset: int = 0) -> list[RecordRow]:
    """A turn's journal in order of start; items of one fan_out start at once, so then by their keys' numbers."""
    sql = f"""SELECT {_RECORD} FROM journal WHERE message = :seq
              ORDER BY started, length(key), key LIMIT :limit OFFSET :offset"""  # noqa: S608  # constant columns
    return [RecordRow(*row) for row in moment.fetch(sql, seq=seq, limit=limit, offset=offset)]


def begun(moment: Moment, seqs: Sequence[int]) -> dict[int, list[RecordRow]]:
    """What turns have begun and not ended, in order of start."""
    sql = f"""SELECT message, {_RECORD} FROM journal WHERE message IN (SELECT value FROM numbers(:seqs) AS given)
              AND status = 'started' AND kind <> 'value'
              ORDER BY message, started, length(key), key"""  # noqa: S608  # constant columns
    grouped: dict[int, list[RecordRow]] = {}
    for seq, *row in moment.fetch(sql, seqs=list(seqs)):
        grouped.setdefault(seq, []).append(RecordRow(*row))
    return grouped


def limits(moment: Moment, heads: Iterable[MessageRow]) -> dict[int, dict[str, int]]:
    """The limits that turns wait for where they run, and how many of their steps, or themselves, wait for each."""
    owners = {row.seq: row.owner for row in heads}
    sql = "SELECT name, node, waiting FROM slot WHERE node IN (SELECT value FROM texts(:nodes) AS given) ORDER BY name"
    waiting: dict[int, dict[str, int]] = {seq: {} for seq in owners}
    for name, node, messages in moment.fetch(sql, nodes=sorted({owner for owner in owners.values() if owner})):
        counted: Counter[int] = Counter(json.loads(messages))
        for seq, count in counted.items():
            if owners.get(seq) == node:
                waiting[seq][name] = count
    return waiting


def did(moment: Moment, seqs: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    """What turns did: kind, name, and how many succeeded, failed, are open; in order of the first start."""
    sql = """SELECT message, min(started), kind, name, count(*) FILTER (WHERE status = 'completed'),
             count(*) FILTER (WHERE status IN ('failed', 'cancelled')), count(*) FILTER (WHERE status = 'started')
             FROM journal WHERE message IN (SELECT value FROM numbers(:seqs) AS given) GROUP BY message, kind, name"""
    grouped: dict[int, list[tuple[Any, ...]]] = {}
    for seq, _, *counted in sorted(moment.fetch(sql, seqs=list(seqs))):
        grouped.setdefault(seq, []).append(tuple(counted))
    return grouped


# names for suggestions ------------------------------------------------------------------------------------------------


def kinds(moment: Moment) -> list[str]:
    """The kinds there are, each found by one step in the index."""
    sql = """WITH RECURSIVE known (kind) AS (SELECT min(kind) FROM actor UNION ALL
             SELECT (SELECT min(kind) FROM actor WHERE kind > known.kind) FROM known WHERE known.kind IS NOT NULL)
             SELECT kind FROM known WHERE kind IS NOT NULL LIMIT 1000"""
    return [kind for (kind,) in moment.fetch(sql)]


def keys(moment: Moment, kind: str) -> list[str]:
    """Keys of a kind."""
    sql = "SELECT key FROM actor WHERE kind = :kind ORDER BY key LIMIT :limit"
    return [key for (key,) in moment.fetch(sql, kind=kind, limit=NAMES_COMPARED)]


def addresses_with_key(moment: Moment, key: str) -> list[str]:
    """Addresses of up to three actors with a key, of whatever kind."""
    sql = "SELECT kind, key FROM actor WHERE key = :key ORDER BY kind LIMIT 3"
    return [f"{kind}/{found}" for kind, found in moment.fetch(sql, key=key)]


def ids(moment: Moment) -> list[str]:
    """Ids of the newest messages."""
    sql = "SELECT id FROM message ORDER BY seq DESC LIMIT :limit"
    return [id_ for (id_,) in moment.fetch(sql, limit=NAMES_COMPARED)]
