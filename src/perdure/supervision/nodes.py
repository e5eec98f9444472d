"""The sweep: what makes recovery need no operator.

Every process is a node with a random identity. Recovery is not a start-up event but a loop that every node runs:

    woken, or every so often ──► what other nodes have committed for this one
                             ──► nodes whose process is gone: bury them, their actors have no owner any more
                             ──► actors without an owner that have work: claim as many as this node may run
    when its time comes      ──► what fell due: number it

A node is dead when the kernel says so: the lock it holds on a file beside the database is free. Or when it gives no
sign of life (`pulse.py`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from perdure.errors import PerdureError
from perdure.storage.history_writes import Purge, Purged
from perdure.storage.writes import Buried, Bury, Claim, Claimed, Due, Fired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perdure.storage.committer import Committer
    from perdure.storage.hints import Heard
    from perdure.storage.records import Completion
    from perdure.storage.store import Store
    from perdure.storage.writes import Appended, Placed
    from perdure.supervision.alarm import Alarm
    from perdure.supervision.balancer import Balancer
    from perdure.supervision.orders import Orders

_LOG = logging.getLogger("perdure.supervision")
_CLAIM_LIMIT = 1_000
_UNKNOWN_AFTER_SECONDS = 5.0
# Others may commit without end: past a first few, looks are that far apart on average.
_APART_SECONDS = 0.004
_THOROUGH_SECONDS = 0.02
"""Least time between two looks at what anybody may do; messages to this node's own actors do not wait for it."""
_AT_ONCE = 25
_PURGED_AT_ONCE, _PURGED_LOOKS = 1_000, 10_000
_PURGE_PAUSE_SECONDS = 0.05
_RECENT_SECONDS = 120.0
"""What ended less long ago stays, whatever the limits say: by it a commit that got no answer is looked up."""


class Residents(Protocol):
    """The actors of this node, as the sweep needs them.

    Attributes:
        draining: Whether it takes none any more; then others bury the dead and claim what they had.
    """

    draining: bool

    def wake(self, places: Iterable[Placed]) -> None:
        """Bring claimed actors into memory."""
        ...

    def deliver(self, appended: Appended) -> None:
        """Give a message to its mailbox."""
        ...

    def completions(self, completions: Iterable[Completion]) -> None:
        """Tell turns what was completed for them."""
        ...

    async def look(self) -> None:
        """Notice what other processes committed."""
        ...

    async def look_at(self, heard: Heard) -> None:
        """Notice what other processes are said to have committed."""
        ...

    def passivate(self) -> None:
        """Let idle actors leave memory."""
        ...


class Sweep:
    """The periodic work of one node."""

    def __init__(  # noqa: PLR0913  # it works for all of these
        self,
        store: Store,
        committer: Committer,
        residents: Residents,
        *,
        kinds: Callable[[], Iterable[str]],
        timestamp: Callable[[], float],
        deaths: int,
        orders: Orders,
        alarm: Alarm,
        balancer: Balancer,
    ) -> None:
        self._store = store
        self._committer = committer
        self._residents = residents
        self._kinds = kinds
        self._timestamp = timestamp
        self._deaths = deaths
        self._orders = orders
        self._anew = True
        self._begun = False
        """Whether the root's tree stands; nothing is claimed before."""
        self._adopted: asyncio.Event = asyncio.Event()
        """Set once what nobody had was taken up for the first time."""
        self._departed: set[str] = set()
        self._burying: set[str] = set()
        self._owes_burial = False
        self._owed = False
        self._thorough_from = 0.0
        self._due: asyncio.Event = asyncio.Event()
        self._alarm = alarm
        self.balancer = balancer
        self._started = timestamp()

    async def bury(self, judged: Sequence[tuple[str, int]] = ()) -> bool:
        """End dead nodes: their actors are anybody's, and their trees, like those of nodes that left, to be started.

        Those that were `judged` by their counters of heartbeats, beside those that the kernel tells of. Whether there
        were any.
        """
        buried = False
        looks = (self._store.departed(), self._store.dead_nodes(), self._store.unburied())
        departed, dead, unburied = await asyncio.gather(*looks)
        self._anew = self._anew or not self._departed.issuperset(departed)
        self._departed = set(departed)
        self._owes_burial = False
        for node, beats in (*((node, None) for node in dead), *judged):
            buried = await self._bury(node, beats, is_dead=beats is None) or buried
        for node in await self._store.unburied() if buried else unburied:  # one of them may have been burying others
            if node not in self._burying:
                buried = await self._bury(node, None, is_dead=False) or buried
        if self._anew:
            await self._orders.expect()
        return buried

    async def _bury(self, node: str, beats: int | None, *, is_dead: bool) -> bool:
        """End a node, in parts, so that others write between them; whether this node did.

        That nothing was done means of one that `is_dead` that another node has ended it, of others nothing at all: it
        lives after all, or another node was first and may not be at the end.
        """
        parts: list[Buried] = []
        self._burying.add(node)
        try:
            while not parts or parts[-1].more:
                settled = await self._committer.write(Bury(node, self._deaths, self._timestamp(), beats))
                if not isinstance(settled, Buried):
                    break
                parts.append(settled)
                self._residents.completions(settled.completions)
        except PerdureError:
            self._owes_burial = True  # nobody else has a reason to look
            raise
        finally:
            self._burying.discard(node)
        if (parts and not parts[-1].more) or (is_dead and not parts):
            self._anew = True
            self._departed.add(node)
            await self._store.buried(node)
        if parts:
            blamed = [id_ for part in parts for id_ in part.blamed]
            letters = [id_ for part in parts for id_ in part.dead]
            actors = sum(part.actors for part in parts)
            _LOG.info("node %s is dead; %d actors adopted, blamed: %s, dead letters: %s", node, actors, blamed, letters)
        return bool(parts)

    async def begin(self) -> None:
        """The root's tree stands: what nobody has is taken up, now and whenever it comes about."""
        self._begun = True
        await self.adopt()
        self._adopted.set()

    async def adopt(self, judged: Sequence[tuple[str, int]] = ()) -> None:
        """Bury the dead, claim what has work, and go on with orders that nobody carries out."""
        if self._residents.draining:
            return
        if not self._begun:
            await self.bury(judged)
            return
        buried, unowned = await asyncio.gather(self.bury(judged), self._is_unowned())
        # Looked for before it is claimed: a claim is a commit, and two idle nodes would answer each other's for ever.
        while unowned or (buried and await self._is_unowned()):
            claimed = await self._committer.write(Claim(tuple(self._kinds()), _CLAIM_LIMIT))
            if not isinstance(claimed, Claimed) or not claimed.actors:
                break
            self._residents.wake(claimed.actors)
            unowned = await self._is_unowned()
        everything, self._anew = self._anew, False
        try:
            await self._orders.recover(everything=everything)
        except PerdureError:
            self._anew, self._owed = self._anew or everything, True  # who is awaited is let go by that alone
            raise
        if everything:
            await self._residents.look()  # whoever asks what the dead had is not told to ask again

    async def begin_anew(self) -> None:
        """This node has entered under another identity: what nobody has is taken up."""
        self._anew = self._owed = True  # the sweep looks again, if this fails
        await self.adopt()

    async def run(self, every_seconds: float) -> None:
        """Look around, for ever: at once when another node may have done something, and now and then all the same."""
        loop = asyncio.get_running_loop()
        await self._until_begun(every_seconds)
        turn, regular = -1, loop.time() + every_seconds
        ahead, end = 0.0, loop.time()
        while True:
            try:
                until = min(regular, self._thorough_from) if self._owed else regular
                heard = await self._store.wait(max(until - loop.time(), 0.0))
                if loop.time() >= regular:
                    turn, regular = turn + 1, loop.time() + every_seconds
                    await self._regularly(turn)
                await self._look_as_told(heard, loop.time())
            except PerdureError as error:
                self._owed = True  # what it was told of is not looked at yet
                _LOG.error("the sweep failed and goes on: %s", error)
            ahead, end = max(ahead + end - loop.time(), 0.0) + _APART_SECONDS, loop.time()
            if ahead > _AT_ONCE * _APART_SECONDS:
                await asyncio.sleep(ahead - _AT_ONCE * _APART_SECONDS)

    async def _until_begun(self, every_seconds: float) -> None:
        """Wait for the system that opens, however long: its tree is started in order, and nobody is to overtake it.

        What `started()` asks of others is answered meanwhile.
        """
        while not self._adopted.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await self._adopted.wait()
                    return
            try:
                await self._residents.look()
            except PerdureError as error:
                _LOG.error("a look failed and is made again: %s", error)

    async def _regularly(self, turn: int) -> None:
        self._residents.passivate()
        if turn % 4 == 0:
            await self._look_at_others()  # wake-ups may be lost
        if turn % 20 == 0:
            await self._residents.look()
            await self._look_for_unowned()

    async def _look_as_told(self, heard: Heard, now: float) -> None:
        """Look for what this node's actors are sent, at once; and at what anybody may do, now or a little later.

        Whoever was told does not ask whether anything has changed: that waits for the transaction under way.
        """
        self._owed = self._owed or heard.anything
        if self._owed and now >= self._thorough_from:
            self._owed, self._thorough_from = False, now + _THOROUGH_SECONDS
            await self._look_at_all()
        elif heard.anything:
            await self._residents.look()
        elif heard:
            await self._residents.look_at(heard)

    async def _look_at_others(self) -> None:
        """Take up what other nodes have committed, if they have, and what dead ones left."""
        if await self._store.changed():
            await self._look_at_all()
        elif self._owes_burial or await self._store.dead_nodes():
            await self.adopt()

    async def _look_at_all(self) -> None:
        looks = (self._residents.look(), self._orders.obey(), self.balancer.take(), self.adopt())
        found = await asyncio.gather(*looks, return_exceptions=True)
        self._due.set()
        for error in found:
            if error is not None:
                raise error  # when all have ended: none of them is to meet itself at the next look

    async def _is_unowned(self) -> bool:
        """Whether an actor that this node can run has work and no owner."""
        kinds = set(self._kinds())
        return any(kind in kinds for kind, _ in await self._store.unknown_kinds(()))

    async def _look_for_unowned(self) -> None:
        """Claim what nobody has, such as actors whose module was imported late; tell of kinds that nobody can run."""
        if self._residents.draining:
            return
        kinds = set(self._kinds())
        unowned = await self._store.unknown_kinds(())
        if any(kind in kinds for kind, _ in unowned):
            await self.adopt()
        if self._timestamp() - self._started < _UNKNOWN_AFTER_SECONDS:
            return
        await self._alarm.ring([(kind, count) for kind, count in unowned if kind not in kinds])

    # time -------------------------------------------------------------------------------------------------------------

    def due_changed(self) -> None:
        """Something may fall due earlier than was thought."""
        self._due.set()

    async def fire(self) -> None:
        """Number what falls due, when it falls due, for ever."""
        while True:
            self._due.clear()
            due = await self._next_due()
            delay = None if due is None else max(0.0, due - self._timestamp())
            try:
                async with asyncio.timeout(None if delay is None else min(delay, 60.0)):
                    await self._due.wait()
                continue
            except TimeoutError:
                pass
            try:
                settled = await self._committer.write(Due(self._timestamp()))
            except PerdureError as error:
                _LOG.error("timers could not be fired, and will be: %s", error)
                await asyncio.sleep(1.0)
                continue
            if isinstance(settled, Fired):
                for appended in settled.appended:
                    self._residents.deliver(appended)
                self._residents.wake(settled.woken)
                self._residents.completions(settled.completions)

    async def _next_due(self) -> float | None:
        try:
            return await self._store.next_due()
        except PerdureError as error:
            _LOG.error("timers could not be looked up, and will be: %s", error)
            return self._timestamp() + 1.0

    async def purge(self, *, retention: float, results: float, history: int, every_seconds: float) -> None:
        """Remove history past its retention, in the background, for ever."""
        while True:
            await asyncio.sleep(every_seconds)
            now = self._timestamp()
            after: int | None = 0
            written = self._committer.writes
            try:
                while after is not None:
                    # a message is two writes: more than came since the last time, or this would never end
                    came, written = (self._committer.writes - written) // 2, self._committer.writes
                    limit, looks = _PURGED_AT_ONCE + came, _PURGED_LOOKS + came
                    recent = now - _RECENT_SECONDS
                    write = Purge(now - retention, now - results, history, limit, after, looks, recent)
                    purged = await self._committer.write(write)
                    after = purged.after if isinstance(purged, Purged) else None
                    await asyncio.sleep(_PURGE_PAUSE_SECONDS)
            except PerdureError as error:
                _LOG.error("old history could not be removed, and will be: %s", error)
