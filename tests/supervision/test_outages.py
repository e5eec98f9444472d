"""What is asked of, and tried again after, an actor that did not run for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorStopped,
    ActorSystem,
    Backoff,
    Child,
    DeadLetterError,
    Limits,
    OneForOne,
    Retry,
    Supervisor,
    handler,
    step,
)
from perdure.console.operate import Operator
from perdure.errors import StorageError
from perdure.storage.records import Address, Level, Loaded, Member, NodeRecord
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Bury, Release, Settled, Write
from tests.supervision.family import Worker, events
from tests.unit.crashing import host_of
from tests.unit.observing import until

asked: list[int] = []
broken: set[str] = set()


class Asker(Actor, kind="outages.asker", retry=Retry(100, backoff=Backoff(0.02, 0.02))):
    @handler
    async def ask(self, worker: Worker) -> int:
        """Ask, however often it takes."""
        asked.append(1)
        return await worker.add(1)


@step(retry=Retry(1))
async def attempt() -> None:
    """Fails while it is broken."""
    if "step" in broken:
        raise ValueError("broken")


class Slow(Actor, kind="outages.slow", retry=Retry(1)):
    @handler(timeout=2)
    async def work(self) -> str:
        """One step."""
        await attempt()
        return "done"


class Hirer(Supervisor, kind="outages.hirer"):
    @handler
    async def hire(self) -> list[str]:
        """Two children, neither with a key."""
        return [(await self.start_child(Child(Worker))).key for _ in range(2)]


class Patron(Actor, kind="outages.patron", supervision=OneForOne()):
    @handler
    async def found(self) -> None:
        """A supervisor with a child of its own."""
        await self.spawn(Child(Guild, "guild"))


class Guild(Supervisor, kind="outages.guild"):
    def children(self) -> list[Child[Actor]]:
        """One worker."""
        return [Child(Worker, "member")]


class Failing(SQLiteStore):
    """Fails to read the way up the tree, or of a member of it, as often as it is told to; orders, once buried."""

    outages = misses = orders = failed = unread = unreleased = 0

    async def rejoin(self, node: NodeRecord) -> None:
        """See `Store.rejoin`."""
        await super().rejoin(node)
        self.orders = 5  # whoever looks at once, and the next

    async def restarting(self) -> list[Member]:
        """See `Store.restarting`."""
        if self.orders:
            self.orders -= 1
            self.failed += 1
            raise StorageError("the disk is away")
        return await super().restarting()

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """See `Store.write`."""
        if self.unreleased and any(isinstance(one, Release) for one in batch):
            self.unreleased -= 1
            raise StorageError("the disk is full")
        return await super().write(batch)

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """See `Store.load`."""
        if self.unread:
            self.unread -= 1
            raise StorageError("the disk is away")
        return await super().load(actors, mail)

    async def member(self, actor: Address) -> Member | None:
        """See `Store.member`."""
        if self.misses:
            self.misses -= 1
            raise StorageError("the disk is away")
        return await super().member(actor)

    async def lineage(self, actor: int) -> list[Level]:
        """See `Store.lineage`."""
        if self.outages:
            self.outages -= 1
            raise StorageError("the disk is away")
        return await super().lineage(actor)


async def test_a_refusal_holds_no_longer_than_the_outage(tmp_path: Path) -> None:
    """A caller that met a stopped actor is answered when it runs again, by its own retries."""
    asked.clear()
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=1_000)) as system:
        pool = system.get(Supervisor, "pool")
        worker = await pool.start_child(Child(Worker, "w"))
        await pool.terminate_child(worker)
        receipt = await system.get(Asker, "a").ask.tell(worker)
        await until(lambda: len(asked) > 2)
        await pool.restart_child(worker)
        assert await receipt.result(timeout=20) == 1


async def test_a_timeout_counts_from_where_a_letter_is_tried_again(tmp_path: Path) -> None:
    """A dead letter that somebody tries again later has its handler's whole time."""
    broken.add("step")
    async with ActorSystem(tmp_path / "a.db") as system:
        slow = system.get(Slow, "s")
        with pytest.raises(DeadLetterError):
            await slow.work.options(id="late")()
        broken.clear()
        await asyncio.sleep(2.1)  # longer than the timeout, which is what this is about
        await Operator(tmp_path / "a.db").retry("late")
        assert await system.receipt("late", Slow.work).result(timeout=20) == "done"


async def test_children_without_keys_are_others(tmp_path: Path) -> None:
    """A supervisor that starts two children without naming them has two."""
    async with ActorSystem(tmp_path / "a.db") as system:
        one, other = await system.get(Hirer, "h").hire()
        assert one != other


async def test_a_spawned_supervisor_starts_its_children(tmp_path: Path) -> None:
    """Whoever spawns a supervisor has its children running, without writing to it first, and after a restart, too."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Patron, "p").found()
        await until(lambda: "+member" in events)
        events.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        await until(lambda: "+member" in events)


async def test_an_outage_as_an_actor_ends_is_no_failure_of_its(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its message, which has one attempt, is handled again and goes well; nobody is told of a mistake in its code."""
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        store.outages = 1
        await system.get(Worker, "w").leave.options(timeout=10)()
    assert store.outages == 0
    assert "failed, attempt" not in caplog.text


async def test_an_outage_as_a_supervisor_comes_into_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It starts its children once the database is back."""
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        store.misses = 1
        await system.spawn(Guild, "g")
        await until(lambda: "+member" in events)
    assert store.misses == 0
    assert "bug" not in caplog.text


async def test_a_tree_begins_anew_after_an_outage(tmp_path: Path) -> None:
    """Whoever is in a tree handles mail again where the database was away just as its buried process took stock."""
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store) as system, ActorSystem.client(f"sqlite:///{tmp_path / 'a.db'}") as client:
        await system.spawn(Guild, "guild")
        host, worker = host_of(system), system.get(Worker, "member")
        assert await worker.add(1) == 1
        await host_of(client).committer.write(Bury(host.node, 5, host.timestamp()))
        await until(lambda: store.failed == 5)
        assert await worker.add.options(timeout=20)(1) == 2


async def test_a_child_that_could_not_be_read_is_started_all_the_same(tmp_path: Path) -> None:
    """Whoever starts a child has it running, with its own children, though an outage came between."""
    events.clear()
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        pool = system.get(Supervisor, "pool")
        await pool.start_child(Child(Worker, "first"))
        store.unread = 2
        await pool.start_child(Child(Guild, "guild"))
        assert store.unread == 0
        assert events == ["+first", "+member"]


async def test_who_could_not_be_given_up_is_stopped_all_the_same(tmp_path: Path) -> None:
    """A child that was terminated handles nothing until it is restarted, though an outage came between."""
    store = Failing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        pool = system.get(Supervisor, "pool")
        worker = await pool.start_child(Child(Worker, "w"))
        store.unreleased = 2
        await pool.terminate_child(worker)
        assert store.unreleased == 0
        assert await store.unwanted() == []
        with pytest.raises(ActorStopped):
            await worker.add(1)
        await pool.restart_child(worker)
        assert await worker.add(1) == 1
