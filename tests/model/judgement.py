"""Who is dead: a model of heartbeats, of an observer that buries a node, and of the node that is buried.

    worker     commits a heartbeat in every tick, unless something keeps it from it; owns an actor, and begins steps
    observer   commits heartbeats alike; each also reads the worker's counter, and judges
    clocks     each node reads its own, which nobody stops; between ticks anybody acts in any order

The observer's verdict is that the counter has not moved for a lease of its own clock, during which it has committed
`BEATS` heartbeats itself, not counting the one that last saw it move. Burying is another transaction, and may be late.

What goes wrong, once each, as far as `wrong` has it: the worker is stopped (SIGSTOP) and goes on later, the observer
is; everything stands still for a lease (a laptop sleeps, the database is out, a stopped writer holds its lock); the
worker's wall clock is wrong; the worker is slow, and lets two heartbeats of three out; it is killed. A heartbeat is
sent, then committed, and then its answer is heard: the worker may be stopped between.

A slow worker and a standstill together, or two standstills in one lease, defeat three heartbeats: there is a test. The
worker then loses its actors and its name, and no message: that is `ownership.py`.

The observer is one of many and the worker one of many: what they judge of each other is as independent as their rows.

What a buried node may still write is the affair of `ownership.py`, and half a lease adds nothing to that: the fence
needs no time. It is for what no fence undoes. The record of a step is on disk before the step begins, and a worker that
was stopped in between would begin it when it goes on, beside whoever has the actor by then. To look at the clock and to
begin is one action here; whoever is stopped between those two still begins late. With clocks that run alike, a whole
lease would do: the other half is for clocks that do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from tests.model.explorer import Step

ALIVE: Final = "a node whose heartbeats are committed as long as it runs, and the database does, is never buried"
LATE_STEP: Final = "no step begins on a node that was buried"

LEASE: Final = 4
SLOW: Final = 2
HALF: Final = 2
BEATS: Final = 3


class Rule(Enum):
    """What makes it right."""

    OWN_BEATS = "the observer has committed three heartbeats of its own since it saw the counter move"
    WHOLE_LEASE = "the counter has not moved for a whole lease"
    OWN_CLOCK = "the observer measures by its own clock, and not by the times that others wrote down"
    COUNTER_CHECKED = "the transaction that buries looks once more whether the counter is what was observed"
    HALF_LEASE = "no step begins half a lease after the last heartbeat that is known to be durable"
    FROM_SENDING = "that half is counted from when the heartbeat was sent, not from when its answer was heard"


class Watch(NamedTuple):
    """Everything. Times are ages in ticks, which stop at `LEASE`.

    Attributes:
        moved: Whether the worker's counter is another than the observer saw: all that is ever asked of it.
        status: The worker's row: `live` or `dead`.
        worker: `runs`, `stopped` or `killed`.
        due: Whether the worker has not committed a heartbeat in this tick; `own_due`, the observer.
        beat: The worker's heartbeat on its way: none, `sent`, `committed`.
        sent: How long ago it was sent.
        known: How long ago, by the worker, was its last heartbeat that it knows to be durable.
        blamed: Whether the worker itself, and not the world, has let a heartbeat out since its last.
        observer: `runs` or `stopped`.
        unmoved: How long ago it saw it move.
        beats: Its own heartbeats since.
        skewed: Whether the worker's wall clock is a lease behind.
        slow: Whether the worker lets heartbeats out, up to `SLOW` at a time; `silent`, how many it has.
        verdict: Whether the observer is about to bury.
        left: What may yet go wrong.
    """

    moved: bool = False
    status: str = "live"
    worker: str = "runs"
    due: bool = True
    own_due: bool = True
    beat: str = ""
    sent: int = 0
    known: int = 0
    blamed: bool = False
    observer: str = "runs"
    unmoved: int = 0
    beats: int = 0
    skewed: bool = False
    slow: bool = False
    silent: int = 0
    verdict: bool = False
    left: frozenset[str] = frozenset()


STOPS: Final = frozenset({"stop worker", "stop observer", "skew", "kill"})


class Judgement:
    """The model, with the rules that it keeps."""

    def __init__(self, wrong: frozenset[str], rules: frozenset[Rule] = frozenset(Rule)) -> None:
        self.left = wrong
        self.rules = rules

    def first(self) -> Watch:
        """Both have begun."""
        return Watch(left=self.left)

    def canonical(self, state: Watch) -> Watch:
        """Each state stands for itself."""
        return state

    def broken(self, state: Watch) -> str | None:
        """No property is one of states."""
        return None

    def done(self, state: Watch) -> bool:
        """A node that lives is to be left alone; one that was killed is to be buried."""
        return state.worker != "killed" or state.status == "dead"

    def steps(self, state: Watch) -> Iterator[Step[Watch]]:
        """What may happen next."""
        yield from self.wrong(state)
        yield from self.time(state)
        if state.worker == "runs":
            yield from self.worker(state)
        if state.observer == "runs":
            yield from self.observer(state)

    def wrong(self, w: Watch) -> Iterator[Step[Watch]]:
        """What goes wrong, and that it ends."""
        if "stop worker" in w.left and w.worker == "runs":
            yield Step(
                ("the worker is stopped",), w._replace(worker="stopped", left=w.left - {"stop worker"}), failure=True
            )
        if "kill" in w.left and w.worker == "runs":
            yield Step(
                ("the worker is killed",), w._replace(worker="killed", beat="", left=w.left - {"kill"}), failure=True
            )
        if "stop observer" in w.left and w.observer == "runs":
            left = w.left - {"stop observer"}
            yield Step(("the observer is stopped",), w._replace(observer="stopped", left=left), failure=True)
        if "skew" in w.left:
            left = w.left - {"skew"}
            yield Step(("the worker's wall clock is set back",), w._replace(skewed=True, left=left), failure=True)
        if "slow" in w.left:
            yield Step(("the worker becomes slow",), w._replace(slow=True, left=w.left - {"slow"}), failure=True)
        for again in sorted(w.left & {"standstill", "second standstill"}):
            still = aged(w, LEASE)._replace(due=True, own_due=True, left=w.left - {again})
            yield Step(("everything stands still for a lease",), still, failure=True)
        if w.worker == "stopped":
            yield Step(("the worker goes on",), w._replace(worker="runs"))
        if w.observer == "stopped":
            yield Step(("the observer goes on",), w._replace(observer="runs"))

    def time(self, w: Watch) -> Iterator[Step[Watch]]:
        """A tick: whoever runs has committed its heartbeat before; the worker's may have to wait for its answer."""
        patience = w.slow and w.silent < SLOW
        worker_late = w.due and w.worker == "runs" and w.status == "live" and not patience
        if worker_late or (w.own_due and w.observer == "runs"):
            return
        blamed = w.blamed or (w.due and not patience)
        silent = min(w.silent + w.due, SLOW)
        yield Step(("a tick",), aged(w, 1)._replace(due=True, own_due=True, blamed=blamed, silent=silent))

    def worker(self, w: Watch) -> Iterator[Step[Watch]]:
        """The worker sends a heartbeat, hears of it, and begins a step."""
        if w.due and not w.beat:
            yield Step(("the worker sends a heartbeat",), w._replace(beat="sent", sent=0))
        if w.beat == "sent" and w.status == "live":
            moved = w._replace(beat="committed", moved=True, due=False, blamed=False, silent=0)
            yield Step(("the worker's heartbeat is committed",), moved)
        if w.beat == "committed":
            known = w.sent if Rule.FROM_SENDING in self.rules else 0
            yield Step(("the worker hears of its heartbeat",), w._replace(beat="", known=known))
        if w.known < HALF or Rule.HALF_LEASE not in self.rules:
            yield Step(("the worker begins a step",), w, broken=LATE_STEP if w.status == "dead" else None)

    def observer(self, w: Watch) -> Iterator[Step[Watch]]:
        """The observer commits a heartbeat and looks, and buries."""
        if w.own_due:
            beats = 0 if w.moved else min(w.beats + 1, BEATS)
            unmoved = 0 if w.moved else w.unmoved
            looked = w._replace(own_due=False, moved=False, unmoved=unmoved, beats=beats)
            yield Step(("the observer commits a heartbeat, and looks",), looked._replace(verdict=self.judges(looked)))
        if w.verdict and w.status == "live":
            if not w.moved or Rule.COUNTER_CHECKED not in self.rules:
                buried = w._replace(status="dead", verdict=False)
                yield Step(("the observer buries the worker",), buried, broken=None if w.blamed else ALIVE)
            else:
                yield Step(("the observer finds that the counter has moved",), w._replace(verdict=False))

    def judges(self, w: Watch) -> bool:
        """Whether the observer takes the worker for dead."""
        age = w.unmoved
        if Rule.OWN_CLOCK not in self.rules and w.skewed:
            age = LEASE  # what the worker wrote down seems that old
        beats = w.beats >= BEATS or Rule.OWN_BEATS not in self.rules
        return w.status == "live" and beats and (age >= LEASE or Rule.WHOLE_LEASE not in self.rules)


def aged(w: Watch, ticks: int) -> Watch:
    """The world after some time."""
    return w._replace(
        sent=min(w.sent + ticks, LEASE), known=min(w.known + ticks, LEASE), unmoved=min(w.unmoved + ticks, LEASE)
    )
