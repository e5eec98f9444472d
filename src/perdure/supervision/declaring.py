"""What a supervisor's class declares: its children, as they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perdure.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perdure.actors.actor import Actor
    from perdure.storage.records import ChildSpec, Member
    from perdure.storage.writes import Spawn
    from perdure.supervision.floor import Floor


class Declared(Protocol):
    """A child as a supervisor's class declares it."""

    cls: type[Actor]
    key: str | None
    state: Mapping[str, object]
    spec: ChildSpec


class Declaring(Protocol):
    """A supervisor, as far as its children go."""

    def children(self) -> Iterable[Declared]:
        """The children it starts with, in start order."""
        ...


def declared(one: Member, supervisor: Declaring, floor: Floor) -> list[tuple[Spawn, ChildSpec]]:
    """The children of a live supervisor. Raises `StartError` if they cannot be as they are declared."""
    try:
        children = [
            (floor.spawning(child.cls, _key_of(child), child.state, one.actor), child.spec)
            for child in supervisor.children()
        ]
    except StartError:
        raise
    except Exception as error:
        raise StartError(f"{one.to}: children() raised {type(error).__name__}: {error}") from error
    if len({spawn.to for spawn, _ in children}) < len(children):
        raise StartError(f"{one.to} declares a child twice. Give each its own key.")
    return children


def _key_of(child: Declared) -> str:
    if child.key is None:
        raise StartError(f"{child!r} is declared without a key, and would be another one at every start. Give it one.")
    return child.key
