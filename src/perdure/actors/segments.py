"""The course of a turn: what it has claimed, what it waits for, and the segments it gathers.

    claim a key ──► in the journal? ── yes ─► its result, when its moment comes (`handout.py`)
                                    └─ no ──► into the open segment ──► durable() ──► it begins ──► complete()

A segment is what leaves together: sends, spawns, drawn values and started-records since the last durable point.
Completions do not wait for it: they are written within two passes of the loop, or with the next durable point.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from perdure.actors.claiming import Claiming
from perdure.actors.flight import Flight, retrieve, wake
from perdure.actors.handout import Handout
from perdure.actors.idle import may_time_out, waits_in_perdure
from perdure.actors.past import LEFT, RESULTS, UNTAKEN
from perdure.actors.stops import Parked, TurnStopped
from perdure.errors import NotInTurnError, PerdureError
from perdure.storage.records import Outcome, Record, TurnRecord
from perdure.storage.writes import Segment

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from perdure.actors.seat import Seat
    from perdure.actors.turn_slot import TurnSlot
    from perdure.storage.records import Mail
    from perdure.storage.writes import Committed

T = TypeVar("T")

_LONGEST_TIMER_SECONDS = 3600.0


class Segments(Claiming):
    """One message being handled, without what handlers call on it (see `Turn`)."""

    # Most turns have no step and no second task, so what only those need is made when it is needed.
    stopped: TurnStopped | None = None
    ended = False
    refused: PerdureError | None = None
    blocked: PerdureError | None = None
    """What the watchdog's thread found: whatever the handler does now, its turn has failed."""
    started = last_change = 0.0
    timed = 0.0
    """When it was last seen to stay in memory for a timer of its own code."""
    patience: asyncio.TimerHandle | None = None
    """When a handler that was stopped is left behind."""
    reason = ""
    running_steps = 0
    replays = False
    """Whether it began before, and nobody has seen yet that it is where it waits."""
    stop_actor = False
    slot: TurnSlot | None = None
    """Under the limit of its kind."""
    _handout: Handout | None = None
    _open: Segment | None = None
    _flying = 0
    _durable_waits = 0
    _unlooked = 0
    _progressed = False
    _tasks: Sequence[asyncio.Task[Any]] = ()
    _completions: Sequence[Record] = ()
    _numbered: Sequence[tuple[str, int]] = ()

    def __init__(self, seat: Seat, mail: Mail, past: TurnRecord | None, records: list[Record]) -> None:
        self.seat = seat
        self.mail = mail
        self.past = past
        self.task = seat.worker
        if records:
            self._handout = Handout(self._take_over(records), self)
            self.replays = True

    @property
    def tries(self) -> int:
        """How often a replay of it has differed from its journal."""
        return self.seat.tries(self.mail.seq)

    @property
    def may_differ(self) -> bool:
        """Whether a replay may come out otherwise the next time: it has several tasks, or timers."""
        return bool(self._tasks) or self.handout.timed

    @cached_property
    def _waiting(self) -> dict[asyncio.Future[Any], asyncio.Task[Any] | None]:
        return {}

    @cached_property
    def _replies(self) -> dict[str, asyncio.Future[Outcome]]:
        return {}

    @cached_property
    def _early(self) -> dict[str, Outcome]:
        return {}

    @cached_property
    def _looked(self) -> set[str]:
        return set()

    @cached_property
    def dropped(self) -> set[str]:
        """Keys of records that never reached the disk."""
        return set()

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def handout(self) -> Handout:
        """The order of results."""
        if self._handout is None:
            self._handout = Handout((), self)
        return self._handout

    @property
    def plain(self) -> bool:
        """Whether its handler has run as if there were no turn: nobody stopped it, and it called nothing of perdure."""
        return not (self._tasks or self._handout or self.stopped or self.refused or self.blocked)

    @property
    def unclaimed(self) -> str | None:
        """The key of a recorded result that nobody has asked for."""
        return None if self._handout is None else next(iter(self._handout.unclaimed), None)

    def close(self) -> None:
        """The turn is over, and others may have its slot; tasks that it leaves behind end, too."""
        self.ended = True
        if self._handout is not None:
            self._handout.close()
        if self._tasks:
            for task in self.leaked():
                task.cancel()
        if self.slot is not None:
            self.slot.leave()

    def __repr__(self) -> str:
        state = "stopped" if self.stopped else "ended" if self.ended else "running"
        return f"<turn of {self.mail.id!r} at {self.seat.address}, {state}, {len(self.records)} records>"

    # stopping ---------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if nothing may be begun any more."""
        if self.stopped is not None:
            raise type(self.stopped)(*self.stopped.args)
        if self.refused is not None:
            raise self.refused
        if self.ended:
            raise NotInTurnError(
                f"the turn of '{self.mail.id}' at {self.seat.address} has ended, and a task it started goes on. "
                "Await everything that the handler starts."
            )

    def stop(self, why: TurnStopped) -> None:
        """End the turn here: whoever waits in perdure is told, other tasks of the turn are cancelled."""
        if self.stopped is not None or self.ended:
            return
        self.stopped = why
        if self._handout is not None:
            self._handout.close()
        waiting = dict(self._waiting)
        for future in waiting:
            if not future.done():
                future.set_exception(type(why)(*why.args))
        spared = (asyncio.current_task(), *waiting.values())
        for task in (self.task, *self._tasks):
            if task is not None and not task.done() and task not in spared:
                task.cancel()

    def park(self, why: str) -> None:
        """Stop because code and journal differ."""
        self.reason = self.reason or why
        self.stop(Parked(why))

    def joined(self, task: asyncio.Task[Any]) -> None:
        """A task of the turn called perdure for the first time."""
        self._tasks = [*self._tasks, task]

    def leaked(self) -> list[asyncio.Task[Any]]:
        """Tasks that still use the turn."""
        return [task for task in self._tasks if not task.done()]

    @property
    def at_rest(self) -> bool:
        """Whether anything of it waits in perdure: for a moment only, unless nothing may begin here any more."""
        return bool(self._waiting)

    @property
    def idles(self) -> bool:
        """Whether nothing of it is in perdure's hands: its handler awaits something else, such as `asyncio.sleep`."""
        return not self._flying and not self._waiting

    def may_wait_durably(self) -> bool:
        """Whether all that is in flight waits for replies, receipts and time, all of them on disk."""
        return (
            0 < self._flying == self._durable_waits
            and not self._unlooked
            and self.handout.quiet
            and not self.handout.awaits_cancellation
        )

    def waits_durably(self, tasks: list[asyncio.Task[Any]] | None = None) -> bool:
        """Whether nothing else goes on in it, either; `tasks` are its own, if they were found already."""
        return self.may_wait_durably() and waits_in_perdure(self, self._waiting, tasks)

    # the order of results (see Handout) -------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether every task of the turn waits in perdure or has ended."""
        return waits_in_perdure(self, {*self._waiting, *self.handout.slept})

    def may_time_out(self, until: float, *, unknown: bool) -> bool:
        """Whether a timer of its own code may go off by then, on the clock of the loop; or whether that is unknown."""
        return may_time_out(self, until, unknown=unknown)

    def in_flight(self) -> int:
        """Operations that run, or wait for something outside the journal."""
        return self._flying

    def number(self, key: str) -> None:
        """Give a result its position; written with the next commit."""
        self._place(key, self.handout.take_position())

    def _place(self, key: str, position: int) -> None:
        record = self.records[key] = replace(self.records[key], position=position)
        for index, completion in enumerate(self._completions):
            if completion.key == key:
                self._completions = [*self._completions[:index], record, *self._completions[index + 1 :]]
                return
        self._numbered = [*(one for one in self._numbered if one[0] != key), (key, position)]

    def stuck(self, unclaimed: str) -> None:
        """Park: a recorded result is never asked for."""
        self.differs = True
        self.park(
            f"the journal holds '{unclaimed}', which the code does not ask for any more. "
            f"Restore the step, or give the changed one aliases=. See it with: perdure journal {self.mail.id}"
        )

    # waiting ----------------------------------------------------------------------------------------------------------

    async def may_begin(self, name: str | None, record: Record | None = None, key: str = "") -> None:
        """Wait while something may not begin.

        That is: while a recorded result of the same name may yet turn out to be the one that is asked for, unless its
        key tells that it was begun before; while what has a record of being cancelled may be again, which then ends the
        waiting; while this node has given no sign of life for half a lease; and once the system closes, until the turn
        is stopped.
        """
        if record is not None and record.status == "cancelled":
            await self._cancelled_again(record)
        while record is None and key not in self.anew and name in self.handout.unclaimed.values():
            await self.wait(self.handout.deferred())
        while self.seat.stale:
            await self.wait(self.seat.renewal())
        if self.seat.closing:
            await self.wait(self._loop.create_future())

    async def wait(self, future: asyncio.Future[T]) -> T:
        """Wait in perdure, where a stop is noticed."""
        if self.stopped is not None:
            self.check()
        self._waiting[future] = asyncio.current_task()
        try:
            return await future
        finally:
            del self._waiting[future]
            self.last_change = self.seat.timestamp()

    async def until(self, due: float) -> None:
        """Wait for a time."""
        while (delay := due - self.seat.timestamp()) > 0:
            future: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(min(delay, _LONGEST_TIMER_SECONDS), wake, future)
            try:
                await self.wait(future)
            finally:
                timer.cancel()

    async def _wait_durably(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something that the store could wake the turn for, were it not in memory."""
        self._durable_waits += 1
        try:
            return await waiting
        finally:
            self._durable_waits -= 1

    async def until_retry(self, due: float) -> None:
        """Wait for a step's next attempt, which is on disk."""
        await self._wait_durably(self.until(due))

    async def recorded(self, record: Record) -> Record:
        """Wait for the moment of a recorded result."""
        if record.position == UNTAKEN:
            await self._cancelled_again(record)
        free = record.position in {LEFT, UNTAKEN}  # and stays so: the next attempt may not ask for it
        await self.wait(self.handout.enqueue(None) if free else self.handout.recorded(record.key))
        self.handout.come_to(record)
        return self.records[record.key]

    async def _cancelled_again(self, record: Record) -> None:
        try:
            await self.wait(self.handout.cancelled(record))
        except asyncio.CancelledError:
            self.handout.come_to(record)
            raise

    async def hand(self, key: str) -> None:
        """Wait for the moment of a result that is complete; its position is the order of these moments."""
        quiet = self.handout.quiet
        if quiet and not self.records[key].position:  # none yet, or `LEFT`
            self.number(key)
        if quiet and self._flying <= 1 and asyncio.current_task() is self.task:
            return
        try:
            await self.wait(self.handout.enqueue(None if quiet else key))
        except asyncio.CancelledError:
            if self.stopped is None and not self.ended:
                self._place(key, UNTAKEN)
            raise

    # segments ---------------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> Segment:
        """The segment that gathers what leaves with the next durable point."""
        if self._open is None:
            self._open = self.seat.segment(self.mail.seq)
        return self._open

    def take(self) -> Segment:
        """Close the open segment, with the completions so far."""
        segment, self._open = self._open, None
        if segment is None:
            segment = self.seat.segment(self.mail.seq)
        return self._with_completions(segment) if self._completions or self._numbered else segment

    def _with_completions(self, segment: Segment) -> Segment:
        segment.records = [*self._completions, *segment.records]
        segment.numbered = [*segment.numbered, *self._numbered]
        if self._completions and self.past is not None and self.past.executing is not None:
            # Progress: a death from here on is not blamed on this turn again before its next try.
            self._progressed = True
            self.past = segment.turn = replace(self.past, executing=None)
        self._completions = ()
        self._numbered = ()
        return segment

    def take_completions(self) -> Segment:
        """What is complete, without what the open segment would let leave."""
        if self._open is not None:
            self.dropped.update(record.key for record in self._open.records)
            self._open = None
        return self._with_completions(self.seat.segment(self.mail.seq))

    def take_back(self, segment: Segment) -> None:
        """A segment was refused: its completions are still to be written, the rest never was."""
        self._numbered = [*segment.numbered, *self._numbered]
        done = [r for r in segment.records if r.kind in RESULTS and r.status != "started"]
        self._completions = [*done, *self._completions]
        self.dropped.update(r.key for r in segment.records if r not in done)

    async def durable(self) -> Committed:
        """Commit the open segment and wait until it is on disk."""
        return await self.wait(self.seat.commit(self.take()))

    def begin(self, record: Record) -> None:
        """Put a started-record into the open segment."""
        if record.digest is not None and self.seat.seal is not None:
            record.digest = self.seat.seal.close_digest(record.digest)
        self.records[record.key] = record
        records = self.opened.records
        if isinstance(records, list):
            records.append(record)
        else:
            self.opened.records = [record]

    def complete(self, record: Record) -> None:
        """Write a completion: at the next durable point or within two passes of the loop.

        It has its position if nothing stands before it; otherwise it gets it when it is handed over.
        """
        ordered = self.handout.quiet or record.status == "cancelled"
        position = self.handout.take_position() if ordered else None
        record = self.records[record.key] = replace(record, position=position, finished=self.seat.timestamp())
        if not self._completions:
            self._loop.call_soon(self._loop.call_soon, self._flush)
        self._completions = [*self._completions, record]

    def _flush(self) -> None:
        if self._completions and self.stopped is None and not self.ended:
            self.seat.commit(self._with_completions(self.seat.segment(self.mail.seq))).add_done_callback(retrieve)

    def _rest(self) -> None:
        """A suspect turn (see `BlameRule`) closes its started-record while it waits for something durable."""
        if self.past is not None and self.past.executing and not self.running_steps:
            self.past = self.opened.turn = replace(self.past, executing=None)

    async def _resume(self) -> None:
        if self.past is not None and self.past.suspect and not self.past.executing and not self._progressed:
            self.past = self.opened.turn = replace(self.past, executing=self.seat.node)
            await self.durable()

    def cancelled(self, key: str) -> None:
        """The handler's own code cancelled an operation: replay has it wait until it is cancelled again."""
        record = self.records.get(key)
        if record is not None and record.status == "started" and self.stopped is None and not self.ended:
            self.complete(replace(record, status="cancelled", due=None))

    def fly(self) -> Flight:
        """Mark an operation as running."""
        return Flight(self)

    def flying(self, change: int) -> None:
        """Count operations in flight."""
        self._flying += change
