"""A process that only sends and asks: nothing is lost, nothing is ever its own, and it costs little.

What was measured is printed (`pytest -rP`); nothing is asserted of a clock but that it all came about.
"""

# ruff: noqa: SLF001, T201 - it looks at what users cannot see, and prints what it measured

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from perdure import ActorSystem, AskTimeout, Child, QueryTimeout, Supervisor, handler
from perdure.actors.actor import Actor
from perdure.actors.host import Host
from perdure.limits import Limits
from tests.acceptance.asking import Till, heard, other, say, worker
from tests.acceptance.test_wake_ups import spread
from tests.unit.observing import files_in, until

CROWD = 10
EACH = 5


def owners(database: Path) -> list[str | None]:
    """Who has each actor, as the database says."""
    with closing(sqlite3.connect(database)) as connection:
        return [owner for (owner,) in connection.execute("SELECT owner FROM actor")]


async def test_a_client_asks_and_tells_whoever_runs_the_actor(tmp_path: Path) -> None:
    """A front end is answered in milliseconds, and has nothing: no actor, and no thread to watch over one."""
    async with worker(tmp_path / "a.db", "t"), ActorSystem.client(tmp_path / "a.db") as client:
        till = client.get(Till, "t")
        seconds: list[float] = []
        for n in range(200):
            begin = time.perf_counter()
            assert await till.add(1) == n + 1
            seconds.append(time.perf_counter() - begin)
        spread("ask of a client, to answered", seconds)
        receipt = await till.add.options(id="told").tell(5)
        assert await receipt.result(timeout=30) == 205
        assert await client.receipt("told", Till.add).result() == 205
        assert await till.value() == 205
        assert client._host is not None
        assert not client._host.activations
        assert "perdure-watchdog" not in {thread.name for thread in threading.enumerate()}
        assert client._host.node not in owners(tmp_path / "a.db")


async def test_a_client_alone_says_that_nobody_is_there(tmp_path: Path) -> None:
    """What is sent while no worker runs is kept, an ask says why it was not answered; whoever starts has all."""
    async with ActorSystem.client(tmp_path / "a.db", limits=Limits(query=0.3)) as client:
        till = client.get(Till, "t")
        told = await till.add.tell(1)
        with pytest.raises(AskTimeout, match=r"No process runs kind 'asking\.till': none that runs actors is there"):
            await till.add.options(timeout=0.2)(2)
        with pytest.raises(QueryTimeout, match=r"No process runs kind 'asking\.till'"):
            await till.value()
        assert owners(tmp_path / "a.db") == [None]
        async with ActorSystem.client(tmp_path / "a.db") as another:
            assert await another.receipt(told.id).status() == "pending"
        with other("serve", tmp_path / "a.db", "e", module="tests.acceptance.waking") as process:
            assert await heard(process) == "up"
            with pytest.raises(AskTimeout, match=r"No process runs kind 'asking\.till', it seems: 1 that run actors"):
                await till.add.options(timeout=0.5)(3)
        waiting = asyncio.create_task(till.add(4))
        async with worker(tmp_path / "a.db"):
            assert await told.result(timeout=30) == 1
            assert await asyncio.wait_for(waiting, 30) == 10
            assert await till.value() == 10


async def test_nothing_is_lost_while_workers_are_killed(tmp_path: Path) -> None:
    """A front end that goes on while its worker dies and comes back has every answer right, and each effect once."""
    many, answers = 120, set[int]()
    async with ActorSystem.client(tmp_path / "a.db") as client:
        tills = [client.get(Till, f"t{n}") for n in range(4)]

        async def ask(n: int) -> None:
            """One request, with an id of its own."""
            await asyncio.sleep(n * 0.02)
            till = tills[n % 4]
            if n % 3:
                await till.add.options(id=f"r{n}")(1)
            else:
                await (await till.add.options(id=f"r{n}").tell(1)).result()
            answers.add(n)

        asked = asyncio.gather(*(ask(n) for n in range(many)))
        for _ in range(4):
            async with worker(tmp_path / "a.db") as process:
                await asyncio.sleep(0.3)
                process.kill()
                process.wait(30)
        async with worker(tmp_path / "a.db"):
            await asyncio.wait_for(asked, 60)
            assert answers == set(range(many))
            assert [await till.value() for till in tills] == [many // 4] * 4
            assert client._host is not None
            assert client._host.node not in owners(tmp_path / "a.db")


async def test_many_clients(tmp_path: Path) -> None:
    """Front ends in many processes, and fifty asks of one at once, are all answered, each once."""
    async with worker(tmp_path / "a.db", "t"), contextlib.AsyncExitStack() as stack:
        crowd = [stack.enter_context(other("ask", tmp_path / "a.db", f"t/{EACH}")) for _ in range(CROWD)]
        for process in crowd:
            assert await heard(process) == "up"
        for process in crowd:
            say(process)
        took = [float(one) / 1e3 for process in crowd for one in (await heard(process)).split()]
        spread(f"{CROWD} clients, {EACH} asks each of one actor", took)
        client = await stack.enter_async_context(ActorSystem.client(tmp_path / "a.db"))
        till = client.get(Till, "t")
        begin = time.perf_counter()
        found = await asyncio.gather(*(till.add(1) for _ in range(50)))
        print(f"50 asks of one client at once: {(time.perf_counter() - begin) * 1e3:.0f} ms")
        assert sorted(found) == list(range(CROWD * EACH + 1, CROWD * EACH + 51))
        assert len(set(owners(tmp_path / "a.db"))) == 1
        for process in crowd:
            say(process)
        assert [process.wait(30) for process in crowd] == [0] * CROWD


class Leaf(Actor, kind="clients.leaf"):
    n: int = 0

    @handler
    async def add(self, n: int) -> int:
        self.n += n
        return self.n


class Crew(Supervisor, kind="clients.crew"):
    """Supervises one, and whoever is added."""

    def children(self) -> list[Child[Leaf]]:
        return [Child(Leaf, "first")]


async def test_a_client_builds_trees_that_others_run(tmp_path: Path) -> None:
    """A front end begins a supervisor and adds to it; whoever runs the kind raises its children and keeps them."""
    async with ActorSystem(tmp_path / "a.db") as system, ActorSystem.client(tmp_path / "a.db") as client:
        crew = await client.spawn(Crew, "crew")
        await until(
            lambda: any(str(a.address) == "clients.leaf/first" for a in list(_host(system).activations.values()))
        )
        second = await crew.start_child(Child(Leaf, "second", n=5))
        assert await second.add(1) == 6
        assert [one.actor.key for one in await crew.which_children()] == ["first", "second"]
        assert (await crew.count_children()).active == 2
        await crew.terminate_child(second)
        assert [one.state for one in await crew.which_children()] == ["running", "stopped"]
        assert not _host(client).activations


def _host(system: ActorSystem) -> Host:
    assert system._host is not None
    return system._host


async def test_a_clients_delayed_mail_falls_due_elsewhere(tmp_path: Path) -> None:
    """A front end that leaves at once has its reminder handled when it is due, by whoever is there."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await asyncio.sleep(0.1)
        async with ActorSystem.client(tmp_path / "a.db") as client:
            begin = time.perf_counter()
            receipt = await client.get(Till, "t").add.options(delay=0.3).tell(1)
        assert await system.receipt(receipt.id, Till.add).result(timeout=20) == 1
        print(f"due after 0.3 s, handled after {time.perf_counter() - begin:.3f} s")


async def test_clients_leave_nothing(tmp_path: Path) -> None:
    """A front end that comes and goes leaves no file, no query and no row that counts as alive."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Till, "t").add(1)
        before = files_in(tmp_path)
        for _ in range(3):
            async with ActorSystem.client(tmp_path / "a.db") as client:
                assert await client.get(Till, "t").value() == 1
        await until(lambda: files_in(tmp_path) == before)
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            assert connection.execute("SELECT count(*) FROM query").fetchone() == (0,)
            rows = connection.execute("SELECT status, runs FROM node ORDER BY runs, started").fetchall()
        assert rows == [("left", 0)] * 3 + [("live", 1)]
