"""How long a third process takes to get its part of 1,000 actors, and how long asks take meanwhile.

    python -m benchmarks.balance [TARGET]

Two processes have 500 actors each; a client asks all of them, four callers at once, a few seconds long; then a third
process starts. TARGET is a file of its own if it is left out; any that is named must be empty.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import other_process
from perdure import Actor, ActorSystem, handler
from perdure.storage.targets import store_of
from perdure.supervision.balance import differ

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_ACTORS = 500
_CALLERS = 4
_BEFORE_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
_TOLERANCE = 0.2


class Clerk(Actor, kind="bench.clerk"):
    asked: int = 0

    @handler
    async def ask(self) -> int:
        self.asked += 1
        return self.asked


async def _serve(pipe: Connection, target: str, keys: list[str]) -> None:
    async with ActorSystem(target) as system:
        await asyncio.gather(*(system.get(Clerk, key).ask() for key in keys))
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)


async def _call(client: ActorSystem, keys: Iterator[str], took: list[float]) -> None:
    while True:
        begin = time.perf_counter()
        await client.get(Clerk, next(keys)).ask()
        took.append(time.perf_counter() - begin)


async def _measured(target: str) -> None:
    keys = [[f"{name}{number}" for number in range(_ACTORS)] for name in "ab"]
    store = store_of(target, client=True)
    async with ActorSystem.client(store) as client:
        with other_process(_serve, target, keys[0]) as (_, a), other_process(_serve, target, keys[1]) as (_, b):
            for pipe in (a, b):
                await asyncio.to_thread(pipe.recv)
            took: list[float] = []
            rota = cycle([*keys[0], *keys[1]])
            callers = [asyncio.create_task(_call(client, rota, took)) for _ in range(_CALLERS)]
            await asyncio.sleep(_BEFORE_SECONDS)
            before, began = list(took), time.perf_counter()
            with other_process(_serve, target, list[str]()) as (_, c):
                await asyncio.to_thread(c.recv)
                came = time.perf_counter()
                took.clear()
                first = 0.0
                while True:
                    loads = await store.loads()
                    if len(loads) == 3 and not first:  # the third has one
                        first = time.perf_counter()
                    counts = list(loads.values())
                    if first and not any(differ(x, y, _TOLERANCE) for x in counts for y in counts):
                        break
                    if time.perf_counter() - came > _PATIENCE_SECONDS:
                        raise TimeoutError(loads)
                    await asyncio.sleep(0.02)
                even = time.perf_counter()
                meanwhile = list(took)
                for caller in callers:
                    caller.cancel()
    print(f"start to first actor {first - began:.1f} s, from then to a balance {even - first:.1f} s: {counts}")
    for name, each in (("before", before), ("meanwhile", meanwhile)):
        hundredths = statistics.quantiles(each, n=100)
        print(f"asks {name}: {len(each)}, p50 {hundredths[49] * 1e3:.1f} ms, p99 {hundredths[98] * 1e3:.1f} ms, "
              f"max {max(each) * 1e3:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path()) as folder:
        asyncio.run(_measured(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder).resolve()}/balance.db"))
