"""`Floor`: the actors of one node, as those who carry out orders need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.actors.actor import Actor
    from perdure.storage.records import Address
    from perdure.storage.writes import Committed, Placed, Spawn
    from perdure.supervision.strategy import Failure


class Floor(Protocol):
    """The actors of this node, as orders need them."""

    def hold(self, place: Placed) -> None:
        """Have an actor in memory that handles nothing yet."""
        ...

    async def start(self, actor: int) -> bool:
        """Run its `started()`; false if it is not here any more.

        Raises:
            ActivationError: It raised.
            StorageError: The actor was lost to an outage; it is to be held, and started, again.
        """
        ...

    def instance(self, actor: int) -> Actor | None:
        """The live actor, if it is here and has started."""
        ...

    def supervises(self) -> bool:
        """Whether any actor here supervises others."""
        ...

    def go(self, actor: int) -> None:
        """Let it handle its mail."""
        ...

    async def halt(self, actor: int, seconds: float | None) -> None:
        """Stop it: running steps have so long to complete, `stopping()` to return; no time means at once.

        Raises:
            StorageError: It could not be given up; it is to be stopped again.
        """
        ...

    def committed(self, committed: Committed) -> None:
        """Let out what a commit released."""
        ...

    def spawning(self, cls: type[Actor], key: str, state: Mapping[str, object], parent: int | None) -> Spawn:
        """An actor's beginning."""
        ...

    def failure(self, actor: Address, error: BaseException) -> tuple[Failure, str]:
        """A failure that no message is to blame for, and its exception as JSON."""
        ...
