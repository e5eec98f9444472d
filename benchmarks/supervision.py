"""Supervision in figures: 10,000 children under one supervisor, and the rest of a system beside a storm.

- *Start*, *stop*: seconds for all children, and memory for each, in a process of its own.
- *A failure*: from an ask that fails until its retry has succeeded, one after the other, with many children and with
  few. It costs the same however many siblings there are.
- *A storm*: asks answered by 200 other actors while one child fails at once, always, with a full mailbox, as a ratio to
  the same without it; turn and turn about.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from perdure import Actor, ActorSystem, Backoff, Child, Limits, OneForOne, Retry, Supervisor, handler

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_MANY, _FEW = 10_000, 100
_FAILING = 100  # 1 % of the many
_OTHERS = 200
_ROUNDS = 7
_SECONDS = 0.7
_AT_ONCE = Backoff(0)

_failed: set[str] = set()


class Worker(Actor, kind="bench.worker", retry=Retry(3, backoff=_AT_ONCE)):
    done: int = 0

    @handler
    async def work(self) -> int:
        self.done += 1
        return self.done

    @handler
    async def stumble(self) -> int:
        if self.key not in _failed:
            _failed.add(self.key)
            raise ValueError(self.key)
        return self.done


class Stormy(Actor, kind="bench.stormy", retry=Retry(1)):
    n: int = 0

    @handler
    async def fail(self) -> None:
        raise ValueError("always")


class Pool(Supervisor, kind="bench.pool", strategy=OneForOne(max_restarts=1_000_000, backoff=_AT_ONCE)): ...


class Weather(Supervisor, kind="bench.weather", strategy=OneForOne(max_restarts=1_000_000)):
    def children(self) -> list[Child[Actor]]:
        return [Child(Stormy, "storm")]


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _children(folder: Path, count: int) -> dict[str, float]:
    """Start so many children, fail some at random, stop; seconds, and bytes a child."""
    figures: dict[str, float] = {}
    async with ActorSystem(folder / f"children-{count}.db") as system:
        pool = system.get(Pool, "pool")
        await pool.start_child(Child(Worker, "first"))
        before, begin = _memory(), time.perf_counter()
        for start in range(0, count, 500):
            async with asyncio.TaskGroup() as tasks:
                for n in range(start, start + min(500, count - start)):
                    _ = tasks.create_task(pool.start_child(Child(Worker, f"w{n}")))
        figures["start"] = (time.perf_counter() - begin) / count
        figures["bytes"] = (_memory() - before) / count
        times: list[float] = []
        for n in Random(1).sample(range(count), min(_FAILING, count)):
            begin = time.perf_counter()
            await system.get(Worker, f"w{n}").stumble()
            times.append(time.perf_counter() - begin)
        figures["failure"] = statistics.median(times)
        begin = time.perf_counter()
    figures["stop"] = (time.perf_counter() - begin) / count
    return figures


async def _storm(folder: Path) -> dict[str, float]:
    """The rate of asks answered by others with a storm, by that without."""
    ratios: list[float] = []
    limits = Limits(restarts=1_000_000)
    async with (
        ActorSystem(folder / "calm.db", limits=limits) as calm,
        ActorSystem(folder / "storm.db", root=Weather, limits=limits) as stormy,
    ):
        storm = stormy.get(Stormy, "storm")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5_000):
                _ = tasks.create_task(storm.fail.tell())
        for _ in range(_ROUNDS):
            rates = [await _rate(system) for system in (calm, stormy)]
            ratios.append(rates[1] / rates[0])
    return {"storm": statistics.median(ratios)}


async def _rate(system: ActorSystem) -> float:
    end = time.perf_counter() + _SECONDS
    handled = 0

    async def send(n: int) -> None:
        nonlocal handled
        worker = system.get(Worker, f"other {n}")
        while time.perf_counter() < end:
            await worker.work()
            handled += 1

    begin = time.perf_counter()
    await asyncio.gather(*(send(n) for n in range(_OTHERS)))
    return handled / (time.perf_counter() - begin)


def _work(pipe: Connection, name: str, folder: Path, *arguments: int) -> None:
    logging.disable(logging.CRITICAL)
    measured = _storm(folder) if name == "storm" else _children(folder, *arguments)
    pipe.send(asyncio.run(measured))


def _measured(name: str, folder: Path, *arguments: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, name, folder, *arguments))
    process.start()
    there.close()
    figures: dict[str, float] = here.recv()
    process.join()
    return figures


def measure(folder: Path, *, quick: bool = False) -> dict[str, float]:
    """All figures of supervision, in seconds and bytes; quickly, with a tenth of the children."""
    count = _MANY // 10 if quick else _MANY
    many, few = _measured("children", folder, count), _measured("children", folder, _FEW)
    storm = _measured("storm", folder)
    return {
        "children": count,
        **many,
        "failure_of_few": few["failure"],
        "failure_ratio": many["failure"] / few["failure"],
        **storm,
    }


def table(figures: dict[str, float]) -> Table:
    """The figures for people."""
    shown = Table(caption="supervision", caption_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for name in ("", "figure", "target"):
        shown.add_column(name, justify="left" if not name else "right", no_wrap=True)
    shown.add_row(f"start one of {figures['children']:,} children", f"{figures['start'] * 1e6:,.0f} µs", "")
    shown.add_row("memory of each", f"{figures['bytes'] / 1024:,.1f} KiB", "")
    shown.add_row("stop each", f"{figures['stop'] * 1e6:,.0f} µs", "")
    shown.add_row(
        f"a failure and its retry, {figures['children']:,} siblings", f"{figures['failure'] * 1e3:,.2f} ms", ""
    )
    shown.add_row(f"the same, {_FEW} siblings", f"{figures['failure_of_few'] * 1e3:,.2f} ms", "")
    shown.add_row("ratio of the two", f"{figures['failure_ratio']:.2f}", "1 (O(1))")
    verdict = "met" if figures["storm"] >= 0.9 else "missed"
    shown.add_row("others beside a storm", f"{figures['storm']:.2f}", f"0.9 {verdict}")
    return shown
