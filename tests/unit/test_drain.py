"""Draining one system beside others on the same file, in one process; and what stays possible then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorError,
    ActorSystem,
    Child,
    Limits,
    Supervisor,
    handler,
    query,
    sleep,
    step,
)
from tests.supervision.hands import Hands
from tests.unit.crashing import connection_of, host_of
from tests.unit.observing import until

events: list[str] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's events."""
    events.clear()
    gates.clear()


@step
async def effect(name: str) -> str:
    """Completes when the test lets it."""
    events.append(f"begin {name}")
    if name in gates:
        await gates[name].wait()
    events.append(f"end {name}")
    return name


@step
async def fails_once(name: str) -> str:
    """Fails, the first time."""
    events.append(f"try {name}")
    if events.count(f"try {name}") == 1:
        await gates[name].wait()
        raise ConnectionError(name)
    return name


class Hand(Actor, kind="drain.hand"):
    total: int = 0

    async def stopping(self) -> None:
        events.append(f"-{self.key}")
        if f"stop {self.key}" in gates:
            await gates[f"stop {self.key}"].wait()
        while self.key == "clinging" and not gates["cling"].is_set():
            try:
                await gates["cling"].wait()
            except asyncio.CancelledError:
                events.append("swallowed")

    @handler
    async def add(self, number: int) -> int:
        self.total += number
        return self.total

    @handler
    async def two_steps(self) -> str:
        return await effect(f"{self.key} one") + await effect(f"{self.key} two")

    @handler
    async def stumbles(self) -> str:
        return await fails_once(self.key)

    @handler
    async def nap(self, seconds: float) -> str:
        events.append(f"nap {self.key}")
        await sleep(seconds)
        return self.key

    @handler
    async def asks(self, other: str) -> str:
        return await self.system.get(Hand, other).two_steps()

    @handler
    async def wonders(self, other: str) -> int:
        events.append(f"wonders {self.key}")
        await gates[self.key].wait()
        return await self.system.get(Hand, other).value()

    @handler
    async def drains(self) -> str:
        try:
            await self.system.drain()
        except ActorError as error:
            return type(error).__name__
        return "drained"

    @handler
    async def cling(self) -> None:
        events.append(f"cling {self.key}")
        while not gates["cling"].is_set():
            try:
                await gates["cling"].wait()
            except asyncio.CancelledError:
                events.append("swallowed")

    @query
    async def value(self) -> int:
        return self.total


class Crew(Supervisor, kind="drain.crew"):
    def children(self) -> Iterator[Child[Actor]]:
        for key in "abc":
            yield Child(Hand, key)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[tuple[ActorSystem, ActorSystem]]:
    """The system that drains, and the one that goes on."""
    limits = Limits(grace=0.2)
    path = tmp_path / "a.db"
    async with ActorSystem(path, limits=limits) as first, ActorSystem(path, limits=limits) as second:
        yield first, second


def owners(system: ActorSystem) -> dict[str, tuple[str | None, str]]:
    """Whose each actor is, and what its turn does."""
    rows = connection_of(system).execute("SELECT key, owner, status FROM actor").fetchall()
    return {key: (owner, status) for key, owner, status in rows}


Pair = tuple[ActorSystem, ActorSystem]


async def test_a_drained_system_is_a_client(pair: Pair) -> None:
    """It still sends, asks and waits; others do the work, and it takes none, whatever is sent from it."""
    first, second = pair
    assert await first.get(Hand, "x").add(1) == 1
    await first.drain()
    receipt = await first.get(Hand, "x").add.tell(1)
    assert await receipt.result(timeout=20) == 2
    assert await first.get(Hand, "new").add(5) == 5
    assert await first.get(Hand, "x").value() == 2
    assert await second.get(Hand, "x").value() == 2
    assert host_of(first).activations == {}


async def test_mail_sent_while_nobody_else_is_there_waits(tmp_path: Path) -> None:
    """What a drained system sends is unowned and can be run: the next process takes it."""
    async with ActorSystem(tmp_path / "a.db") as first:
        await first.drain()
        receipt = await first.get(Hand, "x").add.tell(1)
        assert owners(first)["x"] == (None, "ready")
    async with ActorSystem(tmp_path / "a.db") as second:
        assert await second.receipt(receipt.id, Hand.add).result(timeout=20) == 1


async def test_a_step_completes_and_is_recorded_and_the_next_begins_elsewhere(pair: Pair) -> None:
    """No completed step is done twice, and none begins on a node that leaves."""
    first, _ = pair
    gates["h one"] = asyncio.Event()
    receipt = await first.get(Hand, "h").two_steps.tell()
    await until(lambda: "begin h one" in events)
    draining = asyncio.ensure_future(first.drain(10))
    await asyncio.sleep(0.1)
    assert not draining.done()
    gates["h one"].set()
    await draining
    assert await receipt.result(timeout=20) == "h oneh two"
    assert [events.count(f"begin h {step}") for step in ("one", "two")] == [1, 1]


async def test_each_actor_leaves_when_it_can(pair: Pair) -> None:
    """One long step keeps one actor here; the others are released meanwhile, and go on elsewhere."""
    first, second = pair
    gates["slow one"] = asyncio.Event()
    slow = await first.get(Hand, "slow").two_steps.tell()
    await first.get(Hand, "idle").add(1)
    nap = await first.get(Hand, "nap").nap.tell(0.3)
    await until(lambda: "begin slow one" in events and "nap nap" in events)
    draining = asyncio.ensure_future(first.drain(10))
    assert await nap.result(timeout=20) == "nap"
    assert await second.get(Hand, "idle").add(1) == 2
    assert not draining.done()
    gates["slow one"].set()
    await draining
    assert await slow.result(timeout=20) == "slow oneslow two"


async def test_a_turn_that_waits_needs_nobodys_memory(tmp_path: Path) -> None:
    """It is released as one that waits, so that no process loads it before its time."""
    clock = Hands()
    async with ActorSystem(tmp_path / "a.db", clock=clock) as first:
        receipt = await first.get(Hand, "n").nap.tell(3600)
        await until(lambda: any(one.turn and one.turn.waits_durably() for one in host_of(first).activations.values()))
        await first.drain()
        assert owners(first)["n"] == (None, "waiting")
        clock.move(3600)
        async with ActorSystem(tmp_path / "a.db", clock=clock) as second:
            assert await receipt.result(timeout=20) == "n"
            assert host_of(second).activations
    assert events.count("nap n") == 2


async def test_who_asks_and_who_is_asked_both_move(pair: Pair) -> None:
    """A reply finds its asker wherever that is by now."""
    first, _ = pair
    gates["b one"] = asyncio.Event()
    receipt = await first.get(Hand, "a").asks.tell("b")
    await until(lambda: "begin b one" in events)
    draining = asyncio.ensure_future(first.drain(10))
    await asyncio.sleep(0.05)
    gates["b one"].set()
    await draining
    assert await receipt.result(timeout=20) == "b oneb two"
    assert events.count("begin b one") == 1


async def test_a_step_is_not_tried_again_on_a_node_that_leaves(pair: Pair) -> None:
    """An attempt that failed is recorded, and the next one is made elsewhere."""
    first, _ = pair
    gates["f"] = asyncio.Event()
    receipt = await first.get(Hand, "f").stumbles.tell()
    await until(lambda: "try f" in events)
    draining = asyncio.ensure_future(first.drain(10))
    await asyncio.sleep(0.05)
    gates["f"].set()
    await draining
    assert host_of(first).activations == {}
    assert await receipt.result(timeout=20) == "f"
    assert events.count("try f") == 2


async def test_a_query_of_one_who_has_left_is_no_failure(pair: Pair) -> None:
    """A handler that wants to look at an actor that was released goes on elsewhere, without an attempt spent."""
    first, second = pair
    await first.get(Hand, "other").add(3)
    gates["w"] = asyncio.Event()
    receipt = await first.get(Hand, "w").wonders.tell("other")
    await until(lambda: "wonders w" in events)
    draining = asyncio.ensure_future(first.drain(10))
    await until(lambda: len(host_of(first).activations) == 1)
    gates["w"].set()
    await draining
    assert await receipt.result(timeout=20) == 3
    assert connection_of(second).execute("SELECT max(attempts) FROM turn").fetchone()[0] in {None, 0}


async def test_drained_twice(pair: Pair) -> None:
    """The earlier deadline counts, and a drain that is over is over."""
    first, _ = pair
    gates["h one"] = asyncio.Event()
    receipt = await first.get(Hand, "h").two_steps.tell()
    await until(lambda: "begin h one" in events)
    slowly = asyncio.ensure_future(first.drain(3600))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        await first.drain(0)
        await slowly
        await first.drain()
    gates["h one"].set()
    assert await receipt.result(timeout=20) == "h oneh two"
    assert events.count("begin h one") == 2


async def test_a_cancelled_drain_goes_on(pair: Pair) -> None:
    """Whoever gives up waiting has not called it off."""
    first, _ = pair
    await first.get(Hand, "x").add(1)
    waiting = asyncio.ensure_future(first.drain())
    await asyncio.sleep(0)
    waiting.cancel()
    await until(lambda: not host_of(first).activations)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_leaving_after_a_drain_is_quick(tmp_path: Path) -> None:
    """There is nothing left to wait for."""
    limits = Limits(drain=3600, grace=3600)
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db", limits=limits) as system:
        gates["h one"] = asyncio.Event()
        await system.get(Hand, "h").two_steps.tell()
        await until(lambda: "begin h one" in events)
        await system.drain(0.05)


async def test_a_handler_cannot_drain_its_own_system(pair: Pair) -> None:
    """It would wait for itself."""
    first, _ = pair
    assert await first.get(Hand, "d").drains() == "ActorError"


async def test_a_stubborn_handler_does_not_hold_a_drain(pair: Pair) -> None:
    """What swallows its cancellation is left behind, and its message begins elsewhere."""
    first, second = pair
    gates["cling"] = asyncio.Event()
    receipt = await first.get(Hand, "c").cling.tell()
    await until(lambda: "cling c" in events)
    async with asyncio.timeout(30):
        await first.drain(0.05)
    await until(lambda: events.count("cling c") == 2)
    gates["cling"].set()
    assert await receipt.result(timeout=20) is None
    assert host_of(second).activations


async def test_a_slow_stopping_holds_only_its_own_actor(pair: Pair) -> None:
    """Others are released while one closes what it opened."""
    first, second = pair
    gates["stop x"] = asyncio.Event()
    for key in "xy":
        await first.get(Hand, key).add(1)
    draining = asyncio.ensure_future(first.drain())
    assert await second.get(Hand, "y").add(1) == 2
    assert not draining.done()
    gates["stop x"].set()
    await draining


async def test_a_stopping_that_does_not_stop_is_left_behind(pair: Pair) -> None:
    """Not even one that swallows its cancellation holds its actor, if somebody hurries."""
    first, second = pair
    gates["cling"] = asyncio.Event()
    await first.get(Hand, "clinging").add(1)
    draining = asyncio.ensure_future(first.drain())
    await until(lambda: "-clinging" in events)
    async with asyncio.timeout(20):  # it would have 25 seconds
        await first.drain(0)
        await draining
    assert await second.get(Hand, "clinging").add(1) == 2
    gates["cling"].set()


async def test_a_tree_is_up_again_elsewhere(tmp_path: Path) -> None:
    """Handed over, not terminated: the process that is left starts it, with or without mail."""
    async with ActorSystem(tmp_path / "a.db", root=Crew) as first, ActorSystem(tmp_path / "a.db", root=Crew) as second:
        await first.get(Hand, "b").add(2)
        await first.drain()
        assert events == ["-c", "-b", "-a"]
        await until(lambda: {one.address.key for one in host_of(second).activations.values()} == {*"abc", "root"})
        states = {one.actor.key: one.state for one in await second.get(Crew, "root").which_children()}
        assert states == dict.fromkeys("abc", "running")
        assert await second.get(Hand, "b").value() == 2
