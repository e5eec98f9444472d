"""How often the disk is asked: what no change may make worse without somebody noticing. Counts, never times."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from perdure import Actor, ActorSystem, handler, query, step
from perdure.storage.sql import rows
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Settled, Write

P = ParamSpec("P")
R = TypeVar("R")


@step
async def double(n: int) -> int:
    """The least of a step."""
    return 2 * n


class Tally(Actor, kind="counts.tally"):
    total: int = 0

    @handler
    async def add(self, n: int, padding: str = "") -> int:
        self.total += n
        return self.total

    @handler
    async def chain(self, steps: int) -> int:
        for n in range(steps):
            self.total += await double(n)
        return self.total

    @query
    async def held(self, divided_by: int = 1) -> int:
        return self.total // divided_by


class Probe(SQLiteStore):
    """A store that counts what it does on its writing connection."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.transactions = 0
        self.hops = 0

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        self.transactions += 1
        return await super().write(batch)

    def _locked(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        # Whatever the writing connection's thread is given to do comes through here.
        self.hops += 1
        return super()._locked(work, *args, **kwargs)

    @contextmanager
    def statements(self) -> Generator[list[str]]:
        """Every statement that the writing connection runs meanwhile."""
        seen: list[str] = []

        def note(statement: str) -> None:
            if seen[-1:] != [statement]:  # what a row triggers comes under the same name again
                seen.append(statement)

        self._raw.set_trace_callback(note)
        try:
            yield seen
        finally:
            self._raw.set_trace_callback(None)


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[ActorSystem, Probe]]:
    """A system that has handled its first message."""
    store = Probe(path / "counts.db")
    async with ActorSystem(store) as system:
        await system.get(Tally, "warm").add(1)
        yield system, store


async def test_an_ask_is_two_transactions(tmp_path: Path) -> None:
    """A lone caller waits for two fsyncs and no more: the message, and the outcome with the state."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "asked")
        before = store.transactions
        for _ in range(20):
            await tally.add(1)
        assert store.transactions - before == 40


async def test_a_step_is_one_transaction(tmp_path: Path) -> None:
    """A step's completion shares its fsync with the next step's start, so n steps take n, and two for the message."""
    async with opened(tmp_path) as (system, store):
        before = store.transactions
        await system.get(Tally, "chain").chain(50)
        assert store.transactions - before <= 52


async def test_a_transaction_is_one_thread_hop(tmp_path: Path) -> None:
    """A hop between threads costs as much as a small transaction, so a commit is one of them."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "hops")
        hops, transactions = store.hops, store.transactions
        for _ in range(20):
            await tally.add(1)
        assert store.hops - hops == store.transactions - transactions


async def test_a_log_that_grew_once_is_not_checkpointed_at_every_commit(tmp_path: Path) -> None:
    """The write-ahead log's file never shrinks; transactions must stay cheap after it has been large."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "log")
        for _ in range(12):
            await tally.add(1, "x" * 500_000)
        hops, transactions = store.hops, store.transactions
        for _ in range(20):
            await tally.add(1)
        assert store.hops - hops <= store.transactions - transactions + 2


async def test_tells_that_come_together_share_their_transactions(tmp_path: Path) -> None:
    """A thousand messages at once are accepted and handled with a transaction for each hundred or so, not each one."""
    async with opened(tmp_path) as (system, store):
        before = store.transactions
        await asyncio.gather(*(system.get(Tally, f"t{n % 50}").add.tell(1) for n in range(1_000)))
        assert store.transactions - before <= 12
        await asyncio.gather(*(system.get(Tally, f"t{n}").add(0) for n in range(50)))
        assert store.transactions - before <= 30


async def test_statements_grow_by_batches_and_not_by_messages(tmp_path: Path) -> None:
    """Every statement is a chance for another thread to take the interpreter, so a batch writes many rows with each."""
    async with opened(tmp_path) as (system, store):
        actors = [system.get(Tally, f"s{n}") for n in range(1_000)]
        await asyncio.gather(*(actor.add(0) for actor in actors))
        with store.statements() as seen:
            await asyncio.gather(*(actor.add(1) for actor in actors))
        assert len(seen) <= 250


async def test_a_lone_message_takes_few_statements(tmp_path: Path) -> None:
    """What is not in a batch is not looked for: a message in and its outcome out are a handful of statements."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "lone")
        await tally.add(1)
        with store.statements() as seen:
            await tally.add(1)
        assert len(seen) <= 20, seen


async def test_mail_for_an_actor_of_this_node_is_one_row(tmp_path: Path) -> None:
    """A message is written and nothing else; who has its receiver writes that anyway, when it ends."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "row")
        await tally.add(1)
        with store.statements() as seen:
            await tally.add(1)
        written = [one.split()[:3] for one in seen if one.startswith(("INSERT", "UPDATE"))]
        assert written == [
            ["INSERT", "INTO", "message"],
            ["INSERT", "INTO", "outcome"],
            ["UPDATE", "actor", "SET"],
            ["INSERT", "INTO", "snapshot"],
        ]


@pytest.mark.parametrize(
    "statement",
    [
        rows.INSERT_MESSAGES,
        rows.INSERT_PLAIN_MESSAGES,
        rows.INSERT_OUTCOMES,
        rows.INSERT_SUCCESSES,
        rows.PUT_SNAPSHOTS,
        rows.PUT_TURNS,
        rows.PUT_RECORDS,
        rows.PUT_STARTED_RECORDS,
        rows.PUT_COMPLETED_RECORDS,
        rows.COMPLETE_RECORDS,
        rows.NUMBER_RECORDS,
        rows.RENEW_RECORDS,
        rows.ADVANCE_ACTORS,
    ],
    ids=repr,
)
async def test_a_lone_row_makes_no_table(tmp_path: Path, statement: rows.Statement) -> None:
    """SQLite makes no table of its own to write one row of a turn, which would cost as much as the row."""
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "counts.db")) as connection:
        fence = 1 if statement is rows.ADVANCE_ACTORS else 0
        nothing = [None] * (len(statement.types) + fence)
        program = connection.execute(f"EXPLAIN {statement.alone}", nothing).fetchall()
    assert not [step for step in program if step[1] == "OpenEphemeral"]


async def test_other_processes_cost_a_transaction_no_statement(tmp_path: Path) -> None:
    """Who is to be woken is known without asking the database, whether there is anybody or not."""
    async with opened(tmp_path) as (system, store):
        tally = system.get(Tally, "woken")
        await tally.add(1)
        with store.statements() as alone:
            await tally.add(1)
        async with ActorSystem(tmp_path / "counts.db") as other:
            assert await other.get(Tally, "woken").add(1) == 3
            await tally.add(1)
            with store.statements() as accompanied:
                await tally.add(1)
        look = "PRAGMA data_version"  # of the sweep, now and then
        assert len([one for one in accompanied if one != look]) <= len([one for one in alone if one != look])


async def test_a_plain_turn_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """What a message makes is freed with its last reference, where a cycle would wait for the collector."""
    async with opened(tmp_path) as (system, _):
        tally = system.get(Tally, "cycles")
        await tally.add(1)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await tally.add(1)
            assert gc.collect() < 100
        finally:
            gc.enable()
