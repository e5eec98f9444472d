"""What an attempt did after an error that got out: the next one need not ask for it, and may ask for something else."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Backoff, DeadLetterError, Retry, StepError, fan_out, handler, sleep, step
from perdure.console.operate import Operator
from tests.unit.crashing import crashing
from tests.unit.observing import until

ran: Counter[str] = Counter()
deadlines: list[asyncio.Timeout] = []
"""They pass as soon as something hangs."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    ran.clear()
    deadlines.clear()


@step(retry=Retry(1))
async def call(what: str) -> str:
    """Fails the first time it is to do something."""
    ran[what] += 1
    if ran[what] == 1 and what.startswith("do"):
        raise OSError(what)
    if ran[what] == 1 and what == "hang":
        for deadline in deadlines:
            deadline.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(60)
    return what


@step
async def undo(what: str) -> str:
    """Takes something back."""
    ran[f"un{what}"] += 1
    return what


def fail_first() -> None:
    """An error of the handler's own code that does not come again."""
    if ran["attempt"] == 1:
        raise ValueError("for now")


class Left(Actor, kind="left.left", retry=Retry(4, backoff=Backoff(0.01, 0.01))):
    notes: list[str] = []

    @handler
    async def note(self, text: str) -> None:
        self.notes.append(text)

    @handler
    async def told(self) -> list[str]:
        return self.notes

    @handler
    async def another_step(self) -> str:
        try:
            return await call("do")
        except StepError:
            await undo("do")
            raise

    @handler
    async def same_step(self) -> str:
        try:
            done = await call("do")
        except StepError:
            await call("undo")
            raise
        return done + await call("more")

    @handler
    async def chosen_keys(self) -> str:
        try:
            return await step(call, key="a")("do")
        except StepError:
            await step(call, key="b")("undo")
            raise

    @handler
    async def one_key(self) -> str:
        try:
            await call("do")
        except StepError:
            await step(call, key="end")("undo")
            raise
        return await step(call, key="end")("more")

    @handler
    async def notes_and_waits(self) -> str:
        other = self.system.get(Left, "other")
        try:
            await call("do")
        except StepError:
            await other.note.tell("failed")
            await sleep(0.001)
            await fan_out(undo, ["1", "2"])
            raise
        await other.note.tell("done")
        await sleep(0.05)
        return "".join(await fan_out(undo, ["3", "2"]))

    @handler
    async def same_beside(self) -> str:
        try:
            done = await fan_out(call, ["do", "more"])
        finally:
            await call("undo")
        return " ".join(done)

    @handler
    async def two_errors(self) -> str:
        try:
            done = await call("do")
        except StepError:
            await undo("do")
            raise
        try:
            return done + await call("do more")
        except StepError:
            await undo("more")
            raise

    @handler
    async def hanging_then(self) -> str:
        try:
            done = await call("do")
        except StepError:
            await undo("do")
            raise
        return done + await call("hang")

    @handler
    async def not_come_to(self) -> str:
        ran["attempt"] += 1
        await undo("nothing")
        if ran["attempt"] == 2:
            raise ValueError(self.key)
        try:
            return " ".join(await fan_out(call, ["do", "do more", "more"], concurrency=1))
        finally:
            await call("undo")

    @handler
    async def own_error(self) -> str:
        await call("first")
        ran["attempt"] += 1
        try:
            fail_first()
        except ValueError:
            await undo("own")
            await fan_out(undo, ["1", "2"])
            raise
        return await call("more")

    @handler
    async def own_error_in_a_task(self) -> str:
        ran["attempt"] += 1

        async def fail() -> None:
            await call("first")
            try:
                await until(lambda: ran["hang"] > 0)
                fail_first()
            except ValueError:
                await undo("own")
                raise

        async def hang() -> str:
            try:
                return await call("hang")
            except asyncio.CancelledError:
                await undo("hang")
                raise

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                task = group.create_task(hang())
        finally:
            await undo("both")
        return task.result()

    @handler
    async def own_error_under_the_same_name(self) -> str:
        ran["attempt"] += 1
        try:
            fail_first()
            return await call("more")
        finally:
            await call("undo")

    @handler
    async def own_error_from_another(self) -> str:
        ran["attempt"] += 1
        try:
            fail_first()
        except ValueError as error:
            await undo("own")
            raise OSError(self.key) from error
        return "well"

    @handler(retry=Retry(1))
    async def given_up(self) -> str:
        try:
            done = await call("do")
        except StepError:
            await call("undo")
            raise
        return done + await call("more")

    @handler
    async def raced(self) -> list[str]:
        try:
            async with asyncio.timeout(0.05 if ran["hang"] else 60) as deadline:
                deadlines.append(deadline)
                decided = await call("hang")
        except TimeoutError:
            decided = "lost"

        async def follow(number: int) -> str:
            await undo(f"{decided} {number}")
            if ran["followed"] == 0:
                ran["follows"] += 1
                await asyncio.sleep(60)
            return decided

        return await fan_out(follow, range(2))


@pytest.mark.parametrize(
    ("name", "result", "runs"),
    [
        ("another_step", "do", {"do": 2, "undo": 1}),
        ("same_step", "domore", {"do": 2, "undo": 1, "more": 1}),
        ("chosen_keys", "do", {"do": 2, "undo": 1}),
        ("one_key", "more", {"do": 2, "undo": 1, "more": 1}),
        ("notes_and_waits", "32", {"do": 2, "un1": 1, "un2": 1, "un3": 1}),
        ("same_beside", "do more", {"do": 2, "undo": 1, "more": 1}),
        ("two_errors", "dodo more", {"do": 2, "undo": 1, "do more": 2, "unmore": 1}),
        ("own_error", "more", {"attempt": 2, "first": 1, "unown": 1, "un1": 1, "un2": 1, "more": 1}),
        ("own_error_in_a_task", "hang", {"attempt": 2, "first": 1, "unown": 1, "hang": 2, "unhang": 1, "unboth": 1}),
        ("own_error_under_the_same_name", "more", {"attempt": 2, "more": 1, "undo": 2}),
        ("own_error_from_another", "well", {"attempt": 2, "unown": 1}),
    ],
)
async def test_an_attempt_that_goes_another_way(tmp_path: Path, name: str, result: str, runs: dict[str, int]) -> None:
    """What had failed begins anew and succeeds, so nobody comes by where its error led."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        receipt = await getattr(system.get(Left, "1"), name).tell()
        assert await receipt.result() == result
        told = await system.get(Left, "other").told()
    assert ran == runs
    assert told == (["failed", "done"] if name == "notes_and_waits" else [])


async def test_an_attempt_that_does_not_come_so_far(tmp_path: Path) -> None:
    """The one after it knows what begins anew all the same."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.get(Left, "1").not_come_to() == "do do more more"
    assert ran == {"attempt": 4, "unnothing": 1, "do": 2, "do more": 2, "more": 1, "undo": 1}


async def test_a_dead_letter_that_is_tried_again(tmp_path: Path) -> None:
    """It goes another way as well."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        receipt = await system.get(Left, "1").given_up.tell()
        with pytest.raises(DeadLetterError):
            await receipt.result()
        await Operator(tmp_path / "a.db").retry(receipt.id)
        assert await receipt.result() == "domore"
    assert ran == {"do": 2, "undo": 1, "more": 1}


async def test_it_goes_that_way_after_a_death(tmp_path: Path) -> None:
    """The journal says for good what only the attempt that failed had asked for."""
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Left, "1").hanging_then.options(id="m").tell()
        await until(lambda: ran["hang"] > 0)
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.receipt("m", Left.hanging_then).result() == "dohang"
    assert ran == {"do": 2, "undo": 1, "hang": 2}


async def test_a_race_with_nothing_but_tasks_behind_it(tmp_path: Path) -> None:
    """It stays decided: what they began rests on it."""
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Left, "1").raced.options(id="m").tell()
        await until(lambda: ran["follows"] == 2)
        await system.get(Left, "2").note("whatever was written is on disk")
    ran["followed"] = 1
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        assert await system.receipt("m", Left.raced).result() == ["lost", "lost"]
    assert (ran["hang"], ran["unlost 0"], ran["unlost 1"]) == (1, 1, 1)
