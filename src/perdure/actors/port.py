"""The system as references and receipts see it, and what they hand to it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perdure.actors.actor import Actor
    from perdure.actors.handler import Declaration, Query
    from perdure.actors.receipt import Receipt, Status
    from perdure.actors.ref import Reference
    from perdure.actors.slots import Slots
    from perdure.actors.turn import Turn
    from perdure.storage.records import Address
    from perdure.storage.seal import Seal
    from perdure.storage.writes import Monitor

decoding_port: ContextVar[Port | None] = ContextVar("perdure_port", default=None)
"""The system that references decoded here belong to."""


class Options(Struct, frozen=True, gc=False):
    """How a message is sent.

    Attributes:
        id: The sender's own id: the same id is the same message.
        due: Not handled before, seconds since the epoch.
        timeout: Seconds that an ask waits for its reply, or after which a tell is not started any more.
    """

    id: str | None = None
    due: float | None = None
    timeout: float | None = None


class Outgoing(Struct, eq=False, gc=False):
    """A message about to be sent, checked and encoded."""

    cls: type[Actor]
    to: Address
    handler: Declaration
    args: str
    options: Options


class Port(Protocol):
    """What a reference needs of the system it belongs to."""

    @property
    def seal(self) -> Seal | None:
        """What is put around what is stored; none if nothing is."""
        ...

    @property
    def slots(self) -> Slots:
        """The limits that its turns and steps are under."""
        ...

    def tell(self, message: Outgoing) -> tuple[str, Awaitable[object]]:
        """Send from outside any turn: the message's id, and what to await until it is durable."""
        ...

    async def ask(self, message: Outgoing) -> object:
        """Send from outside any turn and wait for the reply."""
        ...

    async def query(self, ref: Reference, query: Query, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Have a query answered."""
        ...

    async def result(self, receipt: Receipt[Any], timeout: float | None) -> object:
        """Wait for the outcome of the receipt's message."""
        ...

    async def status(self, id_: str) -> Status:
        """Where a message stands."""
        ...

    async def watch(self, note: Monitor) -> None:
        """Have an actor told of another's end, from outside any turn."""
        ...

    def seek(self, turn: Turn) -> None:
        """Look for replies that may have come about between a turn's being read and its waiting for them."""
        ...

    def timestamp(self) -> float:
        """The system's time."""
        ...
