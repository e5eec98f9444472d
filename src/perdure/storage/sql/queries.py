"""Queries between nodes: asked, answered, heard; each a row that lives for as long as somebody waits.

    Inquire ──► row ──► its actor's owner answers it ──► whoever asked reads it ──► Heard: removed

A query may be lost with the process that was to answer it; whoever asked asks again, and the row stays the same. An
actor's row is not locked for it: that it is looked at costs its owner nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.errors import ActorFailed, ActorStopped
from perdure.storage.hints import ANYBODY
from perdure.storage.query_writes import Answer, Heard, Inquire
from perdure.storage.records import Address, Answered, OpenQuery, Whereabouts
from perdure.storage.sql.claims import NOT_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.errors import PerdureError
    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.sql.connection import Connection
    from perdure.storage.sql.gather import Gathering
    from perdure.storage.writes import Settled

_INSERT = """
INSERT INTO query (id, actor, name, args, asker, deadline) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
_ANSWER = """
UPDATE query SET answered = 1, result = ?, error = ? WHERE id = ? AND answered = 0
AND actor IN (SELECT id FROM actor WHERE id = ? AND owner = ? AND epoch = ?)
"""
_OPEN = f"""
SELECT query.id, kind, actor.key, name, args, asker FROM query JOIN actor ON actor.id = query.actor
WHERE answered = 0 AND (owner = ? OR owner IS NULL AND actor.status NOT IN ('parked', 'stopped') AND life = 'running'
                        AND {NOT_KEPT} AND kind IN (SELECT value FROM texts(?) AS known))
ORDER BY deadline, query.id LIMIT ?
"""  # noqa: S608  # constant parts


def inquire(transaction: Gathering, write: Inquire) -> Settled:
    """Settle a query that this node cannot answer from memory."""
    row = transaction.glance(write.to)
    if row is None:
        return False
    refusal = _refusal(row)
    if refusal is not None:
        return refusal
    if row.owner is None and row.status == "parked":
        return transaction.place(row)
    if row.owner is None and transaction.runs(row.kind):
        row = transaction.row_at(write.to) or row
        transaction.own(row)
    place = transaction.place(row)
    if place.epoch is not None:
        return place
    transaction.news.nodes.add(row.owner or ANYBODY)
    w = write
    transaction.connection.execute(_INSERT, w.id, row.id, w.name, w.args, transaction.node, w.deadline)
    return True


def _refusal(row: ActorRow) -> PerdureError | None:
    if row.life == "restarting":
        return ActorStopped(f"{row.address} is being restarted. Ask it again.")
    if row.life == "running" and row.status != "stopped":
        return None
    return (ActorFailed if row.life == "failed" else ActorStopped)(f"{row.address} does not run: {row.reason}.")


def answer(transaction: Gathering, write: Answer) -> bool:
    """Settle an answer, which counts if the actor is still this node's."""
    w, connection = write, transaction.connection
    if not connection.execute(_ANSWER, w.result, w.error, w.id, w.actor, transaction.node, w.epoch):
        return False
    transaction.news.nodes.add(w.asker)
    return True


def heard(transaction: Gathering, write: Heard) -> int:
    """Settle that queries are over."""
    sql = "DELETE FROM query WHERE asker = ? AND id IN (SELECT value FROM texts(?) AS over)"
    return transaction.connection.execute(sql, transaction.node, list(write.queries))


SETTLE: dict[type, Callable[[Any, Any], Settled]] = {Inquire: inquire, Answer: answer, Heard: heard}


def unanswered(connection: Connection, me: str, kinds: Collection[str], limit: int) -> list[OpenQuery]:
    """See `Store.open_queries`."""
    return [
        OpenQuery(id_, Address(kind, key), name, args, asker)
        for id_, kind, key, name, args, asker in connection.fetch(_OPEN, me, me, list(kinds), limit)
    ]


def answered(connection: Connection, me: str) -> list[Answered]:
    """See `Store.answered`."""
    sql = "SELECT id, result, error FROM query WHERE asker = ? AND answered = 1"
    return [Answered(*found) for found in connection.fetch(sql, me)]


def whereabouts(connection: Connection, actor: Address) -> Whereabouts:
    """See `Store.whereabouts`."""
    sql = "SELECT owner, runnable() FROM actor \
           WHERE kind = ? AND actor.key = ?"
    owner, runnable = next(iter(connection.fetch(sql, *actor)), (None, False))
    runners = connection.fetch("SELECT id FROM node WHERE status = 'live' AND runs = 1 ORDER BY id")
    return Whereabouts(owner, bool(runnable), tuple(id_ for (id_,) in runners))
