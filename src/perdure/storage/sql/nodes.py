"""Nodes: entering, leaving, and proving that one lives.

A node's row has a counter that it raises as long as its event loop runs. Others judge it by that alone: no clock of one
machine is compared with another's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perdure.errors import NodeBuried
from perdure.storage.hints import ANYBODY
from perdure.storage.records import Peer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.storage.records import NodeRecord
    from perdure.storage.sql.connection import Connection
    from perdure.storage.sql.gather import Gathering
    from perdure.storage.writes import Beat, Bury, Leave


def enter(connection: Connection, node: NodeRecord, *, resumes: bool) -> None:
    """Enter a node; if it `resumes`, turns that are parked are tried again: the code may have been mended."""
    connection.execute(
        "INSERT INTO node (id, pid, host, python, version, started, runs, tags, kinds) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        node.id, node.pid, node.host, node.python, node.version, node.started, int(node.runs),
        json.dumps(node.tags, ensure_ascii=False), json.dumps(node.kinds, ensure_ascii=False),
    )  # fmt: skip
    if resumes:
        resume(connection)


def resume(connection: Connection) -> None:
    """Have turns that are parked tried again: the code that runs them is another one now."""
    sql = "SELECT id FROM actor WHERE status = 'parked' ORDER BY id /* lock, skip */"
    parked = [actor for (actor,) in connection.fetch(sql)]
    sql = "UPDATE actor SET status = 'ready', reason = NULL WHERE id IN (SELECT value FROM numbers(?) AS parked)"
    connection.execute(sql, parked)


def leave(connection: Connection, node: str, now: float) -> int:
    """End a node's presence and its ownership; how many actors it still had.

    What is parked is tried again by those that stay: it may be the leaver's older code that it did not fit.
    """
    sql = "UPDATE node SET status = 'left', ended = ? WHERE id = ? AND status = 'live' RETURNING runs"
    left = connection.fetch(sql, now, node)
    connection.execute("DELETE FROM slot WHERE node = ?", node)
    actors = disown(connection, node)
    others = "SELECT 1 FROM node WHERE status = 'live' AND runs = 1 LIMIT 1"
    if left == [(1,)] and connection.fetch(others):
        resume(connection)
    return actors


def disown(connection: Connection, node: str) -> int:
    """End a node's ownership; how many actors it had."""
    connection.fetch("SELECT id FROM actor WHERE owner = ? ORDER BY id /* lock, wait */", node)
    connection.execute("UPDATE turn SET executing = NULL WHERE executing = ?", node)
    connection.execute("DELETE FROM query WHERE asker = ?", node)
    sql = "UPDATE actor SET owner = NULL, epoch = epoch + 1, tail = tail(), \
           status = CASE status WHEN 'waiting' THEN 'ready' ELSE status END WHERE owner = ?"
    return connection.execute(sql, node)


def resign(transaction: Gathering, _: Leave) -> int:
    """Settle that this node runs no actors any more; it goes on as one that sends."""
    transaction.flush()
    owned = "SELECT id FROM actor WHERE owner = ?"
    while transaction.hold(actor for (actor,) in transaction.connection.fetch(owned, transaction.node)):
        pass  # it may have been given more meanwhile
    actors = leave(transaction.connection, transaction.node, transaction.now)
    transaction.forget()
    transaction.news.nodes.add(ANYBODY)
    return actors


def departed(connection: Connection) -> list[str]:
    """See `Store.departed`."""
    sql = "SELECT id FROM node WHERE status <> 'live' AND runs = 1 AND undertaker IS NULL"
    return [node for (node,) in connection.fetch(sql)]


_UNBURIED = """undertaker IS NOT NULL
AND (undertaker = ? OR undertaker NOT IN (SELECT id FROM node WHERE status = 'live'))"""


def unburied(connection: Connection, me: str) -> list[str]:
    """See `Store.unburied`."""
    sql = f"SELECT id FROM node WHERE {_UNBURIED} ORDER BY id"  # noqa: S608  # constant parts
    return [node for (node,) in connection.fetch(sql, me)]


def beat(transaction: Gathering, write: Beat) -> int:
    """Settle a heartbeat: the counter."""
    sql = "UPDATE node SET beats = beats + 1, load = ?, draining = ? WHERE id = ? RETURNING beats"
    found = transaction.connection.fetch(sql, write.load, int(write.draining), transaction.node)
    return int(found[0][0]) if found else 0  # it was buried and forgotten, which the transaction finds out


def check(connection: Connection, node: str) -> None:
    """Raise `NodeBuried` if this node was: it may take no actor under a name that nobody will bury again."""
    found = connection.fetch("SELECT status FROM node WHERE id = ?", node)
    if is_buried(found):
        raise NodeBuried(node)


def is_buried(found: Sequence[Sequence[object]]) -> bool:
    """Whether the status that was found for a node says so. One that left may still send."""
    return not found or found[0][0] == "dead"


def is_to_be_buried(transaction: Gathering, write: Bury) -> bool:
    """Whether a node has still given no sign of life, and gives none while it is buried; or nobody ends its burial."""
    connection = transaction.connection
    if not connection.holds_still(write.node):
        return False
    sql = f"SELECT beats, status FROM node WHERE id = ? AND (status = 'live' OR {_UNBURIED})"  # noqa: S608  # constant parts
    found = connection.fetch(sql, write.node, transaction.node)
    return any(status == "dead" or write.beats in {None, beats} for beats, status in found)


def peers(connection: Connection, me: str) -> list[Peer]:
    """See `Store.peers`."""
    sql = "SELECT id, beats, load, tags, kinds, runs - draining FROM node WHERE status = 'live' AND id <> ?"
    return [
        Peer(id_, beats, load, frozenset(json.loads(tags)), frozenset(json.loads(kinds)), takes > 0)
        for id_, beats, load, tags, kinds, takes in connection.fetch(sql, me)
    ]
