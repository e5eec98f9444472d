"""A program that uses perdure ends when its author thinks so, whatever perdure was doing."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SECONDS = 180.0
"""What it sleeps for is an hour: a program that is held does not end in this time, on whatever machine."""

_HEAD = """
import asyncio, os, signal, sys, threading, time
from perdure import Actor, ActorSystem, Limits, handler, sleep, step

@step
async def long_step() -> int:
    await asyncio.sleep(3600)
    return 1

@step
def long_step_in_a_thread() -> None:
    time.sleep(3600)

class Sleeper(Actor, kind="sleeper"):
    @handler
    async def block(self) -> None:
        await long_step_in_a_thread()
    @handler
    async def cling(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await sleep(3600)
    @handler
    async def nap(self) -> None:
        await sleep(3600)
    @handler
    async def ask(self) -> None:
        await self.system.get(Sleeper, "asked").nap()
    @handler
    async def work(self) -> int:
        return await long_step()

async def busy(system):
    for name in ("nap", "ask", "work"):
        await getattr(system.get(Sleeper, name), name).tell()
    await system.get(Sleeper, "later").nap.options(delay=3600).tell()
    tasks = [asyncio.create_task(system.get(Sleeper, f"caller{n}").nap()) for n in range(5)]
    for task in tasks:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.sleep(0.2)
    return tasks
"""

_ENDS = {
    "leaves": """
        async def main():
            async with ActorSystem(sys.argv[1], limits=Limits(grace=1)) as system:
                tasks = await busy(system)
            await asyncio.wait(tasks, timeout=30)
            for _ in range(300):
                if threading.active_count() == 1:
                    break
                await asyncio.sleep(0.1)
            print([thread.name for thread in threading.enumerate()][1:], all(task.done() for task in tasks))
        """,
    "leaves a step in its thread": """
        async def main():
            async with ActorSystem(sys.argv[1], limits=Limits(grace=1)) as system:
                await system.get(Sleeper, "block").block.tell()
                await asyncio.sleep(0.2)
        """,
    "leaves a handler that will not stop": """
        async def main():
            async with ActorSystem(sys.argv[1], limits=Limits(grace=1)) as system:
                await system.get(Sleeper, "cling").cling.tell()
                await asyncio.sleep(0.2)
        """,
    "raises": """
        async def main():
            async with ActorSystem(sys.argv[1], limits=Limits(grace=1)) as system:
                await busy(system)
                raise SystemExit(0)
        """,
    "is interrupted": """
        async def main():
            async with ActorSystem(sys.argv[1], limits=Limits(grace=1)) as system:
                await busy(system)
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(3600)
        """,
    "forgets to close": """
        async def main():
            system = ActorSystem(sys.argv[1], limits=Limits(grace=1))
            await system.__aenter__()
            await busy(system)
        """,
    "never opens": """
        async def main():
            ActorSystem(sys.argv[1], limits=Limits(grace=1)).get(Sleeper, "x")
        """,
}


def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program that ends in time; what it said."""
    return subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


@pytest.mark.parametrize("way", _ENDS)
def test_the_process_ends(tmp_path: Path, way: str) -> None:
    """No thread of perdure holds a program that has ended."""
    program = f"{_HEAD}\n{textwrap.dedent(_ENDS[way])}\nasyncio.run(main())\n"
    for _ in range(2):  # the second finds what the first left
        done = run(program, str(tmp_path / "app.db"))
        expected = {-signal.SIGINT, 1, 130} if way == "is interrupted" else {0}
        assert done.returncode in expected, done.stderr
        if way == "leaves":
            assert done.stdout.strip() == "[] True", done.stderr
        assert "never retrieved" not in done.stderr
        assert "was never awaited" not in done.stderr


_PYTEST = """
import pytest, pytest_asyncio
from perdure import Actor, ActorSystem, handler

class Counter(Actor, kind="counter"):
    total: int = 0
    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

@pytest_asyncio.fixture
async def system(tmp_path):
    async with ActorSystem(tmp_path / "app.db") as opened:
        yield opened

@pytest.mark.asyncio
async def test_add(system):
    assert await system.get(Counter, "c").add(2) == 2

@pytest.mark.asyncio
async def test_add_again(system):
    assert await system.get(Counter, "c").add(3) == 3
"""


_PYTEST_INI = """
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_under_pytest_asyncio(tmp_path: Path) -> None:
    """Users who test with pytest-asyncio write the same fixture."""
    (tmp_path / "pytest.ini").write_text(_PYTEST_INI, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(_PYTEST, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
