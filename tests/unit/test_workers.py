"""Handlers run in tasks that are lent from actor to actor, and notice nothing of each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar

import pytest

from perdure import Actor, ActorSystem, handler
from perdure.actors.workers import Workers
from tests.unit.crashing import host_of
from tests.unit.observing import until

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
seen: list[tuple[str, str]] = []
tasks: Counter[asyncio.Task[object] | None] = Counter()
gate: asyncio.Event


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
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    global gate  # noqa: PLW0603  # handlers wait for it
    gate = asyncio.Event()
    seen.clear()
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
        async with asyncio.timeout(10):
            for _ in range(3):
                await asyncio.gather(first.cancel(), second.nap(), first.nap())
    assert len(seen) == 6


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
    async with asyncio.timeout(5):
        await works.done.wait()
        await until(lambda: any("cannot happen" in record.message for record in caplog.records))
    await workers.close()
