"""The write-ahead log of a SQLite file, moved into the database about every thousand pages.

SQLite keeps a log at its size and overwrites it from the start, so its size does not tell; what was written since the
last checkpoint does, measured against what that checkpoint found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

BUSY_SECONDS = 10.0
"""How long a connection waits for one that is not perdure's."""

_PAGES = 1_000
_RESTART_PAGES = 16_000
_RESTART_SECONDS = 0.1
_WRITES_A_TRANSACTION = 8


class Checkpoints:
    """When a log is to be moved, and how."""

    def __init__(self) -> None:
        self._written = 0
        self._at = 4_096
        self._restart_at = _RESTART_PAGES

    def __repr__(self) -> str:
        return f"<Checkpoints: {self._written} of {self._at} written>"

    def wrote(self, writes: int) -> None:
        """Count a transaction."""
        self._written += writes + _WRITES_A_TRANSACTION

    @property
    def due(self) -> bool:
        """Whether enough was written."""
        return self._written >= self._at

    def move(self, connection: sqlite3.Connection) -> None:
        """Move what nobody reads from the log any more."""
        _, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames > 0:
            self._at = min(max(self._at * _PAGES // frames, 256), 65_536)
        behind = frames - moved
        if behind <= _RESTART_PAGES:
            self._restart_at = _RESTART_PAGES
        elif behind > self._restart_at:
            self._restart(connection, behind)
        self._written = 0

    def _restart(self, connection: sqlite3.Connection, behind: int) -> None:
        """Wait for readers that have held the log up for long, so that it begins at its start again.

        Writers wait meanwhile, so only for a moment, and again only once it has grown as much again: a backup reads for
        as long as it takes.
        """
        self._restart_at = behind + _RESTART_PAGES
        connection.execute(f"PRAGMA busy_timeout = {_RESTART_SECONDS * 1_000:.0f}").fetchone()
        try:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1_000:.0f}").fetchone()
