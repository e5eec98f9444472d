"""Giving actors to another node: those that are idle as they are, others when their turn is over.

    chosen ──► its turn ends; no other begins here ──► stopping() ──► offered ──► the other node takes it
                 └─ not soon: it goes on here                          └─ refused: it goes on here

A supervisor stays, for its node stands for its tree; so does an actor that never leaves memory by itself
(``passivate_after=inf``), and what an order is about.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from perdure.actors.stops import LOOK_SECONDS
from perdure.errors import PerdureError
from perdure.storage.offer_writes import Offer
from perdure.supervision.balance import Movable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from perdure.actors.activation import Activation
    from perdure.actors.host import Host

_TURN_SECONDS = 1.0
"""How long an actor's turn is waited for; a longer one stays."""
_TO_CHOOSE_FROM = 8


class Giving:
    """What a node may give of its actors, and how."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __repr__(self) -> str:
        return f"<Giving of {self._host!r}>"

    @property
    def node(self) -> str:
        """The node that gives."""
        return self._host.node

    @property
    def may(self) -> bool:
        """Whether this node may give anything now."""
        return not (self._host.draining or self._host.stale())

    @property
    def load(self) -> int:
        """How many actors it has."""
        return len(self._host.activations)

    def movable(self, wanted: Callable[[Movable], bool], most: int) -> list[Movable]:
        """Some of those that may go and are wanted: the idle ones first, the longest idle before the others.

        Then those in a turn, the youngest turns first. Where there are many, not all are looked at.
        """
        idle: list[tuple[float, Movable]] = []
        busy: list[tuple[float, Movable]] = []
        for each in self._host.activations.values():
            one = Movable(each.actor, each.address.kind, each.spec.needs)
            if not (_may_go(each) and wanted(one)):
                continue
            if _rests(each):
                idle.append((each.idle_since, one))
            else:
                busy.append((-(math.inf if each.turn is None else each.turn.started), one))
            if len(idle) >= _TO_CHOOSE_FROM * most:
                break
        return [one for _, one in (*sorted(idle, key=_rank), *sorted(busy, key=_rank))][:most]

    async def give(self, actors: Collection[int], to: str) -> Collection[int]:
        """Offer these to another node, each once it rests, if that is soon; those that were. Raises `PerdureError`."""
        here = [self._host.activations.get(actor) for actor in actors]
        chosen = [each for each in here if each is not None and _may_go(each)]
        for each in chosen:
            each.given = True
        given: list[int] = []
        try:
            left, end = chosen, self._host.loop.time() + _TURN_SECONDS
            while left and self.may:
                ready = await self._closed([each for each in left if _rests(each)])
                if ready and not await self._offer(ready, to):
                    break
                given += [each.actor for each in ready]
                left = [each for each in left if _may_go(each)]
                if self._host.loop.time() >= end:
                    break
                await asyncio.sleep(LOOK_SECONDS if left else 0)
        finally:
            for each in chosen:
                if not each.gone:
                    each.given = False
                    each.wake()
        return given

    async def _closed(self, resting: Sequence[Activation]) -> Sequence[Activation]:
        """Those that still rest when they have closed what they had opened."""
        await self._close(resting)
        return [each for each in resting if _may_go(each) and _rests(each)]

    async def _close(self, actors: Iterable[Activation]) -> None:
        await asyncio.gather(*(each.living.end() for each in actors if each.living.has_hook))

    async def _offer(self, ready: Collection[Activation], to: str) -> bool:
        """Write the offer down; if it was accepted, they are not here any more."""
        write = Offer(tuple((each.actor, each.epoch) for each in ready), to)
        try:
            offered = await self._host.committer.write(write)
        except PerdureError as error:
            for each in ready:
                each.lose(error)
            raise
        if not offered:
            return False
        for each in ready:
            self._host.outcomes.gone(each.waiting)
            each.gone = True
            self._host.forget(each)
        await self._close(ready)  # a query may have had one started anew
        return True


def _rank(ranked: tuple[float, Movable]) -> float:
    return ranked[0]


def _may_go(each: Activation) -> bool:
    stays = each.gone or each.still or each.spec.supervision is not None or each.spec.passivate_after == math.inf
    return not stays and each.is_loaded and each.starter is None


def _rests(each: Activation) -> bool:
    """Whether nothing runs here, and nothing is on its way to the disk."""
    return each.idle and each.turn is None and (each.given or not each.has_next)
