"""The way to a connection's thread and back: what the task that waits for it sees."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from perdure.errors import SystemClosedError, TargetError
from perdure.storage.sqlite_thread import Hop, ThreadConnection, hop, start

WAKERS = pytest.mark.parametrize("waker", ["eventfd", "socket"])


@asynccontextmanager
async def connected(monkeypatch: pytest.MonkeyPatch, waker: str = "eventfd") -> AsyncGenerator[ThreadConnection]:
    """A connection in memory; woken through the loop's own socket as where the system has no eventfd."""
    if waker == "socket":
        monkeypatch.delattr(os, "eventfd", raising=False)
    connection = await start(ThreadConnection(lambda: sqlite3.connect(":memory:", check_same_thread=False)))
    try:
        yield connection
    finally:
        await connection.close()


@WAKERS
async def test_result(monkeypatch: pytest.MonkeyPatch, waker: str) -> None:
    """Work is done in the connection's thread, and its result comes back."""

    def where(n: int, more: int) -> tuple[int, int]:
        return threading.get_ident(), n + more

    async with connected(monkeypatch, waker) as connection:
        found = await hop(connection, where, 1, more=2)
    thread, total = found
    assert thread != threading.get_ident()
    assert total == 3


@WAKERS
async def test_error(monkeypatch: pytest.MonkeyPatch, waker: str) -> None:
    """What the work raises is raised where it is awaited, and the thread goes on."""

    def fail() -> None:
        raise KeyError("broken")

    async with connected(monkeypatch, waker) as connection:
        with pytest.raises(KeyError, match="broken"):
            await hop(connection, fail)
        assert await hop(connection, int, "7") == 7


@WAKERS
async def test_many_tasks(monkeypatch: pytest.MonkeyPatch, waker: str) -> None:
    """Work of many tasks is done in the order that they gave it, and each has its own result, in its own context."""
    who: ContextVar[int] = ContextVar("who")
    order: list[int] = []

    async def work(connection: ThreadConnection, n: int) -> tuple[int, int]:
        who.set(n)
        await hop(connection, order.append, n)
        return n, who.get()

    async with connected(monkeypatch, waker) as connection:
        found = await asyncio.gather(*(work(connection, n) for n in range(200)))
    assert found == [(n, n) for n in range(200)]
    assert order == list(range(200))


@WAKERS
async def test_cancelled_task(monkeypatch: pytest.MonkeyPatch, waker: str) -> None:
    """A task that is cancelled goes on at once, with the reason; its work is done all the same, and disturbs nobody."""
    gate, done = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(30)
        done.set()

    async with connected(monkeypatch, waker) as connection:

        async def wait() -> None:
            await hop(connection, work)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert not done.is_set()
        gate.set()
        assert await hop(connection, int, "7") == 7
        assert done.is_set()


async def test_cancelled_as_it_lands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled between the end of its work and its own turn is woken once, and ends."""
    async with connected(monkeypatch) as connection:

        async def wait() -> None:
            await hop(connection, int)

        async def signal(done: threading.Event) -> None:
            await hop(connection, done.set)

        for _ in range(50):
            done = threading.Event()
            task, other = asyncio.create_task(wait()), asyncio.create_task(signal(done))
            await asyncio.sleep(0)
            done.wait(30)  # the loop stands, and the first has landed
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await other


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="only Linux has it")
async def test_no_pass_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits goes on as the loop wakes: a lone commit waits for no pass of the loop besides."""
    called: list[object] = []
    async with connected(monkeypatch) as connection:
        await hop(connection, int)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_soon", called.append)
        monkeypatch.setattr(loop, "call_soon_threadsafe", called.append)
        found = await hop(connection, int, "7")
        monkeypatch.undo()
    assert (found, called) == (7, [])


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="only Linux has it")
async def test_a_descriptor_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What wakes the loop is closed with its connection, and the loop forgets it."""
    made: list[int] = []
    eventfd = os.eventfd

    def making(value: int, flags: int) -> int:
        made.append(eventfd(value, flags))
        return made[-1]

    monkeypatch.setattr(os, "eventfd", making)
    async with connected(monkeypatch) as connection:
        await hop(connection, int)
    assert len(made) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])
    assert not asyncio.get_running_loop().remove_reader(made[0])


@WAKERS
async def test_others_run_in_between(monkeypatch: pytest.MonkeyPatch, waker: str) -> None:
    """Tasks that always have work under way do not keep the loop to themselves."""
    loop = asyncio.get_running_loop()
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1
        if passes < 10_000:
            loop.call_soon(count)

    async with connected(monkeypatch, waker) as connection:
        landed = threading.Semaphore(0)
        land = connection.land

        def landing(hop: Hop[object]) -> None:
            land(hop)
            landed.release()

        monkeypatch.setattr(connection, "land", landing)
        rounds = 20
        seen: list[int] = []

        async def work() -> None:
            for _ in range(rounds):
                await hop(connection, int)
                landed.acquire(timeout=5)
                seen.append(passes)

        tasks = [asyncio.create_task(work()) for _ in range(2)]
        await asyncio.sleep(0)
        landed.acquire(timeout=5)  # so that whoever goes on waits until the other's has landed
        loop.call_soon(count)
        await asyncio.sleep(0)
        landed.release(2)
        await asyncio.gather(*tasks)
        passes = 10_000
    assert len(set(seen)) > rounds // 2


async def test_another_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that is used in another event loop than its own says so, and does not wait for ever."""

    async def wait(connection: ThreadConnection) -> None:
        async with asyncio.timeout(30):
            await hop(connection, int)

    async with connected(monkeypatch) as connection:
        with pytest.raises(SystemClosedError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, wait(connection))


async def test_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed connection refuses work instead of never doing it."""
    async with connected(monkeypatch) as connection:
        pass
    assert not connection.is_open
    with pytest.raises(ValueError, match="closed"):
        hop(connection, int)


async def test_cannot_be_opened() -> None:
    """A database that cannot be opened is told by its name's error, and leaves no thread behind."""
    connection = ThreadConnection(lambda: sqlite3.connect("/nowhere/at/all.db"))
    with pytest.raises(TargetError, match="cannot be opened"):
        await start(connection)
    assert not connection._thread.is_alive()  # noqa: SLF001  # a process with thousands of them shows it too late
