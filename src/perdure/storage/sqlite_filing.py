"""An actor's messages, as people look for them, on SQLite: filed by actor, a block of 4,096 at once.

    message, message, … ──► a block is full ──► sorted by actor, behind the blocks before it

What is added in this order goes to the table's end. In one by actor alone each message would go to a page of its own,
and cost more there than in all other tables together. Nothing but the console reads it, a block after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.storage.sqlite_connection import SQLiteConnection

_BLOCKS_AT_ONCE = 2
_NEXT = """
SELECT seq >> 12, (SELECT max(seq) >> 12 FROM message) FROM message
WHERE seq >= coalesce((SELECT (max(block) + 1) << 12 FROM filed), 0) AND number IS NOT NULL ORDER BY seq LIMIT 1
"""
_FILE = """
INSERT OR IGNORE INTO filed SELECT seq >> 12, actor, number, seq FROM message
WHERE seq >= ?1 << 12 AND seq < ?2 << 12 AND number IS NOT NULL ORDER BY seq >> 12, actor, number
"""
NEWEST = r"""(
WITH RECURSIVE one (block) AS (
    SELECT max(block) FROM filed UNION ALL
    SELECT (SELECT max(block) FROM filed WHERE block < one.block) FROM one WHERE block IS NOT NULL
)
SELECT message FROM (
    SELECT number, message FROM one CROSS JOIN filed ON filed.block = one.block AND actor = \1 AND number >= coalesce((
        SELECT number FROM filed WHERE filed.block = one.block AND actor = \1 ORDER BY number DESC LIMIT 1 OFFSET \2 - 1
    ), 0)
    UNION ALL
    SELECT number, seq FROM message WHERE actor = \1 AND number IS NOT NULL
    AND seq >= coalesce((SELECT (max(block) + 1) << 12 FROM filed), 0)
) ORDER BY number DESC LIMIT \2)"""
"""The newest messages of an actor: the newest of each block, and what is not filed yet."""


def file(connection: SQLiteConnection) -> None:
    """File what is next, if there is a block that no message will be added to. What is left is filed another time."""
    for first, growing in connection.fetch(_NEXT):
        if first < growing:
            connection.execute(_FILE, first, min(first + _BLOCKS_AT_ONCE, growing))
