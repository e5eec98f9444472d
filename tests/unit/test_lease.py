"""Who is taken for dead, and what becomes of a node that was."""
# ruff: noqa: SLF001 - a heartbeat is stopped where it begins

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import MethodType
from typing import cast

import pytest

from perdure import Actor, ActorSystem, Limits, Receipt, handler, step
from perdure.errors import FencedError, NodeBuried, StorageError
from perdure.storage.committer import Committer
from perdure.storage.records import Peer
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Buried, Bury, Segment, Settled, Write
from perdure.supervision.lease import BEATS, Lease
from perdure.supervision.pulse import Pulse
from perdure.testing.conformance.nodes import SENT, Node, on, want
from tests.conformance.places import SQLiteFile
from tests.unit.crashing import host_of
from tests.unit.observing import until

QUICK = Limits(lease=1, heartbeat=0.1)

ran: list[str] = []
gates: dict[str, asyncio.Event] = {}


@step
async def work(name: str) -> str:
    """Runs when the test lets it."""
    ran.append(name)
    if name in gates:
        await gates[name].wait()
    return name


class Clerk(Actor, kind="lease.clerk"):
    done: list[str] = []

    @handler
    async def steps(self, names: list[str]) -> list[str]:
        for name in names:
            self.done.append(await work(name))
        return self.done

    @handler
    async def add(self, name: str) -> list[str]:
        self.done.append(name)
        return self.done


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    gates.clear()


# judging --------------------------------------------------------------------------------------------------------------


def judged(lease: Lease, beats: int, now: float) -> list[tuple[str, int]]:
    """What is found of one peer."""
    return lease.judge([Peer("p", beats, 0)], now)


def test_a_node_is_dead_a_lease_after_its_counter_stopped() -> None:
    """Measured by the clock of who judges, from when it first saw the counter as it is."""
    lease = Lease(10, 0)
    assert judged(lease, 7, 0) == []
    for at in range(1, 11):
        lease.beaten(at)
    assert judged(lease, 7, 9.9) == []
    assert judged(lease, 7, 10) == [("p", 7)]


def test_a_counter_that_moves_is_life() -> None:
    """However slowly, within a lease."""
    lease = Lease(10, 0)
    for at in range(100):
        lease.beaten(at)
        assert judged(lease, at // 9, at) == []


def test_nobody_is_buried_by_who_could_not_beat_himself() -> None:
    """After an outage, or a sleep, others get the time to show that they live."""
    lease = Lease(10, 0)
    judged(lease, 7, 0)
    for beats in range(1, BEATS):
        lease.beaten(1_000)
        assert judged(lease, 7, 1_000 + beats) == []
    lease.beaten(1_010)
    assert judged(lease, 7, 1_010) == [("p", 7)]


def test_half_a_lease_without_a_durable_heartbeat() -> None:
    """It counts from when the heartbeat was sent."""
    lease = Lease(10, 0)
    assert lease.holds(4.9)
    assert not lease.holds(5)
    lease.beaten(6)
    assert lease.holds(10.9)
    lease.alone(20)
    assert lease.holds(24)


@pytest.mark.parametrize(("lease", "heartbeat"), [(1, 0.3), (15, 0)])
def test_a_heartbeat_that_cannot_hold_a_lease(lease: float, heartbeat: float) -> None:
    """Refused where it is said."""
    with pytest.raises(ValueError, match="at most a fifth of the lease"):
        Limits(lease=lease, heartbeat=heartbeat)


# among others ---------------------------------------------------------------------------------------------------------


async def test_a_node_that_gives_no_sign_of_life_is_buried(tmp_path: Path) -> None:
    """Its process may live (it is stopped, say): what it had goes on elsewhere after a lease."""
    async with on(SQLiteFile(tmp_path)) as silent:
        mail = await silent.append(id="m", handler="add", args='{"name":"x"}', kind="lease.clerk")
        async with ActorSystem(tmp_path / "actors.db", limits=QUICK) as system:
            assert await system.receipt("m", Clerk.add).result(timeout=20) == ["x"]
        with pytest.raises(NodeBuried):
            await silent.finish(mail)


async def test_nodes_that_beat_leave_each_other_alone(tmp_path: Path) -> None:
    """For several leases, under load."""
    path = tmp_path / "a.db"
    limits = Limits(lease=2, heartbeat=0.1)
    async with ActorSystem(path, limits=limits) as one, ActorSystem(path, limits=limits) as two:
        nodes = {host_of(one).node, host_of(two).node}
        for number in range(60):
            await asyncio.gather(*(system.get(Clerk, key).add(str(number)) for system in (one, two) for key in "abc"))
            await asyncio.sleep(0.08)
        assert {host_of(one).node, host_of(two).node} == nodes


async def test_a_buried_node_goes_on_as_another(tmp_path: Path) -> None:
    """Its turns are others'; what callers outside had sent through it is sent again, in order, and nothing is lost."""
    path = tmp_path / "a.db"
    gates["slow"] = asyncio.Event()
    async with ActorSystem(path) as system, on_file(path) as other:
        clerk = system.get(Clerk, "a")
        receipt = await clerk.steps.tell(["slow", "quick"])
        await until(lambda: ran == ["slow"])
        before = host_of(system).node
        want(Buried, await other.settle(Bury(before, 5, SENT)))
        tells = [asyncio.ensure_future(clerk.add.tell(str(number))) for number in range(20)]
        gates["slow"].set()
        await asyncio.gather(*tells)
        assert host_of(system).node != before
        assert await receipt.result(timeout=20) == ["slow", "quick"]
        assert await clerk.add("end") == ["slow", "quick", *map(str, range(20)), "end"]
        assert ran.count("quick") == 1
        assert host_of(system).node in {peer.id for peer in await other.store.peers()}


def on_file(path: Path) -> AbstractAsyncContextManager[Node]:
    """A node that runs no actor of ours, on a file."""

    class File(SQLiteFile):
        def store(self) -> SQLiteStore:
            return SQLiteStore(path)

    return on(File(path.parent))


class NoHeartbeat(Committer):
    """Commits nothing."""

    async def write(self, write: Write, *, first: bool = False) -> Settled:
        raise StorageError("the database is away")


async def in_first_step(system: ActorSystem) -> tuple[Pulse, Receipt[list[str]]]:
    """A turn of the actor `a` whose first step waits for its gate, and the pulse of the node that has it."""
    pulse = cast("Pulse", cast("MethodType", host_of(system).stale).__self__)
    gates["first"] = asyncio.Event()
    receipt = await system.get(Clerk, "a").steps.tell(["first", "second"])
    await until(lambda: ran == ["first"])
    return pulse, receipt


async def test_nothing_begins_on_a_node_that_may_be_buried(tmp_path: Path) -> None:
    """Half a lease without a heartbeat that is durable, its turns wait; with the next one they go on."""
    path = tmp_path / "a.db"
    async with ActorSystem(path, limits=QUICK) as system, ActorSystem(path):  # who is patient, and does not bury it
        pulse, receipt = await in_first_step(system)
        committer, pulse._committer = pulse._committer, NoHeartbeat(host_of(system).store)
        await until(pulse.stale)
        gates["first"].set()
        clerk = system.get(Clerk, "a")
        await clerk.add.tell("later")
        await asyncio.sleep(0.2)
        assert ran == ["first"]
        pulse._committer = committer
        assert await receipt.result(timeout=20) == ["first", "second"]
        assert await clerk.add("end") == ["first", "second", "later", "end"]


class LateHeartbeat(Committer):
    """One heartbeat takes half a lease and more to commit; what comes after it does not."""

    def __init__(self, honest: Committer, lease: Lease) -> None:
        self._honest = honest
        self._lease = lease
        self.commits: asyncio.Event = asyncio.Event()

    async def write(self, write: Write, *, first: bool = False) -> Settled:
        if not self.commits.is_set():
            self._lease.sent -= self._lease.seconds  # so long ago is the last one that is durable, by now
            await self.commits.wait()
        return await self._honest.write(write, first=first)


async def test_a_heartbeat_that_comes_late_is_heard_by_all_who_wait_for_it(tmp_path: Path) -> None:
    """What had to wait only while it was being committed goes on with it, and not when something else comes."""
    path, limits = tmp_path / "a.db", Limits(lease=60, heartbeat=0.1)
    async with ActorSystem(path, limits=limits) as system, ActorSystem(path, limits=limits):
        pulse, receipt = await in_first_step(system)
        pulse._committer = late = LateHeartbeat(pulse._committer, pulse._lease)
        await until(pulse.stale)
        gates["first"].set()
        other = await system.get(Clerk, "b").add.tell("new")
        await asyncio.sleep(0.2)
        assert ran == ["first"]
        late.commits.set()
        assert await receipt.result(timeout=20) == ["first", "second"]
        assert await other.result(timeout=20) == ["new"]


# what runs ahead ------------------------------------------------------------------------------------------------------


class Sink(Actor, kind="lease.sink"):
    got: list[int] = []

    @handler
    async def take(self, total: int) -> list[int]:
        self.got.append(total)
        return self.got


class Runner(Actor, kind="lease.runner"):
    """Its first handler gives another total at every run, as one that reads a clock would."""

    total: int = 0

    @handler
    async def first(self) -> int:
        ran.append("first")
        self.total += len(ran)
        return self.total

    @handler
    async def second(self) -> int:
        await asyncio.sleep(0.05)
        await self.system.get(Sink, "s").take.tell(self.total)
        await work("second")
        return self.total


class Failing(SQLiteStore):
    """Fails at the first message's end, slowly."""

    failed = False

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        if not self.failed and any(isinstance(one, Segment) and one.end is not None for one in batch):
            self.failed = True
            await asyncio.sleep(0.3)
            raise StorageError("the disk is full")
        return await super().write(batch)


async def test_what_ran_ahead_of_a_commit_that_failed_is_lost_with_it(tmp_path: Path) -> None:
    """A turn that began while the one before it was being committed rests on a state that never came to be."""
    async with ActorSystem(Failing(tmp_path / "a.db")) as system:
        runner = system.get(Runner, "a")
        first, second = await asyncio.gather(runner.first.tell(), runner.second.tell())
        assert await first.result(timeout=20) == await second.result(timeout=20) == 2
        assert await system.get(Sink, "s").take(0) == [2, 0]
        assert ran == ["first", "first", "second"]


def test_being_buried_is_being_fenced() -> None:
    """Whoever handles the one handles the other."""
    assert issubclass(NodeBuried, FencedError)
