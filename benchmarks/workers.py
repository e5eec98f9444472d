"""Every measure has a process and a database of its own, and works only while it is asked for a sample."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.counting import counting
from benchmarks.floors import FLOORS, Floor
from benchmarks.measures import MEASURES, Bench
from benchmarks.raw import RawMailbox
from perdure import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Generator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from benchmarks.sample import Sample

RAW = "raw"
_WARM_UP_SECONDS = 0.3


class Worker:
    """The near end of a measuring process."""

    def __init__(self, connection: Connection[float | None, Sample | None]) -> None:
        self._connection = connection

    def sample(self, seconds: float) -> Sample:
        """Have it measure for about so long."""
        self._connection.send(seconds)
        sample = self._connection.recv()
        if sample is None:
            raise RuntimeError("a measuring process failed; its own error is above")
        return sample


@contextmanager
def started(folder: Path, kind: str, width: int) -> Generator[Worker]:
    """A measuring process, warmed up: `width` is the raw limit's batch, or how many work side by side."""
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(far, folder, kind, width), daemon=True)
    process.start()
    far.close()
    worker = Worker(near)
    try:
        worker.sample(_WARM_UP_SECONDS)
        yield worker
        near.send(None)
        process.join()
    finally:
        near.close()
        process.kill()
        process.join()


def _serve(connection: Connection[Sample | None, float | None], folder: Path, kind: str, width: int) -> None:
    try:
        if kind == RAW:
            _serve_raw(connection, folder, width)
        elif kind in FLOORS:
            asyncio.run(_serve_floor(connection, folder, kind, width))
        else:
            asyncio.run(_serve_perdure(connection, folder, kind, width))
    except BaseException:
        connection.send(None)
        raise


def _serve_raw(connection: Connection[Sample | None, float | None], folder: Path, batch: int) -> None:
    mailbox = RawMailbox(folder, batch)
    while (seconds := connection.recv()) is not None:
        connection.send(mailbox.run(seconds))
    mailbox.close()


async def _serve_floor(
    connection: Connection[Sample | None, float | None], folder: Path, kind: str, width: int
) -> None:
    floor = await Floor.of(folder)
    while (seconds := await asyncio.to_thread(connection.recv)) is not None:
        connection.send(await FLOORS[kind](floor, width, seconds))
    await floor.close()


async def _serve_perdure(
    connection: Connection[Sample | None, float | None], folder: Path, kind: str, width: int
) -> None:
    store = counting(str(folder / "perdure.db"))
    async with ActorSystem(store) as system:
        bench = await Bench.of(system, store.counts)
        while (seconds := await asyncio.to_thread(connection.recv)) is not None:
            connection.send(await MEASURES[kind](bench, width, seconds))
