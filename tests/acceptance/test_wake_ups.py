"""A message for an actor in another process reaches it in milliseconds, and a process that waits does nothing.

What was measured is printed (`pytest -rP`); nothing is asserted of a clock but that it all came about.
"""

# ruff: noqa: SLF001, T201 - it counts what users cannot see, and prints what it measured

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from perdure import ActorSystem, Limits
from tests.acceptance.children import stand_still
from tests.acceptance.waking import Echo, heard, other, say
from tests.unit.observing import files_in, until

MANY = 200
CROWD = 8


def spread(name: str, seconds: list[float]) -> None:
    """Print a median and a tail."""
    ordered = sorted(seconds)
    middle, tail = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    print(f"{name}: median {middle * 1e3:.2f} ms, p99 {tail * 1e3:.2f} ms")


async def test_tells_and_asks_reach_another_process(tmp_path: Path) -> None:
    """Mail for another process is handled there, in order, once, and its answers come back."""
    with other("serve", tmp_path / "a.db", "a") as process:
        assert await heard(process) == "up"
        async with ActorSystem(tmp_path / "a.db") as system:
            echo = system.get(Echo, "a")
            handled: list[float] = []
            answered: list[float] = []
            for n in range(MANY):
                receipt = await echo.hear.tell(time.time())
                count, took = await receipt.result(timeout=30)
                assert count == n + 2
                handled.append(took)
            for n in range(MANY):
                begin = time.perf_counter()
                count, _ = await echo.hear(time.time())
                answered.append(time.perf_counter() - begin)
                assert count == MANY + n + 2
            spread("tell, to handled elsewhere", handled)
            spread("ask, to answered here", answered)
            say(process)
            assert process.wait(30) == 0


async def test_an_actor_is_answered_by_one_elsewhere(tmp_path: Path) -> None:
    """Actors ask each other as if they were in one process."""
    with other("serve", tmp_path / "a.db", "a") as process:
        assert await heard(process) == "up"
        async with ActorSystem(tmp_path / "a.db") as system:
            seconds: list[float] = []
            for n in range(20):
                begin = time.perf_counter()
                assert await system.get(Echo, f"asker{n % 3}").ask("a") == n + 2
                seconds.append(time.perf_counter() - begin)
            spread("ask between actors of two processes", seconds)


async def test_idle_processes_do_next_to_nothing(tmp_path: Path) -> None:
    """Two processes that wait for work leave the machine alone, and give each other signs of life and nothing else."""
    with other("serve", tmp_path / "a.db", "a") as process:
        assert await heard(process) == "up"
        async with ActorSystem(tmp_path / "a.db") as system:
            await system.get(Echo, "b").hear(time.time())
            await asyncio.sleep(2)  # what opening sets off
            assert system._committer is not None
            before = system._committer.transactions
            mine, began = time.process_time(), time.monotonic()
            say(process, "5")
            used = float(await heard(process))
            print(f"processor time in 5 s idle: {used * 1e3:.0f} ms, here {(time.process_time() - mine) * 1e3:.0f} ms")
            passed = time.monotonic() - began  # five seconds, and what a busy machine adds
            assert system._committer.transactions - before <= passed / Limits().heartbeat + 1


async def test_what_a_killed_process_had_is_taken_up_at_once(tmp_path: Path) -> None:
    """A `kill -9` costs the work in hand some milliseconds, and what the dead one left beside the database is gone."""
    seconds: list[float] = []
    async with ActorSystem(tmp_path / "a.db") as system:
        for n in range(5):
            with other("serve", tmp_path / "a.db", f"a{n}") as process:
                assert await heard(process) == "up"
                assert len([name for name in files_in(tmp_path) if "-wake-" in name]) == 2
                os.kill(process.pid, signal.SIGSTOP)  # so that it cannot answer
                asked = asyncio.create_task(system.get(Echo, f"a{n}").hear(time.time()))
                await asyncio.sleep(0.3)
                assert not asked.done()
                begin = time.perf_counter()
                process.kill()
                count, _ = await asyncio.wait_for(asked, 30)
                seconds.append(time.perf_counter() - begin)
                assert count == 2
            await until(lambda: len([name for name in files_in(tmp_path) if "-wake-" in name]) == 1)
    spread("kill -9, to handled by another process", seconds)
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]


async def test_a_caller_outlives_whoever_was_to_answer(tmp_path: Path) -> None:
    """Whoever waits for an actor is answered by the process that takes it over, though that came later."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with other("serve", tmp_path / "a.db", "a") as first:
            assert await heard(first) == "up"
            stand_still(first.pid, tmp_path / "a.db")
            receipt = await system.get(Echo, "a").hear.tell(time.time())
            waiting = asyncio.create_task(receipt.result(timeout=30))
            with other("serve", tmp_path / "a.db", "b") as second:
                assert await heard(second) == "up"
                first.kill()
                count, _ = await waiting
                assert count == 2


async def test_a_crowd(tmp_path: Path) -> None:
    """Eight processes that all ask each other lose nothing, count nothing twice, and leave nothing."""
    async with contextlib.AsyncExitStack() as stack:
        crowd = [stack.enter_context(other("crowd", tmp_path / "a.db", f"{n}/{CROWD}")) for n in range(CROWD)]
        for word in ("up", "asked"):
            begin = time.perf_counter()
            assert [await heard(process) for process in crowd] == [word] * CROWD
            print(f"{CROWD} processes {word}: {time.perf_counter() - begin:.2f} s")
            for process in crowd:
                say(process)
        assert [await heard(process) for process in crowd] == [str(5 * (CROWD - 1) + 2)] * CROWD
        for process in crowd:
            say(process)
        assert [process.wait(60) for process in crowd] == [0] * CROWD
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]


async def test_a_forked_child_takes_no_part(tmp_path: Path) -> None:
    """A child that was forked hears nothing that is meant for its parent, and does not hide the parent's death."""
    with other("fork", tmp_path / "a.db", "a") as process:
        assert await heard(process) == "up"
        async with ActorSystem(tmp_path / "a.db") as system:
            await system.get(Echo, "b").hear(time.time())
            say(process)
            assert await heard(process) == "3 0"
            assert (await system.get(Echo, "a").hear(time.time()))[0] == 2
            say(process)
            child = int(await heard(process))
            try:
                process.kill()
                assert (await asyncio.wait_for(system.get(Echo, "a").hear(time.time()), 30))[0] == 3
            finally:
                os.kill(child, signal.SIGKILL)
