"""What a failure cancelled beside it is done anew by the next attempt, which does not wait to have it cancelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Backoff, DeadLetterError, Retry, fan_out, handler, sleep, step
from perdure.console.operate import Operator
from tests.unit.observing import this_task, until

_TWICE = Retry(2, backoff=Backoff(0.01, 0.01))

begun: Counter[str] = Counter()
attempts: Counter[str] = Counter()
deadlines: list[asyncio.Timeout] = []
"""They pass as soon as something patient has begun."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    for kept in (begun, attempts, deadlines):
        kept.clear()


async def _until_begun(name: str) -> None:
    await until(lambda: begun[name] > 0)


@step
async def patient(name: str) -> str:
    """Takes long at first, and until something beside it has failed."""
    begun[name] += 1
    if begun[name] == 1:
        for deadline in deadlines:
            deadline.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(60)
    return name


@step(retry=Retry(1))
async def failing_once(beside: str) -> str:
    """Fails as soon as the other has begun, and not again."""
    attempts["step"] += 1
    if attempts["step"] == 1:
        await _until_begun(beside)
        raise OSError(beside)
    return "mended"


@step
async def tidy() -> None:
    """What is done whatever happens."""
    begun["tidy"] += 1


class Beside(Actor, kind="beside.worker", retry=_TWICE):
    """Does two things at once, of which one fails in the first attempt."""

    @handler
    async def fan(self) -> list[str]:
        async def one(number: int) -> str:
            return await (failing_once("fan") if number else patient("fan"))

        return await fan_out(one, range(2))

    @handler
    async def group(self) -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(patient("group")), group.create_task(failing_once("group"))]
        finally:
            await tidy()
        return [task.result() for task in tasks]

    @handler
    async def own_code(self) -> str:
        async def fail_once() -> None:
            attempts["code"] += 1
            if attempts["code"] == 1:
                await _until_begun("own")
                raise ValueError(self.key)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(patient("own"))
            group.create_task(fail_once())
        return task.result()

    @handler
    async def sleeping(self) -> str:
        attempts["sleeping"] += 1
        first = attempts["sleeping"] == 1
        async with asyncio.TaskGroup() as group:
            group.create_task(sleep(0.5))
            if first:
                group.create_task(asyncio.sleep(0.01)).add_done_callback(lambda _: begun.update(["slept"]))
                await _until_begun("slept")
                raise ValueError(self.key)
        return "awake"

    @handler
    async def leaving_one(self) -> str:
        attempts["leaving"] += 1
        task = asyncio.create_task(patient("leaving"))
        await _until_begun("leaving")
        return "left" if attempts["leaving"] == 1 else await task

    @handler
    async def interrupted(self) -> list[str]:
        attempts["interrupted"] += 1
        if attempts["interrupted"] == 1:
            task, loop = this_task(), asyncio.get_running_loop()
            loop.create_task(_until_begun("interrupted")).add_done_callback(lambda _: task.cancel())
        return list(await asyncio.gather(patient("interrupted"), patient("beside it")))

    @handler(retry=Retry(1))
    async def given_up(self) -> str:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(patient("given up"))
            group.create_task(failing_once("given up"))
        return task.result()

    @handler
    async def race(self) -> str:
        attempts["race"] += 1
        try:
            async with asyncio.timeout(0.05 if begun["race"] else 60) as deadline:
                deadlines.append(deadline)
                return await patient("race")
        except TimeoutError:
            await tidy()
        if attempts["race"] == 1:
            raise ValueError(self.key)
        return "lost"


async def test_an_item_beside_one_that_failed() -> None:
    """Items that a failure cancelled are done when they are tried again."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").fan() == ["fan", "mended"]


async def test_a_group_that_is_left_by_way_of_another_step() -> None:
    """What was cancelled is done anew even where the handler went on after it."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").group() == ["group", "mended"]
        assert begun["tidy"] == 1


async def test_a_failure_of_the_handlers_own_code() -> None:
    """It need not be a step that failed."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").own_code() == "own"


async def test_a_sleep_beside_a_failure() -> None:
    """What waits for time is cancelled like a step, and slept anew."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").sleeping() == "awake"


async def test_a_task_that_was_left_behind() -> None:
    """A task that the handler had not awaited is cancelled by perdure, and that does not stay either."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").leaving_one() == "leaving"


async def test_tasks_of_a_handler_that_is_cancelled_from_outside() -> None:
    """They are cancelled with it, and run again with it."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").interrupted() == ["interrupted", "beside it"]
        assert attempts["interrupted"] == 2


async def test_a_dead_letter_that_is_tried_again(tmp_path: Path) -> None:
    """The failure that gave it up keeps nothing cancelled."""
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.timeout(20):
        receipt = await system.get(Beside, "1").given_up.tell()
        with pytest.raises(DeadLetterError):
            await receipt.result()
        await Operator(tmp_path / "a.db").retry(receipt.id)
        assert await receipt.result() == "given up"


async def test_a_race_that_was_decided_before_a_failure() -> None:
    """What the handler itself had cancelled, and gone on after, is not done again."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        assert await system.get(Beside, "1").race() == "lost"
        assert (begun["race"], begun["tidy"]) == (1, 1)
