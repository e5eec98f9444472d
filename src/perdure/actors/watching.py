"""Watching: an actor is told, by a message, that another one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from perdure.actors.actor import Actor
from perdure.actors.ref import address_of, port_of
from perdure.actors.scope import here
from perdure.errors import ArgumentsError
from perdure.storage.writes import Monitor

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from perdure.actors.handler import Handler
    from perdure.actors.receipt import Receipt
    from perdure.actors.ref import Reference


@frozen
class Terminated:
    """What a watcher is told.

    Attributes:
        actor: A reference to the actor that ended.
        reason: `normal` where it stopped itself, `shutdown` where its supervisor stopped it, the error where it failed.
    """

    actor: Actor
    reason: str


class Watcher(Protocol):
    """A bound handler that takes a `Terminated`, whatever it calls it.

    `BoundHandler[[Terminated], Any]` would say the same, but to some checkers a parameter that has a name is another.
    """

    def tell(self, terminated: Terminated, /) -> Coroutine[Any, Any, Receipt[Any]]:
        """See `BoundHandler`."""
        ...

    @property
    def target(self) -> tuple[Reference, Handler[..., Any]]:
        """See `BoundHandler`."""
        ...


async def watch(actor: Actor, handler: Watcher) -> None:
    """Have `handler` sent a `Terminated` when `actor` ends: durably, once, and at once if it has ended or is not there.

    An actor ends when it stops itself, when its supervisor stops it, and when it fails for good. A restart is no end.
    In a turn this leaves with the next durable point. Watching again with the same handler changes nothing.

    Args:
        actor: A reference to the actor to watch.
        handler: A handler of the one who is to be told, such as ``self.ref.gone``, with one parameter.

    Raises:
        ArgumentsError: The handler does not take one argument.
    """
    watcher, declaration = handler.target
    parameters = declaration.signature.names
    if len(parameters) != 1:
        raise ArgumentsError(f"{declaration!r} takes {len(parameters)} arguments; a watcher takes one, a Terminated.")
    note = Monitor(address_of(actor), address_of(watcher), declaration.name, parameters[0])
    scope = here()
    if scope is not None:
        scope.turn.watch(scope, note)
        return
    await port_of(watcher).watch(note)
