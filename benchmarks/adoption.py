"""How long an actor at work stands still when its process is killed, and when that is told to end.

    python -m benchmarks.adoption

Two processes; one has an actor whose turn is a row of steps of 10 ms. Its process gets the signal, and the time runs
until the next step begins in the other one. Each round has its own database. SQLite, then a PostgreSQL server.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from perdure import Actor, ActorSystem, Limits, handler, step
from perdure.testing.postgres import PostgresServer, fresh_schema

if TYPE_CHECKING:
    from collections.abc import Generator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

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


async def _serve(target: str, *, works: bool) -> None:
    async with ActorSystem(target, limits=LIMITS) as system:
        if works:
            await system.get(Reader, "a").read.tell()
        _said[0].send(0.0)
        await system.serve()


def _run(pipe: Connection, target: str, works: bool) -> None:  # noqa: FBT001  # Process passes by position
    logging.disable(logging.CRITICAL)
    _said.append(pipe)
    asyncio.run(_serve(target, works=works))


@contextmanager
def _started(target: str, *, works: bool) -> Generator[tuple[BaseProcess, Connection]]:
    """A process, and what it says."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_run, args=(far, target, works), daemon=True)
    process.start()
    far.close()
    try:
        _next(near)
        yield process, near
    finally:
        process.kill()
        process.join()


def _next(pipe: Connection) -> float:
    if not pipe.poll(_PATIENCE_SECONDS):
        raise TimeoutError("a process does not start, or does not go on")
    return float(pipe.recv())


def _round(target: str, number: int) -> float:
    """For how long nothing begins."""
    with _started(target, works=True) as (first, _), _started(target, works=False) as (_, second):
        time.sleep(_SETTLE_SECONDS)
        if first.pid is None:
            raise RuntimeError("a process that was started has no id")
        at = time.monotonic()
        os.kill(first.pid, number)
        return _next(second) - at


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
