"""What every SQLite file of perdure holds to, whoever wrote it and however that ended."""

from __future__ import annotations

import sqlite3
from typing import Any

_UNHANDLED = "SELECT actor, number, seq FROM message JOIN actor ON actor.id = message.actor WHERE number > cursor"
_MAILBOX = "SELECT actor, number, message FROM mailbox"
_FILED = "SELECT block, actor, number, message FROM filed"
_NUMBERED = """
SELECT seq >> 12, actor, number, seq FROM message
WHERE number IS NOT NULL AND seq >> 12 < (SELECT block FROM unfiled)
"""


def misplaced(connection: sqlite3.Connection) -> list[Any]:
    """Mail that is to be handled and not in a mailbox, or the other way round; and what is filed wrong, or not."""
    found: list[Any] = []
    for one, other in ((_UNHANDLED, _MAILBOX), (_FILED, _NUMBERED)):
        found += connection.execute(f"SELECT 'only there', * FROM ({one} EXCEPT {other})").fetchall()
        found += connection.execute(f"SELECT 'only here', * FROM ({other} EXCEPT {one})").fetchall()
    return found
