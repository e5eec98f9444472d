"""Where in a turn the running code is: what gives every step a key that a replay finds again.

A key is (scope, name, ordinal in the scope) or the caller's own `key=`. A turn begins in one scope. Each item of a
`fan_out` has a scope of its own, and so has each task that code starts by other means, numbered in the order in which
the tasks of a scope first call perdure:

    summarise#2               the second call of summarise in the handler itself
    fan_out#1[3]/summarise#1  the first call within item 3 of the first fan_out
    ~2/summarise#1            the first call within the second task
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextvars import ContextVar
from typing import TYPE_CHECKING

from perdure.errors import KeyFormatError, NestedStepError
from perdure.storage.failure import storable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.actors.turn import Turn


_MOST_BYTES = 2_000  # an index of PostgreSQL takes 2,704, with the message's number


def check_journal_key(key: str) -> str:
    """A key with names in it that users gave, if every database can keep it; raises `KeyFormatError`."""
    if storable(key) != key:
        raise KeyFormatError(f"journal key {key[:100]!r} holds a NUL or a lone surrogate. Leave it out of key=.")
    if len(key.encode()) > _MOST_BYTES:
        raise KeyFormatError(
            f"journal key '{key[:100]}…' has {len(key.encode())} bytes; {_MOST_BYTES} is the limit. Use a shorter "
            "key=, such as a digest of it."
        )
    return key


class Scope:
    """A part of a turn with ordinals of its own. The outermost one is the turn itself."""

    path = ""
    task: asyncio.Task[object] | None
    # most turns never need them
    _ordinals: dict[str, int] | None = None
    _children: dict[asyncio.Task[object], Scope] | None = None

    @property
    @abstractmethod
    def turn(self) -> Turn:
        """The turn that it is a part of."""

    def key(self, name: str, key: str | None = None) -> str:
        """The key of the next call of `name` here."""
        if key is not None:
            return check_journal_key(f"{self.path}{name}:{key}")
        if self._ordinals is None:
            self._ordinals = {}
        ordinal = self._ordinals[name] = self._ordinals.get(name, 0) + 1
        return f"{self.path}{name}#{ordinal}"

    def former(self, name: str, key: str | None = None) -> str:
        """What `key` would give next for a former name, without using it up."""
        ordinals = self._ordinals or {}
        return f"{self.path}{name}:{key}" if key is not None else f"{self.path}{name}#{ordinals.get(name, 0) + 1}"

    def child(self, task: asyncio.Task[object]) -> Scope:
        """The scope of a task that was started here."""
        if self._children is None:
            self._children = {}
        found = self._children.get(task)
        if found is None:
            found = self._children[task] = Part(self.turn, f"{self.path}~{len(self._children) + 1}/", task)
            self.turn.joined(task)
        return found


class Part(Scope):
    """A scope within a turn."""

    def __init__(self, turn: Turn, path: str, task: asyncio.Task[object] | None) -> None:
        self._turn = turn
        self.path = path
        self.task = task

    def __repr__(self) -> str:
        return f"<Part {self.path} of {self._turn!r}>"

    @property
    def turn(self) -> Turn:
        """See `Scope.turn`."""
        return self._turn


current: ContextVar[Scope | None] = ContextVar("perdure_scope", default=None)
"""The scope of the running code; none outside turns."""

running_step: ContextVar[str | None] = ContextVar("perdure_step", default=None)
"""The id of the step whose body runs here."""


def here() -> Scope | None:
    """The scope of the calling task, or `None` outside a turn and inside a step's body."""
    scope = current.get()
    if scope is None or running_step.get() is not None:
        return None
    task = asyncio.current_task()
    if task is not scope.task and task is not None:
        scope = scope.child(task)
        current.set(scope)
    scope.turn.check()
    return scope


def forbid_in_step(what: str, whom: object = "") -> None:
    """Raise `NestedStepError` inside a step's body."""
    step = running_step.get()
    if step is not None:
        raise NestedStepError(
            f"{what}{whom} was begun inside step '{step}'. A step is one effect: make this a plain function, or call "
            "it from the handler."
        )


def item_names(names: Iterable[str], prefix: str) -> list[str]:
    """The names of a fan-out's items, if they can stand in the journal. Raises `ValueError` if two have one."""
    found = list(names)
    if len(set(found)) < len(found):
        raise ValueError("key= gives two items one name. Leave it out to name items by their index.")
    for name in found:
        check_journal_key(f"{prefix}[{name}]/")
    return found
