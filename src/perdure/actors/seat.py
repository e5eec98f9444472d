"""What a turn needs of the activation it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Mapping

    from perdure.actors.actor import Actor
    from perdure.actors.port import Outgoing, Port
    from perdure.storage.records import Address, ChildSpec, Envelope, OpenAsk
    from perdure.storage.seal import Seal
    from perdure.storage.writes import Committed, Segment, Spawn


class Seat(Protocol):
    """What a turn needs of the activation it runs in."""

    @property
    def address(self) -> Address:
        """The actor's address."""
        ...

    @property
    def seal(self) -> Seal | None:
        """What is put around what is stored; none if nothing is."""
        ...

    @property
    def port(self) -> Port:
        """The system, as references know it."""
        ...

    @property
    def worker(self) -> asyncio.Task[Any] | None:
        """The task that runs the handler."""
        ...

    def tries(self, message: int) -> int:
        """How often a replay of its turn has differed from the journal."""
        ...

    @property
    def closing(self) -> bool:
        """Whether nothing new may begin."""
        ...

    @property
    def stale(self) -> bool:
        """Whether its node may begin nothing, for it may soon be taken for dead."""
        ...

    def renewal(self) -> asyncio.Future[None]:
        """A future that ends when it may."""
        ...

    @property
    def max_steps(self) -> int:
        """Records a turn may have."""
        ...

    def timestamp(self) -> float:
        """The system's time."""
        ...

    def segment(self, message: int) -> Segment:
        """An empty segment of this activation."""
        ...

    def commit(self, segment: Segment) -> asyncio.Future[Committed]:
        """Submit a segment; the future ends when it is on disk."""
        ...

    @property
    def node(self) -> str:
        """The node the activation runs on."""
        ...

    def open_asks(self) -> Awaitable[list[OpenAsk]]:
        """The wait-for graph from here."""
        ...

    def envelope(self, message: Outgoing, id_: str, *, chain: tuple[str, ...], cause: int, ask: bool) -> Envelope:
        """A message as it is stored."""
        ...

    def spawning(
        self, cls: type[Actor], key: str, state: Mapping[str, object], child: ChildSpec | None = None
    ) -> Spawn:
        """An actor's beginning."""
        ...
