"""The server's processes end under load: one session, all of them, or the whole server, which then recovers.

| what ends | who notices | what happens |
|---|---|---|
| a session | the store | it connects again; a commit without an answer is looked up |
| the server, as in a power cut | every store | it tries to connect, for 30 s; nobody is buried meanwhile |
| the same, in the middle of a COMMIT | the store | what the server's log has is what counts, and is looked up |

Two systems send to each other's actors all the while. Each send that returned is handled once, in its order.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count

import psycopg
import pytest

from perdure import Actor, ActorSystem, Limits, Receipt, handler, step
from perdure.testing.postgres import PostgresServer, fresh_schema
from tests.unit.crashing import host_of
from tests.unit.observing import until

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 90.0
LIMITS = Limits(lease=5, heartbeat=0.5)
KEYS = [f"k{number}" for number in range(4)]

begun: Counter[int] = Counter()


@step
async def effect(number: int) -> int:
    """Done once for each number, for no process dies."""
    begun[number] += 1
    return number


class Clerk(Actor, kind="ends.clerk"):
    seen: list[int] = []
    copied: list[int] = []

    @handler
    async def note(self, number: int, other: str) -> int:
        self.seen.append(await effect(number))
        await self.system.get(Clerk, other).copy.tell(number)
        return number

    @handler
    async def copy(self, number: int) -> None:
        self.copied.append(number)

    @handler
    async def all(self) -> tuple[list[int], list[int]]:
        return self.seen, self.copied


class Load:
    """What two systems send, each to actors of its own and of the other's."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._sent: dict[str, list[int]] = {}
        self._receipts: list[tuple[int, Receipt[int]]] = []
        self._done = False
        begun.clear()

    async def send(self, system: ActorSystem, keys: list[str]) -> None:
        """Send until it is over, to these actors, from one place."""
        while not self._done:
            number, key = next(self._numbers), random.choice(keys)
            self._receipts.append((number, await system.get(Clerk, key).note.tell(number, random.choice(KEYS))))
            self._sent.setdefault(key, []).append(number)
            await asyncio.sleep(0.01)

    def end(self) -> None:
        """Send no more."""
        self._done = True

    async def check(self, system: ActorSystem) -> None:
        """Everything once, in the order sent."""
        for number, receipt in self._receipts:
            assert await receipt.result() == number
        found = [await system.get(Clerk, key).all() for key in KEYS]
        assert {key: seen for key, (seen, _) in zip(KEYS, found, strict=True) if seen} == self._sent
        numbers = [number for number, _ in self._receipts]
        assert sorted(number for _, copied in found for number in copied) == sorted(numbers)
        assert begun == Counter(numbers)

    def __len__(self) -> int:
        return len(self._receipts)


@asynccontextmanager
async def under_load(target: str) -> AsyncGenerator[Load]:
    """Two systems at work, and the reckoning at the end."""
    load = Load()
    async with (
        ActorSystem(target, limits=LIMITS) as first,
        ActorSystem(target, limits=LIMITS) as second,
    ):
        async with asyncio.TaskGroup() as group:
            # each actor is sent to from one place, for only those sends have an order
            for system, keys in ((first, KEYS[:2]), (second, KEYS[2:])):
                group.create_task(load.send(system, keys))
            yield load
            load.end()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await load.check(second)


async def more(load: Load) -> None:
    """Wait until some more has been sent."""
    enough = len(load) + 5
    await until(lambda: len(load) >= enough, PATIENCE_SECONDS)


async def _end_sessions(dsn: str, which: str) -> int:
    sql = (
        f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'perdure%' {which}"
    )
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        ((ended,),) = await (await connection.execute(sql.encode())).fetchall()
        return int(ended)


@pytest.mark.parametrize("times", [40, pytest.param(300, marks=pytest.mark.torture)])
async def test_sessions_that_end(postgres: str, times: int) -> None:
    """An administrator who ends sessions, one or all, costs nobody anything."""
    dsn, ended = postgres.partition("?")[0], 0
    async with under_load(postgres) as load:
        for number in range(times):
            await more(load)
            ended += await _end_sessions(dsn, "" if number % 5 == 0 else "AND state <> 'idle'")
    assert ended > times


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.torture)])
async def test_a_server_that_crashes(times: int) -> None:
    """A server that is gone for a moment, whatever it was doing, has all that it acknowledged, and work goes on."""
    with PostgresServer() as server, fresh_schema(server.dsn) as target:
        async with under_load(target) as load:
            for _ in range(times):
                await more(load)
                await asyncio.sleep(random.uniform(0, 0.3))
                await asyncio.to_thread(server.crash)
                await asyncio.to_thread(server.start)
            await more(load)


async def test_an_outage_longer_than_a_lease() -> None:
    """Nobody is taken for dead because the server was away: whoever is back first waits for the others."""
    limits = Limits(lease=4, heartbeat=0.8)
    with PostgresServer() as server, fresh_schema(server.dsn) as target:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            ActorSystem(target, limits=limits) as first,
            ActorSystem(target, limits=limits) as second,
        ):
            nodes = [host_of(system).node for system in (first, second)]
            assert await first.get(Clerk, "a").note(1, "b") == 1
            assert await second.get(Clerk, "b").note(2, "a") == 2
            await asyncio.to_thread(server.crash)
            await asyncio.sleep(1.5 * limits.lease)
            await asyncio.to_thread(server.start)
            assert await first.get(Clerk, "a").note(3, "b") == 3
            await asyncio.sleep(limits.lease)
            assert await second.get(Clerk, "b").note(4, "a") == 4
            assert [host_of(system).node for system in (first, second)] == nodes
