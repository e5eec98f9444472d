"""What a turn's own code sets to go off later, while it is replayed: sleeps and timeouts of asyncio and anyio.

A replay goes by the journal's clock, not by the loop's, by which it would time out where the turn did not, for being
slow, and where the turn did, as late again. So while it has results to hand out, timers are held, and go off when the
journal comes to where they did. Those that are left begin anew, by the loop's clock, when the replay is over.

    live     ├── step ──┤ step … timeout(3600) ✗ ──┤ fallback ──┤      an hour
    replay   step, timeout(3600) ✗, fallback                           a moment

A held timer is due, by the journal's clock, its time after the newest thing that had been handed to the task that sets
it, or had taken effect on all. That is too early by what the handler computed meanwhile; so where several are due at
about the same time, another try may have to take another one (see `Segments.tries`).

There is no other way to see a timer being set than to stand in for the loop's `call_at`, as long as anything is
replayed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio

from perdure.actors.scope import current, running_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Context

_SLEEP = ("asyncio.futures", "_set_result_unless_cancelled")
_TIMERS = {
    _SLEEP,
    ("asyncio.timeouts", "Timeout._on_timeout"),
    ("asyncio.tasks", "_release_waiter"),  # `wait`, and `wait_for` until Python 3.12
    ("anyio._backends._asyncio", "CancelScope._timeout"),
}

_here: ContextVar[tuple[object, float]] = ContextVar("perdure_reached", default=(None, 0.0))
"""How far a task of a turn has come, by the journal's clock."""

_CLOCKS_SECONDS = 0.01
"""What the journal's clock and the loop's may differ by."""
_NEAR_SECONDS = 0.05
"""What the reckoning of when one was due may be wrong by."""


class Held(asyncio.TimerHandle):
    """A timer that does not go off by the loop's clock.

    Attributes:
        due: When it would have, by the journal's clock.
    """

    def __init__(
        self, delay: float, callback: Callable[..., object], args: Sequence[Any], context: Context, due: float
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop.time() + delay, callback, args, loop, context)
        self.due = due
        self._delay = delay
        self._what = (callback, args, context)
        self.future: asyncio.Future[Any] | None = args[0] if _name(callback) == _SLEEP else None
        """What a task waits for that sleeps."""
        self._real: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Whoever set it does not need it any more."""
        super().cancel()
        if self._real is not None:
            self._real.cancel()

    def begin(self) -> None:
        """Begin anew, by the loop's clock."""
        if not self.cancelled():
            loop = asyncio.get_running_loop()
            self._real = loop.call_later(self._delay, self.go_off, context=self._what[2])

    def go_off(self) -> None:
        """Time out now."""
        callback, args, context = self._what
        scope: object = getattr(callback, "__self__", None)
        if self.cancelled():
            return
        if isinstance(scope, anyio.CancelScope):
            scope.deadline = asyncio.get_running_loop().time()  # or it would find itself early
        else:
            context.copy().run(callback, *args)


class Timers:
    """Those of one turn, while it is replayed.

    Args:
        turn: It.
        begun: When it had begun, by the journal's clock.
        was_set: Called whenever one is set.
    """

    def __init__(self, turn: object, begun: float, was_set: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = turn
        self._was_set = was_set
        self.reached = begun
        """How far the replay has come, by the journal's clock."""
        self._held: list[Held] = []
        turns = _replayed.setdefault(self._loop, {})
        if not turns:
            _stand_in(self._loop, turns)
        turns[turn] = self

    def __repr__(self) -> str:
        return f"<{len(self._held)} timers held of {self._turn!r}>"

    def hold(self, when: float, callback: Callable[..., object], args: Sequence[Any], context: Context) -> Held:
        """Hold what was to go off then, on the clock of the loop."""
        turn, reached = context.get(_here, (None, 0.0))
        since = max(reached, self.reached) if turn is self._turn else self.reached
        delay = when - self._loop.time()
        held = Held(delay, callback, args, context, since + delay)
        self._held.append(held)
        self._was_set()
        return held

    def come_to(self, when: float) -> None:
        """This task has been handed what was complete then."""
        _here.set((self._turn, when))

    def next_goes_off(self, until: float, tries: int, *, sleep_only: bool = False) -> bool:
        """Have the next one go off that was due until then, by the journal's clock; false if there is none.

        Args:
            until: Then.
            tries: How often the replay has differed; each time another one is taken, and from farther away.
            sleep_only: Whether nothing may time out.
        """
        self._held = [held for held in self._held if not held.cancelled()]
        due = sorted((held for held in self._held if held.due <= until + _CLOCKS_SECONDS), key=lambda one: one.due)
        if not due:
            return False
        near = [held for held in due if held.due <= due[0].due + _NEAR_SECONDS * 10**tries]
        held = near[tries % len(near)]
        return (held.future is not None or not sleep_only) and self._goes_off(held)

    def timeout_goes_off(self) -> bool:
        """Have the next timeout go off, although it may be longer in this code; false if there is none."""
        timeouts = [held for held in self._held if held.future is None and not held.cancelled()]
        return bool(timeouts) and self._goes_off(min(timeouts, key=lambda one: one.due))

    def _goes_off(self, held: Held) -> bool:
        self._held.remove(held)
        self.reached = max(self.reached, held.due)
        held.go_off()
        return True

    @property
    def slept(self) -> set[asyncio.Future[Any]]:
        """The futures of what its code sleeps in."""
        return {held.future for held in self._held if held.future is not None and not held.cancelled()}

    def release(self) -> None:
        """The replay is over, or stands still: those that are left begin anew, by the loop's clock.

        How much of their time has passed is not known: the journal's includes what passed while nobody had the turn.
        """
        turns = _replayed.get(self._loop, {})
        if turns.pop(self._turn, None) is not None and not turns:
            _step_back(self._loop)
        for held in self._held:
            held.begin()
        self._held.clear()


_replayed: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Timers]] = WeakKeyDictionary()
"""The turns of each loop that are replayed."""


class _StandIn:
    """A loop's `call_at`, while a turn of it is replayed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: Mapping[object, Timers]) -> None:
        self.real = loop.call_at
        self._turns = turns

    def __repr__(self) -> str:
        return f"<call_at, holding timers of {len(self._turns)} turns>"

    def __call__(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401  # as asyncio has it
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        inside = context or copy_context()
        scope, timers = inside.get(current), None
        if scope is not None and _name(callback) in _TIMERS and inside.get(running_step) is None:
            timers = self._turns.get(scope.turn)
        if timers is None:
            return self.real(when, callback, *args, context=context)
        return timers.hold(when, callback, args, inside)


def _name(callback: Callable[..., object]) -> tuple[str, str]:
    return getattr(callback, "__module__", ""), getattr(callback, "__qualname__", "")


def _stand_in(loop: asyncio.AbstractEventLoop, turns: Mapping[object, Timers]) -> None:
    with suppress(AttributeError):  # a loop that is not Python's own
        setattr(loop, "call_at", _StandIn(loop, turns))  # noqa: B010  # its type does not allow it


def _step_back(loop: asyncio.AbstractEventLoop) -> None:
    own: dict[str, object] = getattr(loop, "__dict__", {})
    if isinstance(mine := own.get("call_at"), _StandIn):  # or somebody put another over it, which goes on to this one
        del own["call_at"]
        if mine.real != loop.call_at:
            own["call_at"] = mine.real
