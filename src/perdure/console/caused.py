"""The tree of messages that a message caused: each names the one whose turn sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.console.views import Caused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.console.views import MessageRef

MEMBERS = 1_000
"""As many of them as anyone wants to see."""


def tree(root: int, found: Sequence[tuple[int, int, float]], known: Mapping[int, MessageRef]) -> tuple[Caused, ...]:
    """Messages in the order they were sent, each followed by those it caused.

    Args:
        root: Number of the message that caused all of them.
        found: Numbers of the messages and of their causes, and when they were sent.
        known: All of them, and the root.
    """
    children: dict[int, list[int]] = {}
    for seq, cause, _ in sorted(found, key=lambda one: (one[2], one[0])):
        children.setdefault(cause, []).append(seq)
    members: list[Caused] = []
    coming = [(1, root, seq) for seq in reversed(children.get(root, []))]
    while coming:
        depth, cause, seq = coming.pop()
        members.append(Caused(depth, known[cause].id, known[seq]))
        coming.extend((depth + 1, seq, child) for child in reversed(children.get(seq, [])))
    return tuple(members)
