"""A limit on everything: time, steps, deadlocks from separate roots, references outside their system."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from perdure import (
    Actor,
    ActorSystem,
    DeadLetterError,
    DeadlockError,
    Limits,
    MessageExpired,
    Ref,
    handler,
    query,
    sleep,
    step,
)
from perdure.errors import MessageTooLarge, NotInTurnError
from tests.unit.crashing import connection_of, crashing
from tests.unit.observing import until

calls: list[int] = []
gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    gates.clear()


@step
async def count(n: int) -> int:
    """A step that can be counted."""
    calls.append(n)
    return n


class Bounded(Actor, kind="limits.bounded"):
    total: int = 0

    @handler(timeout=0.2)
    async def hang(self) -> None:
        self.total = 99
        await asyncio.sleep(60)

    @handler(timeout=0.2)
    async def hang_durably(self) -> None:
        self.total = 99
        await sleep(60)

    @handler(timeout=60)
    async def hang_for_long(self) -> None:
        await sleep(3600)

    @handler(timeout=0.2)
    async def swallow(self) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.total = 99
        return "swallowed"

    @handler
    async def steps(self, n: int) -> int:
        return sum([await count(each) for each in range(n)])

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

    @handler
    async def ask_when_told(self, other: Ref[Bounded]) -> int:
        await gates[self.key].wait()
        return await other.add(1)

    @handler
    async def tell_and_wait(self, other: Ref[Bounded]) -> int:
        await gates[self.key].wait()
        return await (await other.add.tell(1)).result()

    @query
    async def value(self) -> int:
        return self.total


@pytest.mark.parametrize("name", ["hang", "hang_durably", "swallow"])
async def test_handler_timeout(tmp_path: Path, name: str) -> None:
    """A message that runs too long ends expired without another attempt; its state is undone and the actor goes on."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Bounded, "b")
        call = {"hang": ref.hang, "hang_durably": ref.hang_durably}.get(name)
        receipt = await (call.tell() if call is not None else ref.swallow.tell())
        with pytest.raises(MessageExpired, match=r"0\.2 s"):
            await receipt.result(timeout=20)
        assert await ref.add(1) == 1
        assert await ref.add(1) == 2


async def test_handler_timeout_counts_from_the_first_start(tmp_path: Path) -> None:
    """A crash does not give a message its time anew."""
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Bounded, "b").hang_for_long.options(id="m").tell()
        await until(lambda: _records(system, "sleep") == 1)
    with closing(sqlite3.connect(tmp_path / "a.db")) as beside, beside:
        beside.execute("UPDATE journal SET started = started - 60")
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(MessageExpired), anyio.fail_after(30):
            await system.receipt("m").result()


def _records(system: ActorSystem, kind: str) -> int:
    (count,) = connection_of(system).execute("SELECT count(*) FROM journal WHERE kind = ?", [kind]).fetchone()
    return int(count)


async def test_too_many_steps_park(tmp_path: Path) -> None:
    """A turn without end is stopped where people see it, with all it did."""
    calls.clear()
    async with ActorSystem(tmp_path / "a.db", limits=Limits(steps=20)) as system:
        receipt = await system.get(Bounded, "b").steps.options(id="m").tell(50)

        async def parked() -> bool:
            return await receipt.status() == "parked"

        await until(parked)
    assert len(calls) == 20
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Bounded.steps).result(timeout=20) == sum(range(50))
    assert calls == list(range(50))


async def test_cycle_from_separate_roots(tmp_path: Path) -> None:
    """Two actors that ask each other at the same time hear of it instead of waiting for ever; the younger ask fails."""
    async with ActorSystem(tmp_path / "a.db") as system:
        a, b = system.get(Bounded, "a"), system.get(Bounded, "b")
        one, two = await a.ask_when_told.tell(b), await b.ask_when_told.tell(a)
        gates["a"].set()
        await until(lambda: _records(system, "ask") == 1)
        gates["b"].set()
        with anyio.fail_after(30):
            with pytest.raises(DeadlockError) as caught:
                await two.result()
            assert caught.value.path == ("limits.bounded/b", "limits.bounded/a", "limits.bounded/b")
            assert await one.result() == 1


async def test_a_turn_that_waits_for_its_own_actor(tmp_path: Path) -> None:
    """The result of what it sent to itself can never come, and it hears of that; the message is handled after it."""
    gates["a"].set()
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(30):
        with pytest.raises(DeadlockError, match=r"limits\.bounded/a -> limits\.bounded/a"):
            await system.get(Bounded, "a").tell_and_wait(system.get(Bounded, "a"))
        assert await system.get(Bounded, "a").add(1) == 2


async def test_a_cycle_of_receipts(tmp_path: Path) -> None:
    """Two that wait for the results of what they sent to each other do not do so for ever."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(30):
        a, b = system.get(Bounded, "a"), system.get(Bounded, "b")
        one, two = await a.tell_and_wait.tell(b), await b.tell_and_wait.tell(a)
        gates["a"].set()
        await until(lambda: _records(system, "receipt") == 1)
        gates["b"].set()
        with pytest.raises(DeadlockError):
            await two.result()
        assert await one.result() == 1


async def test_references_travel(tmp_path: Path) -> None:
    """References compare, hash and pickle; unpickled outside a system they say what is missing."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Bounded, "b")
        copy = pickle.loads(pickle.dumps(ref))
        assert copy == ref
        assert {ref: 1}[copy] == 1
        assert ref != system.get(Bounded, "c")
        assert "limits.bounded/b" in repr(ref)
        with pytest.raises(NotInTurnError, match=r"system\.get\(Bounded, 'b'\)"):
            await copy.add(1)


async def test_message_size(tmp_path: Path) -> None:
    """A message over the limit is refused where it is sent, in a turn as outside."""

    class Long(Actor, kind="limits.long"):
        @handler
        async def take(self, text: str) -> int:
            return len(text)

    async with ActorSystem(tmp_path / "a.db", limits=Limits(message_bytes=100)) as system:
        with pytest.raises(MessageTooLarge):
            await system.get(Long, "l").take("x" * 200)
        assert await system.get(Long, "l").take("x") == 1


class Spawner(Actor, kind="limits.spawner"):
    @handler
    async def twice(self, other: Ref[Bounded]) -> str:
        await self.spawn(Bounded, "taken", total=5)
        await other.add.tell(1)
        try:
            await count(1)
        except Exception:  # noqa: BLE001  # what a careless handler does
            await other.add.tell(10)
            await count(2)
        return "done"


async def test_refused_segment_fails_the_turn_even_if_caught(tmp_path: Path) -> None:
    """Nothing leaves a turn after a part of it was refused, whatever its handler catches."""
    calls.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.spawn(Bounded, "taken", total=4)
        other = system.get(Bounded, "other")
        with pytest.raises(DeadLetterError, match="ActorExists"):
            await system.get(Spawner, "s").twice(other)
        assert await other.add(0) == 0
    assert calls == []
