"""Results are handed to a handler one at a time, in one order, live and on replay alike.

Tasks of one turn that wait for results would otherwise wake in whatever order a replay finds results, and a plain
`gather` whose tasks append to one list would come out different. So every completion has a position in its turn. Live,
results are queued as they complete, and numbered as they are handed over; on replay recorded ones are handed out by
position, each when the code has asked for it and the one before has had a few passes of the loop to take effect.

What was cancelled has its position, too: what followed is handed out once it was cancelled again.

A recorded result that nobody asks for holds the ones behind it back. What then is decided when every task of the turn
waits in perdure, or for its own timers (`_unstick`): have a timer go off that did so before (`timers.py`), hand out
another recorded result that was asked for (code that came to ask in another order), one that completed just now (a step
that was added), begin anew what was cancelled (by a failure that has not come again), or park the turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from perdure.actors.past import LEFT, RESULTS
from perdure.actors.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.storage.records import Record

PASSES = 4
"""Passes of the loop that one result has before the next is handed out."""
_EFFECT_PASSES = PASSES - 2
"""How many of them are left when it has reached those who did not wait for it themselves."""
MOST_TRIES = 4
"""How often a replay that differs is tried again: it may differ for its timing alone. Each gives other moments."""

_MOMENT_SECONDS = 0.005
"""How long the passes of a result take, where the loop is not busy. What would time out meanwhile does so first."""
_MOST_LOOKS = 5
"""At timers; where there is always another one, results are not to wait for ever."""

_FIRST_LOOK_SECONDS = 0.002
_LAST_LOOK_SECONDS = 0.25
_LATE_SECONDS = 1.0
_VAIN_LOOKS = 10
"""After so many a turn waits for something that the journal knows nothing of."""


class Watcher(Protocol):
    """What the order of results needs of its turn."""

    @property
    def tries(self) -> int:
        """How often a replay of it has differed from its journal."""
        ...

    def idle(self) -> bool:
        """Whether every task of the turn waits in perdure, sleeps by the journal's clock, or has ended."""
        ...

    def may_time_out(self, until: float, *, unknown: bool) -> bool:
        """Whether a timer of its own code may go off by then, on the clock of the loop; or whether that is unknown."""
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
        self._tries = turn.tries
        self._loop = asyncio.get_running_loop()
        self._position = max((r.position for r in done if r.position is not None), default=0)
        ordered = sorted((r for r in done if (r.position or LEFT) > LEFT), key=lambda r: r.position or LEFT)
        unordered = [r for r in done if r.position is None and r.status != "cancelled"]
        self._unnumbered = {r.key for r in unordered}
        self._expected = deque(r.key for r in (*ordered, *unordered))
        # they give nothing, but what followed comes after them; their canceller comes by again (see `decided`)
        self._cancelled = {r.key for r in ordered if r.status == "cancelled"}
        self.unclaimed: dict[str, str] = {r.key: r.name for r in (*ordered, *unordered) if r.key not in self._cancelled}
        self._asked: dict[str, asyncio.Future[None]] = {}
        begun = self._reached = min((r.started for r in done), default=0.0)
        self._since = self._loop.time() - begun
        self._finished = {r.key: r.finished or 0.0 for r in done}
        self._timers = Timers(turn, begun, self._timer_set) if done else None
        self._cancellable: dict[asyncio.Future[None], str] = {}
        self._live: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self._deferred: list[asyncio.Future[None]] = []
        self._cooling = self._closed = False
        self._clear_until, self._looks = 0.0, 0
        self._look: asyncio.Handle | None = None
        self._look_seconds = _FIRST_LOOK_SECONDS
        self._vain_looks = 0
        self.timed = False
        """Whether its code has set a timer."""
        if self._timers is not None and not self._expected:  # nothing is handed out, at whose end it would be seen
            self._loop.call_later(_LATE_SECONDS, self._see_end)

    @property
    def quiet(self) -> bool:
        """Whether a result may be handed over without queueing."""
        return not (self._expected or self._live or self._cooling)

    @property
    def awaits_cancellation(self) -> bool:
        """Whether anything waits to be cancelled again, or to begin anew."""
        return bool(self._cancellable and self._undecided())

    @property
    def slept(self) -> set[asyncio.Future[Any]]:
        """The futures of what its code sleeps in, by the journal's clock."""
        return set() if self._timers is None else self._timers.slept

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
        """What was cancelled, or complete too late, was asked for: the future waits until somebody cancels it again.

        That may be a timer, such as `asyncio.timeout` has. If nobody can any more, as where a failure did that is gone
        by now, the future ends: it begins anew, or is handed out.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._cancellable[future] = record.key
        if record.key in self._cancelled:
            future.add_done_callback(lambda _: self._pass_by(record.key))
        self._watch()
        return future

    def _pass_by(self, key: str) -> None:
        """What was cancelled was cancelled again, or begins anew: what followed comes next."""
        self._cancelled.discard(key)
        self._reach(key)
        if self._expected and self._expected[0] == key:
            self._expected.popleft()
            self._cool_down()
        elif key in self._expected:
            self._expected.remove(key)

    def _undecided(self) -> dict[asyncio.Future[None], str]:
        """What waits to be cancelled, and its key."""
        self._cancellable = {future: key for future, key in self._cancellable.items() if not future.done()}
        return self._cancellable

    def _may_be_cancelled(self) -> bool:
        """Whether a timer may yet cancel what waits for that, so that the code goes on."""
        ends = [self._finished[key] for key in self._undecided().values()]
        return bool(ends) and self._may_come_about(max(ends))

    def _may_come_about(self, when: float) -> bool:
        """Whether a timer may yet do what was done then; a replay is quicker than what it replays."""
        until = self._since + when + _LATE_SECONDS
        return self._loop.time() < until and self._turn.may_time_out(until, unknown=True)

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
        if self._cooling or self._closed:
            return
        if self._expected:
            key = self._expected[0]
            if key in self._asked:
                self._expected.popleft()
                self._give_recorded(key)
            else:
                self._watch()
        elif self._live and self._is_clear():
            self._give_live()

    def _is_clear(self) -> bool:
        """Whether nothing is about to time out, which would have to be seen first; otherwise it looks again.

        What the loop has taken from its timers runs in the same pass, so it needs two looks in a row, with less between
        them than until the next timer.
        """
        now = self._loop.time()
        if now < self._clear_until or self._looks == _MOST_LOOKS:
            return True
        moment = _MOMENT_SECONDS * 2**self._looks
        self._looks += 1
        if self._turn.may_time_out(now + moment, unknown=False):
            self._loop.call_later(moment, self._pump)
        else:
            self._clear_until = now + moment
            self._loop.call_soon(self._pump)
        return False

    def _give_live(self) -> bool:
        """Hand out what completed just now, if anybody still waits for any of it."""
        self._clear_until, self._looks = 0.0, 0
        while self._live:
            key, future = self._live.popleft()
            if not future.done():
                if key is not None:
                    self._turn.number(key)
                self._give(future)
                return True
        return False

    def _give_recorded(self, key: str) -> None:
        if key in self._unnumbered:
            self._unnumbered.discard(key)
            self._turn.number(key)
        self._give(self._asked.pop(key))
        self._reach(key)
        if self._tries % 2:
            self._time_out_with(key)
        deferred, self._deferred = self._deferred, []
        for future in deferred:
            if not future.done():
                future.set_result(None)

    def _give(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)
        self._cool_down()

    def _cool_down(self) -> None:
        if not self._cooling:
            self._cooling = True
            self._loop.call_soon(self._cool, PASSES << self._tries)

    def _cool(self, passes: int) -> None:
        if passes <= _EFFECT_PASSES and self._timers is not None:
            self._timers.reached = self._reached
        if passes:
            self._loop.call_soon(self._cool, passes - 1)
            return
        self._cooling = False
        self._pump()
        self._see_end()

    def _watch(self) -> None:
        if self._look is None and (self._expected or self.awaits_cancellation):
            self._look = self._loop.call_later(self._look_seconds, self._unstick)
            self._look_seconds = min(self._look_seconds * 2, _LAST_LOOK_SECONDS)

    def _unstick(self, *, again: bool = False) -> None:
        self._look = None
        if not (self._expected or self.awaits_cancellation):
            self._see_end()
            return
        if self._expected and self._expected[0] in self._asked:
            self._pump()
        elif self._cooling:
            pass
        elif not self._turn.idle():
            self._vain_looks += 1
            if self._vain_looks == _VAIN_LOOKS:
                self._let_time_pass()
        elif not again:  # a task may have ended in this very pass, and whoever waits for it goes on in the next one
            self._look = self._loop.call_soon(partial(self._unstick, again=True))
        elif not (self._time_passes() or self._give_another()):
            self._turn.stuck(self._expected[0])
            return
        self._watch()

    def _give_another(self) -> bool:
        """Go on otherwise than the journal says; false if there is nothing to go on with."""
        if self._expected and self._expected[0] in self._cancelled:
            self._expected.popleft()  # it is not asked for, or nobody can cancel it any more
            self._cool_down()
            return True
        asked = next((key for key in self._expected if key in self._asked), None)
        if asked is not None:
            self._expected.remove(asked)
            self._give_recorded(asked)
        elif self._give_live():
            pass
        elif undecided := self._undecided():
            for future in [*undecided]:
                future.set_result(None)
        else:
            return self._turn.in_flight() > 0 or self._may_come_about(self._finished[self._expected[0]])
        return True

    # the journal's clock (see `timers.py`) ----------------------------------------------------------------------------

    def _reach(self, key: str) -> None:
        """The replay has come as far as this: for whoever asked at once, for others when it has taken effect."""
        self._reached = max(self._reached, self._finished[key])
        self._moved()

    def _moved(self) -> None:
        self._look_seconds, self._vain_looks = _FIRST_LOOK_SECONDS, 0

    def come_to(self, record: Record) -> None:
        """This task goes on with what was recorded."""
        if self._timers is not None:
            self._timers.come_to(record.finished or 0.0)

    def _timer_set(self) -> None:
        self.timed = True
        if self._expected:
            self._watch()
        else:
            self._cool_down()  # and look whether anything is asked for that waits for it

    def _time_passes(self) -> bool:
        """Whether what its code has set goes off as it did before, or may yet do so."""
        if self._timers is not None:
            if self._goes_off(self._timers):
                self._moved()
                return True
            if self._timers.slept:  # longer than the journal knows of
                self._let_time_pass()
                return True
        return self._may_be_cancelled()

    def _goes_off(self, timers: Timers) -> bool:
        undecided, head = [*self._undecided().values()], self._expected[0] if self._expected else None
        again = undecided if head is None else [key for key in undecided if key == head]
        if again:  # nothing else can cancel it, so it may as well be a timeout that is longer in this code
            until = max(self._finished[key] for key in again)
            return timers.next_goes_off(until, self._tries) or timers.timeout_goes_off()
        if head is None:
            return False
        # a step that was added is not to be cut short
        sleep_only = head in self._cancelled or bool(self._live) or self._turn.in_flight() > 0
        return timers.next_goes_off(self._finished[head], self._tries, sleep_only=sleep_only)

    def _time_out_with(self, key: str) -> None:
        """What timed out right after a result may have done so before that took effect."""
        head = self._expected[0] if self._expected else ""
        if self._timers is not None and head in self._undecided().values():
            end = self._finished[head]
            if end < self._finished[key] + _MOMENT_SECONDS:
                self._timers.next_goes_off(end, self._tries)

    def _see_end(self) -> None:
        """Let time pass by the loop's clock, if the replay is over."""
        if not (self._expected or self.awaits_cancellation or self._cooling):
            self._let_time_pass()

    def _let_time_pass(self) -> None:
        timers, self._timers = self._timers, None
        if timers is not None:
            timers.release()

    def close(self) -> None:
        """The turn is over."""
        self._closed = True
        self._let_time_pass()
        if self._look is not None:
            self._look.cancel()
            self._look = None
