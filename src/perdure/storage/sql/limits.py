"""Limits across the deployment: how many slots each node has, and how many turns and steps began.

    Demand ──► the limit's row is locked ──► defined, if this node is the newest ──► slots ──► starts ──► Granted

    table       a row                                     written by

    allowance   a limit                                   the node that was started last
    slot        the slots of a limit that a node has      that node; removed when it leaves or is buried
    starts      what was granted in a slice of time       whoever was granted it

    what fails                          what happens

    a process is killed, or is taken    its slots go with its ownership, in the same commit, and all nodes look; a
    for dead                            zombie may still compute, as everywhere
    a grant's commit fails              its node goes on with the slots in use, and asks again; starts may be lost
    a hint is lost                      what it was for is found by the next look
    the clock goes back                 what was granted later than now counts as granted now
    two nodes define it differently     the one that was started last is right, and the other warns

Nobody relies on another node's row but for having at least what it says; a node lowers its own only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perdure.storage.allotment import Allotment, allot, kept, slice_seconds
from perdure.storage.limit_writes import Allowance, Demand, Granted, Grants, LimitState, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.storage.limit_writes import Want
    from perdure.storage.sql.connection import Connection
    from perdure.storage.sql.gather import Gathering
    from perdure.storage.writes import Settled

_DEFINE = """
INSERT INTO allowance (name, concurrent, rate, per, defined)
VALUES (?, ?, ?, ?, coalesce((SELECT started FROM node WHERE id = ?), 0)) ON CONFLICT (name) DO NOTHING
"""
_DEFINED = """
SELECT concurrent, rate, per, defined, coalesce((SELECT started FROM node WHERE id = ?), 0) FROM allowance
WHERE name = ? /* lock, limit */
"""
_REDEFINE = "UPDATE allowance SET concurrent = ?, rate = ?, per = ?, defined = ? WHERE name = ?"
# Who has left is buried by nobody, so a slot of his would be freed by nobody if he was killed.
_PUT_SLOT = """
INSERT INTO slot (name, node, has, wants, waiting) SELECT ?, id, ?, ?, ? FROM node WHERE id = ? AND status = 'live'
ON CONFLICT (name, node) DO UPDATE SET has = excluded.has, wants = excluded.wants, waiting = excluded.waiting
"""
_PUT_STARTS = """
INSERT INTO starts (name, slice, number) VALUES (?, ?, ?)
ON CONFLICT (name, slice) DO UPDATE SET number = starts.number + excluded.number
"""


def demand(transaction: Gathering, write: Demand) -> Grants:
    """Settle what this node wants of limits."""
    return Grants(tuple(_grant(transaction, want) for want in write.wants))


def _grant(transaction: Gathering, want: Want) -> Granted:
    connection, me = transaction.connection, transaction.node
    allowance, changed = _defined(connection, me, want)
    slots = _slots(connection, want.name)
    others = [slot for slot in slots.values() if slot.node != me]
    now = connection.clock()
    before = slots.get(me, Slot(me, 0, 0)).has
    needs = want.uses + want.waits
    if allowance.concurrent is None:
        allotment, able = Allotment(0, None), want.starts
    else:
        allotment = allot(allowance.concurrent, Slot(me, before, needs), want.uses, others, now)
        able = max(0, allotment.has - want.uses - (want.waits - want.starts))  # who goes on comes first
        needs = min(needs, allowance.concurrent)
    starts, again = _start(connection, want.name, allowance, min(want.starts, able), now)
    connection.execute(_PUT_SLOT, want.name, allotment.has, needs, json.dumps(want.waiting), me)
    if changed or allotment.has < needs:
        transaction.news.nodes.update(slot.node for slot in others)
    elif allotment.has < before:
        transaction.news.nodes.update(slot.node for slot in others if slot.has < slot.wants)
    return Granted(want.name, allowance, allotment.has, allotment.share, starts, again)


def _defined(connection: Connection, me: str, want: Want) -> tuple[Allowance, bool]:
    """The limit as the newest node defines it, nobody else's until the commit; and whether that is new."""
    a = want.allowance
    connection.execute(_DEFINE, want.name, a.concurrent, a.rate, a.per, me)
    ((concurrent, rate, per, defined, started),) = connection.fetch(_DEFINED, me, want.name)
    found = Allowance(concurrent, rate, per)
    if started <= defined:
        return found, False
    connection.execute(_REDEFINE, a.concurrent, a.rate, a.per, started, want.name)
    if (found.rate, found.per) != (a.rate, a.per) and a.rate is not None:
        _count_as_now(connection, want.name, int(connection.clock() // slice_seconds(a.per)))
    return a, found != a


def _slots(connection: Connection, name: str) -> dict[str, Slot]:
    sql = "SELECT node, has, wants FROM slot WHERE name = ?"
    return {node: Slot(node, has, wants) for node, has, wants in connection.fetch(sql, name)}


def _start(
    connection: Connection, name: str, allowance: Allowance, wanted: int, now: float
) -> tuple[int, float | None]:
    """How many of those that are to begin may, and after how many seconds others may."""
    if allowance.rate is None or wanted == 0:
        return wanted, None
    seconds, slices = slice_seconds(allowance.per), kept(allowance.per)
    present = int(now // seconds)
    connection.execute("DELETE FROM starts WHERE name = ? AND slice < ?", name, present - slices)
    sql = "SELECT min(slice), max(slice), sum(number) FROM starts WHERE name = ? AND number > 0"
    ((oldest, newest, begun),) = connection.fetch(sql, name)
    if newest is not None and newest > present:
        _count_as_now(connection, name, present)
        oldest = present
    starts = max(0, min(wanted, allowance.rate - int(begun or 0)))
    if starts:
        connection.execute(_PUT_STARTS, name, present, starts)
    if starts == wanted:
        return starts, None
    return starts, ((present if oldest is None else oldest) + slices + 1) * seconds - now


def _count_as_now(connection: Connection, name: str, present: int) -> None:
    """Count all that was granted as granted in this slice."""
    ((begun,),) = connection.fetch("SELECT coalesce(sum(number), 0) FROM starts WHERE name = ?", name)
    connection.execute("DELETE FROM starts WHERE name = ?", name)
    connection.execute(_PUT_STARTS, name, present, int(begun))


def limits(connection: Connection, names: Collection[str]) -> list[LimitState]:
    """See `Store.limits`."""
    sql = "SELECT name, concurrent, rate, per FROM allowance \
           WHERE name IN (SELECT value FROM texts(?) AS wanted) ORDER BY name"
    return [
        LimitState(name, Allowance(concurrent, rate, per), tuple(_slots(connection, name).values()))
        for name, concurrent, rate, per in connection.fetch(sql, list(names))
    ]


SETTLE: dict[type, Callable[[Any, Any], Settled]] = {Demand: demand}
