"""`Supervisor`: an actor that only keeps others running.

    class Crew(Supervisor, strategy=RestForOne(max_restarts=3)):
        def children(self):
            yield Child(Fetcher, "fetcher")
            yield Child(Writer, "writer").options(restart="transient")

It starts its children in order, before it takes a message, and is stopped after they are. What it decides about them
is not done in here (see `judge.py`), so it need not be in memory, or idle, for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from attrs import frozen

from perdure.actors.actor import Actor, cell_of, lives
from perdure.actors.child import Child
from perdure.actors.handler import Handler, query
from perdure.actors.ref import class_of
from perdure.storage.records import Restart
from perdure.supervision.strategy import OneForOne

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from perdure.actors.ref import Reference
    from perdure.storage.records import Member
    from perdure.supervision.strategy import AutoShutdown, Strategy

A = TypeVar("A", bound=Actor)
F = TypeVar("F", bound="Callable[..., Coroutine[Any, Any, Any]]")


def _operation(function: F, /) -> F:
    """A handler that a reference has as a plain method: its types are generic, which a handler's cannot be."""
    return cast("F", Handler(function))


@frozen
class ChildStatus:
    """A child as its supervisor sees it.

    Attributes:
        actor: A reference to it.
        restart: When it is restarted.
        state: `running`, in memory or not; `restarting`, until its time comes and its elders run; `stopped`, by its
            supervisor or by itself; `failed`, until someone restarts it.
    """

    actor: Actor
    restart: Restart
    state: Literal["running", "restarting", "stopped", "failed"]


@frozen
class ChildCounts:
    """How many children a supervisor has.

    Attributes:
        specs: All of them.
        active: Those that run.
        supervisors: Those that supervise others, running or not.
        workers: The others, running or not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


class Supervisor(Actor, kind="perdure.Supervisor"):
    """An actor that keeps others running.

    Class keywords:
        kind: Durable name; the class's qualified name without it.
        strategy: What it does about a child that ended. `OneForOne()` without it.
        auto_shutdown: Whether it ends, and its children with it, when significant children end by themselves: `never`,
            with any of them, or with the last one.
    """

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        strategy: Strategy | None = None,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        super().__init_subclass__(kind=kind, supervision=strategy or OneForOne(), passivate_after=float("inf"))
        spec = cls.__perdure__
        spec.raises_children = True
        spec.auto_shutdown = auto_shutdown

    def children(self) -> Iterable[Child[Actor]]:
        """The children it starts with, in start order. The same at every start; others are started at run time."""
        return ()

    @_operation
    async def start_child(self, child: Child[A]) -> A:
        """Start a child at run time, and wait until its `started()` has returned.

        Without a key it gets one of its own; ended by itself, it is not begun again where the handler is. Under a key
        that was given it begins anew, from the state given here, if it had ended and was forgotten, as temporary ones
        are.

        Raises:
            ChildError: It is a child already (`already_started`, `already_present`), or exists with other initial state
                (`already_started`), or did not start (`start_failed`) and is forgotten.
        """
        return cast("A", await cell_of(self).relatives.start_child(child))

    @_operation
    async def terminate_child(self, child: Actor) -> None:
        """Stop a child and all below it. It stays a child, with its mail, until it is restarted or deleted.

        A temporary child is forgotten, and its mail becomes dead letters.

        Raises:
            ChildError: It is no child of this supervisor (`not_found`).
        """
        await cell_of(self).relatives.terminate_child(child)

    @_operation
    async def restart_child(self, child: Actor) -> None:
        """Start a child that was terminated, failed or ended, from its snapshot and with its mail.

        Raises:
            ChildError: It is no child (`not_found`), or runs (`running`, `restarting`), or did not start
                (`start_failed`).
        """
        await cell_of(self).relatives.restart_child(child)

    @_operation
    async def delete_child(self, child: Actor) -> None:
        """Forget a child that does not run. Its mail becomes dead letters.

        Raises:
            ChildError: It is no child (`not_found`), or runs (`running`, `restarting`).
        """
        await cell_of(self).relatives.delete_child(child)

    @query
    async def which_children(self) -> list[ChildStatus]:
        """The children, in start order."""
        return [
            ChildStatus(cast("Actor", child), one.spec.restart, _state(one)) for child, one in await self._members()
        ]

    @query
    async def count_children(self) -> ChildCounts:
        """How many children there are."""
        members = await self._members()
        active = sum(_state(one) == "running" for _, one in members)
        supervisors = sum(class_of(child).__perdure__.supervision is not None for child, _ in members)
        return ChildCounts(len(members), active, supervisors, len(members) - supervisors)

    async def _members(self) -> list[tuple[Reference, Member]]:
        # a question to a supervisor that was never begun is answered by an instance that lives nowhere
        return await cell_of(self).relatives.members() if lives(self) else []


def _state(one: Member) -> Literal["running", "restarting", "stopped", "failed"]:
    if one.status == "stopped" or one.life == "terminated":
        return "stopped"
    return one.life
