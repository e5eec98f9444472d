"""Reads that are asked for together are one transaction, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from perdure.errors import StateError, StorageError
from perdure.storage.sql.connection import Connection
from perdure.storage.sql.reads import Reads


class Database:
    """Counts transactions, each of which takes until it is let on."""

    def __init__(self) -> None:
        self.transactions = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def transact(self, work: Callable[[Connection], None]) -> None:
        """Run."""
        self.transactions += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        work(cast("Connection", self))


def _answer(answer: object) -> Callable[[Connection], object]:
    def query(connection: Connection) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return query


async def test_reads_of_one_pass_are_one_transaction() -> None:
    """Whoever asks in the same pass of the loop shares a transaction."""
    database = Database()
    reads = Reads(database.transact, 1)
    assert await asyncio.gather(*(reads.read(_answer(n)) for n in range(5))) == [0, 1, 2, 3, 4]
    assert database.transactions == 1
    assert await reads.read(_answer(5)) == 5
    assert database.transactions == 2


async def test_reads_gather_while_all_connections_are_busy() -> None:
    """What is asked meanwhile is one more transaction, however much it is."""
    database = Database()
    reads = Reads(database.transact, 2)
    database.gate.clear()
    tasks: list[asyncio.Task[object]] = []
    for n in range(10):
        tasks.append(asyncio.create_task(reads.read(_answer(n))))
        await asyncio.sleep(0.001)
    assert database.transactions == 2
    database.gate.set()
    assert await asyncio.gather(*tasks) == list(range(10))
    assert database.transactions == 3


async def test_a_query_s_own_error_is_its_own() -> None:
    """Neighbours in a transaction do not fail with it."""
    reads = Reads(Database().transact, 1)
    bad, good = reads.read(_answer(StateError("no"))), reads.read(_answer(1))
    assert [repr(one) for one in await asyncio.gather(bad, good, return_exceptions=True)] == ["StateError('no')", "1"]


async def test_an_error_of_the_database_is_everybody_s() -> None:
    """Nobody waits for an answer that does not come; the next read is another transaction."""
    database = Database()
    reads = Reads(database.transact, 1)
    database.error = StorageError("away")
    found = await asyncio.gather(reads.read(_answer(1)), reads.read(_answer(2)), return_exceptions=True)
    assert [str(one) for one in found] == ["away", "away"]
    database.error = None
    assert await reads.read(_answer(3)) == 3


async def test_who_is_cancelled_asks_no_more() -> None:
    """A read that nobody waits for is not made, and holds nobody up."""
    database = Database()
    reads = Reads(database.transact, 1)
    database.gate.clear()
    first = asyncio.create_task(reads.read(_answer(1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked: list[int] = []
    second = asyncio.create_task(reads.read(lambda _: asked.append(2)))
    third = asyncio.create_task(reads.read(_answer(3)))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    database.gate.set()
    assert await third == 3
    assert not asked
