"""After a crash a turn goes on where it was: the journal answers what is done, in the order in which it was done."""

from __future__ import annotations

import asyncio
import random as chance
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    DeadLetterError,
    Ref,
    Rejected,
    Retry,
    StepError,
    fan_out,
    handler,
    now,
    query,
    random,
    sleep,
    step,
    step_id,
    uuid4,
)
from perdure.errors import LeakedTaskError, NotInTurnError, StepNameError
from tests.unit.crashing import crash, crashing

ran: list[str] = []
pauses: dict[str, float] = {}
failures: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's world outside."""
    ran.clear()
    pauses.clear()
    failures.clear()


@step(retry=Retry(3, backoff=Backoff(0.01)))
async def effect(name: str) -> str:
    ran.append(step_id())
    await asyncio.sleep(pauses.get(name, 0))
    if failures.get(name, 0) > 0:
        failures[name] -= 1
        msg = f"{name} failed"
        raise OSError(msg)
    return name.upper()


@step
def blocking(name: str) -> str:
    return name * 2


class Runner(Actor, kind="replay.runner"):
    """Runs whatever the test says, so that one class shows many shapes of code."""

    log: list[str] = []

    @handler(retry=Retry(3, backoff=Backoff(0.01)))
    async def run(self, shape: str) -> str:
        return await SHAPES[shape](self)

    @query
    async def lines(self) -> list[str]:
        return self.log


SHAPES: dict[str, Callable[[Runner], Awaitable[str]]] = {}


def shape(function: Callable[[Any], Awaitable[str]]) -> Callable[[Any], Awaitable[str]]:
    """Make a function a shape that Runner can run."""
    SHAPES[function.__name__] = function
    return function


async def crash_when(system: ActorSystem, condition: Callable[[], bool]) -> None:
    """Crash as soon as something has happened."""
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.002)
    await crash(system)


@shape
async def chain(self: Runner) -> str:
    first = await effect("a")
    second = await effect("b")
    third = await blocking("c")
    return first + second + third


async def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    """An agent that has done two of three steps goes on with the third."""
    pauses["b"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("chain")
        with anyio.fail_after(5):
            while len(ran) < 2:
                await asyncio.sleep(0.002)
    assert ran == ["m:effect#1", "m:effect#2"]
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "ABcc"
    assert ran == ["m:effect#1", "m:effect#2", "m:effect#2"]


@shape
async def gathered(self: Runner) -> str:
    async def one(name: str) -> None:
        self.log.append(await effect(name))
        self.log.append(await effect(name + name))

    await asyncio.gather(*(one(name) for name in "abcdefgh"))
    await sleep(60)
    return ",".join(self.log)


@pytest.mark.parametrize("seed", range(8))
async def test_races_come_out_as_they_did(tmp_path: Path, seed: int) -> None:
    """Tasks of a plain gather that append to one list give the same list after a crash."""
    draw = chance.Random(seed)
    for name in "abcdefgh":
        pauses[name], pauses[name + name] = draw.random() * 0.02, draw.random() * 0.02
    system = await ActorSystem(tmp_path / "a.db").__aenter__()
    ref = system.get(Runner, "r")
    await ref.run.options(id="m").tell("gathered")
    with anyio.fail_after(10):
        while len(await ref.lines()) < 16:
            await asyncio.sleep(0.002)
    before = await ref.lines()
    await asyncio.sleep(0.02)
    await crash(system)
    pauses.clear()
    count = len(ran)
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Runner, "r")
        with anyio.fail_after(10):
            while len(await ref.lines()) < 16:
                await asyncio.sleep(0.002)
        assert await ref.lines() == before
    assert len(ran) == count


@shape
async def task_group(self: Runner) -> str:
    results: list[str] = []

    async def one(name: str) -> None:
        results.append(await effect(name))

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(one, name)
    async with asyncio.TaskGroup() as tasks:
        for name in "def":
            tasks.create_task(one(name))
    return "".join(results) + await effect("last")


async def test_task_groups(tmp_path: Path) -> None:
    """Structured concurrency of asyncio and anyio replays like everything else."""
    pauses["last"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("task_group")
        with anyio.fail_after(5):
            while len(ran) < 7:
                await asyncio.sleep(0.002)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "ABCDEFLAST"
    assert ran[7:] == ["m:effect#1"]


@shape
async def values(self: Runner) -> str:
    drawn = f"{now()} {uuid4()} {random().random()} {random().random()}"
    self.log.append(drawn)
    await effect("x")
    await effect("stay")
    return drawn


async def test_values_are_drawn_once(tmp_path: Path) -> None:
    """Time and chance are the same on replay."""
    pauses["stay"] = 60
    system = await ActorSystem(tmp_path / "a.db").__aenter__()
    await system.get(Runner, "r").run.options(id="m").tell("values")
    with anyio.fail_after(5):
        while len(ran) < 2:
            await asyncio.sleep(0.002)
    before = await system.get(Runner, "r").lines()
    await crash(system)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert [await system.receipt("m", Runner.run).result(timeout=5)] == before


@shape
async def flaky(self: Runner) -> str:
    return await effect("a") + await effect("flaky") + await effect("b")


async def test_only_the_step_that_failed_is_retried(tmp_path: Path) -> None:
    """A failure costs one step, under the same step_id(), not the work before it."""
    failures["flaky"] = 2
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Runner, "r").run.options(id="m")("flaky") == "AFLAKYB"
    assert ran == ["m:effect#1", "m:effect#2", "m:effect#2", "m:effect#2", "m:effect#3"]


async def test_escaped_step_failure_has_a_fresh_budget(tmp_path: Path) -> None:
    """When a step is out of attempts and the handler does not catch it, the next attempt begins that step again."""
    failures["flaky"] = 4
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Runner, "r").run.options(id="m")("flaky") == "AFLAKYB"
    assert ran.count("m:effect#1") == 1
    assert ran.count("m:effect#2") == 5


@shape
async def caught(self: Runner) -> str:
    try:
        await effect("flaky")
    except StepError as failed:
        assert failed.caused_by(OSError)
        assert not failed.caused_by(KeyError)
        self.log.append(failed.error_type)
    await effect("stay")
    return "".join(self.log)


async def test_caught_step_failure_replays(tmp_path: Path) -> None:
    """A failure that the handler dealt with is dealt with alike on replay, and is not run again."""
    failures["flaky"] = 3
    pauses["stay"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("caught")
        with anyio.fail_after(5):
            while len(ran) < 4:
                await asyncio.sleep(0.002)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "OSError"
    assert ran.count("m:effect#1") == 3


async def test_attempts_outlive_the_process(tmp_path: Path) -> None:
    """The budget of a step is not refilled by a crash."""
    failures["flaky"] = 100
    pauses["flaky"] = 0.05
    for _ in range(2):
        async with crashing(tmp_path / "a.db") as system:
            await system.get(Runner, "r").run.options(id="m").tell("caught")
            seen = ran.count("m:effect#1")
            with anyio.fail_after(5):
                while ran.count("m:effect#1") == seen:
                    await asyncio.sleep(0.002)
            await asyncio.sleep(0.08)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "OSError"
    # three attempts, and one more for each that a crash may have interrupted
    assert 3 <= ran.count("m:effect#1") <= 5


@shape
async def timed(self: Runner) -> str:
    try:
        return await step(effect, timeout=0.03, key="mine")("slow")
    except StepError as failed:
        return failed.error_type


async def test_timeout_of_a_step(tmp_path: Path) -> None:
    """A step that hangs is cancelled and tried again, alone."""
    pauses["slow"] = 30
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Runner, "r").run.options(id="m")("timed") == "StepTimeout"
    assert ran == ["m:effect:mine"] * 3


@shape
async def first_wins(self: Runner) -> str:
    done, pending = await asyncio.wait(
        [asyncio.ensure_future(effect("fast")), asyncio.ensure_future(effect("slow"))], return_when="FIRST_COMPLETED"
    )
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    (winner,) = done
    result = winner.result() + await effect("after")
    await effect("stay")
    return result


async def test_cancelled_step_replays(tmp_path: Path) -> None:
    """A race that was decided stays decided; the loser is not run again."""
    pauses.update(slow=60, stay=60)
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("first_wins")
        with anyio.fail_after(5):
            while len(ran) < 4:
                await asyncio.sleep(0.002)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "FASTAFTER"
    assert len(ran) == 5


@shape
async def fanned(self: Runner) -> str:
    async def one(n: int) -> str:
        return await effect(f"x{n}") + await effect(f"y{n}")

    return ",".join(await fan_out(one, range(6), concurrency=2))


async def test_fan_out_resumes(tmp_path: Path) -> None:
    """Items that are done stay done, each with all its steps."""
    pauses["y3"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("fanned")
        with anyio.fail_after(5):
            while "m:fan_out#1[5]/effect#2" not in ran:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
    assert len(ran) == 12
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        expected = ",".join(f"X{n}Y{n}" for n in range(6))
        assert await system.receipt("m", Runner.run).result(timeout=5) == expected
    assert ran[12:] == ["m:fan_out#1[3]/effect#2"]


# code that changed under a running turn ---------------------------------------------------------------------------------


async def _begin(path: Path, name: str, steps: int) -> None:
    async with crashing(path) as system:
        await system.get(Runner, "r").run.options(id="m").tell(name)
        with anyio.fail_after(5):
            while len(ran) < steps:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
    pauses.clear()


async def _status(path: Path) -> str:
    async with ActorSystem(path) as system:
        receipt = system.receipt("m", Runner.run)
        with anyio.fail_after(5):
            while await receipt.status() in ("pending", "running", "waiting"):
                await asyncio.sleep(0.01)
        return await receipt.status()


async def changed_steps(self: Runner, *names: str) -> str:
    return "".join([await effect(name) for name in names])


@pytest.mark.parametrize(
    "after",
    [("a", "changed", "stay"), ("a",), ("changed", "b", "stay")],
    ids=["other arguments", "a step removed", "first changed"],
)
async def test_changed_code_parks(tmp_path: Path, after: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that no longer fits its journal is never guessed at: the turn parks, and goes on when the code is mended."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, "a", "b", "stay"))
    await _begin(tmp_path / "a.db", "changing", 3)
    count = len(ran)
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, *after))
    assert await _status(tmp_path / "a.db") == "parked"
    assert len(ran) == count
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, "a", "b", "stay"))
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "ABSTAY"
    assert len(ran) == count + 1


async def test_added_step_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of another name may be added anywhere before a deployment."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, "a", "b", "stay"))
    await _begin(tmp_path / "a.db", "changing", 3)

    async def added(self: Runner) -> str:
        return await blocking("n") + await changed_steps(self, "a", "b", "stay")

    monkeypatch.setitem(SHAPES, "changing", added)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "nnABSTAY"
    assert ran.count("m:effect#1") == ran.count("m:effect#2") == 1


async def test_step_moved_into_a_task_parks_or_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.wait_for makes a task on one Python and none on another: nothing is run twice for it."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, "a", "b", "stay"))
    await _begin(tmp_path / "a.db", "changing", 3)
    count = len(ran)

    async def in_tasks(self: Runner) -> str:
        return "".join([await asyncio.create_task(effect(name)) for name in ("a", "b", "stay")])

    monkeypatch.setitem(SHAPES, "changing", in_tasks)
    assert await _status(tmp_path / "a.db") == "parked"
    assert len(ran) == count


async def test_renamed_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed step keeps its journal through aliases=."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", lambda self: changed_steps(self, "a", "stay"))
    await _begin(tmp_path / "a.db", "changing", 2)
    renamed = step(effect, name="renamed", aliases=["effect"])

    async def new(self: Runner) -> str:
        return await renamed("a") + await renamed("stay")

    monkeypatch.setitem(SHAPES, "changing", new)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Runner.run).result(timeout=5) == "ASTAY"
    assert ran.count("m:effect#1") == 1


# mistakes ---------------------------------------------------------------------------------------------------------------


@shape
async def nested(self: Runner) -> str:
    @step
    async def outer() -> str:
        return await effect("inner")

    return await outer()


@shape
async def leaking(self: Runner) -> str:
    async def late() -> None:
        await effect("late")

    self.log.append("x")
    task = asyncio.ensure_future(late())
    await asyncio.sleep(0.01)
    return f"left {task!r}"


async def test_mistakes(tmp_path: Path) -> None:
    """A step within a step, and a task that outlives its handler, are refused."""
    pauses["late"] = 60
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Runner, "r")
        with pytest.raises(DeadLetterError, match=r"NestedStepError|StepError"):
            await ref.run("nested")
        with pytest.raises(DeadLetterError, match=LeakedTaskError.__name__):
            await ref.run("leaking")
        assert await ref.lines() == []
    with pytest.raises(StepNameError):
        step(lambda: None)
    with pytest.raises(NotInTurnError):
        step_id()


async def test_step_outside_a_turn_is_a_plain_call() -> None:
    """Unit tests of users call steps directly."""
    assert await blocking("ab") == "abab"
    assert await fan_out(blocking, ["a", "b"]) == ["aa", "bb"]


# asks and sends in a turn -----------------------------------------------------------------------------------------------


class Partner(Actor, kind="replay.partner"):
    calls: int = 0

    @handler
    async def call(self, x: int) -> int:
        self.calls += 1
        return x + self.calls

    @handler
    async def never(self) -> None:
        self.calls += 1
        raise Rejected("no")

    @query
    async def count(self) -> int:
        return self.calls


class Caller(Actor, kind="replay.caller"):
    children: list[Ref[Partner]] = []

    @handler
    async def go(self, partner: Ref[Partner]) -> list[int]:
        first = await partner.call(10)
        await partner.call.tell(0)
        child = await self.spawn(Partner, calls=5)
        self.children.append(child)
        second = await child.call(10)
        try:
            await partner.never()
        except Rejected:
            second += 1000
        await effect("stay")
        return [first, second]


async def test_asks_and_spawns_are_not_repeated(tmp_path: Path) -> None:
    """What a turn sent, asked and began before a crash is not sent, asked or begun again."""
    pauses["stay"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Caller, "c").go.options(id="m").tell(system.get(Partner, "p"))
        with anyio.fail_after(5):
            while not ran:
                await asyncio.sleep(0.002)
    pauses.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("m", Caller.go).result(timeout=5) == [11, 1016]
        assert await system.get(Partner, "p").count() == 2


async def test_sends_of_an_unfinished_segment_do_not_leave(tmp_path: Path) -> None:
    """A handler that fails has sent nothing since its last durable point."""

    class Failing(Actor, kind="replay.failing"):
        @handler(retry=Retry(2, backoff=Backoff(0.01)))
        async def go(self, partner: Ref[Partner]) -> None:
            await partner.call.tell(1)
            await effect("a")
            await partner.call.tell(1)
            msg = "no"
            raise ValueError(msg)

    async with ActorSystem(tmp_path / "a.db") as system:
        partner = system.get(Partner, "p")
        with pytest.raises(DeadLetterError):
            await system.get(Failing, "f").go(partner)
        assert await partner.call(0) == 2
    assert len(ran) == 1
