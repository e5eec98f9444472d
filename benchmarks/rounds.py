"""The rounds: a slice of the raw limit, a slice of perdure, and so on by turns.

A machine's speed drifts, and a disk's by factors within a second while others use it. So a figure of perdure is only
compared with the figure of the limit taken right before it, and the median of those ratios is what counts.
"""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.floors import BARE, HOPS
from benchmarks.workers import RAW, Worker, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from benchmarks.sample import Sample

_LONGER = {"tells": 2}
"""Slices of measures that take a while to fill up and to run dry."""


@frozen
class Measure:
    """Something to be measured beside a limit.

    Attributes:
        title: What people read.
        kind: Which measure.
        width: Batch of the raw limit; senders, callers or turns of perdure.
        target: Ratio to the limit that is expected.
        per_commit: Compare with the limit's commits instead of its messages.
        floor: Which measure of its group is the least that is possible, and is compared with, too.
    """

    title: str
    kind: str
    width: int
    target: float | None = None
    per_commit: bool = False
    floor: str | None = None


@frozen
class Group:
    """A limit with the measures that are compared with it."""

    limit: Measure
    measures: tuple[Measure, ...]


@frozen
class Result:
    """A measure's medians.

    Attributes:
        rate: Operations a second.
        accepted_rate: Tells accepted a second.
        cpu_microseconds: Processor time of one operation, on all threads.
        batch: Operations a transaction; 0.5 where one takes two.
        limit: Title of what `ratio` is a ratio to.
        ratio: Median of the rates' ratios, pair by pair.
        floor_ratio: The same to the measure that is the least possible, by way of the limit, round by round.
    """

    measure: Measure
    rate: float
    accepted_rate: float | None
    cpu_microseconds: float
    batch: float
    limit: str = ""
    ratio: float | None = None
    floor_ratio: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met, if there is one."""
        return None if self.ratio is None or self.measure.target is None else self.ratio >= self.measure.target


def raw(batch: int) -> Measure:
    """The raw limit in batches."""
    return Measure(f"raw, {'one by one' if batch == 1 else f'batches of {batch:,}'}", RAW, batch)


GROUPS = (
    Group(
        raw(1),
        (
            Measure("floor: raw by hops", HOPS, 1),
            Measure("ask, 1 caller", "asks", 1, 0.6, floor=HOPS),
            Measure("steps, 1 turn", "steps", 1, per_commit=True),
        ),
    ),
    Group(raw(10), ()),
    Group(raw(100), (Measure("steps, 64 turns", "steps", 64),)),
    Group(
        raw(1_000),
        (
            Measure("asks, 64 callers", "asks", 64, 0.1),
            Measure("tells, 64 senders", "tells", 64),
            Measure("floor: bare asyncio", BARE, 1_000),
            Measure("tells, 1,000 senders", "tells", 1_000, 0.2, floor=BARE),
        ),
    ),
)


def run(group: Group, folder: Path, rounds: int, seconds: float, tell: Callable[[str], None]) -> list[Result]:
    """Measure a group, round by round; the limit's result comes first."""
    limits: list[Sample] = []
    pairs: dict[Measure, list[tuple[Sample, Sample]]] = {measure: [] for measure in group.measures}
    with ExitStack() as stack:
        limit = stack.enter_context(_worker(folder, group.limit))
        workers = {measure: stack.enter_context(_worker(folder, measure)) for measure in group.measures}
        for number in range(rounds):
            tell(f"{group.limit.title}: round {number + 1} of {rounds}")
            if not workers:
                limits.append(limit.sample(seconds))
            for measure, worker in workers.items():
                before = limit.sample(seconds)
                limits.append(before)
                pairs[measure].append((before, worker.sample(seconds * _LONGER.get(measure.kind, 1))))
    ratios = {measure: _ratios(measure, found) for measure, found in pairs.items()}
    floors = {measure.kind: found for measure, found in ratios.items()}
    compared = [
        _result(
            measure,
            (sample for _, sample in pairs[measure]),
            limit=group.limit.title + (" (commits)" if measure.per_commit else ""),
            ratio=statistics.median(found),
            floor_ratio=_to_floor(found, floors.get(measure.floor or "")),
        )
        for measure, found in ratios.items()
    ]
    return [_result(group.limit, limits), *compared]


def _worker(folder: Path, measure: Measure) -> AbstractContextManager[Worker]:
    return started(folder / f"{measure.kind}-{measure.width}", measure.kind, measure.width)


def _ratios(measure: Measure, pairs: Iterable[tuple[Sample, Sample]]) -> list[float]:
    unit = 2 if measure.per_commit else 1
    return [sample.rate / (before.rate * unit) for before, sample in pairs]


def _to_floor(ratios: Iterable[float], floor: Iterable[float] | None) -> float | None:
    if floor is None:
        return None
    return statistics.median(ratio / least for ratio, least in zip(ratios, floor, strict=True))


def _result(
    measure: Measure,
    samples: Iterable[Sample],
    limit: str = "",
    ratio: float | None = None,
    floor_ratio: float | None = None,
) -> Result:
    found = list(samples)
    accepted = [sample.accepted_rate for sample in found if sample.accepted_rate is not None]
    return Result(
        measure,
        statistics.median(sample.rate for sample in found),
        statistics.median(accepted) if accepted else None,
        statistics.median(sample.cpu_microseconds for sample in found),
        statistics.median(sample.batch for sample in found),
        limit,
        ratio,
        floor_ratio,
    )
