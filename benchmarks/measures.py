"""What is measured of perdure, on a system whose actors are in memory; every message changes its actor's state."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import TYPE_CHECKING

from attrs import field, frozen

from benchmarks.raw import ACTORS, TEXT
from benchmarks.sample import Sample, Stopwatch
from perdure import Actor, handler, step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from benchmarks.counting import Counts
    from perdure import ActorSystem

_STEPS_IN_A_TURN = 100


@step
async def effect(n: int, text: str) -> str:
    del n
    return text


class Account(Actor, kind="benchmark.account"):
    total: int = 0

    @handler
    async def add(self, n: int, text: str) -> int:
        del text
        self.total += n
        return self.total

    @handler
    async def work(self, steps: int) -> int:
        for n in range(steps):
            self.total += len(await effect(n, TEXT))
        return self.total


@frozen
class Bench:
    """An open system and its actors."""

    counts: Counts
    actors: list[Account]
    rota: Iterator[Account] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "rota", cycle(self.actors))

    @classmethod
    async def of(cls, system: ActorSystem, counts: Counts, *, prefix: str = "a", actors: int = ACTORS) -> Bench:
        """A bench whose actors have all handled a message."""
        bench = cls(counts, [system.get(Account, f"{prefix}{n}") for n in range(actors)])
        await asyncio.gather(*(actor.add(1, TEXT) for actor in bench.actors))
        return bench


async def tells(bench: Bench, senders: int, seconds: float) -> Sample:
    """One-way messages from tasks that each await one before they send the next; over when the last is handled."""
    before, ended = bench.counts.transactions, bench.counts.ended
    watch = Stopwatch()

    async def send() -> int:
        await next(bench.rota).add.tell(1, TEXT)
        return 1

    sent = await _repeat((send for _ in range(senders)), watch, seconds)
    accepted = watch.seconds
    await bench.counts.until_ended(ended + sent)
    return watch.sample(sent, bench.counts.transactions - before, accepted_seconds=accepted)


async def asks(bench: Bench, callers: int, seconds: float) -> Sample:
    """Questions from callers that each await the reply before they ask again."""
    before = bench.counts.transactions
    watch = Stopwatch()

    async def ask() -> int:
        await next(bench.rota).add(1, TEXT)
        return 1

    asked = await _repeat((ask for _ in range(callers)), watch, seconds)
    return watch.sample(asked, bench.counts.transactions - before)


async def steps(bench: Bench, turns: int, seconds: float) -> Sample:
    """Journaled steps, one after the other in each of several turns at once."""
    before = bench.counts.transactions
    watch = Stopwatch()

    def turn(actor: Account) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            await actor.work(_STEPS_IN_A_TURN)
            return _STEPS_IN_A_TURN

        return run

    done = await _repeat(map(turn, bench.actors[:turns]), watch, seconds)
    return watch.sample(done, bench.counts.transactions - before)


async def _repeat(works: Iterable[Callable[[], Awaitable[int]]], watch: Stopwatch, seconds: float) -> int:
    """Do every work again and again, all side by side, until the time is over; how much was done."""

    async def repeat(work: Callable[[], Awaitable[int]]) -> int:
        done = await work()
        while watch.seconds < seconds:
            done += await work()
        return done

    return sum(await asyncio.gather(*(repeat(work) for work in works)))


MEASURES: dict[str, Callable[[Bench, int, float], Awaitable[Sample]]] = {"tells": tells, "asks": asks, "steps": steps}
