"""Shapes of handler code, and the world outside that their steps change: run once, crashed, and gone on with."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from perdure import Actor, ActorSystem, Backoff, Retry, handler, query, step, step_id
from tests.unit.crashing import crashing
from tests.unit.observing import until

ran: list[str] = []
"""The `step_id()` of each run of a step, in their order."""

pauses: dict[str, float] = {}
"""How many seconds a step takes."""

failures: dict[str, int] = {}
"""How often a step still fails."""

deadlines: dict[str, asyncio.Timeout] = {}
"""What passes as soon as a step has begun that takes long."""


def forget() -> None:
    """Empty the world outside."""
    ran.clear()
    pauses.clear()
    failures.clear()
    deadlines.clear()


@step(retry=Retry(3, backoff=Backoff(0.01)))
async def effect(name: str) -> str:
    """A step that is seen outside."""
    ran.append(step_id())
    if name in deadlines and name in pauses:
        deadlines[name].reschedule(asyncio.get_running_loop().time())
    await asyncio.sleep(pauses.get(name, 0))
    if failures.get(name, 0) > 0:
        failures[name] -= 1
        msg = f"{name} failed"
        raise OSError(msg)
    return name.upper()


@step
def blocking(name: str) -> str:
    """A step that is a plain function."""
    return name * 2


class Runner(Actor, kind="replay.runner"):
    """Runs whatever the test says, so that one class shows many shapes of code."""

    log: list[str] = []

    @handler(retry=Retry(3, backoff=Backoff(0.01)))
    async def run(self, shape: str) -> str:
        return await SHAPES[shape](self)

    @query
    async def lines(self) -> list[str]:
        return self.log


Shape: TypeAlias = Callable[[Runner], Awaitable[str]]

SHAPES: dict[str, Shape] = {}
"""What Runner can run, by name."""


def shape(function: Shape) -> Shape:
    """Make a function a shape that Runner can run."""
    assert function.__name__ not in SHAPES, f"two tests have a shape '{function.__name__}'"
    SHAPES[function.__name__] = function
    return function


async def begin(path: Path, name: str, *, steps: int) -> None:
    """Run a shape as message 'm' until so many steps have begun, crash, and let nothing take time from then on."""
    async with crashing(path) as system:
        await system.get(Runner, "r").run.options(id="m").tell(name)
        await until(lambda: len(ran) >= steps)
    pauses.clear()


def completed_effects(path: Path) -> int:
    """How many runs of `effect` are completed on disk, read beside the system that wrote them."""
    with closing(sqlite3.connect(path)) as beside:
        rows = beside.execute("SELECT count(*) FROM journal WHERE name = 'effect' AND status = 'completed'")
        return int(rows.fetchone()[0])


def placed_effects(path: Path) -> int:
    """How many results of `effect` have their place on disk: each gets it with the commit after it was handed over."""
    with closing(sqlite3.connect(path)) as beside:
        rows = beside.execute("SELECT count(*) FROM journal WHERE name = 'effect' AND position IS NOT NULL")
        return int(rows.fetchone()[0])


async def go_on(path: Path) -> str:
    """Open the database again; the result of message 'm'."""
    async with ActorSystem(path) as system:
        return await system.receipt("m", Runner.run).result(timeout=30)
