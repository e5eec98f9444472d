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
    from collections.abc import Iterable, Mapping, Sequence

    from perdure.storage.records import Peer

_LOOKS = 2
_QUIET = 2
"""Looks without a sign of life after which a node is given nothing: theirs and ours are not in step."""

CALM = 0.25
"""Once begun, giving goes on until the difference is this part of what is tolerated."""


@frozen
class Movable:
    """An actor that its node may give away.

    Attributes:
        needs: What a node must have to run it.
    """

    actor: int
    kind: str
    needs: frozenset[str] = frozenset()

    def may_run_on(self, peer: Peer) -> bool:
        """Whether a node takes it."""
        return peer.takes and self.kind in peer.kinds and self.needs <= peer.tags


@define
class _Sight:
    """What was seen of another node.

    Attributes:
        beats: Its counter.
        still: How many looks ago that last rose.
        lighter: For how many looks it has been much lighter than this one.
    """

    beats: int
    still: int = _QUIET
    lighter: int = 0


@define
class Scales:
    """What a node has seen of the others' loads, heartbeat after heartbeat.

    Attributes:
        tolerance: The part of its load by which a node may have more than another.
        takers: Those that have shown lately that they live, and may be given something if they run it.
    """

    tolerance: float
    takers: Sequence[Peer] = ()
    _seen: Mapping[str, _Sight] = field(factory=dict[str, _Sight])

    def look(self, load: int, peers: Iterable[Peer]) -> bool:
        """Whether to count: somebody who lives has been much lighter at two looks, one after the other."""
        seen: dict[str, _Sight] = {}
        takers: list[Peer] = []
        for peer in peers:
            sight = seen[peer.id] = self._seen.get(peer.id) or _Sight(peer.beats)
            sight.still = 0 if peer.beats > sight.beats else sight.still + 1
            sight.beats = peer.beats
            if not peer.takes or sight.still > _QUIET:
                sight.lighter = 0
                continue
            takers.append(peer)
            sight.lighter = sight.lighter + 1 if differ(load, peer.load, self.tolerance) else 0
        self._seen, self.takers = seen, takers
        return any(seen[peer.id].lighter >= _LOOKS for peer in takers)


def differ(load: int, other: int, tolerance: float) -> bool:
    """Whether a node has so much more than another that giving it an actor would make it better."""
    return load - other > max(1, tolerance * load)


def shares(
    me: str, loads: Mapping[str, int], able: Iterable[str], tolerance: float, in_vain: int = 0
) -> dict[str, int]:
    """How many actors this node gives to each of the others.

    Args:
        me: This node.
        loads: Of all nodes that run actors, this one among them.
        able: Those who take some of what this node has to give.
        tolerance: The difference that is left alone.
        in_vain: How often it had nothing to give before, although others were lighter.
    """
    mine = loads[me]
    lighter = sorted((loads[node], node) for node in able if differ(mine, loads[node], tolerance))
    parts = {node: (mine - load) // len(loads) for load, node in lighter}
    if any(parts.values()) or not lighter:
        return {node: part for node, part in parts.items() if part}
    # Too few for parts: one each, from the heaviest to the lightest, so that no two give to the same. The heavier may
    # have nothing that others run: who has waited long enough takes their place.
    place = max(0, sum((load, node) > (mine, me) for node, load in loads.items() if node != me) - in_vain)
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
