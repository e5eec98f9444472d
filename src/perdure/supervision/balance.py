"""Who gives how many actors to whom, so that no node has many more than another (pure).

    a heartbeat ──► another node has been much lighter than this one at two looks, and lives
                      ──► what everybody has is counted ──► shares ──► which actors ──► given, and counted anew

The load of a node is how many actors it has. It is what giving changes, by one on each side and at once, so it cannot
swing; and what memory costs. How busy a processor is lags behind what is done about it, and cannot be given away: an
actor at work is given when its turn is over.

A node gives each lighter one the n-th part of the difference, of n nodes. If all do, and any may take, all then have
the same (first-order diffusion; Cybenko, 1989); where some may not, it takes several rounds, in which nothing swings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from perdure.storage.records import Peer

CALM = 0.25
"""Once begun, giving goes on until the difference is this part of what is tolerated."""


@frozen
class Movable:
    """An actor that its node may give away.

    Attributes:
        needs: What a node must have to run it.
        since: When it last came to rest, in seconds since the epoch.
    """

    actor: int
    kind: str
    needs: frozenset[str] = frozenset()
    since: float = 0.0

    def may_run_on(self, peer: Peer) -> bool:
        """Whether a node takes it."""
        return not peer.draining and self.kind in peer.kinds and self.needs <= peer.tags


@define
class Scales:
    """What a node has seen of the others' loads, heartbeat after heartbeat.

    Attributes:
        tolerance: The part of its load by which a node may have more than another.
        takers: Those that were seen to live, and may be given something if they run it.
    """

    tolerance: float
    takers: Sequence[Peer] = ()
    _beats: Mapping[str, int] = field(factory=dict[str, int])
    _lighter: Collection[str] = ()

    def look(self, load: int, peers: Collection[Peer]) -> bool:
        """Whether to count: at two looks one after the other, somebody who gave a sign of life was much lighter."""
        self.takers = [
            peer
            for peer in peers
            if peer.kinds and not peer.draining and peer.beats > self._beats.get(peer.id, peer.beats)
        ]
        self._beats = {peer.id: peer.beats for peer in peers}
        before, self._lighter = (
            self._lighter,
            {peer.id for peer in self.takers if differ(load, peer.load, self.tolerance)},
        )
        return not self._lighter.isdisjoint(before)


def differ(load: int, other: int, tolerance: float) -> bool:
    """Whether a node has so much more than another that giving it an actor would make it better."""
    return load - other > max(1, tolerance * load)


def shares(me: str, loads: Mapping[str, int], able: Iterable[str], tolerance: float) -> dict[str, int]:
    """How many actors this node gives to each of the others.

    Args:
        me: This node.
        loads: Of all nodes that run actors, this one among them.
        able: Those who take some of what this node has to give.
        tolerance: The difference that is left alone.
    """
    mine = loads[me]
    lighter = sorted((loads[node], node) for node in able if differ(mine, loads[node], tolerance))
    parts = {node: (mine - load) // len(loads) for load, node in lighter}
    if any(parts.values()) or not lighter:
        return {node: part for node, part in parts.items() if part}
    # Too few for parts: one each, from the heaviest to the lightest, so that no two give to the same.
    place = sum((load, node) > (mine, me) for node, load in loads.items() if node != me)
    return {lighter[place][1]: 1} if place < len(lighter) else {}


def choose(
    movable: Iterable[Movable], wanted: Mapping[str, int], takers: Iterable[Peer], most: int
) -> dict[str, list[int]]:
    """Which actors go where, at most so many, in their order: each to whoever lacks most of those that may run it."""
    left = dict(wanted)
    peers = [peer for peer in takers if left.get(peer.id)]
    chosen: dict[str, list[int]] = {}
    for each in movable:
        fitting = [peer.id for peer in peers if left[peer.id] and each.may_run_on(peer)]
        if fitting and most > 0:
            to = max(fitting, key=lambda node: (left[node], node))
            chosen.setdefault(to, []).append(each.actor)
            left[to] -= 1
            most -= 1
    return chosen
