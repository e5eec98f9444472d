"""Every state that a model can reach, breadth first, and the shortest way to one that breaks a property.

A model gives its first state and, for each state, the steps that lead on. Two things are asked of it:

    safety     no step and no state breaks a property
    progress   from every state a way leads to a goal that takes no failure, so that nothing waits for ever: under a
               fair scheduler, whoever can do something does it at last

States are hashable values, and numbered in the order in which they are found: that is what makes a run repeatable.
"""

from __future__ import annotations

import gc
from array import array
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

S = TypeVar("S", bound="Hashable")

STUCK = "what is waited for comes at last"


class Step(NamedTuple, Generic[S]):
    """One atomic action.

    Attributes:
        action: What happens, in words and numbers.
        state: The state after it.
        failure: Whether it is something that goes wrong. Nothing may need it to get on.
        broken: The property that it breaks.
    """

    action: tuple[object, ...]
    state: S
    failure: bool = False
    broken: str | None = None


class Model(Protocol[S]):
    """What is explored."""

    def first(self) -> S:
        """The state that everything begins with."""
        ...

    def steps(self, state: S) -> Iterable[Step[S]]:
        """What may happen next, in a fixed order."""
        ...

    def canonical(self, state: S) -> S:
        """The one state that stands for all that differ in names alone."""
        ...

    def broken(self, state: S) -> str | None:
        """The property that a state breaks."""
        ...

    def done(self, state: S) -> bool:
        """Whether nothing is left to be waited for."""
        ...


class Found(NamedTuple):
    """What an exploration found.

    Attributes:
        states: How many different states there are, or were seen before a property broke.
        steps: How many steps lead from one to another.
        broken: The property that breaks, if one does.
        trace: The shortest way there: what happens, and what it changes.
    """

    states: int
    steps: int
    broken: str | None
    trace: tuple[str, ...]

    def __str__(self) -> str:
        if self.broken is None:
            return f"{self.states} states, {self.steps} steps, every property holds"
        return "\n".join([f"broken after {len(self.trace)} steps: {self.broken}", *self.trace])


def explore(model: Model[S], *, ignoring: frozenset[str] = frozenset()) -> Found:
    """Look at every state, until a property breaks that is not ignored."""
    gc.disable()  # there are no cycles, and looking for them among so many tuples takes half of the time
    try:
        return _explore(model, ignoring)
    finally:
        gc.enable()


def _explore(model: Model[S], ignoring: frozenset[str]) -> Found:
    first = model.first()
    number = {first: 0}
    states = [first]
    parents = array("l", [-1])
    sources, targets = array("l"), array("l")  # of steps that are no failures
    taken = here = 0
    while here < len(states):
        for step in model.steps(states[here]):
            taken += 1
            state = model.canonical(step.state)
            there = number.setdefault(state, len(states))
            if there == len(states):
                states.append(state)
                parents.append(here)
            broken = step.broken or (model.broken(state) if there == len(states) - 1 else None)
            if broken is not None and broken not in ignoring:
                return Found(
                    len(states), taken, broken, (*_way(model, states, parents, here), _line(states[here], step))
                )
            if not step.failure and there != here:
                sources.append(here)
                targets.append(there)
        here += 1
    stuck = None if STUCK in ignoring else _stuck([model.done(state) for state in states], sources, targets)
    if stuck is not None:
        return Found(len(states), taken, STUCK, _way(model, states, parents, stuck))
    return Found(len(states), taken, None, ())


def _stuck(safe: list[bool], sources: array[int], targets: array[int]) -> int | None:
    """The first state from which no way leads to a goal."""
    before: list[list[int]] = [[] for _ in safe]
    for source, target in zip(sources, targets, strict=True):
        before[target].append(source)
    reached = [state for state, goal in enumerate(safe) if goal]
    while reached:
        for source in before[reached.pop()]:
            if not safe[source]:
                safe[source] = True
                reached.append(source)
    return next((state for state, goes_on in enumerate(safe) if not goes_on), None)


def _way(model: Model[S], states: list[S], parents: array[int], end: int) -> tuple[str, ...]:
    """The shortest way to a state, which is the one that it was first found on."""
    lines: list[str] = []
    while parents[end] >= 0:
        came_from = parents[end]
        before = states[came_from]
        lines.append(next(_line(before, it) for it in model.steps(before) if model.canonical(it.state) == states[end]))
        end = came_from
    return tuple(reversed(lines))


def _line(before: object, step: Step[S]) -> str:
    """What happens, and what is otherwise after it."""
    names: tuple[str, ...] = getattr(step.state, "_fields", ())
    changed = [name for name in names if getattr(before, name) != getattr(step.state, name)]
    what = " ".join(str(word) for word in step.action)
    return f"{what:<44} " + ", ".join(f"{name}={getattr(step.state, name)}" for name in changed)
