"""The actors that the tests of this folder supervise, and what they leave behind for a test to see."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from perdure import Actor, Backoff, Child, OneForOne, Retry, Strategy, Supervisor, Terminated, handler
from perdure.supervision.strategy import AutoShutdown, Directive, Failure

AT_ONCE = Backoff(0)

events: list[str] = []
"""`+key` where an actor has started, `-key` where it stops, other words where a test says so."""
broken: Counter[str] = Counter()
"""How often `started()` of the actor with a key is still to raise."""
gates: dict[str, asyncio.Event] = {}
"""What `stopping()` of the actor with a key waits for; `hold key`: what its handler `hold` waits for."""
failures: list[Failure] = []
"""What `decide` was told."""
_tries: Counter[str] = Counter()
_kinds = count(1)


def forget() -> None:
    """Nothing of another test is left."""
    events.clear()
    failures.clear()
    for counter in (broken, _tries):
        counter.clear()
    gates.clear()


class Noting(Actor, kind="family.noting"):
    """Says when it starts and stops."""

    async def started(self) -> None:
        if broken[self.key] > 0:
            broken[self.key] -= 1
            events.append(f"!{self.key}")
            raise ConnectionError(self.key)
        events.append(f"+{self.key}")

    async def stopping(self) -> None:
        events.append(f"-{self.key}")
        if self.key in gates:
            await gates[self.key].wait()


class Worker(Noting, kind="family.worker", retry=Retry(1)):
    """Works, fails and ends as it is told. A message that fails is a dead letter at once."""

    total: int = 0
    heard: list[str] = []

    @handler
    async def add(self, number: int) -> int:
        self.total += number
        return self.total

    @handler
    async def crash(self) -> None:
        self.total += 1_000
        raise ValueError(self.key)

    @handler
    async def leave(self) -> None:
        await self.stop()

    @handler
    async def hold(self) -> str:
        events.append(f"holding {self.key}")
        await gates[f"hold {self.key}"].wait()
        return self.key

    @handler
    async def gone(self, ended: Terminated) -> None:
        self.heard.append(ended.reason)
        events.append(f"{self.key} heard: {ended.reason}")

    @handler
    async def all_heard(self) -> list[str]:
        return self.heard


class Stubborn(Worker, kind="family.stubborn", retry=Retry(5, backoff=AT_ONCE)):
    """Tries a message five times."""

    @handler
    async def stumble(self, times: int) -> int:
        _tries[self.key] += 1
        if _tries[self.key] <= times:
            raise ValueError(self.key)
        self.total += 1
        return self.total


def crew(
    *children: Child[Any],
    strategy: Strategy | None = None,
    auto_shutdown: AutoShutdown = "never",
    decides: Callable[[Failure], Directive] | None = None,
) -> type[Supervisor]:
    """A supervisor of these children, that notes what it does."""

    class Crew(
        Supervisor,
        kind=f"family.crew{next(_kinds)}",
        strategy=strategy or OneForOne(backoff=AT_ONCE),
        auto_shutdown=auto_shutdown,
    ):
        def children(self) -> Sequence[Child[Any]]:
            return children

        async def started(self) -> None:
            await Noting.started(self)  # pyright: ignore[reportArgumentType]  # it is no Noting, but as good as one

        async def stopping(self) -> None:
            await Noting.stopping(self)  # pyright: ignore[reportArgumentType]  # it is no Noting, but as good as one

        @classmethod
        def decide(cls, failure: Failure) -> Directive:
            failures.append(failure)
            return "restart" if decides is None else decides(failure)

    return Crew


def workers(*keys: str, **options: Any) -> list[Child[Worker]]:  # noqa: ANN401  # whatever Child.options takes
    """Children of class `Worker`."""
    return [Child(Worker, key).options(**options) for key in keys]
