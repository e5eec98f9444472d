"""How long an actor at work stands still when its process is killed, and when that is told to end.

    python -m benchmarks.adoption

Two processes; one has an actor whose turn is a row of steps of 10 ms. Its process gets the signal, and the time runs
until the next step begins in the other one. Each round has its own database. SQLite, then a PostgreSQL server.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import tempfile
import time
from collections import deque
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import other_process
from perdure import Actor, ActorSystem, Limits, handler, step
from perdure.testing.postgres import PostgresServer, fresh_schema

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LIMITS = Limits(lease=2.0, heartbeat=0.2, deaths=1_000)
_ROUNDS = 10
_STEP_SECONDS = 0.01
_SETTLE_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0

_said: deque[Connection] = deque(maxlen=1)
"""The far end of this process's pipe, where it says what it does."""


@step
async def effect() -> None:
    _said[0].send(time.monotonic())  # the same clock in all processes of a machine
    await asyncio.sleep(_STEP_SECONDS)


class Reader(Actor, kind="bench.reader"):
    @handler
    async def read(self) -> None:
        while True:
            await effect()


async def _serve(pipe: Connection, target: str, works: bool) -> None:  # noqa: FBT001  # a process passes by position
    _said.append(pipe)
    async with ActorSystem(target, limits=LIMITS) as system:
        if works:
            await system.get(Reader, "a").read.tell()
        pipe.send(0.0)
        await system.serve()


def _next(pipe: Connection) -> float:
    if not pipe.poll(_PATIENCE_SECONDS):
        raise TimeoutError("a process does not start, or does not go on")
    return float(pipe.recv())


def _round(target: str, kind: signal.Signals) -> float:
    """For how long nothing begins."""
    with other_process(_serve, target, True) as (first, one), other_process(_serve, target, False) as (second, two):
        for pipe in (one, two):
            _next(pipe)
        time.sleep(_SETTLE_SECONDS)
        at = time.monotonic()
        strike = first.kill if kind == signal.SIGKILL else first.terminate
        strike()
        took = _next(two) - at
        second.kill()
        second.join()
        return took


def _print(store: str, rounds: dict[signal.Signals, list[float]]) -> None:
    for number, found in rounds.items():
        found.sort()
        print(f"{store}, {number.name}: median {statistics.median(found):.3f} s, "
              f"from {found[0]:.3f} to {found[-1]:.3f} s")  # fmt: skip


def main() -> None:
    """Measure, and print."""
    print(f"{_ROUNDS} rounds each, lease {LIMITS.lease} s, heartbeat {LIMITS.heartbeat} s")
    kinds = (signal.SIGKILL, signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path()) as folder:
        files = (str(Path(folder).resolve() / f"{number}.db") for number in count())
        _print("SQLite", {kind: [_round(next(files), kind) for _ in range(_ROUNDS)] for kind in kinds})
    with PostgresServer() as server:
        rounds: dict[signal.Signals, list[float]] = {kind: [] for kind in kinds}
        for kind, found in rounds.items():
            for _ in range(_ROUNDS):
                with fresh_schema(server.dsn) as target:
                    found.append(_round(target, kind))
        _print("PostgreSQL", rounds)


if __name__ == "__main__":
    main()
