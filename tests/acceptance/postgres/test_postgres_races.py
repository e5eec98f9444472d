"""Two nodes on one PostgreSQL database, each in the other's way at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import chain

import psycopg
import pytest

from perdure.errors import IdReusedError
from perdure.storage.postgres import PostgresStore
from perdure.storage.records import NodeRecord
from perdure.storage.writes import Append, Appended, Bury, Committed, Order, Settled
from perdure.testing.conformance.nodes import SENT, Node, message, started, want, wants
from tests.unit.observing import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mine(postgres: str) -> AsyncGenerator[Node]:
    """The node that acts."""
    node = await started(PostgresStore(postgres))
    yield node
    await node.store.close()


@pytest.fixture
async def other(postgres: str) -> AsyncGenerator[Node]:
    """Its neighbour."""
    node = await started(PostgresStore(postgres))
    yield node
    await node.store.close()


async def test_an_order_and_a_message_in_one_batch(mine: Node) -> None:
    """A message that is sent in the moment of a restart is kept."""
    first = await mine.append("a")
    order = Order(SENT, restart=[first.place.actor], restart_at=SENT, reason="told to")
    ordered, sent = await mine.write(order, Append(message("a")))
    want(Committed, ordered)
    assert want(Appended, sent).mail.number == 2


async def test_a_burial_and_a_message_in_one_batch(mine: Node, other: Node) -> None:
    """A message that is sent in the moment of a burial is kept."""
    await other.append("a")
    await mine.append("b")
    await mine.append("a")
    buried, a, b = await mine.write(Bury(other.id, 5, SENT), Append(message("a")), Append(message("b")))
    assert buried
    assert want(Appended, a).mail.number == 3
    assert want(Appended, b).mail.number == 2


async def test_a_commit_behind_a_younger_one_is_noticed(mine: Node, postgres: str) -> None:
    """A node whose wake-up was lost finds what others have committed, whatever their commits' order."""
    plain = postgres.split("?", maxsplit=1)[0]
    schema = postgres.rsplit("=", maxsplit=1)[1]
    with psycopg.connect(plain) as raw:
        await mine.append("a")
        while await mine.store.changed():
            pass
        raw.execute(f"UPDATE {schema}.actor SET reason = 'elder'".encode())
        await mine.append("b")
        await mine.store.changed()
        raw.commit()
        assert await mine.store.changed()


@pytest.mark.parametrize("text", ["a\0b", "a\udc80b"], ids=["NUL", "lone surrogate"])
async def test_a_reason_that_the_database_cannot_hold(mine: Node, text: str) -> None:
    """What an exception says does not fail what others write beside it."""
    first = await mine.append("a")
    order = Order(SENT, fail=[first.place.actor], reason=text)
    ordered, sent = await mine.write(order, Append(message("b")))
    want(Committed, ordered)
    want(Appended, sent)


async def write_in_opposite_orders(postgres: str, between: str, *batches: Sequence[Append]) -> list[list[Settled]]:
    """Have each node begin with what the other ends with; `between` writes what both come to in the middle.

    Raises:
        TimeoutError: They wait for each other: their server does not look for circles, so that takes no luck.
    """
    dsn, _, options = postgres.partition("?")
    schema = options.rpartition("=")[2]
    stubborn = f"{postgres}&options=-c%20deadlock_timeout%3D10min"
    nodes = [await started(PostgresStore(stubborn)) for _ in batches]
    async with await psycopg.AsyncConnection.connect(dsn) as raw, asyncio.timeout(60):
        await raw.execute(f"INSERT INTO {schema}.{between}".encode())
        writing = [asyncio.create_task(node.store.write(batch)) for node, batch in zip(nodes, batches, strict=True)]

        async def both_wait() -> bool:
            waiting = "application_name LIKE 'perdure%' AND wait_event_type = 'Lock'"
            async with await psycopg.AsyncConnection.connect(dsn) as looking:
                found = await looking.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}".encode())
                return await found.fetchone() == (2,)

        await until(both_wait)
        await raw.rollback()
        settled = await asyncio.gather(*writing)
    for node in nodes:
        await node.store.close()
    return settled


async def test_the_same_actors_made_in_opposite_orders(postgres: str) -> None:
    """Two nodes that are sent mail for the same new actors do not stand in each other's way until one is refused."""
    between = "actor (id, kind, key, status, created) VALUES (-1, 'Till', 'm', 'ready', 0)"
    first, second = [[Append(message(key)) for key in "amz"] for _ in range(2)]
    for settled in await write_in_opposite_orders(postgres, between, first, second[::-1]):
        assert len(wants(Appended, settled)) == 3


async def test_the_same_ids_in_opposite_orders(postgres: str) -> None:
    """Two nodes that are given the same ids for different messages do not stand in each other's way, either."""
    between = """message (seq, id, actor, number, handler, args, codec, sent, chosen)
                 VALUES (-1, 'm', -1, 1, 'add', '{}', 'json', 0, 1)"""
    first, second = [[Append(message(f"{id_}{n}", id=id_)) for id_ in "amz"] for n in range(2)]
    told = await write_in_opposite_orders(postgres, between, first, second[::-1])
    one_of_each = [{Appended}, {IdReusedError}]  # for who is first at one id is first at all of them
    assert [{type(one) for one in settled} for settled in told] in [one_of_each, one_of_each[::-1]]


async def test_two_clients_that_choose_alike_never_deadlock(postgres: str) -> None:
    """Front ends that name the same work alike cost each other a refusal, and not a second."""
    one, two = await started(PostgresStore(postgres)), await started(PostgresStore(postgres))
    for turn in range(5):
        first, second = [[Append(message(f"{n}", id=f"{turn}.{id_}")) for id_ in range(2_000)] for n in range(2)]
        told = await asyncio.gather(one.store.write(first), two.store.write(second[::-1]))
        assert sum(isinstance(settled, Appended) for settled in chain(*told)) == 2_000
    for node in (one, two):
        await node.store.close()
    async with await psycopg.AsyncConnection.connect(postgres.partition("?")[0], autocommit=True) as looking:

        async def both_have_ended() -> bool:  # a session tells what it has counted before it ends
            names = [f"perdure {node.id}" for node in (one, two)]
            sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ANY(%s)"
            return await (await looking.execute(sql, [names])).fetchone() == (0,)

        await until(both_have_ended, 30)
        sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await (await looking.execute(sql)).fetchone() == (0,)


async def sessions(postgres: str) -> list[str]:
    """The names of all connections that any node has open."""
    sql = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'perdure %'"
    async with await psycopg.AsyncConnection.connect(postgres.split("?", maxsplit=1)[0]) as connection:
        return [name for (name,) in await (await connection.execute(sql)).fetchall()]


@pytest.mark.parametrize("when", ["it enters again", "it closes"])
async def test_who_gives_up_waiting_leaves_no_connection(postgres: str, when: str) -> None:
    """What is cancelled as it ends its connections ends them all the same."""
    store = PostgresStore(postgres)
    await started(store, "cancelled")

    async def has_said_something() -> bool:
        return "perdure cancelled hints" in await sessions(postgres)

    async def is_gone() -> bool:
        return not [name for name in await sessions(postgres) if "cancelled" in name or "again" in name]

    await until(has_said_something)
    notices = store._notices  # noqa: SLF001  # the moment to cancel it in has no public name
    if when == "it enters again":
        working = asyncio.create_task(store.rejoin(NodeRecord("again", 1, "here", "3.11", "0", SENT)))
    else:
        working = asyncio.create_task(store.close())
    while store._notices is notices:  # noqa: SLF001, ASYNC110  # and nobody tells of it
        await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await store.close()
    await until(is_gone)
