"""A replay goes by the journal's clock: what timed out does so again, at once, and nothing else does.

And what a replay does where tasks and timers come in each other's way all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from perdure import ActorSystem, Limits, StepError, fan_out, sleep
from perdure.actors.handout import PASSES
from tests.unit.observing import until
from tests.unit.shapes import Runner, begin, deadlines, effect, failures, forget, go_on, pauses, ran, shape

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's world outside."""
    forget()


async def _by_timeout(seconds: float, work: Awaitable[object]) -> None:
    async with asyncio.timeout(seconds):
        await work


async def _by_wait_for(seconds: float, work: Awaitable[object]) -> None:
    await asyncio.wait_for(work, seconds)


async def _by_scope(seconds: float, work: Awaitable[object]) -> None:
    with anyio.fail_after(seconds):
        await work


WAYS: list[Callable[[float, Awaitable[object]], Awaitable[None]]] = [_by_timeout, _by_wait_for, _by_scope]
limits: dict[str, float] = {}
way: list[Callable[[float, Awaitable[object]], Awaitable[None]]] = []


@shape
async def limited(self: Runner) -> str:
    """Steps that have only so much time together, on a replay that is slower than they were."""

    async def ten() -> None:
        for number in range(10):
            await effect(f"{number}")
            time.sleep(limits["replay"] if len(ran) > 10 else 0)  # noqa: ASYNC251  # a machine that has much to do

    try:
        await way[0](limits["ten"], ten())
        result = "in time"
    except TimeoutError:
        result = "too late " + await effect("instead")
    return result + await effect("stay")


@pytest.mark.parametrize("how", WAYS)
async def test_a_replay_that_is_slower(
    tmp_path: Path, how: Callable[[float, Awaitable[object]], Awaitable[None]]
) -> None:
    """However long it takes, it does not time out where the turn did not."""
    way[:] = [how]
    pauses["stay"] = HOUR
    limits.update(ten=HOUR, replay=0)
    await begin(tmp_path / "a.db", "limited", steps=11)
    ran.append("another attempt")
    limits.update(ten=0.2, replay=0.05)
    assert await go_on(tmp_path / "a.db") == "in timeSTAY"
    assert len(ran) == 13


@shape
async def late(self: Runner) -> str:
    """A step that is cut short, and what is done instead."""
    try:
        await way[0](limits["late"], effect("long"))
    except TimeoutError:
        return await effect("instead") + await effect("stay")
    return "in time"


@pytest.mark.parametrize("how", WAYS)
async def test_a_replay_does_not_wait_for_what_timed_out(
    tmp_path: Path, how: Callable[[float, Awaitable[object]], Awaitable[None]]
) -> None:
    """It had waited an hour, and does not wait another."""
    way[:] = [how]
    pauses.update(long=HOUR, stay=HOUR)
    limits["late"] = 1
    await begin(tmp_path / "a.db", "late", steps=3)
    limits["late"] = HOUR
    assert await go_on(tmp_path / "a.db") == "INSTEADSTAY"
    assert len(ran) == 4
    assert ran[-1] == ran[-2]


@shape
async def two_limits(self: Runner) -> str:
    """Two limits, of which the inner one is the shorter, and begins when much of the outer one has passed."""
    try:
        async with asyncio.timeout(60) as outer:
            deadlines["second"] = outer
            await effect("first")
            try:
                async with asyncio.timeout(59.9):
                    await effect("second")
            except TimeoutError:
                return "inner" + await effect("stay")
    except TimeoutError:
        return "outer" + await effect("stay")
    return "in time"


async def test_the_limit_that_was_first_is_first_again(tmp_path: Path) -> None:
    """Though the replay comes to both in one moment."""
    pauses.update(first=0.3, second=HOUR, stay=HOUR)
    await begin(tmp_path / "a.db", "two_limits", steps=3)
    assert await go_on(tmp_path / "a.db") == "outerSTAY"


@shape
async def slept(self: Runner) -> str:
    """Sleep of the handler's own, beside a step that comes before its end."""

    async def one() -> str:
        await asyncio.sleep(limits["sleep"])
        self.log.append("slept")
        return await effect("one")

    async def two() -> str:
        result = await effect("two")
        self.log.append(result)
        return result

    await asyncio.gather(one(), two())
    return ",".join(self.log) + await effect("stay")


async def test_what_a_handler_slept_is_not_slept_again(tmp_path: Path) -> None:
    """An hour of a handler's own `asyncio.sleep` is over when the journal says so, and not before."""
    pauses["stay"] = HOUR
    limits["sleep"] = 1
    await begin(tmp_path / "a.db", "slept", steps=3)
    assert await go_on(tmp_path / "a.db") == "TWO,sleptSTAY"
    assert len(ran) == 4


@shape
async def going_on(self: Runner) -> str:
    """A limit in the middle of which the process dies."""
    try:
        async with asyncio.timeout(limits["whole"]):
            await effect("first")
            await effect("long")
    except TimeoutError:
        return "too late"
    return "in time"


async def test_a_limit_begins_anew_after_the_replay(tmp_path: Path) -> None:
    """And runs out, then."""
    pauses["long"] = HOUR
    limits["whole"] = HOUR
    await begin(tmp_path / "a.db", "going_on", steps=2)
    pauses["long"] = HOUR
    limits["whole"] = 1
    assert await go_on(tmp_path / "a.db") == "too late"
    assert ran[:2] == ["m:effect#1", "m:effect#2"]


@shape
async def in_the_last_moment(self: Runner) -> str:
    """Two steps at once, one of which is done in the moment in which their time is over."""
    try:
        async with asyncio.timeout(HOUR) as deadline:
            if not ran:
                deadlines["last"] = deadline
            await asyncio.gather(effect("last"), effect("never"))
    except TimeoutError:
        return "too late" + await effect("stay")
    return "in time"


async def test_a_result_that_came_too_late_comes_too_late_again(tmp_path: Path) -> None:
    """It is complete, and nobody went on with it: a replay does not, either."""
    pauses.update(last=0, never=HOUR, stay=HOUR)
    await begin(tmp_path / "a.db", "in_the_last_moment", steps=3)
    deadlines.clear()
    assert await go_on(tmp_path / "a.db") == "too lateSTAY"
    assert len(ran) == 4


@shape
async def decided_first(self: Runner) -> str:
    """A race that is decided at once, and long before another task goes on."""

    async def race() -> str:
        loser = asyncio.create_task(effect("loser"))
        await asyncio.sleep(0)
        while len(ran) < 2:  # noqa: ASYNC110  # a handler may do so
            await asyncio.sleep(0)
        loser.cancel()
        await asyncio.gather(loser, return_exceptions=True)
        for _ in range(3 * PASSES):  # more than a result has until the next one
            await asyncio.create_task(asyncio.sleep(0))
        return await asyncio.create_task(effect("race"))

    async def other() -> str:
        await effect("other")
        return await asyncio.create_task(effect("next"))

    return "".join(await asyncio.gather(race(), other())) + await effect("stay")


async def test_what_was_cancelled_has_its_place(tmp_path: Path) -> None:
    """What followed it is not handed out before that was cancelled again, and has had its effect."""
    pauses.update(loser=HOUR, other=0.2, stay=HOUR)
    await begin(tmp_path / "a.db", "decided_first", steps=5)
    assert await go_on(tmp_path / "a.db") == "RACENEXTSTAY"
    assert len(ran) == 6


@shape
async def undone_twice(self: Runner) -> str:
    """Something is undone in two attempts, for a failure of its own in each, and not in the third."""
    try:
        result = await effect("a") + await effect("b")
    except StepError:
        await fan_out(effect, ["undo"])
        raise
    return result


async def test_what_two_failures_rested_on_is_left(tmp_path: Path) -> None:
    """The attempt that does not fail is not asked for what undid the others, and that was done once."""
    failures.update(a=3, b=3)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Runner, "r").run.options(timeout=30)("undone_twice") == "AB"
    assert len([one for one in ran if "fan_out" in one]) == 1


turns: list[str] = []


@shape
async def astray(self: Runner) -> str:
    """Tasks that come by in another order, in all attempts but the first and the last."""

    async def one(name: str) -> str:
        return await effect(name)

    turns.append("begun")
    names = ["a", "b"] if len(turns) in {1, 4} else ["b", "a"]
    results = await asyncio.gather(*(one(name) for name in names))
    return "".join(sorted(results)) + await effect("stay")


async def test_a_replay_that_differs_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may have been a matter of time; it does not park for that."""
    turns.clear()
    pauses["stay"] = HOUR
    await begin(tmp_path / "a.db", "astray", steps=3)
    assert await go_on(tmp_path / "a.db") == "ABSTAY"
    assert len(turns) == 4
    assert len(ran) == 4
    assert [record.levelname for record in caplog.records if "tried again" in record.getMessage()] == ["WARNING"] * 2


@shape
async def waiting(self: Runner) -> str:
    """Time that passes beside durable sleep."""
    try:
        async with asyncio.timeout(0.5):
            await sleep(HOUR)
    except TimeoutError:
        return "too late" + await effect("stay")
    return "in time"


async def test_a_turn_that_may_time_out_stays_in_memory(tmp_path: Path) -> None:
    """However long it waits for something durable: out of memory, nobody would cut that short."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(evict_after=0.01)) as system:
        assert await system.get(Runner, "r").run.options(timeout=30)("waiting") == "too lateSTAY"


async def test_a_turn_that_may_time_out_is_gone_on_with_elsewhere(tmp_path: Path) -> None:
    """Who takes its actor over does not wait until something durable comes about, for it may time out before."""
    async with ActorSystem(tmp_path / "a.db") as leaving, ActorSystem(tmp_path / "a.db") as staying:
        receipt = await leaving.get(Runner, "r").run.options(id="m").tell("waiting")

        async def sleeps() -> bool:
            return await receipt.status() == "waiting"

        await until(sleeps)
        await leaving.drain()
        assert await staying.receipt("m", Runner.run).result(timeout=30) == "too lateSTAY"


async def test_the_loop_is_as_it_was(tmp_path: Path) -> None:
    """After a replay, nothing stands between anybody and the loop."""
    loop = asyncio.get_running_loop()
    before = loop.call_at
    pauses["stay"] = HOUR
    await begin(tmp_path / "a.db", "waiting", steps=1)
    assert await go_on(tmp_path / "a.db") == "too lateSTAY"
    assert loop.call_at == before
