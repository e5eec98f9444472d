"""The connection to PostgreSQL, cut at every message of its protocol.

| what is cut | who notices | what happens |
|---|---|---|
| what writes, before COMMIT left | the store, by the error | it connects again and tries the batch again |
| what writes, before COMMIT was answered | the store | it waits for that transaction to end and looks for its row |
| that look, or connecting for it | the store | again, for as long as an outage may last |
| what reads | the store | it connects again and reads again |
| what hears wake-ups | its thread | it listens again; what it missed is found by a look |
| what sends them | nobody | what they were for is found by the next look |
| an opening | whoever opens | a `TargetError`; the next one opens as if that one had not been |

No write fails by any of it, so no handler and no step runs a second time.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest

from perdure import Actor, ActorSystem, PerdureError, TargetError, handler, query, step
from tests.acceptance.postgres.proxy import Cut, Fate, Message, Proxy, passes

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 120.0
CUTS = [Cut(at, how) for at in ("before", "within") for how in ("RST", "FIN")]

begun: Counter[int] = Counter()


@step
async def effect(number: int) -> int:
    """Done once for each number, unless its process dies in the middle of it."""
    begun[number] += 1
    return number


class Clerk(Actor, kind="cuts.clerk"):
    seen: list[int] = []

    @handler
    async def note(self, number: int) -> int:
        self.seen.append(number)
        return number

    @handler
    async def work(self, number: int) -> int:
        await effect(number)
        await self.spawn(Clerk, f"child {number}", seen=[number])
        await self.system.get(Clerk, "first").note.tell(number)
        self.seen.append(await self.system.get(Clerk, "second").note(number))
        return number

    @query
    async def all(self) -> list[int]:
        return self.seen


class Once:
    """The fate of one message: the `nth` of those that are counted, from here."""

    def __init__(self, nth: int, cut: Cut, counts: Callable[[Message], bool]) -> None:
        self._nth = self._left = nth
        self._cut = cut
        self._counts = counts
        self.met = ""

    def __repr__(self) -> str:
        return f"<{self._cut} at message {self._nth}: {self.met or 'not reached'}>"

    def __call__(self, message: Message) -> Fate:
        if self.met or not self._counts(message):
            return "passes"
        self._left -= 1
        if self._left:
            return "passes"
        self.met = f"{message.kind or 'start'} {'to' if message.to_server else 'from'} the server, {message.wire.name}"
        return self._cut


class Office:
    """A system behind the proxy, and what it was asked to do."""

    def __init__(self, system: ActorSystem, proxy: Proxy, direct: str) -> None:
        self.system = system
        self.proxy = proxy
        self._direct = direct
        self.done: list[int] = []
        self._numbers = count(1)
        begun.clear()

    async def round(self, fate: Callable[[Message], Fate]) -> None:
        """A little of everything, and one message's fate in the middle of it."""
        first, worker, number = self.system.get(Clerk, "first"), self.system.get(Clerk, "worker"), next(self._numbers)
        self.proxy.fate = fate
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                receipt = await first.note.tell(-number)
                assert await worker.work(number) == number
                assert await receipt.result() == -number
        except (TimeoutError, PerdureError) as error:
            raise AssertionError(f"round {number}, {fate}: {error!r}") from error
        finally:
            self.proxy.fate = passes
        self.done.append(number)

    async def check(self) -> None:
        """What another process finds: everything once, in the order sent, and no step that began twice."""
        async with ActorSystem(self._direct) as other:
            seen = {name: await other.get(Clerk, name).all() for name in ("first", "second", "worker")}
            children = [await other.get(Clerk, f"child {number}").all() for number in self.done[-20:]]
        assert seen["worker"] == self.done
        assert [one for one in seen["second"] if one] == self.done
        assert [one for one in seen["first"] if one < 0] == [-number for number in self.done]
        assert [one for one in seen["first"] if one > 0] == self.done
        assert children == [[number] for number in self.done[-20:]]
        assert begun == Counter(self.done)


@asynccontextmanager
async def office(postgres: str) -> AsyncGenerator[Office]:
    """One that works, checked at its end."""
    async with Proxy(postgres) as proxy:
        async with ActorSystem(proxy.target) as system:
            found = Office(system, proxy, postgres)
            yield found
        await found.check()


def written(message: Message) -> bool:
    """What goes over the connection that writes."""
    return message.wire.writes


def committed(message: Message) -> bool:
    """The answer to a COMMIT."""
    return message.wire.writes and message.kind == "C" and b"COMMIT" in message.raw


def every(message: Message) -> bool:
    """Whatever comes by."""
    return bool(message.raw)


class Twice:
    """The fates of two messages: an answer to a COMMIT, and the `nth` message after it on connections made since."""

    def __init__(self, nth: int, cut: Cut) -> None:
        self._first = Once(1, cut, committed)
        self._then = Once(nth, cut, self._is_new)
        self._last = 0

    def __repr__(self) -> str:
        return f"<{self._first}, {self._then}>"

    @property
    def met(self) -> bool:
        """Whether both have come about."""
        return bool(self._then.met)

    def _is_new(self, message: Message) -> bool:
        return message.wire.number > self._last

    def __call__(self, message: Message) -> Fate:
        if not self._first.met:
            self._last = max(self._last, message.wire.number)
            return self._first(message)
        return self._then(message)


@pytest.mark.parametrize(
    ("apart", "turn"), [(2, 0), *(pytest.param(1, turn, marks=pytest.mark.torture) for turn in range(len(CUTS)))]
)
async def test_the_writing_connection(postgres: str, apart: int, turn: int) -> None:
    """Wherever it is cut, each send that returned is handled once, in its order, and nobody's help is needed."""
    cuts = 0
    async with office(postgres) as found:
        for number, nth in enumerate(count(random.randint(1, apart), apart)):
            once = Once(nth, CUTS[(number + turn) % len(CUTS)], written)
            await found.round(once)
            if not once.met:
                break
            cuts += 1
        assert cuts > 50


async def test_again_while_a_commit_is_looked_up(postgres: str) -> None:
    """A commit without an answer is looked up by the next connection that lasts."""
    async with office(postgres) as found:
        for nth in range(1, 80):  # a connection, the end of the one before, the look, and some of the next transaction
            twice = Twice(nth, CUTS[nth % len(CUTS)])
            await found.round(twice)
            assert twice.met


async def test_any_connection(postgres: str) -> None:
    """Those that read, hear and wake are made again, too: two processes go on with what the other sends."""
    async with office(postgres) as found, ActorSystem(found.proxy.target) as second:
        for name in ("first", "second"):
            await second.get(Clerk, name).note(0)
        for _ in range(50):
            once = Once(random.randrange(1, 900), random.choice(CUTS), every)
            await found.round(once)


async def test_opening(postgres: str) -> None:
    """Wherever an opening is cut, it says so, leaves nothing behind, and the next one opens."""
    cuts = 0
    async with Proxy(postgres) as proxy:
        for nth in count(random.randrange(1, 4), 3):
            wire = proxy.accepted + 1  # what reads comes after it, and fails as it does for an open store
            proxy.fate = once = Once(nth, CUTS[nth % len(CUTS)], lambda message: message.wire.number == wire)  # noqa: B023  # asked within this pass
            with suppress(TargetError):
                async with asyncio.timeout(PATIENCE_SECONDS), ActorSystem(proxy.target) as system:
                    proxy.fate = passes
                    assert await system.get(Clerk, "first").note(nth) == nth
            left = [thread.name for thread in threading.enumerate() if thread.name.startswith("perdure-")]
            assert not left, (nth, once)
            if not once.met:
                break
            cuts += 1
        assert cuts > 50
