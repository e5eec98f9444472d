"""Judging what ended: read the way up the tree, decide (`strategy.judge`), and write the order down.

Judged on the node of the actor that ended, beside whatever its supervisor is doing: never through that one's mailbox.
So a parent that awaits its crashing child is no deadlock, and a slow one holds nobody up.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, get_args
from weakref import WeakValueDictionary

from attrs import frozen

from perdure.errors import StaleDecision
from perdure.storage.failure import failure_fields
from perdure.storage.records import FailureRecord
from perdure.storage.writes import Count, Order, Remaining
from perdure.supervision.strategy import Directive, Ended, OneForOne, Rung, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from perdure.actors.actor import Actor
    from perdure.storage.records import Level
    from perdure.storage.store import Store
    from perdure.supervision.strategy import AutoShutdown, Failure, Strategy, Tally

_LOG = logging.getLogger("perdure.supervision")
_SHORT = 200


@frozen
class Judgement:
    """What follows, and how it is written.

    Attributes:
        here: Whether the actor goes on where it is; otherwise the order says what becomes of it.
        permanent: Whether it never ends for good by itself.
    """

    verdict: Verdict
    order: Order
    here: bool
    permanent: bool = False

    @property
    def delay(self) -> float:
        """Seconds before a restart."""
        return self.verdict.delay


class Judge:
    """Judges for one node.

    Attributes:
        top: The root of the application's own tree, if it has one.
    """

    def __init__(
        self,
        store: Store,
        class_of: Callable[[str], type[Actor] | None],
        root: Strategy,
        timestamp: Callable[[], float],
    ) -> None:
        self._store = store
        self._class_of = class_of
        self._root = root
        self._timestamp = timestamp
        self.top: int | None = None
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def settle(self, ended: Ended, write: Callable[[Judgement], Awaitable[object]]) -> Judgement:
        """Judge, and have `write` put it down; anew, if others were judged meanwhile. Raises what `write` raises.

        Failures under one supervisor take turns on a node, or a hundred of them would each be judged a hundred times.
        """
        levels = await self._store.lineage(ended.actor)
        supervisor = levels[0].child.supervisor or -ended.actor
        lock = self._locks.setdefault(supervisor, asyncio.Lock())
        anew = lock.locked()
        async with lock:
            while True:
                if anew:
                    levels = await self._store.lineage(ended.actor)
                judgement = await self._judge(ended, levels)
                try:
                    await write(judgement)
                except StaleDecision:
                    anew = True
                    continue
                return judgement

    async def hopeless(self, ended: Ended) -> Order | None:
        """A failure that no restart could mend: only noted, unless the supervisor wants the actor stopped."""
        (level, *_) = await self._store.lineage(ended.actor)
        if self._decide(level, ended.failure) in {"stop", "escalate"}:
            return None
        now = self._timestamp()
        return Order(now, failure=_record(ended, now, "park"))

    async def _judge(self, ended: Ended, levels: list[Level]) -> Judgement:
        permanent = levels[0].child.spec.restart == "permanent"
        now = self._timestamp()
        if levels[0].child.life != "running":
            # It is to be stopped, or stopped already: how it ends changes nothing.
            order = Order(now, failure=_record(ended, now, levels[0].child.life))
            return Judgement(Verdict("leave", 0), order, here=False, permanent=permanent)

        def decide(at: int) -> Directive:
            return self._decide(levels[at], ended.failure)

        rungs = [self._rung(level) for level in levels]
        verdict = judge(rungs, ended.how, ended.message, now, decide)
        order = Order(now, ended.actor, counts=[_count(tally) for tally in verdict.tallies])
        order.remaining = _remaining(rungs[: verdict.at + 1])
        order.reason = _reason(ended, verdict)
        here = await self._aim(order, verdict, levels, rungs, ended)
        order.failure = _record(ended, now, _said(verdict, levels))
        return Judgement(verdict, order, here, permanent)

    def _supervisor(self, level: Level) -> type[Actor] | None:
        """The supervisor's class; none for the system's root, or where no imported module defines it."""
        return None if level.supervisor is None else self._class_of(level.supervisor.kind)

    def _rung(self, level: Level) -> Rung:
        strategy = self._root
        auto_shutdown: AutoShutdown = "never"
        supervisor = self._supervisor(level)
        if supervisor is not None:
            spec = supervisor.__perdure__
            strategy, auto_shutdown = spec.supervision or OneForOne(), spec.auto_shutdown
        child = level.child
        return Rung(
            child.actor,
            child.supervisor,
            strategy,
            child.spec.restart,
            child.spec.significant,
            auto_shutdown,
            level.others,
            level.restarts,
            child.actor == self.top,
        )

    def _decide(self, level: Level, failure: Failure | None) -> Directive:
        supervisor = self._supervisor(level)
        if supervisor is None or failure is None:
            return "restart"
        try:
            answer = supervisor.decide(failure)
        except Exception:  # noqa: BLE001  # whatever it is, the child must be seen to
            _LOG.exception("%s: decide() raised; %s is restarted", level.supervisor, level.child.to)
            return "restart"
        if answer not in get_args(Directive):
            _LOG.error("%s: decide() gave %r, no directive; %s is restarted", level.supervisor, answer, level.child.to)
            return "restart"
        return answer

    async def _aim(self, order: Order, verdict: Verdict, levels: list[Level], rungs: list[Rung], ended: Ended) -> bool:
        """Say in the order which actors the verdict is about; whether the one that ended goes on where it is."""
        child = rungs[verdict.at].child
        if verdict.action in {"resume", "leave"}:
            return True
        if verdict.action == "restart":
            group = [child]
            strategy, supervisor = rungs[verdict.at].strategy, levels[verdict.at].child.supervisor
            if supervisor is not None and type(strategy) is not OneForOne:
                siblings = [one.actor for one in await self._store.children(supervisor)]
                group = list(strategy.group(siblings, child))
            # a supervised child is started again whether it has mail or not; under the system's root, with its mail
            waits = ended.given_up and supervisor is not None
            if verdict.at == 0 and group == [child] and ended.alone and not waits:
                return True
            order.restart, order.restart_at = group, order.now + verdict.delay
        elif verdict.action == "stop":
            order.terminate = [child]
        elif verdict.action == "end":
            order.end = [child]
        elif verdict.action == "fail":
            order.fail = [child]
        else:
            order.restart, order.restart_at = [child], order.now
        return False


def _record(ended: Ended, now: float, decision: str) -> FailureRecord | None:
    """The failure as it is kept, if there was one."""
    if ended.failure is None:
        return None
    return FailureRecord(ended.actor, ended.message, ended.failure.attempt, now, ended.error, decision, ended.escaped)


def _count(tally: Tally) -> Count:
    rung = tally.rung
    supervisor = -rung.child if rung.supervisor is None else rung.supervisor
    last = rung.restarts[-1].number if rung.restarts else 0
    return Count(supervisor, last, tally.add, rung.child, tally.message, tally.at, tally.since)


def _remaining(rungs: Sequence[Rung]) -> list[Remaining]:
    """The siblings that a decision about these rungs rests on."""
    return [
        Remaining(rung.supervisor, rung.child, rung.others)
        for rung in rungs
        if rung.significant and rung.supervisor is not None and rung.auto_shutdown == "all_significant"
    ]


def _reason(ended: Ended, verdict: Verdict) -> str:
    """What people see of it."""
    why = "normal" if ended.how == "normal" else "shutdown"
    if ended.failure is not None:
        text = ended.failure.error if "sealed" not in failure_fields(ended.error) else "encrypted"
        why = f"{ended.failure.error_type.rpartition('.')[2]}: {text}"[:_SHORT]
    exceeded = verdict.tallies[:-1] if verdict.action == "restart" else verdict.tallies
    if exceeded:
        strategy = exceeded[-1].rung.strategy
        why += f"; more than {strategy.max_restarts} restarts in {strategy.within:g} s"
    return why


def _said(verdict: Verdict, levels: list[Level]) -> str:
    """The decision in a few words."""
    return verdict.action if verdict.at == 0 else f"{verdict.action} of {levels[verdict.at].child.to}"
