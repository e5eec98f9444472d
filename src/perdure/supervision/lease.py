"""Who is dead, and whether this node may begin anything: what is judged by heartbeats alone (pure).

    another's counter ──► moved: it lives
                     └──► the same for a lease of this node's own clock, in which this node has committed three
                          heartbeats itself since it saw the counter move ──► dead, if it is still the same when buried

No clock is compared with another's, so none has to be right. That this node has committed heartbeats itself shows that
the database took some: nobody is buried for an outage, a stopped writer, or the sleep of a laptop.

    half a lease since this node sent the last heartbeat that is durable ──► it begins nothing: soon it may be buried

The fence alone keeps what is stored right. The half lease is for what no fence undoes: a step that begins on a node
whose actor runs elsewhere by then. `tests/model/judgement.py` looks at every state of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.storage.records import Peer

BEATS = 3


@define
class Sight:
    """When another's counter was first seen as it is, and how many heartbeats of its own this node had committed."""

    beats: int
    at: float
    own: int


@define
class Lease:
    """What one node knows of the others, and of itself. Times are of its own monotonic clock, in seconds.

    Attributes:
        seconds: How long a node is taken to live after its last heartbeat.
        sent: When this node sent its last heartbeat that is durable, or last found that it is alone.
    """

    seconds: float
    sent: float
    _own: int = 0
    _seen: dict[str, Sight] = field(factory=dict[str, Sight])

    def beaten(self, sent: float) -> None:
        """A heartbeat that was sent then is durable."""
        self._own += 1
        self.sent = max(self.sent, sent)

    def alone(self, looked: float) -> None:
        """Nobody was there who could bury this node."""
        self.sent = max(self.sent, looked)
        self._seen.clear()

    def holds(self, now: float) -> bool:
        """Whether this node may begin something."""
        return now - self.sent < self.seconds / 2

    def judge(self, peers: Iterable[Peer], now: float) -> list[tuple[str, int]]:
        """The nodes that are dead, with the counters they are judged by."""
        dead: list[tuple[str, int]] = []
        seen: dict[str, Sight] = {}
        for peer in peers:
            sight = self._seen.get(peer.id)
            if sight is None or sight.beats != peer.beats:
                sight = Sight(peer.beats, now, self._own)
            elif now - sight.at >= self.seconds and self._own - sight.own >= BEATS:
                dead.append((peer.id, peer.beats))
            seen[peer.id] = sight
        self._seen = seen
        return dead
