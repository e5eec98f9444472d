"""A system inside other people's programs: cancelled callers, closing in the midst of work, any task, any framework."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from perdure import Actor, ActorSystem, fan_out, handler, query, sleep, step
from perdure.errors import SystemClosedError


@step
async def pause(seconds: float) -> float:
    """An effect that takes a moment."""
    await asyncio.sleep(seconds)
    return seconds


class Counter(Actor, kind="counter"):
    total: int = 0
    seen: list[str] = []

    @handler
    async def add(self, n: int, name: str = "") -> int:
        self.total += n
        self.seen.append(name)
        return self.total

    @handler
    async def slowly(self, name: str) -> int:
        await fan_out(pause, [0.001] * 5)
        self.total += 1
        self.seen.append(name)
        await self.system.get(Counter, "told").add.tell(1, name)
        return self.total

    @handler
    async def impatiently(self, name: str) -> bool:
        try:
            async with asyncio.timeout(0.02):
                await self.system.get(Counter, "asleep").rest(0.2, name)
        except TimeoutError:
            self.total += 1
            return False
        return True

    @handler
    async def rest(self, seconds: float, name: str = "") -> None:
        await sleep(seconds)
        self.seen.append(name)

    @query
    async def value(self) -> int:
        return self.total

    @query
    async def names(self) -> list[str]:
        return self.seen


async def passes(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancel_after(waiting: Awaitable[None], start: Awaitable[object]) -> bool:
    """Begin something and cancel it after a while; whether it was cut off."""
    task = asyncio.ensure_future(start)
    await waiting
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return False
    return True


async def no_thread_but(before: set[threading.Thread]) -> bool:
    """Whether every thread that was begun since has ended, or does so within seconds.

    A cancelled leaving goes on in the background, so the loop must be let run meanwhile.
    """
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


# cancelled callers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["tell", "ask"])
async def test_a_cancelled_caller_leaves_nothing_half_done(tmp_path: Path, way: str) -> None:
    """Whoever gives up at any await can send again under the same id, and it has happened once."""
    before = set(threading.enumerate())
    cut = 0
    async with ActorSystem(tmp_path / "app.db") as system:
        counter = system.get(Counter, "c")

        def send(n: int) -> Awaitable[object]:
            add = counter.add.options(id=f"m{n}")
            return add.tell(1, f"m{n}") if way == "tell" else add(1, f"m{n}")

        for n in range(60):
            cut += await cancel_after(passes(n), send(n))
        for n in range(60, 100):
            cut += await cancel_after(asyncio.sleep((n - 60) / 8_000), send(n))
        for n in range(100):
            await send(n)
        assert await counter.add(0, "last") == 100
        assert sorted(await counter.names()) == sorted(["last", *(f"m{n}" for n in range(100))])
    assert cut > 10, "no caller was cancelled in time"
    assert await no_thread_but(before)


async def test_a_cancelled_wait_for_a_receipt_can_be_joined_again(tmp_path: Path) -> None:
    """Not waiting any more for a result does not lose it."""
    async with ActorSystem(tmp_path / "app.db") as system:
        counter = system.get(Counter, "c")
        for n in range(40):
            receipt = await counter.slowly.options(id=f"m{n}").tell(f"m{n}")
            await cancel_after(passes(n * 3), receipt.result())
            assert await receipt.result() == n + 1
            assert await system.receipt(f"m{n}", Counter.slowly).result() == n + 1


async def test_a_cancelled_spawn_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """An actor whose spawner gave up can be spawned again as if nothing had happened."""
    async with ActorSystem(tmp_path / "app.db") as system:
        for n in range(40):
            await cancel_after(passes(n), system.spawn(Counter, f"c{n}", total=n))
            assert await (await system.spawn(Counter, f"c{n}", total=n)).value() == n


async def test_an_ask_that_a_handler_gave_up_still_runs(tmp_path: Path) -> None:
    """A timeout inside a handler is the handler's own affair: its turn goes on, and the other message too."""
    async with ActorSystem(tmp_path / "app.db") as system:
        assert await system.get(Counter, "c").impatiently("asked") is False
        asleep = system.get(Counter, "asleep")
        assert await asleep.add(1, "later") == 1
        assert await asleep.names() == ["asked", "later"]
        assert await system.get(Counter, "c").value() == 1


# closing --------------------------------------------------------------------------------------------------------------


async def _work(system: ActorSystem, life: int, acknowledged: list[str]) -> None:
    """Tells, asks, steps and sleeps without end."""
    n = 0
    with suppress(SystemClosedError):
        while True:
            name = f"{life}.{n}"
            counter = system.get(Counter, f"c{n % 5}")
            if n % 4 == 0:
                await system.get(Counter, "sleeper").rest.options(id=f"rest {name}").tell(0.01)
            receipt = await counter.slowly.options(id=name).tell(name)
            acknowledged.append(name)
            if n % 3 == 0:
                await receipt.result()
            n += 1


async def _live(path: Path, life: int, how: str, acknowledged: list[str]) -> None:
    """Work for a moment, then leave the system with all callers still in it."""
    async with ActorSystem(path) as system:
        tasks = [asyncio.create_task(_work(system, life * 10 + each, acknowledged)) for each in range(4)]
        try:
            await asyncio.sleep(life * 0.01)
            if how == "raise":
                raise ConnectionError
            if how == "cancel":
                await asyncio.sleep(60)
        finally:
            for task in tasks[: life % 2 * 4]:
                task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=30)
    assert not pending, "a caller hangs although its system is closed"


@pytest.mark.parametrize("how", ["leave", "raise", "cancel"])
async def test_closing_in_the_midst_of_everything_loses_nothing(tmp_path: Path, how: str) -> None:
    """A deployment may end a program wherever it is; what it had accepted is there, once, for the next."""
    acknowledged: list[str] = []
    before = set(threading.enumerate())
    for life in range(12):
        task = asyncio.create_task(_live(tmp_path / "app.db", life, how, acknowledged))
        if how == "cancel":
            await asyncio.sleep(life * 0.01 + 0.02)
            task.cancel()
        with suppress(ConnectionError, asyncio.CancelledError):
            async with asyncio.timeout(60):
                await task
    assert await no_thread_but(before)
    seen: list[str] = []
    async with ActorSystem(tmp_path / "app.db") as system:
        for name in acknowledged:
            await system.receipt(name).result(timeout=20)
        told = system.get(Counter, "told")
        for _ in range(600):  # what was accepted and not acknowledged is still coming in
            seen = [name for each in range(5) for name in await system.get(Counter, f"c{each}").names()]
            assert len(seen) == len(set(seen))
            if sorted(await told.names()) == sorted(seen):
                break
            await asyncio.sleep(0.05)
        assert set(acknowledged) <= set(seen)
        assert sorted(await told.names()) == sorted(seen)


async def test_opening_can_be_cancelled(tmp_path: Path) -> None:
    """A start that was called off leaves no thread and no lock behind."""
    before = set(threading.enumerate())
    for n in range(30):
        system = ActorSystem(tmp_path / "app.db")

        async def enter_and_leave(system: ActorSystem = system) -> None:
            async with system:
                pass

        await cancel_after(asyncio.sleep(n * 0.0005), enter_and_leave())
    assert await no_thread_but(before)
    async with ActorSystem(tmp_path / "app.db") as system:
        assert await system.get(Counter, "c").add(1) == 1


async def test_a_closed_system_says_so(tmp_path: Path) -> None:
    """Whoever uses a system too late learns why, and does not wait for ever."""
    async with ActorSystem(tmp_path / "app.db") as system:
        counter = system.get(Counter, "c")
        receipt = await counter.add.tell(1)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: counter.add(1), lambda: counter.add.tell(1), counter.value, receipt.result,
    ]  # fmt: skip
    for call in calls:
        async with asyncio.timeout(30):
            with pytest.raises(SystemClosedError):
                await call()


# any task, any framework ----------------------------------------------------------------------------------------------


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[ActorSystem]:
    """A system that anyio's plugin opens and closes in a task of its own."""
    async with ActorSystem(tmp_path / "app.db") as opened:
        yield opened


async def test_in_an_anyio_fixture(system: ActorSystem) -> None:
    """Tests of users' actors need nothing but a fixture."""
    assert await system.get(Counter, "c").add(2) == 2


async def test_entered_in_one_task_and_left_in_another(tmp_path: Path) -> None:
    """A notebook runs each cell in a task of its own."""
    system = ActorSystem(tmp_path / "app.db")
    await asyncio.create_task(system.__aenter__())
    assert await asyncio.create_task(system.get(Counter, "c").slowly("a")) == 1
    await asyncio.create_task(system.__aexit__(None, None, None))
    await asyncio.create_task(system.__aenter__())
    assert await system.get(Counter, "c").value() == 1
    await asyncio.create_task(system.__aexit__(None, None, None))


async def test_in_a_fastapi_lifespan(tmp_path: Path) -> None:
    """A web service opens the system where it opens everything else, and requests find it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with ActorSystem(tmp_path / "app.db") as system:
            app.state.system = system
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/add/{n}")
    async def add(n: int) -> int:
        found: ActorSystem = app.state.system
        return await found.get(Counter, "c").add(n)

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        replies = await asyncio.gather(*(client.post("/add/1") for _ in range(30)))
    assert sorted(reply.json() for reply in replies) == list(range(1, 31))


FIRST_STEP = """
import asyncio, sys
from perdure import Actor, ActorSystem, handler, step

@step
async def work() -> None: ...

class Worker(Actor):
    @handler
    async def run(self) -> list[str]:
        before = set(sys.modules)
        await work()
        return sorted(set(sys.modules) - before)

async def main() -> None:
    async with ActorSystem(sys.argv[1]) as system:
        print(await system.get(Worker, "w").run())

asyncio.run(main())
"""


def test_a_first_step_imports_nothing(tmp_path: Path) -> None:
    """No turn holds the event loop up for what could have been imported before."""
    command = [sys.executable, "-c", FIRST_STEP, str(tmp_path / "a.db")]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout == "[]\n"
