"""What is written when a node gives actors to another one; see `writes.py`.

    the giver's ──Offer──► nobody's, kept for one node ──Take──► that node's
                                     │
                                     └──Withdraw, or that node has left or died──► anybody's

Nothing becomes a node's own but by a write of its own, so the fence is what it always is. An offer only keeps the
others away, for as long as the node lives that it was made to.
"""

from __future__ import annotations

from msgspec import Struct


class Offer(Struct, frozen=True, gc=False):
    """Actors that this node gives up, work or not, for another one to take.

    One that an order is about is given up for whoever carries that out; one that is not this node's stays as it is. If
    the other node runs no actors, has left, died or drains, all stay.

    Attributes:
        actors: Each with the epoch under which it is this node's.
        to: The other node.
    """

    actors: tuple[tuple[int, int], ...]
    to: str


class Take(Struct, frozen=True, gc=False):
    """What is offered to this node becomes its own; what it does not run after all becomes anybody's."""

    limit: int = 100


class Withdraw(Struct, frozen=True, gc=False):
    """Actors that this node has offered and that were not taken: those with work are its own again, others nobody's."""

    actors: tuple[int, ...]
    to: str
