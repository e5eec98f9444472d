"""Evens out what the nodes have: gives actors to lighter ones, a few at a time, and takes what this node is offered.

    heartbeat ──► lighter than this one, twice (`Scales`) ──► count, give a few, wait until they are taken ──► count …
    woken     ──► something is offered to this node ──► take it, and bring it into memory

Nothing is read or written for it but the heartbeats' own rows while the loads are alike. An offer that is not taken
soon is withdrawn, and its receiver is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from perdure.errors import PerdureError
from perdure.storage.offer_writes import Take, Withdraw
from perdure.storage.writes import Claimed
from perdure.supervision.balance import CALM, Scales, choose, differ, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from perdure.storage.committer import Committer
    from perdure.storage.records import Peer
    from perdure.storage.store import Store
    from perdure.storage.writes import Placed
    from perdure.supervision.balance import Movable

_LOG = logging.getLogger("perdure.supervision")
_AT_ONCE = 32
_PAUSE_SECONDS = 0.25
_TAKEN_SECONDS = 2.0
_SHUN_SECONDS = 30.0
STAYS_SECONDS = 60.0
"""How long an actor that was taken is not given on."""


class Goods(Protocol):
    """The actors of this node, as far as they may be given away."""

    @property
    def node(self) -> str:
        """This node."""
        ...

    @property
    def may(self) -> bool:
        """Whether this node may give anything now."""
        ...

    @property
    def load(self) -> int:
        """How many it has."""
        ...

    def movable(self, wanted: Callable[[Movable], bool], most: int) -> list[Movable]:
        """Some of those that may go and are wanted, in the order in which they would be missed least."""
        ...

    async def give(self, actors: Collection[int], to: str) -> Collection[int]:
        """Offer these to another node, as far as they come to rest soon; those that were."""
        ...


@frozen
class Offered:
    """Actors that were offered, to whom, and until when they are waited for."""

    actors: frozenset[int]
    to: str
    end: float


class Balancer:
    """Gives and takes.

    Args:
        store: Where the others are counted.
        committer: Where takings go.
        goods: What this node has.
        wake: Brings actors that became this node's into memory.
        tolerance: The part of its load by which a node may have more than another.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        goods: Goods,
        wake: Callable[[Iterable[Placed]], None],
        tolerance: float,
    ) -> None:
        self._store = store
        self._committer = committer
        self._goods = goods
        self._wake = wake
        self._scales = Scales(tolerance)
        self._uneven: asyncio.Event = asyncio.Event()
        self._offers: list[Offered] = []
        self._shunned: dict[str, float] = {}
        self._came: dict[int, float] = {}
        self.given = self.taken = self._in_vain = 0

    def __repr__(self) -> str:
        return f"<Balancer: {self.given} actors given, {self.taken} taken>"

    def look(self, peers: Collection[Peer]) -> None:
        """Compare this node with those that a heartbeat found."""
        if self._scales.look(self._goods.load, peers):
            self._uneven.set()

    # giving -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Even out whatever is uneven, for ever."""
        while True:
            await self._uneven.wait()
            self._uneven.clear()
            try:
                await self._even_out()
            except PerdureError as error:
                _LOG.error("actors could not be given to other nodes, and will be: %s", error)

    async def _even_out(self) -> None:
        """Give to those who have much less, until they have about as much."""
        tolerance, takers = self._scales.tolerance, self._scales.takers
        while (lighter := await self._give_some(takers, tolerance)) or self._offers:
            tolerance, takers = self._scales.tolerance * CALM, lighter
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._look_after_offers()

    async def _give_some(self, takers: Sequence[Peer], tolerance: float) -> Sequence[Peer]:
        """Give a few actors away; those that may be given more."""
        if not self._goods.may:
            return ()
        now = asyncio.get_running_loop().time()
        self._came = {actor: at for actor, at in self._came.items() if now - at < STAYS_SECONDS}
        takers = [peer for peer in takers if now >= self._shunned.get(peer.id, 0.0)]
        counted, me = await self._store.loads() if takers else {}, self._goods.node
        loads = {node: counted.get(node, 0) for node in (me, *(peer.id for peer in self._scales.takers))}
        lighter = [peer for peer in takers if differ(loads[me], loads.get(peer.id, 0), tolerance)]
        slow = {offered.to for offered in self._offers}  # what they were offered last, they have not taken yet
        free = [peer for peer in lighter if peer.id not in slow and peer.id in loads]
        movable = self._goods.movable(lambda each: self._may_go(each, free), _AT_ONCE) if free else ()
        able = {peer.id for peer in free if any(each.may_run_on(peer) for each in movable)}
        wanted = shares(me, loads, able, tolerance, self._in_vain)
        self._in_vain = 0 if wanted or not able else self._in_vain + 1
        for to, actors in choose(movable, wanted, free, _AT_ONCE).items():
            given = await self._goods.give(actors, to)
            if given:
                self.given += len(given)
                end = asyncio.get_running_loop().time() + _TAKEN_SECONDS
                self._offers.append(Offered(frozenset(given), to, end))
        return lighter if self._offers else ()

    def _may_go(self, each: Movable, takers: Iterable[Peer]) -> bool:
        return each.actor not in self._came and any(each.may_run_on(peer) for peer in takers)

    async def _look_after_offers(self) -> None:
        """Withdraw what was not taken in time."""
        now = asyncio.get_running_loop().time()
        for offered in list(self._offers):
            left = offered.actors.intersection(await self._store.offered(offered.to))
            if left and now < offered.end:
                continue
            if left:
                _LOG.warning("node %s did not take %d actors; they are kept from nobody", offered.to, len(left))
                settled = await self._committer.write(Withdraw(tuple(left), offered.to))
                self._wake(settled.actors if isinstance(settled, Claimed) else ())
            if left or not await self._store.elsewhere(offered.actors):
                self._shunned[offered.to] = now + _SHUN_SECONDS
            self._offers.remove(offered)

    # taking -----------------------------------------------------------------------------------------------------------

    async def take(self) -> None:
        """Take what this node is offered, or leave it to the others if it does not run it."""
        while await self._store.offered():
            settled = await self._committer.write(Take())
            taken = settled.actors if isinstance(settled, Claimed) else ()
            self._came.update((place.actor, asyncio.get_running_loop().time()) for place in taken)
            self.taken += len(taken)
            self._wake(taken)
            if not taken:
                break
