"""What queries between nodes write; see `writes.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from perdure.storage.records import Address


class Inquire(Struct, frozen=True, gc=False):
    """A query to an actor that is not in this node's memory. It is no message: nothing is ever built on it.

    If nobody has the actor and this node runs its kind, it becomes this node's, and nothing is stored. So it is with
    one that is parked, which is left alone: both give a `Placed`, the latter without an epoch. Otherwise the query
    waits for whoever has the actor, or takes it, until it is `Heard`; asked again, it stays the same. Refused with
    `ActorStopped` or `ActorFailed` if nobody will answer.

    Attributes:
        id: Made up by this node, for this query.
        deadline: Seconds since the epoch, when nobody waits for it any more.
    """

    id: str
    to: Address
    name: str
    args: str
    deadline: float


class Answer(Struct, frozen=True, gc=False):
    """What became of a query of another node, the `asker`: its answer as JSON, or why there is none.

    It counts if the actor is this node's under this epoch, so that nobody is answered by a zombie.
    """

    id: str
    asker: str
    actor: int
    epoch: int
    result: str | None = None
    error: str | None = None


class Heard(Struct, frozen=True, gc=False):
    """Queries of this node that it awaits no more, with their answers."""

    queries: tuple[str, ...]
