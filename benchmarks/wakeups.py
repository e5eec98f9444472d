"""Wake-ups in figures: an ask that another process answers, beside one that this process answers.

- *Elsewhere*: one caller, one after the other, to an actor of another process; as a ratio to the same ask to an actor
  here, taken right after it. Both are two commits, and the two processes take turns on one disk.
- *Idle*: the processor time of two processes that know each other and wait, for a second.
- *A death*: from `kill -9` of the other process until this one has handled a message that waited for it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.processes import other_process
from perdure import Actor, ActorSystem, handler

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

_ASKS, _QUICK_ASKS = 500, 100
_IDLE_SECONDS, _QUICK_IDLE_SECONDS = 5.0, 2.0
_DEATHS, _QUICK_DEATHS = 7, 3


class Neighbour(Actor, kind="bench.neighbour"):
    asked: int = 0

    @handler
    async def ask(self) -> int:
        self.asked += 1
        return self.asked


async def _serve(pipe: Connection, path: Path, key: str) -> None:
    """Have an actor, and say how much processor time this process takes meanwhile, until nobody asks any more."""
    async with ActorSystem(path) as system:
        await system.get(Neighbour, key).ask()
        pipe.send(None)
        while (seconds := await asyncio.to_thread(pipe.recv)) is not None:
            before = time.process_time()
            await asyncio.sleep(seconds)
            pipe.send(time.process_time() - before)


async def _took(neighbour: Neighbour) -> float:
    begin = time.perf_counter()
    await neighbour.ask()
    return time.perf_counter() - begin


async def _measured(folder: Path, asks: int, idle_seconds: float, deaths: int) -> dict[str, float]:
    ratios: list[float] = []
    elsewhere: list[float] = []
    dying: list[float] = []
    path = folder / "wakeups.db"
    async with ActorSystem(path) as system:
        here = system.get(Neighbour, "here")
        await here.ask()
        with other_process(_serve, path, "there") as (_, pipe):
            await asyncio.to_thread(pipe.recv)
            there = system.get(Neighbour, "there")
            for _ in range(asks):
                elsewhere.append(await _took(there))
                ratios.append(elsewhere[-1] / await _took(here))
            await asyncio.sleep(1)
            before = time.process_time()
            pipe.send(idle_seconds)
            idle = float(await asyncio.to_thread(pipe.recv)) + time.process_time() - before
        for n in range(deaths):
            with other_process(_serve, path, f"dying{n}") as (process, pipe):
                await asyncio.to_thread(pipe.recv)
                process.kill()
                dying.append(await _took(system.get(Neighbour, f"dying{n}")))
    return {
        "elsewhere": statistics.median(elsewhere),
        "elsewhere_p99": statistics.quantiles(elsewhere, n=100)[98],
        "ratio": statistics.median(ratios),
        "idle": idle / idle_seconds / 2,
        "death": statistics.median(dying),
    }


def measure(folder: Path, *, quick: bool = False) -> dict[str, float]:
    """All figures of wake-ups, in seconds."""
    counts = (_QUICK_ASKS, _QUICK_IDLE_SECONDS, _QUICK_DEATHS) if quick else (_ASKS, _IDLE_SECONDS, _DEATHS)
    return asyncio.run(_measured(folder, *counts))


def table(figures: dict[str, float]) -> Table:
    """The figures for people."""
    shown = Table(caption="two processes", caption_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for name in ("", "figure"):
        shown.add_column(name, justify="left" if not name else "right", no_wrap=True)
    shown.add_row("an ask answered by another process", f"{figures['elsewhere'] * 1e3:,.2f} ms")
    shown.add_row("the slowest in a hundred", f"{figures['elsewhere_p99'] * 1e3:,.2f} ms")
    shown.add_row("ratio to one answered here", f"{figures['ratio']:.2f}")
    shown.add_row("kill -9, to answered by the other one", f"{figures['death'] * 1e3:,.2f} ms")
    shown.add_row("processor time of an idle process", f"{figures['idle'] * 1e2:.2f} %")
    return shown
