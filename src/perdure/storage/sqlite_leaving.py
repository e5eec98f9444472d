"""Nodes that leave: what they still have is anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.storage.sqlite_rows import fetch

if TYPE_CHECKING:
    import sqlite3

    from perdure.storage.sqlite_gather import Gathering
    from perdure.storage.writes import Leave


def leave(transaction: Gathering, _: Leave) -> int:
    """Settle the leaving of this node."""
    transaction.flush()
    actors = depart(transaction.connection, transaction.node)
    transaction.forget()
    return actors


def depart(connection: sqlite3.Connection, node: str) -> int:
    """End a node's presence and its ownership; how many actors it still had."""
    connection.execute("UPDATE node SET status = 'left' WHERE id = ?", (node,))
    connection.execute("UPDATE turn SET executing = NULL WHERE executing = ?", (node,))
    return connection.execute("UPDATE actor SET owner = NULL, epoch = epoch + 1 WHERE owner = ?", (node,)).rowcount


def departed(connection: sqlite3.Connection) -> list[str]:
    """See `Store.departed`."""
    return [node for (node,) in fetch(connection, "SELECT id FROM node WHERE status <> 'live'")]
