"""Results are handed to a handler one at a time, in one order, live and on replay alike.

Tasks of one turn that wait for results would otherwise wake in whatever order a replay finds results, and a plain
`gather` whose tasks append to one list would come out different. So every completion has a position in its turn. Live,
results are queued as they complete, and numbered as they are handed over; on replay recorded ones are handed out by
position, each when the code has asked for it and the one before has had a few passes of the loop to take effect.

A recorded result that nobody asks for holds the ones behind it back. What then is decided when every task of the turn
waits in perdure, and no timer may cancel it any more (`_unstick`): hand out another recorded result that was asked for
(code that came to ask in another order), one that completed just now (a step that was added), begin anew what was
cancelled (by a failure that has not come again), or park the turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from perdure.actors.past import LEFT, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.storage.records import Record

PASSES = 4
"""Passes of the loop that one result has before the next is handed out."""

_FIRST_LOOK_SECONDS = 0.002
_LAST_LOOK_SECONDS = 0.25
_LATE_SECONDS = 1.0


class Watcher(Protocol):
    """What the order of results needs of its turn."""

    def idle(self) -> bool:
        """Whether every task of the turn waits in perdure or has ended."""
        ...

    def in_flight(self) -> int:
        """How many operations run or wait for something outside the journal."""
        ...

    def number(self, key: str) -> None:
        """Give a position to a record that somebody else completed."""
        ...

    def stuck(self, unclaimed: str) -> None:
        """A recorded result is never asked for: park."""
        ...


class Handout:
    """The order of one turn's results."""

    def __init__(self, records: Iterable[Record], turn: Watcher) -> None:
        done = [r for r in records if r.kind in RESULTS and r.status != "started"]
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._position = max((r.position for r in done if r.position is not None), default=0)
        # cancelled ones give nothing; their canceller comes by again, for `decided` left no others
        handed = [r for r in done if r.status != "cancelled" and r.position != LEFT]
        numbered = sorted((r for r in handed if r.position is not None), key=lambda r: r.position or 0)
        self._unnumbered = {r.key for r in handed if r.position is None}
        self._expected = deque(r.key for r in (*numbered, *(r for r in handed if r.position is None)))
        self.unclaimed: dict[str, str] = {r.key: r.name for r in handed}
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._begun = min((r.started for r in done), default=0.0)
        self._cancellable: dict[asyncio.Future[None], float] = {}
        self._live: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self._deferred: list[asyncio.Future[None]] = []
        self._cooling = False
        self._look: asyncio.Handle | None = None
        self._look_seconds = _FIRST_LOOK_SECONDS

    @property
    def quiet(self) -> bool:
        """Whether a result may be handed over without queueing."""
        return not (self._expected or self._live or self._cooling)

    @property
    def awaits_cancellation(self) -> bool:
        """Whether anything waits to be cancelled again, or to begin anew."""
        return bool(self._cancellable and self._undecided())

    def take_position(self) -> int:
        """The next position."""
        self._position += 1
        return self._position

    def recorded(self, key: str) -> asyncio.Future[None]:
        """A recorded result was asked for: the future ends when its moment comes."""
        self.unclaimed.pop(key, None)
        future = self._asked[key] = self._loop.create_future()
        self._pump()
        return future

    def cancelled(self, record: Record) -> asyncio.Future[None]:
        """An operation that was cancelled was asked for: the future waits until somebody cancels it again.

        That may be a timer, such as `asyncio.timeout` has, which is due no later after the turn's begin than it was.
        If nobody can any more, as where a failure did that is gone by now, the future ends: it begins anew.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        lasted = max(0.0, (record.finished or 0.0) - self._begun)
        self._cancellable[future] = self._loop.time() + lasted + _LATE_SECONDS
        self._watch()
        return future

    def _undecided(self) -> list[asyncio.Future[None]]:
        """What waits to be cancelled."""
        self._cancellable = {future: end for future, end in self._cancellable.items() if not future.done()}
        return list(self._cancellable)

    def _may_be_cancelled(self) -> bool:
        """Whether a timer may yet cancel what waits for that, so that the code goes on."""
        now = self._loop.time()
        return any(now < self._cancellable[future] for future in self._undecided())

    def enqueue(self, key: str | None) -> asyncio.Future[None]:
        """A result is complete now: the future ends when its moment comes, and then it gets its position, if given."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._live.append((key, future))
        self._pump()
        return future

    def deferred(self) -> asyncio.Future[None]:
        """Something new wants to begin while recorded results are unclaimed: the future ends at the next change."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._deferred.append(future)
        self._watch()
        return future

    def _pump(self) -> None:
        if self._cooling:
            return
        if self._expected:
            key = self._expected[0]
            if key in self._asked:
                self._expected.popleft()
                self._give_recorded(key)
            else:
                self._watch()
        elif self._live:
            self._give_live()

    def _give_live(self) -> None:
        key, future = self._live.popleft()
        if key is not None:
            self._turn.number(key)
        self._give(future)

    def _give_recorded(self, key: str) -> None:
        if key in self._unnumbered:
            self._unnumbered.discard(key)
            self._turn.number(key)
        self._give(self._asked.pop(key))
        self._look_seconds = _FIRST_LOOK_SECONDS
        deferred, self._deferred = self._deferred, []
        for future in deferred:
            if not future.done():
                future.set_result(None)

    def _give(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)
        self._cooling = True
        self._loop.call_soon(self._cool, PASSES)

    def _cool(self, passes: int) -> None:
        if passes:
            self._loop.call_soon(self._cool, passes - 1)
            return
        self._cooling = False
        self._pump()

    def _watch(self) -> None:
        if self._look is None and (self._expected or self.awaits_cancellation):
            self._look = self._loop.call_later(self._look_seconds, self._unstick)
            self._look_seconds = min(self._look_seconds * 2, _LAST_LOOK_SECONDS)

    def _unstick(self, *, again: bool = False) -> None:
        self._look = None
        if not (self._expected or self.awaits_cancellation):
            return
        if self._expected and self._expected[0] in self._asked:
            self._pump()
        elif self._cooling or self._may_be_cancelled() or not self._turn.idle():
            pass
        elif not again:  # a task may have ended in this very pass, and whoever waits for it goes on in the next one
            self._look = self._loop.call_soon(partial(self._unstick, again=True))
        elif not self._give_another():
            self._turn.stuck(self._expected[0])
            return
        self._watch()

    def _give_another(self) -> bool:
        """Go on otherwise than the journal says; false if there is nothing to go on with."""
        asked = next((key for key in self._expected if key in self._asked), None)
        if asked is not None:
            self._expected.remove(asked)
            self._give_recorded(asked)
        elif self._live:
            self._give_live()
        elif undecided := self._undecided():
            for future in undecided:
                future.set_result(None)
        else:
            return self._turn.in_flight() > 0
        return True

    def close(self) -> None:
        """The turn is over."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
