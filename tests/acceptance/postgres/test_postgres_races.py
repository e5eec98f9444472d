"""Two nodes on one PostgreSQL database, each in the other's way at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import psycopg
import pytest

from perdure.storage.postgres import PostgresStore
from perdure.storage.writes import Append, Appended, Bury, Committed, Order
from perdure.testing.conformance.nodes import SENT, Node, message, started, want
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


async def test_the_same_actors_made_in_opposite_orders(postgres: str) -> None:
    """Two nodes that are sent mail for the same new actors do not stand in each other's way until one is refused."""
    dsn, _, options = postgres.partition("?")
    schema = options.rpartition("=")[2]
    # whoever waits in a circle waits for good
    stubborn = f"{postgres}&options=-c%20deadlock_timeout%3D10min"
    one, another = await started(PostgresStore(stubborn)), await started(PostgresStore(stubborn))
    async with await psycopg.AsyncConnection.connect(dsn) as raw, asyncio.timeout(20):
        sql = f"INSERT INTO {schema}.actor (id, kind, key, status, created) VALUES (-1, 'Till', 'm', 'ready', 0)"
        await raw.execute(sql.encode())
        mails = [Append(message(key)) for key in "amz"]
        writing = [
            asyncio.create_task(node.store.write(batch)) for node, batch in ((one, mails), (another, mails[::-1]))
        ]

        async def both_wait() -> bool:
            waiting = "application_name LIKE 'perdure%' AND wait_event_type = 'Lock'"
            async with await psycopg.AsyncConnection.connect(dsn) as looking:
                found = await looking.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}".encode())
                return await found.fetchone() == (2,)

        await until(both_wait)
        await raw.rollback()
        for settled in await asyncio.gather(*writing):
            assert len(settled) == 3
    await one.store.close()
    await another.store.close()
