"""What a node has beside the database while it lives: a locked file that proves it, and the socket it is woken by.

    actors.db-node-<id>   locked by its process; free when that is gone, however it went
    actors.db-wake-<id>   its socket (`sqlite_wake.py`)

Both go when the node leaves, or with whoever buries it. An id becomes part of a path only if it looks like one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from perdure.errors import StorageError
from perdure.storage.sqlite_wake import Wakes
from perdure.storage.writer_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Presence:
    """This node, as the others see it."""

    def __init__(self, database: Path, node: str) -> None:
        self._database = database
        self._node = node
        self._alive = FileLock(self._beside("node", node))
        self.wakes = Wakes(lambda id_: self._beside("wake", id_), node)

    def __repr__(self) -> str:
        return f"<Presence of {self._node} at {self._database}>"

    def _beside(self, what: str, node: str) -> Path:
        if not _ID.fullmatch(node):
            raise StorageError(f"{self._database}: {node!r} is no node's id. Somebody has changed the database.")
        return self._database.with_name(f"{self._database.name}-{what}-{node}")

    def prove(self) -> None:
        """Lock this node's file. Raises `StorageError` where another has it."""
        if not self._alive.try_acquire():
            raise StorageError(f"{self._alive!r}: a fresh node id is taken. Start again.")

    def meet(self, nodes: Iterable[str]) -> None:
        """Know who else lives, as the database says."""
        self.wakes.meet([node for node in nodes if _ID.fullmatch(node)])

    def is_gone(self, node: str) -> bool:
        """Whether another node's process has ended."""
        if not _ID.fullmatch(node):
            return False  # nothing that could be looked at
        path = self._beside("node", node)
        if not path.exists():
            return True
        lock = FileLock(path)
        try:
            return lock.try_acquire()
        finally:
            lock.close()

    def bury(self, node: str) -> None:
        """Remove what a dead node left."""
        for what in ("node", "wake"):
            self._beside(what, node).unlink(missing_ok=True)

    def leave(self) -> None:
        """Take this node's files away."""
        self.wakes.close()
        self._alive.close()
        self._beside("node", self._node).unlink(missing_ok=True)
