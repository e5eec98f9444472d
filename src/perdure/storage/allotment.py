"""How the nodes share a limit (pure).

**Slots.** Every node that wants slots is due a fair share: no more than it wants, and what one does not want is the
others'. It may have more while nobody is short of his share, so a node alone asks once and keeps what it has. What does
not divide goes round, so that nobody waits for ever where there are more nodes than slots.

**Starts.** Time is cut into slices, and each counts what was granted in it. A grant may be used for `usable_seconds`,
so all that may have begun within `per` seconds of now was granted in the slices that `kept` says. That is two per cent
slower than the rate where `per` is a minute or more, slower than that where it is a second, and never faster.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.storage.limit_writes import Slot

_SLICES = 100
_SHORTEST_SLICE_SECONDS = 0.05
_USABLE_SECONDS = 0.25
ROUND_SECONDS = 5.0
"""How long what does not divide stays where it is."""


@frozen
class Allotment:
    """A node's slots, and how many it keeps once they are free because others want some; none if nobody does."""

    has: int
    share: int | None


def shares(capacity: int, wants: Mapping[str, int], now: float) -> dict[str, int]:
    """How many slots each node is due."""
    due = dict.fromkeys(sorted(wants), 0)
    hungry = [node for node in due if wants[node] > 0]
    left = capacity
    while hungry and left >= len(hungry):
        each = left // len(hungry)
        for node in hungry:
            more = min(each, wants[node] - due[node])
            due[node] += more
            left -= more
        hungry = [node for node in hungry if due[node] < wants[node]]
    if hungry:
        first = int(now // ROUND_SECONDS) % len(hungry)
        for node in (*hungry[first:], *hungry[:first])[:left]:
            due[node] += 1
    return due


def allot(capacity: int, me: Slot, uses: int, others: Sequence[Slot], now: float) -> Allotment:
    """What a node has from now on, who uses so many slots at this moment."""
    wants = {slot.node: min(slot.wants, capacity) for slot in (me, *others)}
    due = shares(capacity, wants, now)
    short = sum(max(0, due[slot.node] - slot.has) for slot in others)
    room = capacity - sum(slot.has for slot in others)
    mine = due[me.node]
    back = max(0, min(short - (room - me.has), me.has - max(uses, mine)))
    has = max(me.has - back, min(mine, room))
    tight = short > 0 or sum(wants.values()) > capacity or has > room
    return Allotment(has, mine if tight else None)


def slice_seconds(per: float) -> float:
    """How long a slice is."""
    return per / max(1, min(_SLICES, int(per / _SHORTEST_SLICE_SECONDS)))


def usable_seconds(per: float) -> float:
    """How long a grant may be used."""
    return max(slice_seconds(per), _USABLE_SECONDS)


def kept(per: float) -> int:
    """How many slices before the present one count."""
    return math.ceil(round((per + usable_seconds(per)) / slice_seconds(per), 6))
