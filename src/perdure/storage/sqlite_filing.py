"""An actor's messages, as people look for them, on SQLite: filed by actor, a block of 4,096 at once.

    message, message, … ──► a block is full ──► sorted by actor, behind the blocks before it

What is added in this order goes to the table's end. In one by actor alone each message would go to a page of its own,
and cost more there than in all other tables together. Nothing but the console reads it, a block after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from perdure.storage.sqlite_connection import SQLiteConnection

_BLOCK = 4_096
_NEXT = """
SELECT (SELECT min(seq) >> 12 FROM message WHERE seq >= block << 12), (SELECT max(seq) >> 12 FROM message) FROM unfiled
"""
_FILE = """
INSERT INTO filed SELECT seq >> 12, actor, number, seq FROM message
WHERE seq >= ?1 << 12 AND seq < ?2 << 12 AND number IS NOT NULL ORDER BY actor, number
"""
_FILE_COPIED = (
    "UPDATE unfiled SET block = (SELECT coalesce(max(seq) >> 12, 0) FROM message)",
    """INSERT INTO filed SELECT message >> 12, actor, number, message FROM mailbox
       WHERE message >> 12 < (SELECT block FROM unfiled) ORDER BY message >> 12, actor, number""",
    "DELETE FROM mailbox WHERE number <= (SELECT cursor FROM actor WHERE id = mailbox.actor)",
)
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
    AND seq >= (SELECT block << 12 FROM unfiled)
) ORDER BY number DESC LIMIT \2)"""
"""The newest messages of an actor: the newest of each block, and what is not filed yet."""


def file_copied(connection: sqlite3.Connection) -> None:
    """File what was copied: until then all messages are in their mailboxes, then those that are not handled."""
    for statement in _FILE_COPIED:
        connection.execute(statement)


class Filing:
    """Files a block at once, in a short transaction of its own, on which nothing rests."""

    def __init__(self) -> None:
        self._written = _BLOCK  # or more, by others before: it will be seen

    def __repr__(self) -> str:
        return f"<Filing: {self._written} messages written since it was looked>"

    def wrote(self, messages: int) -> None:
        """Count messages, more or less."""
        self._written += messages

    @property
    def due(self) -> bool:
        """Whether there may be a block that is full."""
        return self._written >= _BLOCK

    def file(self, connection: SQLiteConnection) -> None:
        """File the next block, if no message will be added to it."""
        self._written = 0  # if this fails, it is tried again after as many as that
        for block, growing in connection.fetch(_NEXT):
            if block is not None and block < growing:
                connection.execute(_FILE, block, block + 1)
                connection.execute("UPDATE unfiled SET block = ?", block + 1)
                self._written = _BLOCK
