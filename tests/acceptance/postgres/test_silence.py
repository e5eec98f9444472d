"""Connections to PostgreSQL that stay open and over which nothing comes.

| what is silent | who notices | what happens |
|---|---|---|
| one connection | the store, by its own deadline | it connects again, and has the server end the old session |
| a node, for longer than a lease | the others, by its heartbeats | they bury it and go on |
| its transaction in the server | the server, after 5 s | it is rolled back, and what it had locked is free |
| a client that takes nothing | the kernel of the server's machine | the session is ended, and so on |
| a client that ends while it waits for others' rows | the server, within a second | so, too |
| that node, when it speaks again | itself, at its next write | it goes on under another identity |
| everything, from a COMMIT on | whoever sent | an `OutcomeUnknownError` |
| everything, for ever | whoever sends | an error after the time of an outage; closing ends, too |
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from perdure import Actor, ActorSystem, Limits, OutcomeUnknownError, StorageError, handler, step
from perdure.storage import postgres, postgres_link
from perdure.storage.postgres_link import Link
from perdure.storage.postgres_open import place
from tests.acceptance.postgres.proxy import Cut, Fate, Message, Proxy, Silence, passes
from tests.unit.observing import until

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 120.0
CALL_SECONDS = OUTAGE_SECONDS = 3.0
LIMITS = Limits(lease=2, heartbeat=0.3, grace=0.5)

begun: Counter[int] = Counter()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of seconds."""
    begun.clear()
    monkeypatch.setattr(postgres_link, "CALL_SECONDS", CALL_SECONDS)
    monkeypatch.setattr(postgres_link, "CONNECT_SECONDS", 2)
    for module in (postgres_link, postgres):
        monkeypatch.setattr(module, "OUTAGE_SECONDS", OUTAGE_SECONDS)


@step
async def effect(number: int) -> int:
    """Takes a moment, and may be interrupted in it."""
    begun[number] += 1
    await asyncio.sleep(0.02)
    return number


class Clerk(Actor, kind="silence.clerk"):
    seen: list[int] = []

    @handler
    async def note(self, number: int) -> int:
        self.seen.append(await effect(number))
        return number

    @handler
    async def all(self) -> list[int]:
        return self.seen


TO, FROM = frozenset({True}), frozenset({False})


def begins(message: Message) -> bool:
    """What a transaction begins with."""
    return message.wire.executes(message) == b"BEGIN"


def commits(message: Message) -> bool:
    """A COMMIT on its way."""
    return message.wire.writes and message.wire.executes(message) == b"COMMIT"


def committed(message: Message) -> bool:
    """Its answer."""
    return message.wire.writes and message.kind == "C" and b"COMMIT" in message.raw


def reads(message: Message) -> bool:
    """A row that is read."""
    return message.kind == "D" and message.wire.writes


async def _one_connection(target: str, key: str, directions: frozenset[bool]) -> None:
    met: list[str] = []
    async with Proxy(target) as proxy, ActorSystem(proxy.target) as system:
        clerk = system.get(Clerk, key)
        for number, counts in enumerate([begins, commits, committed, reads]):

            def fate(message: Message, counts: Callable[[Message], bool] = counts, number: int = number) -> Fate:
                if len(met) > number or not counts(message):
                    return "passes"
                met.append(message.kind)
                return Silence(directions)

            proxy.fate = fate
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await clerk.note(number) == number
            assert len(met) == number + 1, counts
        assert await clerk.all() == list(range(4))


async def test_one_connection(postgres: str) -> None:
    """A connection that dies without a word is noticed by the deadline of every call, and costs no more than that."""
    ways = {"to": TO, "from": FROM, "both": TO | FROM}
    async with asyncio.TaskGroup() as group:
        for key, directions in ways.items():
            group.create_task(_one_connection(postgres, key, directions))
    assert begun == Counter({number: len(ways) for number in range(4)})


async def test_a_node_that_is_out_of_reach(postgres: str) -> None:
    """Others go on with its actors after a lease, and when it is back it is one of them."""
    async with (
        ActorSystem(postgres, limits=LIMITS) as other,
        Proxy(postgres) as proxy,
        ActorSystem(proxy.target, limits=LIMITS) as system,
    ):
        told, clerk, elsewhere = {0, 1, 2, 4, 5}, system.get(Clerk, "a"), other.get(Clerk, "a")
        receipts = [await clerk.note.tell(number) for number in range(3)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [await receipt.result() for receipt in receipts] == [0, 1, 2]
            proxy.fate = lambda message: Silence() if committed(message) else "passes"
            late = asyncio.create_task(clerk.note.tell(3))
            await until(lambda: any(wire.silent for wire in proxy.wires))
            proxy.fate = passes
            proxy.silence()
            assert await elsewhere.note(4) == 4
            proxy.speak()
            with suppress(StorageError):
                told.add(await (await late).result())
            assert await clerk.note(5) == 5
            seen = await elsewhere.all()
    assert sorted({3, *seen}) == sorted({3, *told})
    assert told <= set(seen)
    assert len(seen) == len(set(seen))
    assert seen[:3] == [0, 1, 2]
    assert max(begun.values()) <= 2


async def test_silence_for_ever(postgres: str) -> None:
    """Nobody waits for ever: whoever sends hears of it, and the system closes."""
    async with Proxy(postgres) as proxy, asyncio.timeout(PATIENCE_SECONDS):
        async with ActorSystem(proxy.target, limits=LIMITS) as system:
            clerk = system.get(Clerk, "a")
            assert await clerk.note(1) == 1
            proxy.silence()
            with pytest.raises(StorageError):
                await clerk.note.tell(2)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("perdure-postgres")]


async def test_an_outage_is_waited_out_once(postgres: str) -> None:
    """A system that closes while its database is away does not wait anew for each thing that it gives up."""
    async with Proxy(postgres) as proxy, asyncio.timeout(PATIENCE_SECONDS):
        async with ActorSystem(proxy.target, limits=LIMITS) as system:
            assert [await system.get(Clerk, f"c{number}").note(number) for number in range(8)] == list(range(8))
            proxy.refuses = True
            proxy.cut_all()
            with pytest.raises(StorageError):
                await system.get(Clerk, "c0").note.tell(9)
            begin = time.monotonic()
        assert time.monotonic() - begin < 4 * OUTAGE_SECONDS  # there are eight to give up


async def test_an_outcome_that_cannot_be_looked_up(postgres: str) -> None:
    """Where nobody knows, nothing else is said; what was written after all is handled, once, sent again or not."""
    async with Proxy(postgres) as proxy, ActorSystem(proxy.target) as system:
        clerk = system.get(Clerk, "a")
        assert await clerk.note(1) == 1

        def fate(message: Message) -> Fate:
            if not committed(message):
                return "passes"
            proxy.fate = passes
            proxy.silence()
            return Cut()

        proxy.fate = fate
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(OutcomeUnknownError):
                await clerk.note.options(id="once").tell(2)
            proxy.speak()
            assert await system.get(Clerk, "b").note(3) == 3
            assert await system.receipt("once").result() == 2
            assert await clerk.note.options(id="once")(2) == 2
            assert await clerk.all() == [1, 2]


async def test_a_client_that_takes_nothing(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lost machine had locked is not waited for by others until the server's own patience ends, in hours."""
    monkeypatch.setattr(postgres_link, "PEER_MILLISECONDS", 1_000)
    async with Proxy(postgres) as proxy:
        lost, other = Link(place(proxy.target), "lost"), Link(place(postgres), "other")
        raw = await asyncio.to_thread(lambda: lost.raw)
        proxy.fate = lambda message: Silence(FROM) if message.kind == "D" else "passes"
        rows = b"SELECT repeat('x', 1000000) FROM generate_series(1, 50)"  # more than any socket holds
        raw.pgconn.send_query(b"BEGIN; SELECT pg_advisory_xact_lock(7); " + rows)
        await until(lambda: any(wire.silent for wire in proxy.wires), PATIENCE_SECONDS)
        waiting = await asyncio.to_thread(lambda: other.raw)
        waiting.deadline = time.monotonic() + PATIENCE_SECONDS
        await asyncio.to_thread(waiting.execute, "SELECT pg_advisory_lock(7)")
        lost.close()
        other.close()


async def test_a_client_that_has_gone_while_it_waits(postgres: str) -> None:
    """A process that is killed while it waits for others' rows keeps nobody waiting for what it has locked itself."""
    async with Proxy(postgres) as proxy:
        gone, other = Link(place(proxy.target), "gone"), Link(place(postgres), "other")
        raw, looking = await asyncio.to_thread(lambda: (gone.raw, other.raw))
        looking.deadline = None

        async def waits() -> bool:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
            found = await asyncio.to_thread(looking.execute, sql, [raw.info.backend_pid])
            return found.fetchone() == (1,)

        async def is_gone() -> bool:
            return not await waits()

        looking.execute("SELECT pg_advisory_lock(8)")
        raw.pgconn.send_query(b"SELECT pg_advisory_lock(8)")
        await until(waits, PATIENCE_SECONDS)
        proxy.cut_all("FIN")
        await until(is_gone, PATIENCE_SECONDS)
        gone.close()
        other.close()
