"""What a client refuses, and how often it and those that answer it ask the disk. Counts, never times."""

# ruff: noqa: SLF001 - it looks at what a client has inside

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure import ActorSystem, ClientError, Limits, QueryError, Signed
from perdure.errors import SystemClosedError
from perdure.storage.sqlite import SQLiteStore
from tests.unit.observing import until
from tests.unit.test_counts import Probe, Tally


@asynccontextmanager
async def pair(folder: Path) -> AsyncGenerator[tuple[ActorSystem, Probe, ActorSystem, Probe]]:
    """A system with an actor, and a client that knows it, each with the store it uses."""
    mine, theirs = Probe(folder / "counts.db"), Probe(folder / "counts.db")
    limits = Limits(lease=6000, heartbeat=600)  # none comes in between
    async with ActorSystem(theirs, limits=limits) as system, ActorSystem.client(mine, limits=limits) as client:
        await client.get(Tally, "t").add(1)
        await quiet(mine, theirs)
        yield client, mine, system, theirs


async def quiet(*probes: Probe) -> None:
    """What opening sets off has been done."""
    before: list[tuple[int, int]] = []
    while before != (counts := [(probe.hops, probe.transactions) for probe in probes]):
        before = counts
        await asyncio.sleep(0.3)


@pytest.mark.parametrize("limits", [Limits(attempts=2), Limits(retention=1.0, history=5)], ids=["one", "two"])
def test_limits_that_would_mean_nothing_are_refused(limits: Limits) -> None:
    """Whoever sets a limit in the wrong process is told, not left to find out that it does nothing."""
    with pytest.raises(ClientError, match="a client runs no actors"):
        ActorSystem.client("a.db", limits=limits)


def test_a_database_that_nobody_else_could_open_is_refused() -> None:
    """A client in memory would wait for ever."""
    with pytest.raises(ClientError, match="alone"):
        ActorSystem.client(":memory:")


def test_a_client_has_no_root() -> None:
    """A tree is started by whoever runs it."""
    with pytest.raises(TypeError, match="root"):
        ActorSystem.client("a.db", root=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # that it is refused is tested


async def test_a_client_has_nothing_to_drain(tmp_path: Path) -> None:
    """Whoever means to stop a worker, and has a client in hand, is told."""
    async with ActorSystem.client(tmp_path / "a.db") as client:
        with pytest.raises(ClientError, match=r"drain\(\) of a client"):
            await client.drain()
        with pytest.raises(ClientError, match=r"serve\(\) of a client"):
            await client.serve()


async def test_what_a_client_may_set_is_kept(tmp_path: Path) -> None:
    """The limits and the seal that concern what is sent are a client's, too."""
    seal = Signed([b"k" * 32])
    limits = Limits(message_bytes=100, query=1)
    async with ActorSystem.client(tmp_path / "a.db", limits=limits, seal=seal) as client:
        assert repr(client).startswith("<ActorSystem client of ")
        with pytest.raises(ValueError, match="100 is the limit"):
            await client.get(Tally, "t").add.tell(1, "x" * 200)


async def test_a_query_that_is_under_way_ends_with_its_system(tmp_path: Path) -> None:
    """Leaving does not wait for whoever may never answer."""
    client = ActorSystem.client(tmp_path / "a.db")
    async with client:
        await client.get(Tally, "t").add.tell(1)
        asked = asyncio.create_task(client.get(Tally, "t").held())
        await until(lambda: "1 asked" in repr(client._host and client._host.queries))
    with pytest.raises(SystemClosedError):
        await asked
    with pytest.raises(SystemClosedError):
        await client.get(Tally, "t").held()


async def test_a_query_that_raises_here_says_so_as_from_elsewhere(tmp_path: Path) -> None:
    """A program that is tested in one process need not learn other errors when it runs in two."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(QueryError, match=r"Tally\.held raised ZeroDivisionError") as found:
            await system.get(Tally, "t").held(0)
        assert isinstance(found.value.__cause__, ZeroDivisionError)
        assert found.value.caused_by(ArithmeticError)


# counts ---------------------------------------------------------------------------------------------------------------


async def test_a_query_that_travels_is_two_transactions(tmp_path: Path) -> None:
    """A question is one, its answer another; what was asked is taken away together, with the next question."""
    async with pair(tmp_path) as (client, mine, _, theirs):
        before = mine.transactions, theirs.transactions
        for _ in range(20):
            assert await client.get(Tally, "t").held() == 1
        assert mine.transactions - before[0] <= 20 + 2
        assert theirs.transactions - before[1] == 20


async def test_queries_that_come_together_share_their_transactions(tmp_path: Path) -> None:
    """A page that shows fifty actors costs a few commits, not a hundred."""
    async with pair(tmp_path) as (client, mine, _, theirs):
        before = mine.transactions, theirs.transactions
        assert await asyncio.gather(*(client.get(Tally, "t").held() for _ in range(50))) == [1] * 50
        assert mine.transactions - before[0] <= 6
        assert theirs.transactions - before[1] <= 6


async def test_a_query_in_the_same_process_asks_no_disk(tmp_path: Path) -> None:
    """Where the actor is in memory, looking at it is a function call."""
    async with pair(tmp_path) as (_, _, system, theirs):
        before = theirs.transactions
        for _ in range(20):
            assert await system.get(Tally, "t").held() == 1
        assert theirs.transactions == before


async def test_a_question_is_a_handful_of_statements(tmp_path: Path) -> None:
    """Asking looks up the actor, if others wrote meanwhile, and writes one row."""
    async with pair(tmp_path) as (client, mine, _, _):
        await client.get(Tally, "t").held()
        with mine.statements() as seen:
            await client.get(Tally, "t").held()
        look = "PRAGMA data_version"
        assert len([one for one in seen if one != look]) <= 12, seen


async def test_a_client_that_waits_commits_nothing(tmp_path: Path) -> None:
    """A front end without requests leaves the database to those that work."""
    async with pair(tmp_path) as (_, mine, _, theirs):
        before = mine.hops, theirs.transactions
        await asyncio.sleep(1.0)
        assert (mine.hops, theirs.transactions) == before


async def test_an_ask_of_a_client_is_one_transaction_on_each_side(tmp_path: Path) -> None:
    """The message there, its outcome here; waiting for it writes nothing."""
    async with pair(tmp_path) as (client, mine, _, theirs):
        before = mine.transactions, theirs.transactions
        for n in range(20):
            assert await client.get(Tally, "t").add(1) == n + 2
        assert (mine.transactions - before[0], theirs.transactions - before[1]) == (20, 20)


def test_a_clients_store_is_light() -> None:
    """Parked turns are not tried again because somebody looks."""
    client = ActorSystem.client("a.db")
    assert isinstance(client._store, SQLiteStore)
    assert not client._store._resumes
