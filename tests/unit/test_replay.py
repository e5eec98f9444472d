"""After a crash a turn goes on where it was: the journal answers what is done, in the order in which it was done."""

from __future__ import annotations

import asyncio
import random as chance
from pathlib import Path

import anyio
import pytest

from perdure import ActorSystem, DeadLetterError, StepError, fan_out, now, random, sleep, step, step_id, uuid4
from perdure.actors.handout import PASSES
from perdure.actors.scope import here
from perdure.errors import LeakedTaskError, NotInTurnError, StepNameError
from tests.unit.crashing import crashing
from tests.unit.observing import until
from tests.unit.shapes import (
    Runner,
    begin,
    blocking,
    completed_effects,
    deadlines,
    effect,
    failures,
    forget,
    go_on,
    pauses,
    placed_effects,
    ran,
    shape,
)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's world outside."""
    forget()


@shape
async def chain(self: Runner) -> str:
    """Steps one after the other, of both sorts."""
    first = await effect("a")
    second = await effect("b")
    third = await blocking("c")
    return first + second + third


async def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    """An agent that has done two of three steps goes on with the third."""
    pauses["b"] = 60
    await begin(tmp_path / "a.db", "chain", steps=2)
    assert ran == ["m:effect#1", "m:effect#2"]
    assert await go_on(tmp_path / "a.db") == "ABcc"
    assert ran == ["m:effect#1", "m:effect#2", "m:effect#2"]


@shape
async def gathered(self: Runner) -> str:
    """Tasks of a plain gather, whose order is chance."""

    async def one(name: str) -> None:
        self.log.append(await effect(name))
        self.log.append(await effect(name + name))

    await asyncio.gather(*(one(name) for name in "abcdefgh"))
    await sleep(60)
    return ",".join(self.log)


async def _sixteen_lines(system: ActorSystem) -> list[str]:
    ref = system.get(Runner, "r")

    async def all_there() -> bool:
        return len(await ref.lines()) >= 16

    await until(all_there)
    return await ref.lines()


@pytest.mark.parametrize("seed", range(8))
async def test_races_come_out_as_they_did(tmp_path: Path, seed: int) -> None:
    """Tasks of a plain gather that append to one list give the same list after a crash."""
    draw = chance.Random(seed)
    for name in "abcdefgh":
        pauses[name], pauses[name + name] = draw.random() * 0.02, draw.random() * 0.02
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("gathered")
        before = await _sixteen_lines(system)
        await until(lambda: completed_effects(tmp_path / "a.db") == 16)
    placed = placed_effects(
        tmp_path / "a.db"
    )  # a query sees what is not committed yet, too: the place of the last ones
    assert placed >= 8
    pauses.clear()
    count = len(ran)
    async with ActorSystem(tmp_path / "a.db") as system:
        after = await _sixteen_lines(system)
    assert after[:placed] == before[:placed]
    assert sorted(after) == sorted(before)
    assert len(ran) == count


@shape
async def task_group(self: Runner) -> str:
    """Tasks of both task groups."""
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
    await begin(tmp_path / "a.db", "task_group", steps=7)
    assert await go_on(tmp_path / "a.db") == "ABCDEFLAST"
    assert ran[7:] == ["m:effect#1"]


@shape
async def values(self: Runner) -> str:
    """Time and chance, drawn in the handler."""
    drawn = f"{now()} {uuid4()} {random().random()} {random().random()}"
    self.log.append(drawn)
    await effect("x")
    await effect("stay")
    return drawn


async def test_values_are_drawn_once(tmp_path: Path) -> None:
    """Time and chance are the same on replay."""
    pauses["stay"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("values")
        await until(lambda: len(ran) >= 2)
        before = await system.get(Runner, "r").lines()
    pauses.clear()
    assert [await go_on(tmp_path / "a.db")] == before


@shape
async def flaky(self: Runner) -> str:
    """A step that may fail, between two that do not."""
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
    """A failed step that the handler deals with."""
    try:
        await effect("flaky")
    except StepError as failed:
        self.log.append(f"{failed.error_type} {failed.caused_by(OSError)} {failed.caused_by(KeyError)}")
    await effect("stay")
    return "".join(self.log)


async def test_caught_step_failure_replays(tmp_path: Path) -> None:
    """A failure that the handler dealt with is dealt with alike on replay, and is not run again."""
    failures["flaky"] = 3
    pauses["stay"] = 60
    await begin(tmp_path / "a.db", "caught", steps=4)
    assert await go_on(tmp_path / "a.db") == "OSError True False"
    assert ran.count("m:effect#1") == 3


async def _crash_in_run(path: Path, nth: int) -> None:
    async with crashing(path) as system:
        await system.get(Runner, "r").run.options(id="m").tell("caught")
        await until(lambda: ran.count("m:effect#1") >= nth)


async def test_attempts_outlive_the_process(tmp_path: Path) -> None:
    """The budget of a step is not refilled by a crash."""
    failures["flaky"] = 100
    pauses["flaky"] = 0.05
    await _crash_in_run(tmp_path / "a.db", 2)
    await _crash_in_run(tmp_path / "a.db", 3)
    assert await go_on(tmp_path / "a.db") == "OSError True False"
    # three attempts, and one more for each that a crash may have interrupted
    assert 3 <= ran.count("m:effect#1") <= 5


@shape
async def timed(self: Runner) -> str:
    """A step that may take only so long."""
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
    """A race of two steps, of which the loser is cancelled."""
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
    await begin(tmp_path / "a.db", "first_wins", steps=4)
    assert await go_on(tmp_path / "a.db") == "FASTAFTER"
    assert len(ran) == 5


@shape
async def in_time(self: Runner) -> str:
    """Steps that have only so much time, one after the other and at once."""
    on_replay = len(ran) >= 8

    async def hurry(name: str) -> str:
        try:
            async with asyncio.timeout(0.1 if on_replay else 60) as deadline:
                deadlines[f"slow {name}"] = deadline
                await effect(f"slow {name}")
        except TimeoutError:
            self.log.append(name)
        return await effect(name)

    results = [await hurry("a"), *await asyncio.gather(hurry("b"), effect("x"), hurry("c"))]
    await effect("stay")
    return "".join(results)


async def test_time_that_ran_out_replays(tmp_path: Path) -> None:
    """A step that a timer of its handler cancelled is cancelled again, and the turn does not park meanwhile."""
    pauses.update({f"slow {name}": 60 for name in "abc"}, stay=60)
    await begin(tmp_path / "a.db", "in_time", steps=8)
    assert await go_on(tmp_path / "a.db") == "ABXC"
    assert len(ran) == 9


@shape
async def ended(self: Runner) -> str:
    """A task that ends by itself; it is looked at before anybody is told."""

    async def child() -> None:
        await effect("a")
        for _ in range(2 * PASSES):
            await asyncio.sleep(0)
        scope = here()
        assert scope is not None
        asyncio.get_running_loop().call_soon(scope.turn.handout._unstick)  # noqa: SLF001  # the timer's moment

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
    result = await effect("b")
    await effect("stay")
    return result


async def test_a_task_that_ends_as_it_is_looked_at(tmp_path: Path) -> None:
    """Whoever waits for it goes on in the next pass of the loop, and its turn does not park."""
    pauses["stay"] = 60
    await begin(tmp_path / "a.db", "ended", steps=3)
    assert await go_on(tmp_path / "a.db") == "B"


@shape
async def fanned(self: Runner) -> str:
    """A fan-out whose items have two steps each."""

    async def one(n: int) -> str:
        return await effect(f"x{n}") + await effect(f"y{n}")

    return ",".join(await fan_out(one, range(6), concurrency=2))


async def test_fan_out_resumes(tmp_path: Path) -> None:
    """Items that are done stay done, each with all its steps."""
    pauses["y3"] = 60
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Runner, "r").run.options(id="m").tell("fanned")
        await until(lambda: completed_effects(tmp_path / "a.db") == 11)
    assert len(ran) == 12
    pauses.clear()
    assert await go_on(tmp_path / "a.db") == ",".join(f"X{n}Y{n}" for n in range(6))
    assert ran[12:] == ["m:fan_out#1[3]/effect#2"]


@shape
async def nested(self: Runner) -> str:
    """A step within a step."""

    @step
    async def outer() -> str:
        return await effect("inner")

    return await outer()


@shape
async def leaking(self: Runner) -> str:
    """A task that outlives its handler."""

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
