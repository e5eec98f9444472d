"""A node gives up its actors: each as soon as it can, in the order of their trees, by a deadline.

    draining ──► nothing new begins ──► its turn is at a durable point ──► it is stopped ──► stopping() ──► released
                 nothing is claimed      (or its time is over: cancelled)    (swallowed: left behind)          │
                                                                    every actor is gone ──► the node has left ◄┘

A turn that waits for replies or time is at a durable point; one in a step comes to one when the step's end is recorded.
A release is a commit like any other: other nodes see it, claim what has work, and go on from the same point. When the
node has left, others start the supervisors that it had, and go on with its orders.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from perdure.actors.departure import Departure
from perdure.actors.idle import tasks_by_turn, turns_with_timers
from perdure.actors.living import STOPPING_SECONDS
from perdure.actors.stops import LOOK_SECONDS, STUBBORN_SECONDS, Drained
from perdure.errors import FencedError, PerdureError
from perdure.storage.writes import Leave, Release

if TYPE_CHECKING:
    from collections.abc import Collection

    from perdure.actors.activation import Activation
    from perdure.actors.actor import ActorSpec
    from perdure.actors.host import Host
    from perdure.actors.segments import Segments
    from perdure.actors.turn import Turn
    from perdure.storage.records import Member
    from perdure.storage.writes import Settled, Write
    from perdure.supervision.strategy import Strategy

_LOG = logging.getLogger("perdure.actors")
_TOGETHER_SECONDS = 0.002
_HOOK_PASSES = 3
_DRAINING = "the system is draining"


class Leaving:
    """One node's leaving.

    Args:
        host: Its actors.
        patiently: Whether turns whose handlers are outside of perdure may go on to their next durable point, too; and
            all have until the deadline. Otherwise those are stopped at once, and the children of supervisors have the
            time that their `shutdown` says.

    Attributes:
        released: Actors that others may have now.
        cut: Turns that were stopped in a step, or in the handler's own code, because their time was over.
        left: Handlers that did not stop.
        seconds: How long it took.
    """

    def __init__(self, host: Host, *, patiently: bool) -> None:
        self._host = host
        self._patiently = patiently
        self._begun = host.loop.time()
        self._deadline = math.inf
        self._hurried_at = math.inf
        self._own_seconds: dict[int, float | None] = {}
        self._order = Departure((), _no_strategy)
        self._waiting: dict[int, int] = {}
        self._seen_waiting: set[Turn] = set()
        self._stopped_at: dict[Activation, float] = {}
        self._going: set[Activation] = set()
        self._closings: dict[asyncio.Task[None], tuple[Activation, float]] = {}
        self._changed: asyncio.Event = asyncio.Event()
        self.released = self.cut = self.left = 0
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Leaving: {self.released} actors released, {len(self._host.activations)} still here>"

    def by(self, seconds: float, *, patiently: bool = True) -> None:
        """Have it done within so many seconds from now, or sooner if that was said before; with none, cut at once."""
        self._deadline = min(self._deadline, self._host.loop.time() + seconds)
        if seconds <= 0:
            self._hurried_at = min(self._hurried_at, self._host.loop.time())
        self._patiently = self._patiently and patiently
        self._changed.set()

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return max(0.0, self._deadline - self._host.loop.time())

    def under_way(self) -> int:
        """How many turns are not at a durable point."""
        return sum(
            not self._at_durable_point(activation.turn)
            for activation in self._host.activations.values()
            if activation.turn is not None
        )

    async def run(self) -> None:
        """Give every actor up. Raises `StorageError` if that cannot be written; then this node still has them."""
        host = self._host
        members, ordered = await host.overseer.resign()
        self._own_seconds = {one.actor: one.spec.shutdown for one in members}
        self._order = Departure(members, self._strategy_of)
        while host.activations:
            self._stop_turns()
            self._leave_behind()
            await self._close_next()
            if ordered and host.activations.keys().isdisjoint(ordered):
                # others go on with these orders now, and with the rest of them when this node has left
                ordered = await self._yield_up(ordered)
            await self._look()
        await host.committer.write(Leave())
        for activation in list(host.activations.values()):
            activation.lose(FencedError(f"{activation.address}: its node has left"))
        self.seconds = host.loop.time() - self._begun
        host.left.set()

    async def _yield_up(self, actors: Collection[int]) -> Collection[int]:
        try:
            await self._host.overseer.yield_up(actors)
        except PerdureError as error:
            _LOG.error("orders are left to others only when this node has left: %s", error)
        return ()

    def _strategy_of(self, one: Member) -> Strategy | None:
        activation = self._host.activations.get(one.actor)
        spec: ActorSpec | None = None if activation is None else activation.spec
        return None if spec is None else spec.supervision

    # turns ------------------------------------------------------------------------------------------------------------

    def _at_durable_point(self, turn: Turn) -> bool:
        return not turn.running_steps and (turn.at_rest or not self._patiently)

    def _late(self, actor: int, now: float) -> bool:
        """Whether an actor's time is over."""
        own = self._own_seconds.get(actor, math.inf)
        if own == 0:
            return True  # brutal: it never has any
        if self._patiently or self._hurried_at < now or own is None or own == math.inf:
            return now >= self._deadline
        return now >= self._begun + own

    def _stop_turns(self) -> None:
        """Stop the turns that are at a durable point, and those whose time is over."""
        now = self._host.loop.time()
        found: dict[Activation, Turn] = {}
        for activation in self._host.activations.values():
            turn = activation.turn
            if activation.starter is not None:
                activation.halted = True
                activation.starter.cancel()
                self._stopped_at.setdefault(activation, now)
            if turn is None or turn.stopped is not None or turn.ended:
                self._await_end(activation, now)
                continue
            rests = self._at_durable_point(turn)
            if rests or self._late(activation.actor, now):
                self.cut += not rests
                found[activation] = turn
        some_wait = any(turn.may_wait_durably() for turn in found.values())
        tasks = tasks_by_turn() if some_wait else {}
        timed: Collection[Segments] = turns_with_timers() if some_wait else ()
        for activation, turn in found.items():
            if turn not in timed and turn.waits_durably(tasks.get(turn, [])):
                if turn not in self._seen_waiting:  # if the next look shows the same (see `waits_in_perdure`)
                    self._seen_waiting.add(turn)
                    self.look_again()
                    continue
                self._waiting[activation.actor] = turn.mail.seq
            self._stopped_at.setdefault(activation, now)
            turn.stop(Drained(_DRAINING))

    def _await_end(self, activation: Activation, now: float) -> None:
        """Wait for a worker whose turn ends already; one that has not begun its turn need not begin it any more."""
        worker = activation.worker
        if worker is not None and self._stopped_at.setdefault(activation, now) < now and activation.turn is None:
            worker.cancel()

    def _leave_behind(self) -> None:
        """Go on without handlers, and without `stopping()`, that do not stop."""
        now = self._host.loop.time()
        for activation in list(self._host.activations.values()):
            at = self._stopped_at.get(activation)
            busy = activation.worker or activation.starter
            if at is None or busy is None or activation in self._going:
                continue
            if now >= min(at + self._host.limits.grace, max(at, self._deadline)) + STUBBORN_SECONDS:
                self._left_behind(activation)
                self._going.add(activation)
                self._order.stopped(activation.actor)
                self._host.spawn_task(activation.abandon(), f"perdure leaves {activation.address} behind")
        for closing, (activation, end) in list(self._closings.items()):
            if now >= min(end, self._hurried_at) + STUBBORN_SECONDS and closing not in self._host.workers.left:
                self._left_behind(activation)
                self._host.workers.leave(closing)
                self._release(activation)

    def _left_behind(self, activation: Activation) -> None:
        _LOG.error("%s did not stop when it was cancelled; it is left behind", activation.address)
        self.left += 1

    # actors -----------------------------------------------------------------------------------------------------------

    async def _close_next(self) -> None:
        """Have those stop, and give them up, whose turn to leave it is."""
        here = self._host.activations
        busy = {actor for actor, each in here.items() if each.worker or each.starter or each.turn}
        for actor in self._order.next(list(here), busy):
            activation = here.get(actor)
            if activation is None or activation in self._going:
                continue
            self._going.add(activation)
            if not activation.living.has_hook:
                activation.living.drop()
                self._release(activation)
                continue
            closing = self._host.loop.create_task(self._close(activation), name=f"perdure {activation.address} leaves")
            self._closings[closing] = (activation, self._host.loop.time() + self._stopping_seconds(actor))
            closing.add_done_callback(self._closed)
            for _ in range(_HOOK_PASSES if actor in self._order else 0):
                await asyncio.sleep(0)  # most are done by then, and the next of the tree goes on at once
                if closing.done():
                    break

    def _stopping_seconds(self, actor: int) -> float:
        """How long its `stopping()` may take."""
        own = self._own_seconds.get(actor, STOPPING_SECONDS)
        return self._host.limits.grace if own is None else own

    async def _close(self, activation: Activation) -> None:
        """Let an actor close what it opened, then give it up."""
        seconds = self._stopping_seconds(activation.actor)
        if seconds == 0:
            activation.living.drop()  # brutal: not even stopping()
        await activation.living.end(seconds)
        self._release(activation)

    def _closed(self, task: asyncio.Task[None]) -> None:
        del self._closings[task]
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("an actor's leaving failed. This is a bug", exc_info=task.exception())

    def _release(self, activation: Activation) -> None:
        self._order.stopped(activation.actor)
        if self._order.is_tied(activation.actor):
            self._let_go(activation)  # it is given up with the rest of its tree, when the node leaves
            return
        write = Release(activation.actor, activation.epoch, self._waiting.get(activation.actor), anyway=True)
        self._host.committer.submit(write, self._told)
        self.look_again()

    def _told(self, write: Write, settled: Settled | PerdureError, _: object) -> None:
        activation = self._host.activations.get(write.actor) if isinstance(write, Release) else None
        self.look_again()
        if activation is None or activation not in self._going:
            return
        if isinstance(settled, PerdureError):
            activation.lose(settled)  # what is left when the node leaves is given up with it
            return
        self._let_go(activation)

    def _let_go(self, activation: Activation) -> None:
        self.released += 1
        activation.gone = True
        self._host.forget(activation)
        self.look_again()

    def look_again(self) -> None:
        """Something may let an actor leave."""
        self._changed.set()

    async def _look(self) -> None:
        """Wait for something that may let an actor leave; what comes about at once is looked at at once."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._changed.wait()
                await asyncio.sleep(_TOGETHER_SECONDS)
        except TimeoutError:
            pass
        self._changed.clear()


def _no_strategy(_: Member) -> Strategy | None:
    return None
