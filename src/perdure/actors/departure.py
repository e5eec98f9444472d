"""Who may leave a node now: trees in reverse start order, everybody else as they are ready (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.supervision.strategy import OneForOne

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from perdure.storage.records import Member
    from perdure.supervision.strategy import Strategy


class Departure:
    """The order in which the members of the trees on one node stop.

    A supervisor stops after all below it, and a child after its younger siblings. Where nothing ties siblings to each
    other (`OneForOne`), one that is still busy holds no elder up; those of a pool stop together.

    Args:
        members: Each before those it supervises, siblings in start order.
        strategy_of: An actor's strategy; none if it supervises nobody.
    """

    def __init__(self, members: Sequence[Member], strategy_of: Callable[[Member], Strategy | None]) -> None:
        self._reversed = [one.actor for one in reversed(members)]
        self._above = {one.actor: one.supervisor for one in members}
        self._below: dict[int, list[int]] = {}
        self._younger: dict[int, tuple[list[int], bool]] = {}
        self._stopped: set[int] = set()
        strategies = {one.actor: strategy_of(one) for one in members}
        families: dict[int, list[Member]] = {}
        for one in members:
            if one.supervisor in strategies:
                families.setdefault(one.supervisor or 0, []).append(one)
        for supervisor, siblings in families.items():
            loose = isinstance(strategies[supervisor], OneForOne)
            self._below[supervisor] = [one.actor for one in siblings]
            self._rank(siblings, families, loose=loose)

    def __repr__(self) -> str:
        return f"<Departure of {len(self._reversed)} actors, {len(self._stopped)} of them stopped>"

    def __contains__(self, actor: int) -> bool:
        return actor in self._above

    def _rank(self, siblings: Sequence[Member], families: Collection[int], *, loose: bool) -> None:
        """Note for each sibling which younger ones stop right before it."""
        younger: list[int] = []
        pool: list[int] = []
        for one in reversed(siblings):
            if loose and not one.declared and one.actor not in families:
                pool.append(one.actor)
            else:
                younger, pool = pool or younger, []
            self._younger[one.actor] = (younger, loose)
            if not pool:
                younger = [one.actor]

    def is_tied(self, actor: int) -> bool:
        """Whether it, or one above it, restarts with its siblings: nobody may start it elsewhere before its elders."""
        above: int | None = actor
        while above is not None:
            if not self._younger.get(above, ((), True))[1]:
                return True
            above = self._above.get(above)
        return False

    def stopped(self, actor: int) -> None:
        """An actor has stopped, whatever came of it."""
        self._stopped.add(actor)

    def next(self, here: Iterable[int], busy: Collection[int]) -> Iterator[int]:
        """Of the actors here, those that may stop now; none of them is busy.

        What has stopped by the time the next one is asked for counts.
        """
        waiting = set(here)
        held: set[int] = set()
        for actor in self._reversed:
            younger, loose = self._younger.get(actor, ((), False))
            below = self._below.get(actor, ())
            if actor in busy or any(each in held for each in (*below, *(() if loose else younger))):
                held.add(actor)
            elif actor in waiting and self._may_stop(actor, waiting, held):
                yield actor
        yield from waiting.difference(self._reversed, busy)

    def _may_stop(self, actor: int, here: Collection[int], held: Collection[int]) -> bool:
        """Whether all that stop before it have: those below it, younger siblings, and those of who is above it."""

        def stays(each: int) -> bool:
            return each in here and each not in self._stopped

        if any(stays(each) for each in self._below.get(actor, ())):
            return False
        above: int | None = actor
        while above is not None:
            younger, loose = self._younger.get(above, ((), False))
            if any(stays(each) and not (loose and each in held) for each in younger):
                return False
            above = self._above.get(above)
        return True
