"""Who takes the actors that nobody has: whoever runs them, or the one that they are offered to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.storage.hints import ANYBODY
from perdure.storage.offer_writes import Offer, Take, Withdraw
from perdure.storage.writes import Claim, Claimed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.sql.connection import Connection
    from perdure.storage.sql.gather import Gathering
    from perdure.storage.writes import Placed, Settled

NOT_KEPT = "(offered IS NULL OR offered = ? OR offered NOT IN (SELECT id FROM node WHERE status = 'live'))"
"""What is not kept from one node, the parameter; an offer to a node that has left or died keeps nobody away."""

FREE = f"runnable() AND {NOT_KEPT}"
"""What one node, the parameter, may claim."""

_CLAIMABLE = f"""SELECT id FROM actor WHERE {FREE}
AND kind IN (SELECT value FROM texts(?) AS wanted) LIMIT ? /* lock, skip */"""  # noqa: S608  # constant parts
_OFFERED = "SELECT id FROM actor WHERE offered = ? AND owner IS NULL ORDER BY id LIMIT ?"
_LOADS = """
SELECT owner, count(*) FROM actor WHERE owner IS NOT NULL GROUP BY owner UNION ALL
SELECT offered, count(*) FROM actor WHERE offered IS NOT NULL GROUP BY offered
"""
_MANY = 1_000


def claim(transaction: Gathering, write: Claim) -> Claimed:
    """Settle a claim."""
    if write.only is not None:
        row = transaction.row_at(write.only)
        if row is not None and row.status != "stopped":
            transaction.own(row)
        return Claimed((transaction.place(row),) if row is not None else ())
    found = transaction.connection.fetch(_CLAIMABLE, transaction.node, list(write.kinds), write.limit)
    return _owned(transaction, (row for row in _held(transaction, found) if row.status == "ready"))


def offer(transaction: Gathering, write: Offer) -> int:
    """Settle that actors are given up for another node."""
    sql = "SELECT 1 FROM node WHERE id = ? AND status = 'live' AND runs = 1 AND draining = 0"
    if not transaction.connection.fetch(sql, write.to):
        return 0
    given = 0
    for actor, epoch in write.actors:
        row = transaction.row(actor)
        if row is None or row.owner != transaction.node or row.epoch != epoch:
            continue
        row.owner, row.moved = None, True
        if row.life != "running":
            transaction.news.nodes.add(ANYBODY)  # who carries the order out waits for it
        elif row.status == "ready":
            row.offered = write.to
        transaction.touch(row)
        given += 1
    transaction.news.nodes.add(write.to)
    return given


def take(transaction: Gathering, write: Take) -> Claimed:
    """Settle that a node takes what it is offered."""
    found = transaction.connection.fetch(f"{_OFFERED} /* lock, skip */", transaction.node, write.limit)
    return _settled_offers(transaction, _held(transaction, found), transaction.node, keep=True)


def withdraw(transaction: Gathering, write: Withdraw) -> Claimed:
    """Settle that offers which nobody took are none any more."""
    rows = (row for actor in write.actors if (row := transaction.row(actor)) is not None and row.owner is None)
    return _settled_offers(transaction, rows, write.to, keep=False)


def _held(transaction: Gathering, found: Iterable[tuple[int]]) -> Iterable[ActorRow]:
    """The rows of actors that were found, as far as nobody has them."""
    actors = [actor for (actor,) in found]
    transaction.hold(actors)
    return (row for actor in actors if (row := transaction.row(actor)) is not None and row.owner is None)


def _owned(transaction: Gathering, rows: Iterable[ActorRow]) -> Claimed:
    claimed: list[Placed] = []
    for row in rows:
        transaction.own(row)
        if row.owner is not None:
            claimed.append(transaction.place(row))
    return Claimed(tuple(claimed))


def _settled_offers(transaction: Gathering, rows: Iterable[ActorRow], to: str, *, keep: bool) -> Claimed:
    """End offers to a node: what is to `keep`, or has work, becomes this node's if it may, the rest anybody's."""
    wanted: list[ActorRow] = []
    for row in rows:
        if row.offered != to:
            continue
        row.offered, row.moved = None, True
        transaction.concern(transaction.touch(row))
        if row.status == "ready" and (keep or row.cursor < row.tail):
            wanted.append(row)
    return _owned(transaction, wanted)


SETTLE: dict[type, Callable[[Any, Any], Settled]] = {Claim: claim, Offer: offer, Take: take, Withdraw: withdraw}


def offered(connection: Connection, node: str) -> list[int]:
    """See `Store.offered`."""
    return [actor for (actor,) in connection.fetch(_OFFERED, node, _MANY)]


def loads(connection: Connection) -> dict[str, int]:
    """See `Store.loads`."""
    found: dict[str, int] = {}
    for node, count in connection.fetch(_LOADS):
        found[node] = found.get(node, 0) + count
    return found
