"""The heartbeat of a node: signs of life while there are others, and a look at theirs.

Its clock is the machine's, and not the loop's, which may stand still while a handler computes.

A node alone with its database writes none: nobody is there to judge it, and whoever comes has a lease to wait. Signs of
life go before all other writes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from perdure.errors import PerdureError
from perdure.supervision.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perdure.storage.committer import Committer
    from perdure.storage.records import Peer
    from perdure.storage.store import Store
    from perdure.storage.writes import Beat

_LOG = logging.getLogger("perdure.supervision")


class Pulse:
    """Beats, and tells who has stopped to.

    Args:
        store: Where the others are read.
        committer: Where the heartbeats go.
        lease_seconds: How long a node is taken to live after its last heartbeat.
        beat: This node's next sign of life.
        renewed: Called when this node may begin things again.

    Attributes:
        dead: Called with the nodes that are dead and the counters they were judged by.
        looked: Called with the others that live.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        lease_seconds: float,
        *,
        beat: Callable[[], Beat],
        renewed: Callable[[], None],
    ) -> None:
        self._store = store
        self._committer = committer
        self._lease = Lease(lease_seconds, time.monotonic())
        self._beat = beat
        self.dead: Callable[[Sequence[tuple[str, int]]], Awaitable[None]] | None = None
        self.looked: Callable[[Sequence[Peer]], None] | None = None
        self._renewed = renewed
        self._others = False
        self._waiting: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Pulse {'among others' if self._others else 'alone'}>"

    def stale(self) -> bool:
        """Whether this node may begin nothing, for it may soon be buried."""
        return not self._lease.holds(time.monotonic())

    def renewal(self) -> asyncio.Future[None]:
        """A future that ends when it may."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    async def run(self, every_seconds: float) -> None:
        """Beat, for ever."""
        while True:
            began = time.monotonic()
            try:
                again = await self._once()
            except PerdureError as error:
                _LOG.error("a heartbeat failed, and the next one follows: %s", error)
                again = False
            if not again:
                await asyncio.sleep(max(0.0, began + every_seconds - time.monotonic()))

    async def _once(self) -> bool:
        """One beat, and a look; whether the next is due at once, for somebody has come."""
        sent = time.monotonic()
        if self._others:
            await self._committer.write(self._beat(), first=True)
            self._renew(self._lease.beaten, sent)
        looked = time.monotonic()
        peers = await self._store.peers()
        came = bool(peers) and not self._others
        self._others = bool(peers)
        if peers:
            dead = self._lease.judge(peers, looked)
            if self.looked is not None:
                self.looked([peer for peer in peers if (peer.id, peer.beats) not in dead])
            if dead and self.dead is not None:
                await self.dead(dead)
        else:
            self._renew(self._lease.alone, looked)
        return came

    def _renew(self, shown: Callable[[float], None], at: float) -> None:
        """Note what was shown; whoever had to wait goes on, if only while that was under way, as with a slow commit."""
        was_stale = self.stale()
        shown(at)
        if not was_stale or self.stale():
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self._renewed()
