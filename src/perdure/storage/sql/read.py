"""What perdure reads, each in one short transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perdure.storage.failure import outcome_status
from perdure.storage.records import (
    Address,
    Completion,
    Found,
    Grown,
    Loaded,
    Mail,
    OpenAsk,
    Outcome,
    Record,
    Snapshot,
    TurnRecord,
)
from perdure.storage.sql.claims import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from perdure.storage.records import ActorStatus, Past
    from perdure.storage.sql.connection import Connection

_MAIL = """seq, message.number, message.id, handler, args, codec, sent, cause, chain, expires,
EXISTS (SELECT 1 FROM turn WHERE turn.message = seq) OR EXISTS (SELECT 1 FROM journal WHERE journal.message = seq)"""
_RECORD = "key, kind, name, started, digest, status, attempt, position, result, error, target, due, finished"


def load(connection: Connection, actors: Collection[int], limit: int) -> list[Loaded]:
    """See `Store.load`."""
    sql = "SELECT actor.id, kind, actor.key, epoch, cursor, tail(), status, version, codec, state \
           FROM numbers(?) AS wanted CROSS JOIN actor ON actor.id = wanted.value \
           LEFT JOIN snapshot ON snapshot.actor = actor.id"
    return [_loaded(connection, row, limit) for row in connection.fetch(sql, list(actors))]


def _loaded(
    connection: Connection,
    row: tuple[int, str, str, int, int, int, ActorStatus, int | None, str, str],
    limit: int,
) -> Loaded:
    actor, kind, key, epoch, cursor, tail, status, version, codec, state = row
    snapshot = Snapshot(version, codec, state) if version is not None else None
    waiting = mail(connection, actor, cursor, limit) if cursor < tail else []
    turn: TurnRecord | None = None
    records: list[Record] = []
    if waiting and waiting[0].number == cursor + 1:
        turn, records = past(connection, waiting[0].seq)
    return Loaded(actor, Address(kind, key), epoch, cursor, tail, status, snapshot, waiting, turn, records)


def mail(connection: Connection, actor: int, after: int, limit: int) -> list[Mail]:
    """See `Store.mail`."""
    sql = f"SELECT {_MAIL} FROM mailbox() AS place CROSS JOIN message ON seq = place.message \
            WHERE place.actor = ? AND place.number > ? ORDER BY place.number LIMIT ?"  # noqa: S608  # constant columns
    return [_mail(row) for row in connection.fetch(sql, actor, after, limit)]


def _mail(row: Sequence[Any]) -> Mail:
    seq, number, id_, handler, args, codec, sent, cause, chain, expires, past = row
    return Mail(
        seq, number, id_, handler, args, codec, sent, cause, tuple(json.loads(chain or "[]")), expires, bool(past)
    )


def past(connection: Connection, message: int) -> Past:
    """See `Store.past`."""
    turn = None
    columns = "attempts, blame, suspect, executing, retry_at, error, since"
    sql = f"SELECT {columns} FROM turn WHERE message = ?"  # noqa: S608  # constant columns
    for attempts, blame, suspect, executing, retry_at, error, since in connection.fetch(sql, message):
        turn = TurnRecord(attempts, blame, bool(suspect), executing, retry_at, error, since)
    sql = f"SELECT {_RECORD} FROM journal WHERE message = ?"  # noqa: S608  # constant columns
    return turn, [Record(*found) for found in connection.fetch(sql, message)]


def find_all(connection: Connection, ids: Collection[str]) -> Callable[[], list[tuple[str, Found]]]:
    """See `Store.find_all`."""
    sql = "SELECT message.id, seq, kind, actor.key, handler, number, outcome.status, result, outcome.error, cursor, \
           actor.status, EXISTS (SELECT 1 FROM journal WHERE journal.message = seq), life, reason \
           FROM texts(?) AS wanted CROSS JOIN message ON message.id = wanted.value \
           JOIN actor ON actor.id = message.actor LEFT JOIN outcome ON outcome.message = seq"
    rows = connection.ahead(sql, list(ids))
    return lambda: [_found(row) for row in rows()]


def _found(columns: Sequence[Any]) -> tuple[str, Found]:
    id_, seq, kind, key, handler, number, status, result, error, cursor, actor_status, begun, life, reason = columns
    outcome = Outcome(status, result, error) if status is not None else None
    actor = Address(kind, key)
    return id_, Found(seq, actor, handler, number, outcome, cursor, actor_status, bool(begun), life, reason)


def completed(connection: Connection, messages: Collection[int]) -> Callable[[], list[Completion]]:
    """See `Store.completed`."""
    sql = "SELECT message.actor, journal.message, key, status, result, error FROM journal \
           JOIN message ON seq = journal.message WHERE journal.message IN (SELECT value FROM numbers(?) AS wanted) \
           AND position IS NULL AND status IN ('completed', 'failed') AND kind IN ('ask', 'receipt')"
    rows = connection.ahead(sql, list(messages))
    return lambda: [
        Completion(
            actor, message, key, Outcome("succeeded" if status == "completed" else outcome_status(error), result, error)
        )
        for actor, message, key, status, result, error in rows()
    ]


def next_due(connection: Connection) -> float | None:
    """See `Store.next_due`."""
    sql = "SELECT min(due) FROM (SELECT min(due) AS due FROM message WHERE number IS NULL UNION ALL \
           SELECT min(wakes) FROM actor CROSS JOIN mailbox() AS head ON head.actor = actor.id AND number = cursor + 1 \
           JOIN journal ON journal.message = head.message \
           WHERE actor.status = 'waiting' AND wakes IS NOT NULL) AS timer"
    ((due,),) = connection.fetch(sql)
    return None if due is None else float(due)


def grown(connection: Connection, known: Collection[tuple[int, int]], limit: int) -> Callable[[], list[Grown]]:
    """See `Store.grown`."""
    sql = f"""
    WITH grown AS MATERIALIZED (
        SELECT actor.id, tail() AS tail, CAST(b AS BIGINT) AS known FROM pairs(?) AS wanted
        CROSS JOIN actor ON actor.id = CAST(a AS BIGINT) WHERE tail() > CAST(b AS BIGINT)
    )
    SELECT grown.id, tail, {_MAIL} FROM grown
    CROSS JOIN mailbox() AS place ON place.actor = grown.id AND place.number > known AND place.number <= known + ?
    CROSS JOIN message ON seq = place.message ORDER BY grown.id, place.number
    """  # noqa: S608  # constant columns
    rows = connection.ahead(sql, json.dumps(list(known)), limit)

    def answer() -> list[Grown]:
        found: dict[int, Grown] = {}
        for actor, tail, *row in rows():
            found.setdefault(actor, Grown(actor, tail, [])).mail.append(_mail(row))
        return list(found.values())

    return answer


def elsewhere(connection: Connection, node: str, actors: Collection[int]) -> list[int]:
    """See `Store.elsewhere`."""
    sql = "SELECT id FROM actor WHERE id IN (SELECT value FROM numbers(?) AS wanted) AND owner <> ?"
    return [actor for (actor,) in connection.fetch(sql, list(actors), node)]


def open_asks(connection: Connection, actor: int) -> list[OpenAsk]:
    """See `Store.open_asks`."""
    sql = """
    WITH RECURSIVE edge (caller, callee, message, key, started) AS (
        SELECT caller.id, asked.actor, head.message, journal.key, journal.started FROM actor AS caller
        JOIN mailbox() AS head ON head.actor = caller.id AND head.number = caller.cursor + 1
        JOIN journal ON journal.message = head.message
        JOIN message AS asked ON asked.seq = journal.target
        WHERE caller.id = ? AND journal.kind IN ('ask', 'receipt')
            AND journal.status = 'started' AND journal.due IS NULL
        UNION
        SELECT caller.id, asked.actor, head.message, journal.key, journal.started FROM edge
        JOIN actor AS caller ON caller.id = edge.callee
        JOIN mailbox() AS head ON head.actor = caller.id AND head.number = caller.cursor + 1
        JOIN journal ON journal.message = head.message
        JOIN message AS asked ON asked.seq = journal.target
        WHERE journal.kind IN ('ask', 'receipt') AND journal.status = 'started' AND journal.due IS NULL
    )
    SELECT a.kind, a.key, b.kind, b.key, message, edge.key, edge.started FROM edge
    JOIN actor AS a ON a.id = caller JOIN actor AS b ON b.id = callee LIMIT 10000
    """
    return [
        OpenAsk(Address(ak, a), Address(bk, b), message, key, started)
        for ak, a, bk, b, message, key, started in connection.fetch(sql, actor)
    ]


def unknown_kinds(connection: Connection, me: str, kinds: Collection[str]) -> list[tuple[str, int]]:
    """See `Store.unknown_kinds`."""
    sql = f"SELECT kind, count(*) FROM actor WHERE {FREE} \
            AND kind NOT IN (SELECT value FROM texts(?) AS known) GROUP BY kind"  # noqa: S608  # constant parts
    return [(kind, count) for kind, count in connection.fetch(sql, me, list(kinds))]
