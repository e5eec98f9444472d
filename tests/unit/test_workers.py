"""Handlers run in tasks that are lent from actor to actor, and notice nothing of each other."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import weakref
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest

from perdure import Actor, ActorSystem, DeadLetterError, Retry, handler, query, step, step_id
from perdure.actors.workers import Workers
from tests.unit.crashing import host_of
from tests.unit.observing import this_task, until

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
seen: list[tuple[str, str]] = []
tasks: Counter[asyncio.Task[object] | None] = Counter()
ids: list[str] = []
remembered: dict[str, asyncio.Task[object]] = {}
gate: asyncio.Event


@step
async def pass_the_gate() -> str:
    """A step that ends when the test lets it."""
    ids.append(step_id())
    await gate.wait()
    return "passed"


class Guest(Actor, kind="workers.guest"):
    total: int = 0

    @handler
    async def look(self) -> str:
        tasks[asyncio.current_task()] += 1
        seen.append((self.key, tenant.get()))
        return tenant.get()

    @handler
    async def claim(self, name: str) -> None:
        tenant.set(name)

    @handler
    async def borrow(self, name: str) -> None:
        token = tenant.set(name)
        tenant.reset(token)

    @handler
    async def nap(self) -> None:
        await asyncio.sleep(0.001)
        seen.append((self.key, tenant.get()))

    @handler
    async def wait(self) -> None:
        await gate.wait()

    @handler
    async def cancel(self) -> None:
        this_task().cancel()

    @handler
    async def cancel_later(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, this_task().cancel)

    @handler(retry=Retry(1))
    async def cancel_itself(self) -> None:
        self.total += 1
        this_task().cancel()
        await asyncio.sleep(1)

    @handler
    async def tidy_up(self) -> str:
        remembered[self.key] = this_task()
        try:
            return await pass_the_gate()
        finally:
            await asyncio.sleep(0.05)

    @handler
    async def remember(self) -> None:
        remembered[self.key] = this_task()
        await asyncio.sleep(0.01)

    @handler
    async def cancel_remembered(self, other: str) -> None:
        remembered[other].cancel()

    @handler
    async def add_slowly(self, n: int, seconds: float) -> int:
        self.total += n
        await asyncio.sleep(seconds)
        return self.total

    @query
    async def value(self) -> int:
        return self.total

    @handler
    async def _port(self) -> str:
        return "named like a part of references"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    global gate  # noqa: PLW0603  # handlers wait for it
    gate = asyncio.Event()
    seen.clear()
    ids.clear()
    tasks.clear()


async def test_a_handlers_context_reaches_no_other_handler() -> None:
    """A context variable that a handler sets is gone for the next message, its own actor's and any other's."""
    async with ActorSystem(":memory:") as system:
        first, second = system.get(Guest, "1"), system.get(Guest, "2")
        for _ in range(3):
            await asyncio.gather(first.claim("acme"), first.look(), second.look())
    assert {name for _, name in seen} == {"nobody"}
    assert len(seen) == 6


async def test_messages_share_tasks() -> None:
    """A thousand messages do not cost a thousand tasks; a variable that was put back is no reason for a new one."""
    async with ActorSystem(":memory:") as system:
        guests = [system.get(Guest, str(number)) for number in range(100)]
        for _ in range(3):
            await asyncio.gather(*(guest.borrow("acme") for guest in guests))
            await asyncio.gather(*(guest.look() for guest in guests))
    assert sum(tasks.values()) == 300
    assert len(tasks) <= 3


async def test_waiting_handlers_hold_nobody_up() -> None:
    """However many handlers wait, those of other actors run."""
    async with ActorSystem(":memory:") as system:
        waiting = [await system.get(Guest, f"w{number}").wait.tell() for number in range(200)]
        await asyncio.gather(*(system.get(Guest, f"l{number}").look() for number in range(50)))
        assert len(seen) == 50
        gate.set()
        await asyncio.gather(*(receipt.result() for receipt in waiting))
        await until(lambda: len(host_of(system).workers.tasks) <= 65)


async def test_a_handler_that_cancels_its_task_takes_nobody_along() -> None:
    """A cancellation that a handler leaves behind does not hit the next handler in that task."""
    async with ActorSystem(":memory:") as system:
        first, second = system.get(Guest, "1"), system.get(Guest, "2")
        async with asyncio.timeout(30):
            for _ in range(3):
                await asyncio.gather(first.cancel(), second.nap(), first.nap())
    assert len(seen) == 6


async def test_a_handlers_context_is_told_by_identity() -> None:
    """A value that only equals the one before does not reach the next handler either."""
    outer = tenant.set(str(b"nobody", "ascii"))
    async with ActorSystem(":memory:") as system:
        guest = system.get(Guest, "1")
        await guest.claim(str(b"nobody", "ascii"))
        workers = host_of(system).workers
        await until(lambda: not workers.tasks)  # it ended, and nobody has come yet
    tenant.reset(outer)


async def test_a_timer_that_a_handler_leaves_behind_costs_others_nothing() -> None:
    """A home-made timeout that is never taken back cancels whoever has the task then: whose message begins again."""
    async with ActorSystem(":memory:") as system:
        careless, innocent = system.get(Guest, "careless"), system.get(Guest, "innocent")
        await careless.cancel_later(0.05)
        async with asyncio.timeout(30):
            assert await innocent.add_slowly(1, 0.2) == 1
            assert await innocent.value() == 1


async def test_a_step_cut_from_outside_runs_again() -> None:
    """A stray cancellation in the middle of a step costs its turn a new beginning, however long it took to unwind."""
    async with ActorSystem(":memory:") as system:
        asking = asyncio.ensure_future(system.get(Guest, "1").tidy_up())
        await until(lambda: bool(ids))
        remembered["1"].cancel()
        await until(lambda: len(ids) == 2)
        gate.set()
        async with asyncio.timeout(30):
            assert await asking == "passed"
    assert ids[0] == ids[1]


async def test_a_handler_that_cancels_itself_is_a_failure() -> None:
    """Whoever waits for it hears of it, and its actor goes on with the state of before."""
    async with ActorSystem(":memory:") as system:
        guest = system.get(Guest, "1")
        async with asyncio.timeout(30):
            with pytest.raises(DeadLetterError, match="cancelled by its own code"):
                await guest.cancel_itself()
            assert await guest.look() == "nobody"
            assert await guest.value() == 0


async def test_a_cancelled_worker_that_was_to_come_stops_nobody() -> None:
    """Who cancels a task that he remembers, after its job has ended, does not bring the node to a stop."""
    async with ActorSystem(":memory:") as system:
        async with asyncio.timeout(30):
            await asyncio.gather(system.get(Guest, "a").remember(), system.get(Guest, "b").remember())
            for other in ("a", "b"):
                await asyncio.gather(system.get(Guest, "x").cancel_remembered(other), system.get(Guest, "y").look())
                assert await system.get(Guest, "z").look() == "nobody"


async def test_older_task_factories_will_do() -> None:
    """A program may make its tasks in its own way, one that knows nothing of contexts included."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:  # noqa: ANN401  # as asyncio has it
        return asyncio.Task(coroutine, loop=loop)

    loop.set_task_factory(factory)
    try:
        async with ActorSystem(":memory:") as system, asyncio.timeout(30):
            assert await system.get(Guest, "1").look() == "nobody"
    finally:
        loop.set_task_factory(before)


async def test_an_idle_worker_keeps_no_actor_in_memory() -> None:
    """An actor that has left memory takes its state along."""
    async with ActorSystem(":memory:") as system:
        await system.get(Guest, "1").look()
        (activation,) = map(weakref.ref, host_of(system).activations.values())
        found = activation()
        assert found is not None
        await found.retire()
        del found
        gc.collect()
        assert activation() is None


async def test_handlers_may_be_named_like_parts_of_references() -> None:
    """What perdure calls its own attributes takes no name away."""
    async with ActorSystem(":memory:") as system:
        guest = system.get(Guest, "1")
        assert pickle.loads(pickle.dumps(guest)) == guest == copy.copy(guest)
        assert await guest.look() == "nobody"


async def test_every_worker_cancelled_is_replaced() -> None:
    """Who cancels all tasks of the loop, as some test tools do, does not stop the actors."""
    async with ActorSystem(":memory:") as system:
        guest = system.get(Guest, "1")
        await guest.look()
        for task in list(host_of(system).workers.tasks):
            task.cancel()
        assert await guest.look() == "nobody"


class _Breaks:
    async def work(self, worker: asyncio.Task[None]) -> bool:
        raise RuntimeError("a bug in an activation")


class _Works:
    def __init__(self) -> None:
        self.done = asyncio.Event()

    async def work(self, worker: asyncio.Task[None]) -> bool:
        self.done.set()
        return True


async def test_a_worker_that_breaks_is_spoken_of_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """A bug beneath one actor is loud and leaves the others at work."""
    workers, works = Workers(), _Works()
    workers.run(_Breaks())
    workers.run(works)
    async with asyncio.timeout(30):
        await works.done.wait()
        await until(lambda: any("cannot happen" in record.message for record in caplog.records))
    await workers.close()
