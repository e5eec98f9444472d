"""One, two and four nodes on one database, beside the raw limit of that database in this run.

Each node is a process with its share of the actors and of those who send. *Own* are a node's own actors: what sticks
to one node where a service sends to what it has. *Any* are everybody's: most messages travel. The limit is one
connection in one process that inserts and updates in batches of 1,000, taken right before each figure.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.counting import counting
from benchmarks.measures import Account, Bench, asks, tells
from benchmarks.raw import ACTORS, Batches, RawMailbox
from benchmarks.raw_postgres import RawPostgresMailbox
from perdure import ActorSystem
from perdure.testing.postgres import PostgresServer, fresh_schema

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from benchmarks.sample import Sample

SIZES = (1, 2, 4)
_BATCH = 1_000
_ROUNDS, _SECONDS = 5, 1.0
_QUICK_ROUNDS, _QUICK_SECONDS = 2, 0.5
_SETTLE_SECONDS = 60.0


@frozen
class Measure:
    """What each node does.

    Attributes:
        title: What people read.
        senders: How many of them there are, on all nodes together.
        tells: Whether they send without waiting for replies.
        own: Whether each sends to the actors of its own node only.
    """

    title: str
    senders: int
    tells: bool
    own: bool


MEASURES = (
    Measure("tells, own actors", 1_000, tells=True, own=True),
    Measure("asks, own actors", 64, tells=False, own=True),
    Measure("asks, any actors", 64, tells=False, own=False),
)


@frozen
class Figure:
    """The medians of a measure.

    Attributes:
        store: The database.
        nodes: How many.
        rate: Messages handled a second, on all nodes together.
        ratio: Median of the ratios to the raw limit, pair by pair.
        fairness: The least share that one of the nodes had, of an equal share.
    """

    store: str
    nodes: int
    measure: Measure
    rate: float
    ratio: float
    fairness: float


@frozen
class _Work:
    measure: Measure
    seconds: float


class _Node:
    """The near end of a process that is a node."""

    def __init__(self, pipe: Connection[_Work | None, int | None]) -> None:
        self._pipe = pipe

    def say(self, work: _Work | None) -> None:
        """Have it work, or end."""
        self._pipe.send(work)

    def heard(self) -> int:
        """How many messages it has handled."""
        done = self._pipe.recv() if self._pipe.poll(_SETTLE_SECONDS) else None
        if done is None:
            raise RuntimeError("a node that is measured failed; its own error is above")
        return done


def _run(pipe: Connection[int | None, _Work | None], target: str, number: int, nodes: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(_serve(pipe, target, number, nodes))
    except BaseException:
        pipe.send(None)
        raise


async def _serve(pipe: Connection[int | None, _Work | None], target: str, number: int, nodes: int) -> None:
    store = counting(target)
    share = ACTORS // nodes
    async with ActorSystem(store) as system:
        own = await Bench.of(system, store.counts, prefix=f"{number}-", actors=share)
        everybody = [system.get(Account, f"{node}-{n}") for n in range(share) for node in range(nodes)]
        turned = everybody[number * share :] + everybody[: number * share]  # so that they do not all begin at the same
        any_ = Bench(store.counts, turned)
        pipe.send(0)
        while (told := await asyncio.to_thread(pipe.recv)) is not None:
            measure = told.measure
            work = tells if measure.tells else asks
            sample = await work(own if measure.own else any_, measure.senders // nodes, told.seconds)
            pipe.send(sample.operations)


@contextmanager
def _started(target: str, nodes: int) -> Generator[list[_Node]]:
    """Nodes whose actors are in memory."""
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    found: list[_Node] = []
    try:
        for number in range(nodes):
            near, far = context.Pipe()
            process = context.Process(target=_run, args=(far, target, number, nodes), daemon=True)
            process.start()
            far.close()
            processes.append(process)
            found.append(_Node(near))
        for node in found:
            node.heard()
        yield found
        for node in found:
            node.say(None)
        for process in processes:
            process.join(_SETTLE_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _once(nodes: Sequence[_Node], measure: Measure, seconds: float) -> tuple[float, float]:
    """How many messages a second all of them handled, and the least share of one."""
    begin = time.perf_counter()
    for node in nodes:
        node.say(_Work(measure, seconds))
    done = [node.heard() for node in nodes]
    took = time.perf_counter() - begin
    return sum(done) / took, min(done) * len(nodes) / sum(done)


def _beside(limit: Batches, store: str, nodes: Sequence[_Node], rounds: int, seconds: float) -> list[Figure]:
    figures: list[Figure] = []
    for measure in MEASURES:
        _once(nodes, measure, seconds / 2)
        before: list[Sample] = []
        found: list[tuple[float, float]] = []
        for _ in range(rounds):
            before.append(limit.run(seconds / 2))
            found.append(_once(nodes, measure, seconds))
        ratios = [rate / sample.rate for sample, (rate, _) in zip(before, found, strict=True)]
        figures.append(
            Figure(
                store, len(nodes), measure, statistics.median(rate for rate, _ in found), statistics.median(ratios),
                statistics.median(fairness for _, fairness in found),
            )
        )  # fmt: skip
    return figures


def measure(folder: Path, *, quick: bool = False) -> list[Figure]:
    """All figures of several nodes, on both databases."""
    rounds, seconds = (_QUICK_ROUNDS, _QUICK_SECONDS) if quick else (_ROUNDS, _SECONDS)
    figures: list[Figure] = []
    raw: Batches
    with PostgresServer() as server, ExitStack() as stack:
        raw = RawMailbox(folder, _BATCH)
        stack.callback(raw.close)
        for size in SIZES:
            with _started(str(folder / f"nodes-{size}.db"), size) as nodes:
                figures.extend(_beside(raw, "SQLite", nodes, rounds, seconds))
        with fresh_schema(server.dsn) as beside:
            raw = RawPostgresMailbox(beside, _BATCH)
            stack.callback(raw.close)
            for size in SIZES:
                with fresh_schema(server.dsn) as target, _started(target, size) as nodes:
                    figures.extend(_beside(raw, "PostgreSQL", nodes, rounds, seconds))
            raw.close()
    return figures


def table(figures: Sequence[Figure]) -> Table:
    """The figures for people."""
    shown = Table(caption="messages of all nodes together", caption_justify="left", box=SIMPLE_HEAD, show_edge=False)
    shown.add_column("", no_wrap=True)
    for name in ("nodes", "a second", "ratio", "least share"):
        shown.add_column(name, justify="right", no_wrap=True)
    for measure in MEASURES:
        for store in dict.fromkeys(figure.store for figure in figures):
            rows = [figure for figure in figures if figure.store == store and figure.measure == measure]
            for row in rows:
                shown.add_row(
                    f"{store}: {measure.title}" if row is rows[0] else "", str(row.nodes), f"{row.rate:,.0f}",
                    f"{row.ratio:.3f}", f"{row.fairness:.2f}", end_section=row is rows[-1],
                )  # fmt: skip
    return shown
