"""A cancellation from outside does not cut short what is done about a turn that is over."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Actor, ActorStopped, ActorSystem, Backoff, DeadLetterError, MessageExpired, Retry, handler, step
from tests.unit.crashing import host_of
from tests.unit.observing import this_task, until

_TWICE = Retry(2, backoff=Backoff(0.01, 0.01))

begun: list[str] = []
done: list[str] = []
closing: list[asyncio.Event] = []


@step
async def act(name: str) -> None:
    """Something that is done once."""
    done.append(name)


class Careless(Actor, kind="cancelled.careless"):
    @handler(retry=_TWICE)
    async def cancel_and_fail(self) -> None:
        begun.append(self.key)
        await act(self.key)
        this_task().cancel()
        raise ValueError(self.key)

    @handler(retry=_TWICE)
    async def leave_a_cancellation_and_fail(self) -> None:
        begun.append(self.key)
        await act(self.key)
        asyncio.get_running_loop().call_soon(this_task().cancel)
        raise ValueError(self.key)

    @handler
    async def end_and_leave_a_cancellation(self) -> None:
        await self.stop()
        asyncio.get_running_loop().call_soon(this_task().cancel)

    @handler
    async def look(self) -> str:
        return self.key


class Slow(Actor, kind="cancelled.slow"):
    @handler(timeout=0.01)
    async def take_too_long(self) -> None:
        begun.append(self.key)
        await asyncio.sleep(60)

    async def stopping(self) -> None:
        closing.append(asyncio.Event())
        await closing[-1].wait()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    begun.clear()
    done.clear()
    closing.clear()


async def test_a_handler_that_cancels_its_task_and_raises() -> None:
    """It has its attempts and no more, its step is done once, and the next message is handled."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        with pytest.raises(DeadLetterError, match="ValueError"):
            await system.get(Careless, "1").cancel_and_fail()
        assert (begun, done) == (["1"] * 2, ["1"])
        assert await system.get(Careless, "1").look() == "1"


async def test_a_failure_that_is_cancelled_while_it_is_judged() -> None:
    """It is counted all the same, and its journal is not forgotten."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        with pytest.raises(DeadLetterError, match="ValueError"):
            await system.get(Careless, "1").leave_a_cancellation_and_fail()
        assert (begun, done) == (["1"] * 2, ["1"])


async def test_an_end_of_an_actor_that_is_cancelled() -> None:
    """An actor that has ended itself handles nothing any more, and says so."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        await system.get(Careless, "1").end_and_leave_a_cancellation()
        with pytest.raises(ActorStopped):
            await system.get(Careless, "1").look()


async def test_a_handler_out_of_time_that_is_cancelled_as_it_stops() -> None:
    """Its message has expired, and is not handled again."""
    async with ActorSystem(":memory:") as system, asyncio.timeout(20):
        asked = asyncio.ensure_future(system.get(Slow, "1").take_too_long())
        await until(lambda: bool(closing))
        (activation,) = host_of(system).activations.values()
        assert activation.worker is not None
        activation.worker.cancel()
        await asyncio.sleep(0)
        closing[0].set()
        with pytest.raises(MessageExpired):
            await asked
        assert begun == ["1"]
        (activation,) = host_of(system).activations.values()
        activation.living.drop()  # or it would stop once more, with nobody to let it go
