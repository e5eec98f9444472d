"""What a handler cancelled as it failed runs again with the next attempt, and what it had decided stays decided."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Backoff, Limits, PerdureError, Rejected, Retry, handler, sleep, step
from tests.unit.crashing import crashing
from tests.unit.observing import this_task, until

ran: list[str] = []
met: list[str] = []
deadlines: list[asyncio.Timeout] = []
"""They pass as soon as a slow step has begun."""


@step
async def work(name: str) -> str:
    """Something that hangs the first time."""
    ran.append(name)
    if ran.count(name) == 1 and name.startswith("slow"):
        for deadline in deadlines:
            deadline.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(60)
    return name.upper()


@step(retry=Retry(1))
async def broken() -> None:
    """Something that cannot be done."""
    raise OSError("never")


async def fail_once() -> None:
    """An error that is gone the next time, outside of steps."""
    await until(lambda: "slow" in ran)
    if "failed" not in met:
        met.append("failed")
        raise OSError("for now")


class Tried(Actor, kind="tried.tried", retry=Retry(3, backoff=Backoff(0.01, 0.01))):
    notes: list[str] = []

    @handler
    async def run(self, shape: str) -> str:
        return await SHAPES[shape](self)

    @handler
    async def note(self, text: str) -> None:
        self.notes.append(text)


class Stranger(Actor, kind="tried.stranger", retry=Retry(1)):
    @handler
    async def linger(self) -> str:
        await until(lambda: "failed" in met)
        return "LINGERED"

    @handler
    async def fail(self) -> None:
        raise ValueError(self.key)

    @handler
    async def fail_in_a_step(self) -> None:
        await broken()

    @handler(timeout=0.01)
    async def take_too_long(self) -> None:
        await asyncio.sleep(60)

    @handler
    async def reject(self) -> None:
        raise Rejected(self.key)


async def in_time(_self: Tried) -> str:
    """A step that has only so much time."""
    async with asyncio.timeout(60) as deadline:
        deadlines[:] = [deadline]
        return await work("slow")


async def beside(_self: Tried) -> str:
    """A step beside something that fails."""
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(work("slow"))
        group.create_task(fail_once())
    return slow.result()


async def within(self: Tried) -> str:
    """The same, while somebody else goes on."""

    async def chain() -> None:
        await work("before")
        await until(lambda: "failed" in met)
        await asyncio.sleep(0.02)
        await work("after")

    result, _ = await asyncio.gather(beside(self), chain(), return_exceptions=True)
    if isinstance(result, BaseException):
        raise result
    return result


async def tidied(self: Tried) -> str:
    """Everything there is to wait for, with a step behind each whatever comes, beside something that fails."""

    async def tidy(waiting: Awaitable[object], name: str) -> object:
        try:
            return await waiting
        finally:
            await work(f"tidy {name}")

    other = self.system.get(Stranger, "s")
    receipt = await other.linger.tell()
    async with asyncio.TaskGroup() as group:
        waits = [tidy(sleep(0.3), "sleep"), tidy(other.linger(), "ask"), tidy(receipt.result(), "receipt")]
        tasks = [group.create_task(each) for each in (*waits, tidy(work("slow"), "step"))]
        group.create_task(fail_once())
    return " ".join(str(task.result()) for task in tasks)


async def told(self: Tried) -> str:
    """A failure that is told of, though that never leaves."""
    try:
        return await beside(self)
    except ExceptionGroup:
        await self.ref.note.tell("failed")
        raise


async def cancelled(_self: Tried) -> str:
    """The handler's own task is cancelled while others work for it."""

    async def cancel(task: asyncio.Task[object]) -> None:
        await until(lambda: "slow" in ran)
        if "failed" not in met:
            met.append("failed")
            task.cancel()

    async with asyncio.TaskGroup() as group:
        slow = group.create_task(work("slow"))
        group.create_task(cancel(this_task()))
    return slow.result()


async def raced(_self: Tried) -> str:
    """A race that was decided, after which something fails."""
    fast, slow = asyncio.ensure_future(work("fast")), asyncio.ensure_future(work("slow"))
    await asyncio.wait([fast, slow], return_when="FIRST_COMPLETED")
    slow.cancel()
    await asyncio.wait([slow])
    result = fast.result() + await work("after")
    await fail_once()
    return result


async def answered(self: Tried) -> str:
    """Callees that end in every way but well, and a failure after that."""
    stranger = self.system.get(Stranger, "s")
    calls = [stranger.fail(), stranger.fail_in_a_step(), stranger.take_too_long(), stranger.reject()]
    met.extend([type(error).__name__ for error in await asyncio.gather(*calls, return_exceptions=True)])
    receipt = await stranger.fail.tell()
    try:
        await receipt.result()
    except PerdureError as error:
        met.append(type(error).__name__)
    await work("last")
    if len(met) == 5:
        raise OSError("for now")
    return "well"


async def interrupted(_self: Tried) -> str:
    """A handler that stands still between a cancellation and its failure."""
    try:
        return await in_time(_self)
    except TimeoutError:
        met.append("late")
        await asyncio.sleep(60)
        raise


SHAPES: dict[str, Callable[[Tried], Awaitable[str]]] = {
    each.__name__: each for each in (in_time, beside, within, tidied, told, cancelled, raced, answered, interrupted)
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    for kept in (ran, met, deadlines):
        kept.clear()


@pytest.mark.parametrize("shape", ["in_time", "beside", "within", "told", "cancelled"])
async def test_a_step_that_a_failure_cancelled(tmp_path: Path, shape: str) -> None:
    """It begins anew with the next attempt, for nobody cancels it there."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.get(Tried, "a").run(shape) == "SLOW"
    assert ran.count("slow") == 2


async def test_what_was_cancelled_before_another_step(tmp_path: Path) -> None:
    """It begins anew where nobody cancels it any more, and what came after it is not done again."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.get(Tried, "a").run("tidied") == "None LINGERED LINGERED SLOW"
    assert ran.count("slow") == 2
    assert sorted(each for each in ran if each != "slow") == ["tidy ask", "tidy receipt", "tidy sleep", "tidy step"]


async def test_what_was_cancelled_before_a_death(tmp_path: Path) -> None:
    """The same where the next attempt is another process's."""
    async with crashing(tmp_path / "a.db") as system:
        receipt = await system.get(Tried, "a").run.options(id="m").tell("tidied")
        await until(lambda: len(ran) == 5)
        await system.get(Tried, "b").note("whatever was written is on disk")
        assert await receipt.status() == "running"
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.receipt("m", Tried.run).result() == "None LINGERED LINGERED SLOW"
    assert len(ran) == 6


async def test_a_race_that_was_decided_before_a_failure(tmp_path: Path) -> None:
    """It is not run again with the next attempt."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.get(Tried, "a").run("raced") == "FASTAFTER"
    assert (sorted(ran), met) == (["after", "fast", "slow"], ["failed"])


async def test_what_a_callee_ended_with_before_a_failure(tmp_path: Path) -> None:
    """The next attempt is told the same."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=50)) as system, asyncio.timeout(20):
        assert await system.get(Tried, "a").run("answered") == "well"
    first = ["DeadLetterError", "DeadLetterError", "MessageExpired", "Rejected", "DeadLetterError"]
    assert met == first * 2


async def test_a_cancellation_before_a_death(tmp_path: Path) -> None:
    """Where nothing was begun since, the step begins anew, for whatever cancelled it may be gone."""
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Tried, "a").run.options(id="m").tell("interrupted")
        await until(lambda: "late" in met)
        await system.get(Tried, "b").note("whatever was written is on disk")
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.receipt("m", Tried.run).result() == "SLOW"
    assert (ran, met) == (["slow"] * 2, ["late"])
