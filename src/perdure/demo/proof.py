"""Did any completed step run twice? Decided from the journal at each stop, the ledger outside, and the journal now."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.demo.ledger import Line
    from perdure.demo.place import Journal


@frozen
class Stop:
    """What was certain when a process had ended.

    Attributes:
        journal: The journal on disk.
        lines: How many lines the ledger had.
    """

    journal: Journal
    lines: int


@frozen
class Proof:
    """What the files say.

    Attributes:
        outcome: How the message ended.
        completed: Steps whose completion was on disk at the last stop.
        begun_again: Lines of steps that began after their completion was on disk. Must be empty.
        repeated: Lines of steps that one process began twice. Must be empty: no step of the demo fails.
        vanished: Keys of steps that were completed at a stop and are not any more. Must be empty.
        unheard: Keys of completed steps without a line in the ledger. Must be empty.
        interrupted: Lines of steps that were under way at a stop and ran again with the same id.
        steps: How many steps of each name the journal holds as completed now.
        lines: How many lines of each name the ledger holds.
    """

    outcome: str
    completed: int
    begun_again: tuple[Line, ...]
    repeated: tuple[Line, ...]
    vanished: frozenset[str]
    unheard: frozenset[str]
    interrupted: tuple[Line, ...]
    steps: Counter[str]
    lines: Counter[str]

    @property
    def holds(self) -> bool:
        """Whether the work is done, and no completed step ran twice, was lost or never ran."""
        wrong = self.begun_again or self.repeated or self.vanished or self.unheard
        return self.outcome == "succeeded" and not wrong


def prove(stops: Sequence[Stop], ledger: Sequence[Line], now: Journal) -> Proof:
    """Hold the ledger against the journals."""
    keys = {line.step: _key(line.step, now) for line in ledger}
    again = tuple(
        line for stop in stops for line in ledger[stop.lines :] if keys[line.step] in stop.journal.completed()
    )
    done = now.completed()
    return Proof(
        outcome=now.outcome,
        completed=len(stops[-1].journal.completed()) if stops else 0,
        begun_again=again,
        repeated=tuple(_repeated(ledger)),
        vanished=frozenset(key for stop in stops for key in stop.journal.completed() - done),
        unheard=done - set(keys.values()),
        interrupted=tuple(line for line in _second(ledger) if line not in again),
        steps=Counter(step.name.rpartition(".")[2] for step in now.steps if step.status == "completed"),
        lines=Counter(line.name for line in ledger),
    )


def _key(step: str, journal: Journal) -> str:
    """The journal's key of the step with this id, which ends in it."""
    return max((record.key for record in journal.steps if step.endswith(record.key)), key=len, default="")


def _second(ledger: Iterable[Line]) -> Iterable[Line]:
    """Lines whose step has an earlier one."""
    seen: set[str] = set()
    for line in ledger:
        if line.step in seen:
            yield line
        seen.add(line.step)


def _repeated(ledger: Iterable[Line]) -> Iterable[Line]:
    """Lines whose step has an earlier one of the same process."""
    seen: set[tuple[str, int]] = set()
    for line in ledger:
        if (line.step, line.process) in seen:
            yield line
        seen.add((line.step, line.process))
