"""The tree of messages that a message caused.

A message names the one whose turn sent it, and messages are numbered as they are written, so effects come after their
causes. There is no index by cause: the messages after the first are looked through, page by page, until none that is
still to come can belong to the tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from perdure.console.views import Caused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.console.views import MessageRef

PAGE = 2000
"""Messages looked through in one transaction."""

PAGES = 100
"""Pages looked through before giving up."""

_MEMBERS = 1000
_COMMIT_SECONDS = 60.0  # no batch waits longer for its commit: what was sent later than this after a turn is not of it


@define(eq=False)
class Family:
    """A message and those it caused, as far as they have been found.

    Attributes:
        last: Number of the last message looked at.
        complete: Whether none that is still to come can belong to the tree.
    """

    root: int
    last: int
    complete: bool = False
    _children: dict[int, list[int]] = field(factory=dict[int, list[int]])
    _running: int = 0
    _ended: float = 0.0

    @classmethod
    def of(cls, seq: int, finished: float | None) -> Family:
        """A message alone."""
        family = cls(seq, seq)
        family._join(seq, finished)
        return family

    @property
    def full(self) -> bool:
        """Whether it has as many members as anyone wants to see."""
        return len(self._children) > _MEMBERS

    @property
    def members(self) -> list[int]:
        """Numbers of all its messages."""
        return list(self._children)

    def take(self, page: Sequence[tuple[int, int | None, float, float | None]]) -> None:
        """Look through the next messages: number, cause, when sent and when ended."""
        for seq, cause, _, finished in page:
            self.last = seq
            if cause is not None and cause in self._children and not self.full:
                self._children[cause].append(seq)
                self._join(seq, finished)
        over = not self._running and bool(page) and min(row[2] for row in page) > self._ended + _COMMIT_SECONDS
        self.complete = not self.full and (over or len(page) < PAGE)

    def _join(self, seq: int, finished: float | None) -> None:
        self._children[seq] = []
        if finished is None:
            self._running += 1
        else:
            self._ended = max(self._ended, finished)

    def tree(self, known: Mapping[int, MessageRef]) -> tuple[Caused, ...]:
        """Its messages, each followed by those it caused."""
        found: list[Caused] = []
        coming = [(1, self.root, child) for child in reversed(self._children[self.root])]
        while coming:
            depth, cause, seq = coming.pop()
            if seq in known and cause in known:
                found.append(Caused(depth, known[cause].id, known[seq]))
            coming.extend((depth + 1, seq, child) for child in reversed(self._children[seq]))
        return tuple(found)
