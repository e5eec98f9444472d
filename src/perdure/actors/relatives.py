"""What a supervisor asks of the node it lives on: to start, stop, restart and forget its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perdure.actors.names import kinds
from perdure.actors.ref import Reference, address_of
from perdure.errors import ActorExists, ChildError
from perdure.storage.writes import Adopt

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.child import Child
    from perdure.storage.records import Address, Member
    from perdure.storage.writes import Placed


class Overseer(Protocol):
    """What carries out orders on this node."""

    def carry_out(self, members: Sequence[Member]) -> object:
        """Stop and start the actors of an order that is on disk."""
        ...

    async def resign(self) -> tuple[Sequence[Member], Collection[int]]:
        """Give up every order that is under way, for this node leaves.

        Returns:
            The supervision trees as far as they are here, each actor before those it supervises, siblings in start
            order; and the actors that the orders were about.
        """
        ...

    async def yield_up(self, actors: Collection[int]) -> None:
        """Leave what is to be started to whoever finds it free."""
        ...

    def buried(self) -> None:
        """Give up every order that is under way, for this node was taken for dead: others go on with them."""
        ...

    def needs_raising(self, place: Placed) -> bool:
        """Whether an actor that came into memory by itself is started with its children; if so, that begins."""
        ...

    async def start_child(self, adopt: Adopt) -> Address:
        """Start a child at run time."""
        ...

    async def terminate_child(self, supervisor: int, actor: Address) -> None:
        """Stop a child."""
        ...

    async def restart_child(self, supervisor: int, actor: Address) -> None:
        """Start a child that does not run."""
        ...

    async def delete_child(self, supervisor: int, actor: Address) -> None:
        """Forget a child that does not run."""
        ...

    async def children(self, supervisor: int) -> list[Member]:
        """A supervisor's children, in start order."""
        ...


class Kin:
    """The children of one live supervisor; see `Relatives`."""

    def __init__(self, seat: Activation) -> None:
        self._seat = seat

    def __repr__(self) -> str:
        return f"<children of {self._seat.address}>"

    async def start_child(self, child: Child[Actor]) -> Reference:
        """Start a child at run time."""
        seat = self._seat
        turn = seat.turn
        cause = turn.mail.seq if turn is not None else None
        key, once = child.key, child.key is None
        if key is None:
            if turn is None:
                raise ChildError("a child without a key is started in a handler only. Give it a key.", "start_failed")
            # made from the message and the order of calls: asked again after a crash, it is the same child
            turn.started_children += 1
            key = f"{seat.address.key}-{cause}-{turn.started_children}"
        spawn = seat.host.spawning(child.cls, key, child.state, parent=seat.actor)
        try:
            address = await seat.host.overseer.start_child(Adopt(seat.actor, spawn, child.spec, cause, once))
        except ActorExists as error:
            raise ChildError(str(error), "already_started") from None  # the caller's mistake: no failure of this one
        return Reference(child.cls, address, seat.host)

    async def terminate_child(self, child: Actor) -> None:
        """Stop a child."""
        await self._seat.host.overseer.terminate_child(self._seat.actor, address_of(child))

    async def restart_child(self, child: Actor) -> None:
        """Start a child that does not run."""
        await self._seat.host.overseer.restart_child(self._seat.actor, address_of(child))

    async def delete_child(self, child: Actor) -> None:
        """Forget a child that does not run."""
        await self._seat.host.overseer.delete_child(self._seat.actor, address_of(child))

    async def members(self) -> list[tuple[Reference, Member]]:
        """All of them, in start order."""
        found = await self._seat.host.overseer.children(self._seat.actor)
        return [(Reference(kinds[one.to.kind], one.to, self._seat.host), one) for one in found if one.to.kind in kinds]
