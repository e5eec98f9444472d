"""Actors come into memory and leave it, systems open and close, and nobody notices."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorFailed,
    ActorSystem,
    Backoff,
    DeadLetterError,
    Limits,
    Ref,
    Retry,
    ephemeral,
    handler,
    query,
    sleep,
    step,
)
from perdure.actors.names import kinds
from perdure.errors import StateError, SystemClosedError
from perdure.storage.writes import Claim, Claimed
from perdure.warning_types import UnknownKindWarning
from tests.supervision.hands import Hands
from tests.unit.crashing import crashing, disown_actors, host_of
from tests.unit.observing import files_in, until

events: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's events."""
    events.clear()


class Client:
    closed = False


class Holder(Actor, kind="lifecycle.holder", passivate_after=60):
    client: Client = ephemeral()
    cache: dict[str, int] = ephemeral(factory=dict)
    total: int = 0

    async def started(self) -> None:
        events.append("started")
        self.client = Client()

    async def stopping(self) -> None:
        events.append("stopping")
        self.client.closed = True

    @handler
    async def add(self, n: int) -> int:
        assert not self.client.closed
        self.cache["x"] = n
        self.total += n
        return self.total

    @query
    async def cached(self) -> int:
        return len(self.cache)


class Waiter(Actor, kind="lifecycle.waiter"):
    log: list[str] = []

    @handler
    async def wait(self, seconds: float) -> str:
        self.log.append("before")
        await sleep(seconds)
        self.log.append("after")
        return ",".join(self.log)

    @handler
    async def ask(self, other: Ref[Waiter], seconds: float) -> str:
        return await other.wait(seconds)


async def test_passivation(tmp_path: Path) -> None:
    """An idle actor leaves memory with its clients closed, and comes back with its state."""
    clock = Hands()
    async with ActorSystem(tmp_path / "a.db", clock=clock) as system:
        ref = system.get(Holder, "h")
        assert await ref.add(2) == 2
        assert await ref.cached() == 1
        clock.move(61)
        await until(lambda: "stopping" in events)
        assert await ref.add(3) == 5
        assert await ref.cached() == 1
    assert events == ["started", "stopping", "started", "stopping"]


async def test_many_actors_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no look holds the event loop up, and all leave memory in the end."""
    monkeypatch.setattr("perdure.actors.host._LOOKED_AT", 2)
    clock = Hands()
    async with ActorSystem(":memory:", clock=clock) as system:
        host = host_of(system)
        for n in range(5):
            await system.get(Holder, f"h{n}").add(n)
        clock.move(61)
        host._round = []  # noqa: SLF001  # a round that may have begun
        host.passivate()
        assert len(host._round) == 3  # noqa: SLF001  # nothing public tells
        await until(lambda: not host.activations)


async def test_query_brings_an_actor_into_memory(tmp_path: Path) -> None:
    """A question to an actor that is not in memory is answered from its state."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Holder, "h").add(2)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Holder, "h").cached() == 0
        assert await system.get(Holder, "never heard of").cached() == 0


async def test_long_waits_leave_memory(tmp_path: Path) -> None:
    """A turn that waits long takes no memory, and goes on when its time comes or its reply arrives."""
    clock, limits = Hands(), Limits(evict_after=60)
    async with ActorSystem(tmp_path / "a.db", limits=limits, clock=clock) as system:
        sleeper, asker = system.get(Waiter, "sleeper"), system.get(Waiter, "asker")
        receipt = await asker.ask.tell(sleeper, 3600)
        host = host_of(system)
        await until(lambda: _wait_durably(system) == 2)
        clock.move(61)
        await until(lambda: not host.activations)
        assert await receipt.status() == "waiting"
        clock.move(3600)
        system.due_changed()
        assert await receipt.result(timeout=20) == "before,after"


def _wait_durably(system: ActorSystem) -> int:
    turns = [activation.turn for activation in host_of(system).activations.values()]
    return sum(turn is not None and turn.waits_durably() for turn in turns)


async def test_waits_outlive_the_process(tmp_path: Path) -> None:
    """A sleep goes on over a crash without beginning anew."""
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Waiter, "w").wait.options(id="m").tell(0.4)
        await asyncio.sleep(0.1)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Waiter.wait).result(timeout=20) == "before,after"


async def test_state_changes_in_hooks_are_refused(tmp_path: Path) -> None:
    """State assigned where it would not be committed is an error, not a surprise."""

    class Wrong(Actor, kind="lifecycle.wrong", retry=Retry(1)):
        total: int = 0

        async def started(self) -> None:
            self.total = 5

        @handler
        async def go(self) -> int:
            return self.total

    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(ActorFailed, match=r"started\(\)"):
            await system.get(Wrong, "w").go()


async def test_undeclared_attributes_are_refused() -> None:
    """An attribute that would be lost at the next activation is refused, with the name that was meant."""
    holder = Holder()
    with pytest.raises(StateError, match="Did you mean 'total'"):
        holder.totl = 3
    with pytest.raises(StateError, match="ephemeral and not set"):
        _ = holder.client


async def test_live_actor_is_a_plain_object() -> None:
    """A unit test needs no system: handlers are methods, mutable defaults are each actor's own."""
    first, second = Waiter(), Waiter()
    first.log.append("x")
    assert second.log == []
    assert await second.wait(0.001) == "before,after"


async def test_closed_system_says_so(tmp_path: Path) -> None:
    """Use outside `async with` is refused by name."""
    system = ActorSystem(tmp_path / "a.db")
    ref = system.get(Waiter, "w")
    with pytest.raises(SystemClosedError):
        await ref.wait(0)
    async with system:
        assert await ref.wait(0) == "before,after"
        inner = system.get(Waiter, "w")
    with pytest.raises(SystemClosedError):
        await inner.wait(0)
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]


async def test_unknown_kind_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail for a kind that no module defines waits, with a warning, until one does."""

    class Passing(Actor, kind="lifecycle.passing"):
        @handler
        async def go(self) -> str:
            await hold()
            return "went"

    gate = asyncio.Event()

    @step
    async def hold() -> None:
        events.append("holds")
        await gate.wait()

    async with crashing(tmp_path / "a.db") as system:
        await system.get(Passing, "p").go.options(id="m").tell()
        await until(lambda: events == ["holds"])
    gate.set()
    with monkeypatch.context() as patch:
        patch.delitem(kinds, "lifecycle.passing")
        patch.setattr("perdure.supervision.nodes._UNKNOWN_AFTER_SECONDS", 0.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with ActorSystem(tmp_path / "a.db") as system:
                await until(lambda: any(w.category is UnknownKindWarning for w in caught))
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Passing.go).result(timeout=20) == "went"


async def test_fenced_activation_writes_nothing(tmp_path: Path) -> None:
    """An activation whose actor was taken away can write nothing, and its actor goes on with the new owner."""
    clock = Hands()
    async with ActorSystem(tmp_path / "a.db", clock=clock) as system:
        ref = system.get(Waiter, "w")
        receipt = await ref.wait.tell(3600)
        await until(lambda: _wait_durably(system) == 1)
        disown_actors(system)
        host = host_of(system)
        before = next(iter(host.activations.values()))
        claimed = await host.committer.write(Claim(kinds=("lifecycle.waiter",)))
        assert isinstance(claimed, Claimed)
        host.wake(claimed.actors)
        assert before.gone
        clock.move(3600)
        system.due_changed()
        assert await receipt.result(timeout=20) == "before,after"


async def test_two_systems_in_one_process(tmp_path: Path) -> None:
    """Two systems on one file are two nodes: each message is handled by one of them."""
    async with ActorSystem(tmp_path / "a.db") as one, ActorSystem(tmp_path / "a.db") as two:
        results = await asyncio.gather(*(system.get(Holder, "h").add(1) for system in (one, two) for _ in range(20)))
        assert sorted(results) == list(range(1, 41))


def _failed_attempts(path: Path) -> int:
    with closing(sqlite3.connect(path)) as beside:
        return sum(attempts for (attempts,) in beside.execute("SELECT attempts FROM turn"))


async def test_retry_backoff_survives(tmp_path: Path) -> None:
    """The attempts of a message are counted durably, so a crash does not give it new ones."""
    runs: list[int] = []
    gate = asyncio.Event()

    class Broken(Actor, kind="lifecycle.broken", retry=Retry(3, backoff=Backoff(0.05, jitter=0))):
        @handler
        async def go(self) -> None:
            if len(runs) == 2:
                await gate.wait()
            runs.append(1)
            msg = "always"
            raise ValueError(msg)

    async with crashing(tmp_path / "a.db") as system:
        await system.get(Broken, "b").go.options(id="m").tell()
        await until(lambda: _failed_attempts(tmp_path / "a.db") == 2)
    gate.set()
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(DeadLetterError):
            await system.receipt("m", Broken.go).result(timeout=20)
    assert len(runs) == 3


@pytest.mark.parametrize("ask", [False, True], ids=["tell", "ask"])
async def test_whoever_sends_while_the_system_closes_is_told(*, ask: bool) -> None:
    """In whatever pass of the loop a message meets the close: the close ends, and the sender hears something."""
    heard: set[str] = set()
    for passes in (*range(20), *range(20, 2_000, 100)):
        system = ActorSystem(":memory:")
        await system.__aenter__()
        holder = system.get(Holder, "h")
        await holder.add(1)
        closing = asyncio.ensure_future(system.__aexit__(None, None, None))
        for _ in range(passes):
            await asyncio.sleep(0)
        sending: Coroutine[object, object, object] = holder.add(1) if ask else holder.add.tell(1)
        async with asyncio.timeout(30):
            (result,) = await asyncio.gather(sending, return_exceptions=True)
            await closing
        assert not isinstance(result, Exception) or isinstance(result, SystemClosedError)
        heard.add(type(result).__name__)
    assert "SystemClosedError" in heard


@pytest.mark.parametrize("passes", range(3))
async def test_a_timer_that_changes_while_the_system_closes_holds_nothing_up(passes: int) -> None:
    """What wakes the task for timers in the pass in which it is cancelled does not keep it alive."""
    async with ActorSystem(":memory:") as system:
        (timers,) = [task for task in asyncio.all_tasks() if task.get_name() == "perdure-timers"]
        await system.get(Holder, "a").add.options(delay=60).tell(1)
        await asyncio.sleep(0.1)  # it waits until that falls due
        system.due_changed()
        for _ in range(passes):
            await asyncio.sleep(0)
        timers.cancel()
        await asyncio.wait([timers], timeout=5)
        assert timers.cancelled()


async def test_cancelled_asks_leave_nothing_behind() -> None:
    """A caller that gives up costs no memory, and giving many up costs no time that grows with those who stay."""
    async with ActorSystem(":memory:") as system:
        outcomes = host_of(system).outcomes
        asks = [asyncio.ensure_future(system.get(Holder, str(n)).add(1)) for n in range(50)]
        for passes, asked in enumerate(asks):
            asyncio.get_running_loop().call_later(passes * 0.0002, asked.cancel)
        await asyncio.gather(*asks, return_exceptions=True)
        await until(lambda: repr(outcomes) == "<Outcomes awaited for 0 messages>")
