"""What a turn needs of the activation it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Mapping

    from perdure.actors.actor import Actor
    from perdure.actors.ref import Outgoing, Port
    from perdure.storage.records import Address, Envelope, OpenAsk
    from perdure.storage.writes import Committed, Segment, Spawn


class Seat(Protocol):
    """What a turn needs of the activation it runs in."""

    @property
    def address(self) -> Address: ...  # noqa: D102  # the actor's address
    @property
    def port(self) -> Port: ...  # noqa: D102  # the system, as references know it
    @property
    def worker(self) -> asyncio.Task[Any] | None: ...  # noqa: D102  # the task that runs the handler
    @property
    def closing(self) -> bool: ...  # noqa: D102  # whether nothing new may begin
    @property
    def max_steps(self) -> int: ...  # noqa: D102  # records a turn may have
    def timestamp(self) -> float: ...  # noqa: D102  # the system's time
    def segment(self, message: int) -> Segment: ...  # noqa: D102  # an empty segment of this activation
    def commit(self, segment: Segment) -> asyncio.Future[Committed]: ...  # noqa: D102  # submit one
    @property
    def node(self) -> str: ...  # noqa: D102  # the node the activation runs on
    def open_asks(self) -> Awaitable[list[OpenAsk]]: ...  # noqa: D102  # the wait-for graph from here
    def envelope(self, message: Outgoing, id_: str, chain: tuple[str, ...], cause: int) -> Envelope: ...  # noqa: D102  # a message as it is stored
    def spawning(self, cls: type[Actor], key: str, state: Mapping[str, object]) -> Spawn: ...  # noqa: D102  # an actor's beginning
