"""An actor in memory, as the live object and its turns see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from perdure.actors.mailbox import Mailbox
from perdure.actors.scope import here
from perdure.errors import ActorDefinitionError, NotInTurnError
from perdure.storage.records import ChildSpec
from perdure.storage.writes import Segment

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Mapping

    from perdure.actors.actor import Actor, ActorSpec
    from perdure.actors.host import Host
    from perdure.actors.port import Outgoing, Port
    from perdure.actors.ref import Reference
    from perdure.storage.records import Envelope, OpenAsk
    from perdure.storage.writes import Placed, Spawn
    from perdure.system import ActorSystem

_SPAWNED = ChildSpec("transient")


class Seated(Mailbox):
    """What an activation is to its live object (see `Cell`) and to its turns (see `Seat`)."""

    def __init__(self, host: Host, spec: ActorSpec, place: Placed) -> None:
        super().__init__(host, place)
        self.spec = spec
        self.seal = host.seal
        self.timestamp = host.timestamp
        self.still = False
        """Its supervisor starts or stops it: it begins nothing."""

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        return self.host.system

    @property
    def port(self) -> Port:
        """The system as references know it."""
        return self.host

    @property
    def node(self) -> str:
        """The node it runs on."""
        return self.host.node

    def tries(self, message: int) -> int:
        """How often a replay of its turn has differed from the journal."""
        return self.host.differed.get(message, 0)

    @property
    def closing(self) -> bool:
        """Whether its node leaves, or its supervisor stops it."""
        return self.still or self.host.draining

    @property
    def stale(self) -> bool:
        """Whether its node may begin nothing, for it may soon be taken for dead."""
        return self.host.stale()

    def renewal(self) -> asyncio.Future[None]:
        """A future that ends when it may."""
        return self.host.renewal()

    @property
    def max_steps(self) -> int:
        """How many results a turn may ask for."""
        return self.host.limits.steps

    def open_asks(self) -> Awaitable[list[OpenAsk]]:
        """The wait-for graph reachable from this actor."""
        return self.host.store.open_asks(self.actor)

    async def spawn(
        self, cls: type[Actor], key: str | None, state: Mapping[str, object], child: ChildSpec | None = None
    ) -> Reference:
        """Begin an actor from the running turn."""
        scope = here()
        if scope is None:
            raise NotInTurnError("self.spawn() was called outside a handler's turn. Use system.spawn() there.")
        if child is None and self.spec.supervision is not None:
            child = _SPAWNED
        elif child is not None and self.spec.supervision is None:
            raise ActorDefinitionError(
                f"{self.spec.cls.__name__} supervises nobody, so it cannot spawn a Child with options. "
                "Give the class supervision=, or spawn the actor without Child."
            )
        return await scope.turn.spawn(scope, cls, key, state, child)

    def stop(self) -> None:
        """End the actor with its running turn."""
        scope = here()
        if scope is None:
            raise NotInTurnError("self.stop() was called outside a handler's turn. Call it in a @handler.")
        scope.turn.stop_actor = True

    def envelope(self, message: Outgoing, id_: str, *, chain: tuple[str, ...], cause: int, ask: bool) -> Envelope:
        """A turn's message as it is stored."""
        return self.host.envelope(message, id_, chain=chain, cause=cause, ask=ask)

    def spawning(
        self, cls: type[Actor], key: str, state: Mapping[str, object], child: ChildSpec | None = None
    ) -> Spawn:
        """An actor's beginning, as the running turn writes it."""
        return replace(self.host.spawning(cls, key, state, parent=self.actor), child=child)

    def segment(self, message: int) -> Segment:
        """An empty segment."""
        return Segment(self.actor, self.epoch, message)
