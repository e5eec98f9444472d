"""The alarm: mail waits for actors that no process can run."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING

from perdure.warning_types import UnknownKindWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from perdure.storage.store import Store


class Alarm:
    """Tells of each kind once.

    Args:
        store: Where the other nodes say what they have.
        needs: What a node must have to run a kind; none if its class is not imported here.
        tags: What this node has.
    """

    def __init__(
        self, store: Store, needs: Callable[[str], Collection[str] | None], tags: Collection[str] = ()
    ) -> None:
        self._store = store
        self._needs = needs
        self._tags = frozenset(tags)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<Alarm, told of {sorted(self._told)}>"

    async def ring(self, left: Iterable[tuple[str, int]]) -> None:
        """Tell of kinds that this node leaves alone, and of how many of their actors have mail."""
        fresh = [(kind, count) for kind, count in left if kind not in self._told]
        peers = await self._store.peers() if fresh else []
        tags = [self._tags, *(peer.tags for peer in peers)]
        # Who runs it is about to take what was free for a moment.
        taken = {kind for peer in peers if peer.takes for kind in peer.kinds}
        for kind, count in fresh:
            if kind in taken:
                continue
            why = unrunnable(self._needs(kind), tags)
            if why:
                self._told.add(kind)
                text = f"mail waits for {count} actors of kind '{kind}', {why}; until then they are left alone."
                # Where warnings are errors, this one is not to end the sweep.
                asyncio.get_running_loop().call_soon(warnings.warn, text, UnknownKindWarning)


def unrunnable(needs: Collection[str] | None, nodes: Iterable[Collection[str]]) -> str:
    """Why nobody can run a kind, and the remedy; nothing if one of the nodes, by their tags, may."""
    if needs is None:
        return "which no imported module defines. Import the module that does"
    if any(set(needs) <= set(tags) for tags in nodes):
        return ""  # it is that one's to take
    wanted = ", ".join(sorted(needs))
    return f"which needs {wanted}, and no live process has it. Start one with ActorSystem(tags={sorted(needs)!r})"
