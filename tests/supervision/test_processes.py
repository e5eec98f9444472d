"""Orders about actors that live in another live process on the same database: two systems on one file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from perdure import (
    ActorSystem,
    Child,
    DeadLetterError,
    EscalationError,
    OneForAll,
    OneForOne,
    Retry,
    Supervisor,
    handler,
)
from perdure.errors import StorageError
from perdure.storage.records import Level
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Adopt, Bury, Declare, Settled, Write
from tests.supervision.family import AT_ONCE, Worker, crew, events, gates, workers
from tests.supervision.seeing import crash, is_in, states
from tests.unit.crashing import connection_of, crashing, host_of
from tests.unit.observing import until


class Wanderer(Worker, kind="processes.wanderer", retry=Retry(1), passivate_after=timedelta(milliseconds=20)):
    """Leaves memory when it has nothing to do, so that another process can have it."""

    @handler
    async def crash_when_told(self) -> None:
        events.append(f"holding {self.key}")
        await gates[f"hold {self.key}"].wait()
        raise ValueError(self.key)


class Pondering(SQLiteStore):
    """Has whoever judges an end wait, once the way up the tree is read, until the test lets it go on."""

    async def lineage(self, actor: int) -> list[Level]:
        """See `Store.lineage`."""
        levels = await super().lineage(actor)
        if "judge" in gates:
            events.append("judging")
            await gates["judge"].wait()
        return levels


class Hirer(Supervisor, kind="processes.hirer"):
    """Starts a child for once."""

    @handler
    async def hire(self) -> None:
        await self.start_child(Child(Worker, "w").options(restart="temporary"))


class Standing(SQLiteStore):
    """Stands still before children are started or declared, until the test lets it go on."""

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """See `Store.write`."""
        if "adopt" in gates and any(isinstance(one, Adopt) for one in batch):
            events.append("adopting")
            await gates.pop("adopt").wait()
        if "declare" in gates and any(isinstance(one, Declare) for one in batch):
            events.append("declaring")
            await gates.pop("declare").wait()
        return await super().write(batch)


class Late(Worker, kind="processes.late"):
    """Starts when it may."""

    async def started(self) -> None:
        """See `Actor.started`."""
        events.append(f"starting {self.key}")
        if "start" in gates:
            await gates["start"].wait()


class Team(Supervisor, kind="processes.team"):
    """Has other children after a deployment."""

    release: ClassVar[list[Child[Worker]]] = []

    def children(self) -> list[Child[Worker]]:
        """See `Supervisor.children`."""
        return self.release


@asynccontextmanager
async def two(path: Path, root: type[Supervisor]) -> AsyncGenerator[tuple[ActorSystem, ActorSystem]]:
    """The process that runs the tree, and another one."""
    async with ActorSystem(path / "a.db", root=root) as first, ActorSystem(path / "a.db") as second:
        yield first, second


async def moved(second: ActorSystem, key: str, *, crashing: bool = True) -> Wanderer:
    """A child that has left memory and lives in the second process, where it is busy."""
    gates[f"hold {key}"] = asyncio.Event()
    await until(lambda: f"-{key}" in events)
    await until(lambda: _owner(second, key) is None)
    child = second.get(Wanderer, key)
    events.clear()
    await (child.crash_when_told if crashing else child.hold).tell()
    await until(lambda: f"holding {key}" in events)
    assert _owner(second, key) == host_of(second).node
    events.clear()
    return child


def _owner(system: ActorSystem, key: str) -> str | None:
    ((owner,),) = connection_of(system).execute("SELECT owner FROM actor WHERE key = ?", [key]).fetchall()
    return owner


async def test_a_child_that_lives_in_another_process_is_terminated(tmp_path: Path) -> None:
    """It has stopped there when the call returns; restarted, it goes on with the message it was at."""
    root = crew(Child(Wanderer, "a"))
    async with two(tmp_path, root) as (first, second):
        child, top = await moved(second, "a"), first.get(root, "root")
        await top.terminate_child(child)
        assert events == ["-a"]
        assert await states(first, root) == {"a": "stopped"}
        await top.restart_child(child)
        await until(lambda: events == ["-a", "+a", "holding a"])
        gates["hold a"].set()
        assert await child.add(1) == 1


async def test_a_child_that_lives_in_another_process_is_deleted(tmp_path: Path) -> None:
    """A temporary one ends with the order: whatever it computes after that is not written."""
    root = crew(Child(Wanderer, "a").options(restart="temporary"))
    async with two(tmp_path, root) as (first, second):
        child = await moved(second, "a")
        receipt = await child.add.tell(1)
        await first.get(root, "root").terminate_child(child)
        assert events == ["-a"]
        assert await states(first, root) == {}
        with pytest.raises(DeadLetterError, match="ActorStopped"):
            await receipt.result(timeout=20)


async def test_a_group_restart_across_processes(tmp_path: Path) -> None:
    """A sibling in another process stops before anybody starts again, and starts in its place."""
    root = crew(Child(Wanderer, "a"), *workers("b"), strategy=OneForAll(backoff=AT_ONCE))
    async with two(tmp_path, root) as (first, second):
        child = await moved(second, "a")
        await crash(first.get(Worker, "b"))
        await until(lambda: "+b" in events)
        assert sorted(events[:2]) == ["-a", "-b"]
        assert [event for event in events[2:] if event[0] == "+"] == ["+a", "+b"]
        gates["hold a"].set()
        assert await child.add(1) == 1


async def test_a_failure_in_another_process_restarts_the_group(tmp_path: Path) -> None:
    """The process where a child fails decides; siblings in the other one stop and start in their order."""
    root = crew(Child(Wanderer, "a"), *workers("b"), strategy=OneForAll(backoff=AT_ONCE))
    async with two(tmp_path, root) as (_first, second):
        await moved(second, "a")
        gates["hold a"].set()
        await until(lambda: "+b" in events)
        found = [event for event in events if event != "holding a"]
        assert found[:3] == ["-a", "-b", "+a"]  # and where the other takes long, it has left memory again since
        assert found.count("+a") == found.count("+b") == found.count("-b") == 1


async def test_escalation_in_another_process_ends_the_one_that_runs_the_root(tmp_path: Path) -> None:
    """The process that decides goes on, and its part of the tree has stopped; the one with the root closes, loudly."""
    root = crew(Child(Wanderer, "a"), *workers("b"), strategy=OneForOne(max_restarts=0))
    async with ActorSystem(tmp_path / "a.db") as second:

        async def run_the_root() -> None:
            async with ActorSystem(tmp_path / "a.db", root=root, on_escalation="raise"):
                await moved(second, "a")
                gates["hold a"].set()
                await asyncio.sleep(30)

        with pytest.raises(EscalationError):
            await run_the_root()
    assert events[:3] == ["-a", "-b", "-root"]  # whoever is left may start the tree again, and stop it as it closes


async def test_the_last_significant_children_end_at_once_in_two_processes(tmp_path: Path) -> None:
    """Each process sees the other's child still running when it judges; their supervisor shuts down all the same."""
    inner = crew(
        Child(Wanderer, "a").options(restart="transient", significant=True),
        *workers("b", restart="transient", significant=True),
        *workers("c"),
        auto_shutdown="all_significant",
    )
    root = crew(Child(inner, "inner").options(restart="transient"))
    path = tmp_path / "a.db"
    async with ActorSystem(Pondering(path), root=root) as first, ActorSystem(Pondering(path)) as second:
        child = await moved(second, "a", crashing=False)
        gates["judge"] = asyncio.Event()
        await first.get(Worker, "b").leave.tell()
        await child.leave.tell()
        gates["hold a"].set()
        await until(lambda: events.count("judging") == 2)
        gates["judge"].set()
        await until(lambda: is_in(first, root, "root", "inner", "stopped"))


async def test_who_was_taken_for_dead_starts_no_child(tmp_path: Path) -> None:
    """A child that was started elsewhere and has ended is not started again by a process that stood still."""
    path = tmp_path / "a.db"
    async with ActorSystem(Standing(path)) as first, ActorSystem(path) as second:
        gate = gates["adopt"] = asyncio.Event()
        hired = await first.get(Hirer, "h").hire.tell()
        await until(lambda: "adopting" in events)
        (peer,) = await second._store.peers()  # noqa: SLF001  # no public way to bury a node that lives
        await second._store.write([Bury(peer.id, 5, 1.0)])  # noqa: SLF001  # see above
        await second.receipt(hired.id).result(timeout=20)
        await second.get(Worker, "w").leave()
        assert await states(second, Hirer, "h") == {}
        gate.set()
        assert await first.get(Worker, "other").add(1) == 1  # whatever is sent again went before it
        assert await states(second, Hirer, "h") == {}


async def _bury_the_one_that_declares(second: ActorSystem) -> None:
    await until(lambda: "declaring" in events)
    (peer,) = await second._store.peers()  # noqa: SLF001  # no public way to bury a node that lives
    await second._store.write([Bury(peer.id, 5, 1.0)])  # noqa: SLF001  # see above


async def test_who_was_taken_for_dead_while_it_opened_drops_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What newer code has declared meanwhile stays, and whoever stood still opens all the same."""
    path = tmp_path / "a.db"
    gate = gates["declare"] = asyncio.Event()
    monkeypatch.setattr(Team, "release", workers("a"))
    first = ActorSystem(Standing(path), root=Team)
    opening = asyncio.create_task(first.__aenter__())
    async with ActorSystem(path) as second:
        await _bury_the_one_that_declares(second)
        monkeypatch.setattr(Team, "release", workers("a", "b"))
        async with ActorSystem(path, root=Team) as third:
            assert await states(third, Team) == {"a": "running", "b": "running"}
            monkeypatch.setattr(Team, "release", workers("a"))  # the code of the first
            gate.set()
            await opening
            assert await states(third, Team) == {"a": "running", "b": "running"}
            await first.__aexit__(None, None, None)


async def test_who_was_taken_for_dead_while_it_opened_starts_its_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nobody else has, it does so under its new name, and is open only then."""
    gate = gates["declare"] = asyncio.Event()
    monkeypatch.setattr(Team, "release", workers("a"))
    first = ActorSystem(Standing(tmp_path / "a.db"), root=Team)
    opening = asyncio.create_task(first.__aenter__())
    async with ActorSystem.client(f"sqlite:///{tmp_path / 'a.db'}") as second:
        await _bury_the_one_that_declares(second)
    gate.set()
    await opening
    assert await states(first, Team) == {"a": "running"}
    assert events.count("+a") == 1
    await first.__aexit__(None, None, None)


def is_here(system: ActorSystem, key: str) -> bool:
    """Whether an actor is in a system's memory."""
    return any(activation.address.key == key for activation in host_of(system).activations.values())


async def test_who_came_while_its_tree_was_awaited_is_let_go(tmp_path: Path) -> None:
    """An elder whose process dies while its younger siblings are restarted handles its mail all the same."""
    root = crew(Child(Wanderer, "a"), Child(Late, "b"), strategy=OneForAll(backoff=AT_ONCE))
    gates["hold a"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as first:
        gates["start"] = asyncio.Event()
        await crash(first.get(Wanderer, "a"))
        await until(lambda: events.count("starting b") == 2 and not is_here(first, "a"))
        async with crashing(tmp_path / "a.db") as second:
            held = await second.get(Wanderer, "a").hold.tell()
            await until(lambda: "holding a" in events)
        await until(lambda: is_here(first, "a"))
        await asyncio.sleep(0.1)  # until nobody waits for the tree any more
        gates["start"].set()
        gates["hold a"].set()
        assert await first.receipt(held.id).result(timeout=10) == "a"


async def test_who_was_taken_for_dead_while_it_restarted_a_group_leaves_that_to_others(tmp_path: Path) -> None:
    """What it comes to have of the group afterwards is not stopped by an order that others have carried out."""
    late = Child(Worker, "b").options(shutdown="infinity")
    root = crew(Child(Wanderer, "a"), late, strategy=OneForAll(backoff=AT_ONCE))
    gates.update({"hold a": asyncio.Event(), "b": asyncio.Event()})
    async with ActorSystem(tmp_path / "a.db", root=root) as first, ActorSystem(tmp_path / "a.db") as second:
        await crash(first.get(Wanderer, "a"))
        await until(lambda: "-b" in events)
        await host_of(second).committer.write(Bury(host_of(first).node, 5, 1.0))
        events.clear()
        assert await first.get(Worker, "other").add(1) == 1
        await until(lambda: "-a" in events and not is_here(first, "a") and not is_here(second, "a"))
        held = await first.get(Wanderer, "a").hold.tell()
        await until(lambda: "holding a" in events)
        gates["b"].set()
        await asyncio.sleep(0.1)  # whoever waited for that goes on
        gates["hold a"].set()
        assert await held.result(timeout=10) == "a"


class Failing(SQLiteStore):
    """Fails reads that carry an order out, as many as the test says."""

    outages = 0

    async def elsewhere(self, actors: Collection[int]) -> list[int]:
        """See `Store.elsewhere`."""
        if self.outages:
            self.outages -= 1
            raise StorageError("the disk is away")
        return await super().elsewhere(actors)


async def test_an_order_that_met_an_outage_is_carried_out(tmp_path: Path) -> None:
    """It is on disk; whoever was at it when the database was away goes on once that is back."""
    root = crew(*workers("a", "b"), strategy=OneForAll(backoff=AT_ONCE))
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store, root=root) as system:
        await until(lambda: {"+a", "+b"} <= set(events))
        events.clear()
        store.outages = 2
        await crash(system.get(Worker, "b"))
        await until(lambda: events == ["-b", "-a", "+a", "+b"])
        assert not store.outages
        assert await system.get(Worker, "a").add(1) == 1
