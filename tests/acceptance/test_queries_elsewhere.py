"""A query is answered wherever its actor is: in another process, in none, in the midst of a turn, or parked.

What was measured is printed (`pytest -rP`); nothing is asserted of a clock but that it all came about.
"""

# ruff: noqa: T201 - it looks at what users cannot see, and prints what it measured

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure import Actor, ActorSystem, Encrypted, Limits, QueryError, QueryTimeout, Rejected, Signed, handler
from perdure.errors import MessageTooLarge
from perdure.storage.seal import Seal
from tests.acceptance.asking import Till, worker
from tests.acceptance.children import stand_still
from tests.acceptance.test_wake_ups import spread
from tests.unit.observing import until

MANY = 300
FORGETFUL = Limits(evict_after=0.2)


def rows(database: Path, sql: str) -> list[Any]:
    """What lies in a database."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


async def test_queries_reach_another_process(tmp_path: Path) -> None:
    """Who shows state need not know where it lives, and shows it in milliseconds; nothing of it is left."""
    async with worker(tmp_path / "a.db", "t") as process, ActorSystem.client(tmp_path / "a.db") as client:
        till = client.get(Till, "t")
        seconds: list[float] = []
        for n in range(MANY):
            if n % 10 == 0:
                await till.add(1)
            begin = time.perf_counter()
            assert await till.value() == n // 10 + 1
            seconds.append(time.perf_counter() - begin)
        spread("query of a client, to answered", seconds)
        begin = time.perf_counter()
        assert await asyncio.gather(*(till.value() for _ in range(100))) == [MANY // 10] * 100
        print(f"100 queries at once: {(time.perf_counter() - begin) * 1e3:.0f} ms")
        assert await till.where() == process.pid
        await until(lambda: rows(tmp_path / "a.db", "SELECT count(*) FROM query") == [(0,)])


async def test_a_query_is_answered_beside_a_running_turn(tmp_path: Path) -> None:
    """Whoever asks how far the work is does not wait for it, and sees what has not been committed."""
    async with worker(tmp_path / "a.db", "t"), ActorSystem(tmp_path / "a.db") as system:
        till = system.get(Till, "t")
        toiling = await till.toil.tell(1.5)
        await until(lambda: _is(till.now(), "toiling"))
        assert await toiling.status() in {"pending", "running"}
        assert await toiling.result(timeout=30) == "worked"
        assert await till.now() == "worked"


async def _is(asked: Any, expected: object) -> bool:  # noqa: ANN401  # a query of any reply
    return bool(await asked == expected)


@pytest.mark.parametrize("asker", ["client", "node"])
async def test_a_turn_that_left_memory_is_replayed_first(tmp_path: Path, asker: str) -> None:
    """A turn that sleeps for a day says what it has done so far, whoever asks, and sleeps on."""
    database = tmp_path / "a.db"
    async with worker(database) as process:
        opened = ActorSystem.client(database) if asker == "client" else ActorSystem(database, limits=FORGETFUL)
        async with opened as system:
            till = system.get(Till, "t")
            if asker == "node":
                process.kill()  # so that nobody else could have it
            resting = await till.rest.tell(86_400)
            await until(lambda: rows(database, "SELECT owner, status FROM actor") == [(None, "waiting")])
            for _ in range(2):
                assert await till.value() == 100
                assert await till.now() == "worked"
            assert await resting.status() == "waiting"
            assert rows(database, "SELECT status FROM journal WHERE kind = 'sleep'") == [("started",)]


@pytest.mark.parametrize("asker", ["client", "node"])
async def test_a_parked_turn_is_not_begun_again_by_a_query(tmp_path: Path, asker: str) -> None:
    """Whoever looks at an actor whose code must be mended sees its state before the message, and changes nothing."""
    database = tmp_path / "a.db"
    async with ActorSystem(database) as system:
        await system.get(Till, "t").add(7)
    async with worker(database, BEGINS="1"), ActorSystem.client(database) as client:
        await client.get(Till, "t").misfit.options(id="misfit").tell()
        await until(lambda: rows(database, "SELECT count(*) FROM journal WHERE kind = 'sleep'") == [(1,)])
    async with worker(database), ActorSystem.client(database) as client:
        assert await client.get(Till, "t").value() == 7  # it is evicted, and parks when it is replayed for this
        await until(lambda: rows(database, "SELECT owner, status FROM actor") == [(None, "parked")])
        if asker == "client":
            assert await client.get(Till, "t").value() == 7
            assert await client.get(Till, "t").now() == "idle"
            assert await client.receipt("misfit").status() == "parked"
            assert rows(database, "SELECT owner, status, epoch FROM actor")[0][:2] == (None, "parked")
            return
    async with ActorSystem(database) as system:
        await until(lambda: rows(database, "SELECT owner, status FROM actor") == [(None, "parked")])
        before = rows(database, "SELECT * FROM actor")
        assert await system.get(Till, "t").value() == 7
        assert rows(database, "SELECT * FROM actor") == before


async def test_whoever_adopts_the_actor_answers(tmp_path: Path) -> None:
    """A query to a process that is killed before it answers takes a little longer, and is right."""
    seconds: list[float] = []
    async with worker(tmp_path / "a.db") as second, ActorSystem.client(tmp_path / "a.db") as client:
        for n in range(5):
            async with worker(tmp_path / "a.db", f"t{n}") as first:
                till = client.get(Till, f"t{n}")
                await till.add(n)
                assert await till.where() in {first.pid, second.pid}
                os.kill(first.pid, signal.SIGSTOP)  # so that it cannot answer
                asked = asyncio.create_task(till.value())
                await asyncio.sleep(0.2)
                begin = time.perf_counter()
                first.kill()
                assert await asyncio.wait_for(asked, 30) == n
                seconds.append(time.perf_counter() - begin)
                assert await till.where() == second.pid
    spread("kill -9, to answered by another process", seconds)


async def test_a_query_that_nobody_answers_ends(tmp_path: Path) -> None:
    """Whoever asks a process that hangs, or is gone, is told which it is, and that in time; a new one answers."""
    limits = Limits(query=1.0)
    async with ActorSystem.client(tmp_path / "a.db", limits=limits) as client:
        till = client.get(Till, "t")
        async with worker(tmp_path / "a.db", "t") as process:
            stand_still(process.pid, tmp_path / "a.db")
            with pytest.raises(QueryTimeout, match=r"asking\.till/t is in process .*, which is there"):
                await till.value()
            process.kill()
            process.wait(30)
            with pytest.raises(QueryTimeout, match=r"No process runs kind 'asking\.till'"):
                await till.value()
        asked = asyncio.create_task(client.get(Till, "t").value())
        async with worker(tmp_path / "a.db"), ActorSystem.client(tmp_path / "a.db") as patient:
            with pytest.raises((QueryTimeout, AssertionError)):
                assert await asked != 0  # answered, or just too late
            assert await patient.get(Till, "t").value() == 0
    assert rows(tmp_path / "a.db", "SELECT count(*) FROM query") == [(0,)]


async def test_what_goes_wrong_arrives_alike(tmp_path: Path) -> None:
    """One `except` fits, whichever process has the actor."""
    async with worker(tmp_path / "a.db", "there") as process, ActorSystem(tmp_path / "a.db") as system:
        await system.get(Till, "here").add(0)
        assert await system.get(Till, "there").where() == process.pid
        for key in ("here", "there"):
            till = system.get(Till, key)
            with pytest.raises(Rejected, match="closed"):
                await till.refuse("rejected")
            with pytest.raises(QueryError, match=r"Till\.refuse raised ValueError: broken") as found:
                await till.refuse("broken")
            assert found.value.error_type == "builtins.ValueError"
            assert found.value.caused_by(ValueError)
            assert not found.value.caused_by(KeyError)
        assert "in refuse" in "".join(found.value.__notes__)
        with pytest.raises(MessageTooLarge, match="answer"):
            await system.get(Till, "there").much(2 << 20)
        with pytest.raises(MessageTooLarge, match="arguments"):
            await system.get(Till, "there").refuse("x" * (2 << 20))


async def test_an_asker_that_gives_up_leaves_nothing(tmp_path: Path) -> None:
    """A request whose client hung up leaves no question behind, and the next one is answered."""
    async with worker(tmp_path / "a.db", "t") as process, ActorSystem.client(tmp_path / "a.db") as client:
        till = client.get(Till, "t")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await till.where(slowly=60)
        await until(lambda: rows(tmp_path / "a.db", "SELECT count(*) FROM query") == [(0,)])
        assert await till.where() == process.pid


class Curious(Actor, kind="queries.curious"):
    found: int = 0

    @handler
    async def look(self, till: Till) -> int:
        """Ask another actor for its state, in a turn."""
        self.found = await till.value()
        return self.found


async def test_actors_query_across_processes(tmp_path: Path) -> None:
    """A turn asks an actor in another process for its state as it does one beside it."""
    async with worker(tmp_path / "a.db", "t"), ActorSystem(tmp_path / "a.db") as system:
        till = system.get(Till, "t")
        await till.add(4)
        assert await system.get(Curious, "c").look(till) == 4


@pytest.mark.parametrize(
    "seal", [Encrypted([b"k" * 32]), Signed([b"k" * 32], everything=True)], ids=["hidden", "signed"]
)
async def test_queries_travel_sealed(tmp_path: Path, seal: Seal) -> None:
    """What is asked and answered between processes is as hidden, and as hard to forge, as what is stored."""
    database = tmp_path / "a.db"
    async with ActorSystem(database, seal=seal) as one, ActorSystem.client(database, seal=seal) as client:
        await one.get(Till, "t").add(1)
        till = client.get(Till, "t")
        assert await till.value() == 1
        with pytest.raises(QueryError, match="ValueError: secret"):
            await till.refuse("secret")
        asked = asyncio.create_task(till.where(slowly=60))
        await until(lambda: len(rows(database, "SELECT 1 FROM query WHERE name = 'where' AND answered = 0")) == 1)
        ((args,),) = rows(database, "SELECT args FROM query WHERE name = 'where'")
        assert ("slowly" in args) == isinstance(seal, Signed)
        with closing(sqlite3.connect(database)) as forger:
            forger.execute("UPDATE query SET answered = 1, result = '666' WHERE name = 'where'")
            forger.commit()
        with pytest.raises(Exception, match="is not sealed"):
            await asked
