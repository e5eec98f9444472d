"""What of a supervision tree outlives the process: all of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ActorFailed,
    ActorStopped,
    ActorSystem,
    Backoff,
    Child,
    Limits,
    OneForAll,
    OneForOne,
    Supervisor,
    handler,
)
from perdure.actors.names import kinds
from tests.supervision.family import AT_ONCE, Stubborn, Worker, crew, events, gates, workers
from tests.supervision.hands import Hands
from tests.supervision.seeing import crash, is_in, states
from tests.unit.crashing import crashing
from tests.unit.observing import until

Opening = Callable[..., AbstractAsyncContextManager[ActorSystem]]

both_ends = pytest.mark.parametrize("ending", [ActorSystem, crashing], ids=["closed", "crashed"])


@both_ends
async def test_dynamic_children_are_rebuilt(tmp_path: Path, ending: Opening) -> None:
    """Whatever was started at run time is there again, in order, with its state, after any end of the process."""
    root = crew(*workers("a"))
    async with ending(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        for key in "bc":
            await (await supervisor.start_child(Child(Worker, key))).add(1)
    events.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert events == ["+root", "+a", "+b", "+c"]
        assert await system.get(Worker, "c").add(1) == 2


@both_ends
async def test_a_tree_without_a_root_is_rebuilt(tmp_path: Path, ending: Opening) -> None:
    """A supervisor that nobody declared has its children running again when somebody reaches it, or at once."""
    branch = crew(*workers(*"ab"))
    async with ending(tmp_path / "a.db") as system:
        await system.get(branch, "branch").start_child(Child(Worker, "c"))
    events.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(branch, "branch").start_child(Child(Worker, "d"))
        assert events == ["+branch", "+a", "+b", "+c", "+d"]


async def test_after_a_crash_a_supervisor_starts_without_mail(tmp_path: Path) -> None:
    """Recovery waits for nobody to write: what ran when the process died runs again."""
    branch = crew(*workers("a"))
    async with crashing(tmp_path / "a.db") as system:
        await system.get(branch, "branch").start_child(Child(Worker, "b"))
    events.clear()
    async with ActorSystem(tmp_path / "a.db"):
        await until(lambda: events == ["+branch", "+a", "+b"])


@both_ends
async def test_restart_counts_are_kept(tmp_path: Path, ending: Opening) -> None:
    """A supervisor that restarts its child again and again does not get a new budget from a new process."""
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=2, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ending(tmp_path / "a.db", root=root) as system:
        for times in (2, 3):
            await crash(system.get(Worker, "a"))
            await until(lambda times=times: events.count("+a") == times)
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))


async def test_restarts_out_of_the_period_are_forgotten(tmp_path: Path) -> None:
    """Only restarts within the period count, whichever process made them."""
    clock = Hands()
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=1, within=60, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root, clock=clock) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 2)
    clock.move(61)
    async with ActorSystem(tmp_path / "a.db", root=root, clock=clock) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 4)
        assert await states(system, root) == {"inner": "running"}


@both_ends
async def test_a_backoff_goes_on(tmp_path: Path, ending: Opening) -> None:
    """A new process does not cut a wait short, nor begin it anew."""
    clock = Hands()
    branch = crew(*workers("a"), strategy=OneForOne(backoff=Backoff(100, 100, jitter=0)))
    async with ending(tmp_path / "a.db", clock=clock) as system:
        await system.get(branch, "branch").start_child(Child(Worker, "b"))
        await crash(system.get(Worker, "a"))
    clock.move(60)
    events.clear()
    async with ActorSystem(tmp_path / "a.db", clock=clock) as system:
        assert await states(system, branch, "branch") == {"a": "restarting", "b": "running"}
        assert restart_at(tmp_path / "a.db") == clock.now().timestamp() + 40
        assert "+a" not in events


def restart_at(path: Path) -> float:
    """When the only actor that waits for its restart is to be restarted."""
    with closing(sqlite3.connect(path)) as beside:
        ((at,),) = beside.execute("SELECT restart_at FROM actor WHERE life = 'restarting'")
    return float(at)


@both_ends
async def test_a_restart_whose_time_came_meanwhile(tmp_path: Path, ending: Opening) -> None:
    """A restart that was due while no process ran is made when one does, and the mail goes on."""
    clock = Hands()
    branch = crew(*workers("a"), strategy=OneForOne(backoff=Backoff(100, 100, jitter=0)))
    async with ending(tmp_path / "a.db", clock=clock) as system:
        await system.get(branch, "branch").start_child(Child(Worker, "b"))
        await crash(system.get(Worker, "a"))
        receipt = await system.get(Worker, "a").add.tell(1)
    clock.move(101)
    async with ActorSystem(tmp_path / "a.db", clock=clock) as system:
        assert await system.receipt(receipt.id, Worker.add).result(timeout=20) == 1
        await until(lambda: is_in(system, branch, "branch", "a", "running"))


async def test_a_group_restart_is_finished_by_the_next_process(tmp_path: Path) -> None:
    """An order that a crash cut short is carried out whole where the database is opened again."""
    inner = crew(*workers(*"abc"), strategy=OneForAll(backoff=AT_ONCE))
    root = crew(Child(inner, "inner"))
    async with crashing(tmp_path / "a.db", root=root) as system:
        gates["b"] = asyncio.Event()
        await system.get(Worker, "c").crash.tell()
        await until(lambda: events[-1] == "-b")
    gates.clear()
    events.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await until(lambda: is_in(system, inner, "inner", "c", "running"))
        assert events == ["+root", "+inner", "+a", "+b", "+c"]
        assert await system.get(Worker, "a").add(1) == 1


@both_ends
async def test_failed_stays_failed(tmp_path: Path, ending: Opening) -> None:
    """An actor that failed for good is not begun again by a new process, and its mail is kept."""
    limits = Limits(restarts=0)
    async with ending(tmp_path / "a.db", limits=limits) as system:
        await crash(system.get(Worker, "a"))
        await system.get(Worker, "a").add.options(id="m").tell(1)
    async with ActorSystem(tmp_path / "a.db", limits=limits) as system:
        with pytest.raises(ActorFailed):
            await system.get(Worker, "a").add(1)
        assert await system.receipt("m").status() == "pending"
        with pytest.raises(ActorFailed):
            await system.receipt("m").result(timeout=20)


@both_ends
async def test_what_ended_stays_ended(tmp_path: Path, ending: Opening) -> None:
    """Transient children that ended, terminated and deleted ones stay so; declared ones as well."""
    root = crew(*workers(*"ab", restart="transient"), *workers(*"cd"), *workers("e", restart="temporary"))
    async with ending(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        await system.get(Worker, "a").leave()
        await system.get(Worker, "e").leave()
        await supervisor.terminate_child(system.get(Worker, "c"))
        await supervisor.terminate_child(system.get(Worker, "d"))
        await supervisor.delete_child(system.get(Worker, "d"))
        receipt = await system.get(Worker, "c").add.tell(1)
    events.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert events == ["+root", "+b"]
        assert await states(system, root) == {"a": "stopped", "b": "running", "c": "stopped"}
        with pytest.raises(ActorStopped):
            await system.get(Worker, "a").add(1)
        await system.get(root, "root").restart_child(system.get(Worker, "c"))
        assert await system.receipt(receipt.id, Worker.add).result(timeout=20) == 1


async def test_a_supervisor_that_gave_up_stays_ended(tmp_path: Path) -> None:
    """A transient branch that ended with its children is not begun again by a new process."""
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=0))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))
    events.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert events == ["+root"]
        assert await states(system, root) == {"inner": "stopped"}


async def test_start_child_that_a_crash_cut_short(tmp_path: Path) -> None:
    """Asked again after a crash, `start_child` gives the child that was begun, not another, and no error."""
    root = crew()
    async with crashing(tmp_path / "a.db", root=root) as system:
        gates["start b"] = asyncio.Event()
        starting = asyncio.ensure_future(system.get(root, "root").start_child(Child(Slow, "b")))
        await until(lambda: "slow" in events)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    gates.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await until(lambda: is_in(system, root, "root", "b", "running"))
        assert await system.get(Slow, "b").add(1) == 1
        assert (await system.get(root, "root").count_children()).specs == 1


class Agency(Supervisor, kind="durable.agency"):
    @handler
    async def hire(self) -> str:
        """Have a temporary child do its work and end, then wait."""
        one = await self.start_child(Child(Worker).options(restart="temporary"))
        await one.add(1)
        await one.leave()
        events.append("left")
        if "agency" in gates:
            await gates["agency"].wait()
        return one.key


async def test_start_child_that_has_ended_when_it_is_asked_again(tmp_path: Path) -> None:
    """What a temporary child had done and ended with is not done once more because its supervisor's message is."""
    gates["agency"] = asyncio.Event()
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Agency, "a").hire.options(id="hire").tell()
        await until(lambda: "left" in events)
    gates.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        key = await system.receipt("hire", Agency.hire).result(timeout=20)
        assert await states(system, Agency, "a") == {}
        assert events.count(f"+{key}") == 1
        with pytest.raises(ActorStopped):
            await system.get(Worker, key).add(1)


class Slow(Worker, kind="durable.slow"):
    async def started(self) -> None:
        events.append("slow")
        if "start b" in gates:
            await gates["start b"].wait()


def _release(children: list[Child[Any]], monkeypatch: pytest.MonkeyPatch) -> type[Supervisor]:
    """One supervisor as its class is in one release."""
    monkeypatch.delitem(kinds, "durable.changing", raising=False)

    class Changing(Supervisor, kind="durable.changing"):
        def children(self) -> list[Child[Any]]:
            return children

    return Changing


async def test_what_a_release_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that declares other children has those, in its order; what it lets go is no child, and not lost."""
    before, after = [*workers(*"ab")], [*workers("c"), *workers("a", restart="transient")]
    async with ActorSystem(tmp_path / "a.db", root=_release(before, monkeypatch)) as system:
        assert await system.get(Worker, "b").add(1) == 1
    events.clear()
    root = _release(after, monkeypatch)
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert events == ["+c", "+a"]
        found = await system.get(root, "root").which_children()
        assert [(one.actor.key, one.restart) for one in found] == [("c", "permanent"), ("a", "transient")]
        assert await system.get(Worker, "b").add(1) == 2


async def test_mail_of_a_whole_tree_waits(tmp_path: Path) -> None:
    """What was sent and not handled before a crash is handled after it, once the tree stands."""
    inner = crew(Child(Stubborn, "a"), *workers("b"))
    root = crew(Child(inner, "inner"))
    async with crashing(tmp_path / "a.db", root=root) as system:
        gates["hold b"] = asyncio.Event()
        await system.get(Worker, "b").hold.options(id="held").tell()
        await until(lambda: "holding b" in events)
        await system.get(Worker, "b").add.options(id="after").tell(1)
    gates["hold b"].set()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await system.receipt("held", Worker.hold).result(timeout=20) == "b"
        assert await system.receipt("after", Worker.add).result(timeout=20) == 1


async def test_another_process_takes_the_tree_over(tmp_path: Path) -> None:
    """A tree runs once, and where the process that ran it dies, another that has it goes on with it."""
    root = crew(*workers(*"ab"))
    first = crashing(tmp_path / "a.db", root=root)
    await first.__aenter__()
    async with ActorSystem(tmp_path / "a.db", root=root) as second:
        assert events == ["+root", "+a", "+b"]
        await first.__aexit__(None, None, None)
        await until(lambda: events == ["+root", "+a", "+b"] * 2)
        assert await second.get(Worker, "a").add(1) == 1
