"""Handlers that do not stop when they are cancelled are left behind, and hold nobody up."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorSystem,
    Child,
    Failure,
    Limits,
    MessageExpired,
    OneForAll,
    Ref,
    Retry,
    Supervisor,
    handler,
    query,
    step,
)
from perdure.errors import LeakedTaskError, StubbornHandlerError
from perdure.supervision.strategy import Directive
from tests.unit.crashing import host_of
from tests.unit.observing import until

failures: list[Failure] = []
events: list[str] = []
directive: list[Directive] = ["restart"]
release: asyncio.Event
_QUICK = Limits(grace=0.05)


@step
async def effect(what: str) -> None:
    """Something that the world sees."""
    events.append(what)


async def _cling() -> None:
    """Go on, however often it is cancelled, until the test is done with it."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            events.append("cancelled")


class Mule(Actor, kind="stubborn.mule"):
    total: int = 0

    async def started(self) -> None:
        events.append(f"{self.key} started")
        if "crashed" in events:
            events.remove("crashed")
            await _cling()

    @handler(retry=Retry(1))
    async def crash(self) -> None:
        events.append("crashed")
        raise ValueError("once")

    @handler(timeout=0.05)
    async def cling(self) -> None:
        self.total = 99
        await _cling()

    @handler
    async def cling_for_ever(self) -> None:
        self.total = 99
        await _cling()

    @handler
    async def shield(self) -> None:
        task = asyncio.ensure_future(release.wait())
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                events.append("cancelled")

    @handler(timeout=0.05)
    async def cling_and_act(self, other: Ref[Mule]) -> str:
        await _cling()
        self.total = 99
        for act in (lambda: effect("step"), lambda: other.add.tell(50), lambda: other.add(50)):
            try:
                await act()
            except asyncio.CancelledError:
                events.append("refused")
        return "done"

    @handler(timeout=0.05)
    async def cling_and_fail(self) -> None:
        await _cling()
        raise ValueError("at last")

    @handler
    async def leak(self) -> None:
        used = asyncio.Event()
        task = asyncio.ensure_future(_use_and_cling(used))
        await used.wait()
        assert not task.done()

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

    @query
    async def value(self) -> int:
        return self.total


async def _use_and_cling(used: asyncio.Event) -> None:
    await effect("in use")
    used.set()
    await _cling()


class Crew(Supervisor, kind="stubborn.crew"):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Mule, "m").options(shutdown=0.05)
        yield Child(Mule, "brutal").options(shutdown="brutal")

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        failures.append(failure)
        return directive[0]


class Team(Supervisor, kind="stubborn.team", strategy=OneForAll()):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Mule, "m").options(shutdown=0.05)
        yield Child(Mule, "other").options(shutdown=0.05)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test."""
    global release  # noqa: PLW0603  # handlers wait for it
    release = asyncio.Event()
    failures.clear()
    events.clear()
    directive[:] = ["restart"]


async def _free(system: ActorSystem) -> None:
    """Let who was left behind end, and see that his worker does."""
    left = set(host_of(system).workers.left)
    assert left
    release.set()
    _, running = await asyncio.wait(left, timeout=5)
    assert not running
    assert not left & host_of(system).workers.tasks
    assert not host_of(system).workers.left


async def test_a_handler_that_swallows_its_timeout_is_left_behind(tmp_path: Path) -> None:
    """The message ends expired, its supervisor hears of a failure, and the actor goes on with the next message."""
    async with ActorSystem(tmp_path / "a.db", root=Crew, limits=_QUICK) as system, asyncio.timeout(30):
        mule = system.get(Mule, "m")
        receipt = await mule.cling.options(id="stuck").tell()
        assert await mule.add(1) == 1
        with pytest.raises(MessageExpired, match=r"0\.05 s"):
            await receipt.result()
        (failure,) = failures
        assert failure.message == "stuck"
        assert failure.caused_by(StubbornHandlerError)
        assert "in _cling" in failure.traceback
        assert "await release.wait()" in failure.traceback
        assert events.count("m started") == 2
        await _free(system)
        assert await mule.add(1) == 2
    with closing(sqlite3.connect(tmp_path / "a.db")) as beside:
        rows = beside.execute("SELECT decision FROM failure").fetchall()
    assert rows == [("restart",)]


async def test_nothing_of_a_handler_that_was_left_behind_is_written(tmp_path: Path) -> None:
    """Steps do not begin, messages do not leave and state does not change once a message has ended without it."""
    async with ActorSystem(tmp_path / "a.db", limits=_QUICK) as system, asyncio.timeout(30):
        mule, other = system.get(Mule, "m"), system.get(Mule, "other")
        receipt = await mule.cling_and_act.tell(other)
        assert await mule.add(1) == 1
        await _free(system)
        assert events.count("refused") == 3
        assert "step" not in events
        assert await mule.add(1) == 2
        assert await other.add(1) == 1
        assert await receipt.status() == "expired"


async def test_a_late_exception_of_a_handler_that_was_left_behind_harms_nobody() -> None:
    """What it raises in the end is no second failure."""
    async with ActorSystem(":memory:", root=Crew, limits=_QUICK) as system, asyncio.timeout(30):
        mule = system.get(Mule, "m")
        await mule.cling_and_fail.tell()
        assert await mule.add(1) == 1
        await _free(system)
        assert await mule.add(1) == 2
        assert len(failures) == 1


@pytest.mark.parametrize("answer", ["resume", "stop"])
async def test_the_supervisor_decides_about_a_stubborn_handler(answer: Directive) -> None:
    """`resume` goes on in a new instance, for the old one is not let go of; `stop` keeps the mail of the rest."""
    directive[:] = [answer]
    async with ActorSystem(":memory:", root=Crew, limits=_QUICK) as system, asyncio.timeout(30):
        mule = system.get(Mule, "m")
        stuck, after = await mule.cling.tell(), await mule.add.tell(1)
        with pytest.raises(MessageExpired):
            await stuck.result()
        if answer == "stop":
            crew = system.get(Crew, "root")
            await until(lambda: "m" not in {one.address.key for one in host_of(system).activations.values()})
            assert await after.status() == "pending"
            await crew.restart_child(mule)
        assert await after.result() == 1
        await _free(system)


async def test_a_handler_that_stops_in_time_is_not_left_behind() -> None:
    """Whoever tidies up within the grace, and then stops, costs no failure."""
    async with ActorSystem(":memory:", root=Crew, limits=Limits(grace=5)) as system, asyncio.timeout(30):
        mule = system.get(Mule, "m")
        receipt = await mule.cling.tell()
        await until(lambda: "cancelled" in events)
        release.set()
        with pytest.raises(MessageExpired):
            await receipt.result()
        assert await mule.add(1) == 1
        assert failures == []


@pytest.mark.parametrize("key", ["m", "brutal"])
@pytest.mark.parametrize("name", ["cling_for_ever", "shield"])
async def test_a_child_that_does_not_stop_is_left_behind(tmp_path: Path, key: str, name: str) -> None:
    """`terminate_child` returns, and the child starts anew from what is on disk with the message that was running."""
    async with ActorSystem(tmp_path / "a.db", root=Crew) as system, asyncio.timeout(30):
        crew, mule = system.get(Crew, "root"), system.get(Mule, key)
        receipt = await (mule.shield if name == "shield" else mule.cling_for_ever).tell()
        await until(lambda: _handles(system, key))
        await crew.terminate_child(mule)
        assert "cancelled" in events
        await _free(system)
        await crew.restart_child(mule)
        await receipt.result()
        assert await mule.add(1) == (1 if name == "shield" else 100)
        assert events.count(f"{key} started") == 2


async def test_a_child_whose_start_does_not_stop_is_left_behind() -> None:
    """A `started()` that swallows cancellation holds no order of its supervisor."""
    async with ActorSystem(":memory:", root=Crew) as system, asyncio.timeout(30):
        crew, mule = system.get(Crew, "root"), system.get(Mule, "m")
        await mule.crash.tell()
        receipt = await mule.add.tell(1)
        await until(lambda: events.count("m started") == 2)
        await crew.terminate_child(mule)
        await _free(system)
        await crew.restart_child(mule)
        assert await receipt.result() == 1


async def test_a_group_restarts_without_its_stubborn_member() -> None:
    """One child that does not stop keeps the others of its group from starting no longer than its time."""
    async with ActorSystem(":memory:", root=Team, limits=_QUICK) as system, asyncio.timeout(30):
        mule, other = system.get(Mule, "m"), system.get(Mule, "other")
        await other.cling_for_ever.tell()
        stuck = await mule.cling.tell()
        with pytest.raises(MessageExpired):
            await stuck.result()
        await until(lambda: events.count("other started") == 2)
        await _free(system)
        assert await mule.add(1) == 1
        assert await other.add(1) == 100


async def test_a_leaked_task_that_does_not_stop_is_left_behind() -> None:
    """A task that outlives its handler and swallows cancellation does not hold the mailbox."""
    async with ActorSystem(":memory:", root=Crew, limits=Limits(grace=0.05, attempts=1)) as system:
        mule = system.get(Mule, "m")
        async with asyncio.timeout(30):
            await mule.leak.tell()
            assert await mule.add(1) == 1
            assert failures[0].caused_by(LeakedTaskError)
            await _free(system)


def _handles(system: ActorSystem, key: str) -> bool:
    return any(one.address.key == key and one.turn is not None for one in host_of(system).activations.values())


_PROGRAM = """
import asyncio, sys
from perdure import Actor, ActorSystem, Limits, fan_out, handler

async def cling(number=0):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("cancelled", file=sys.stderr)

class Mule(Actor, kind="mule"):
    @handler(timeout=0.05)
    async def cling(self) -> None:
        await cling()
    @handler(timeout=0.05)
    async def fan(self) -> None:
        await fan_out(cling, [1, 2])
    @handler
    async def cling_for_ever(self) -> None:
        await cling()
    @handler
    async def add(self) -> int:
        return 1

async def main():
    async with ActorSystem(sys.argv[1], limits=Limits(grace=0.1)) as system:
        mule, fan = system.get(Mule, "m"), system.get(Mule, "fan")
        await mule.cling.tell()
        await fan.fan.tell()
        print(await mule.add(), await fan.add())
        await system.get(Mule, "other").cling_for_ever.tell()
        await asyncio.sleep(0.1)
    print("closed")

asyncio.run(main())
"""


def test_the_process_ends_without_its_stubborn_handlers(tmp_path: Path) -> None:
    """`asyncio.run` waits for every task there is; a handler that never stops does not keep the program from ending."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 1", "closed"]
    assert "Task was destroyed" not in done.stderr
