"""Children that are started, stopped, restarted and forgotten at run time, and what a supervisor says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from perdure import ActorStopped, ActorSystem, Backoff, Child, ChildError, OneForOne
from perdure.storage.records import Restart
from perdure.supervision.supervisor import ChildCounts
from tests.supervision.family import Worker, broken, crew, events, gates, workers
from tests.supervision.seeing import crash, states
from tests.unit.observing import until


async def refused(asking: Awaitable[object]) -> str:
    """Why a supervisor refuses."""
    with pytest.raises(ChildError) as caught:
        await asking
    return caught.value.reason


# start_child ----------------------------------------------------------------------------------------------------------


async def test_start_child(tmp_path: Path) -> None:
    """A child started at run time runs when the call returns, as the youngest."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        child = await system.get(root, "root").start_child(Child(Worker, "b", total=4))
        assert events == ["+root", "+a", "+b"]
        assert await child.add(1) == 5
        assert await states(system, root) == {"a": "running", "b": "running"}


async def test_start_child_that_runs(tmp_path: Path) -> None:
    """`already_started`: a child is not begun twice, whoever supervises it."""
    other = crew()
    root = crew(*workers("a"), Child(other, "other"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await refused(system.get(root, "root").start_child(Child(Worker, "a"))) == "already_started"
        assert await refused(system.get(other, "other").start_child(Child(Worker, "a"))) == "already_started"
        assert events.count("+a") == 1


async def test_start_child_that_is_stopped(tmp_path: Path) -> None:
    """`already_present`: a child that was stopped is restarted or deleted, not begun again."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        await supervisor.terminate_child(worker)
        assert await refused(supervisor.start_child(Child(Worker, "a"))) == "already_present"


async def test_start_child_that_does_not_start(tmp_path: Path) -> None:
    """`start_failed`: a child that did not start is forgotten, and the supervisor goes on."""
    root = crew(*workers("a"))
    broken["b"] = 1
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        assert await refused(supervisor.start_child(Child(Worker, "b"))) == "start_failed"
        assert await states(system, root) == {"a": "running"}
        child = await supervisor.start_child(Child(Worker, "b"))
        assert await child.add(1) == 1


async def test_start_child_with_children_that_do_not_start(tmp_path: Path) -> None:
    """A branch that does not start whole is stopped again and forgotten."""
    root, branch = crew(), crew(*workers(*"ab"))
    broken["b"] = 1
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await refused(system.get(root, "root").start_child(Child(branch, "branch"))) == "start_failed"
        assert events == ["+root", "+branch", "+a", "!b", "-a", "-branch"]
        assert await states(system, root) == {}


async def test_start_child_that_exists_otherwise(tmp_path: Path) -> None:
    """An actor that exists with another first state is not taken for the one that was meant."""
    root = crew()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.spawn(Worker, "b", total=1)
        assert await refused(system.get(root, "root").start_child(Child(Worker, "b", total=2))) == "already_started"
        assert await states(system, root) == {}


async def test_start_child_without_a_key(tmp_path: Path) -> None:
    """A pool names its children itself, each another."""
    root = crew()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        one, two = await supervisor.start_child(Child(Worker)), await supervisor.start_child(Child(Worker))
        assert await one.add(1) == await two.add(1) == 1
        assert len(await states(system, root)) == 2


async def test_a_pool_of_dynamic_children(tmp_path: Path) -> None:
    """Children of one kind come and go by themselves: each restarts alone, a temporary one leaves nothing behind."""
    root = crew()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        pool = await asyncio.gather(*(supervisor.start_child(child) for child in workers(*"abc", restart="temporary")))
        await pool[0].leave()
        await crash(pool[1])
        assert await states(system, root) == {"c": "running"}
        again = await supervisor.start_child(*workers("a", restart="temporary"))
        assert await again.add(1) == 1
        assert await states(system, root) == {"c": "running", "a": "running"}


# terminate, restart, delete -------------------------------------------------------------------------------------------


async def test_terminate_child(tmp_path: Path) -> None:
    """A terminated child stays a child: its mail waits, whoever asks is told, and a restart goes on from there."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        assert await worker.add(1) == 1
        await supervisor.terminate_child(worker)
        assert events[-1] == "-a"
        assert await states(system, root) == {"a": "stopped"}
        receipt = await worker.add.tell(2)
        with pytest.raises(ActorStopped):
            await worker.add(3)
        await supervisor.restart_child(worker)
        assert events[-1] == "+a"
        assert await receipt.result(timeout=20) == 3


async def test_terminate_child_again_is_quiet(tmp_path: Path) -> None:
    """Asked twice, as after a crash, it is stopped once."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        await supervisor.terminate_child(worker)
        await supervisor.terminate_child(worker)
        assert events.count("-a") == 1


async def test_terminate_temporary_child(tmp_path: Path) -> None:
    """A temporary child that is terminated is forgotten."""
    root = crew(*workers("a"), *workers("once", restart="temporary"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, once = system.get(root, "root"), system.get(Worker, "once")
        await supervisor.terminate_child(once)
        assert await states(system, root) == {"a": "running"}
        assert await refused(supervisor.restart_child(once)) == "not_found"


async def test_terminating_tells_those_who_wait(tmp_path: Path) -> None:
    """Whoever asked a child that is stopped before it could answer is told; the messages stay."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        gates["hold a"] = asyncio.Event()
        asks: list[asyncio.Future[Any]] = [asyncio.ensure_future(worker.hold()), asyncio.ensure_future(worker.add(1))]
        await until(lambda: "holding a" in events)
        stopping = asyncio.ensure_future(supervisor.terminate_child(worker))
        heard = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(one) for one in heard] == [ActorStopped, ActorStopped]
        gates["hold a"].set()
        await stopping
        await supervisor.restart_child(worker)
        assert await worker.add(1) == 2


async def test_restart_child_after_it_ended(tmp_path: Path) -> None:
    """A transient child that ended by itself is started again, with its state, when it is asked for."""
    root = crew(*workers("a", restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        assert await worker.add(1) == 1
        await worker.leave()
        await until(lambda: events[-1] == "-a")
        with pytest.raises(ActorStopped):
            await worker.add.tell(1)
        await system.get(root, "root").restart_child(worker)
        assert await worker.add(1) == 2


async def test_restart_child_that_runs(tmp_path: Path) -> None:
    """`running`: there is nothing to restart."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await refused(system.get(root, "root").restart_child(system.get(Worker, "a"))) == "running"
        assert events == ["+root", "+a"]


async def test_children_that_are_being_restarted(tmp_path: Path) -> None:
    """`restarting`: while a child waits for its restart it is neither restarted nor deleted, but can be terminated."""
    root = crew(*workers("a"), strategy=OneForOne(backoff=Backoff(60)))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        await crash(worker)
        assert await states(system, root) == {"a": "restarting"}
        assert await refused(supervisor.restart_child(worker)) == "restarting"
        assert await refused(supervisor.delete_child(worker)) == "restarting"
        assert await refused(supervisor.start_child(Child(Worker, "a"))) == "already_started"
        assert (await supervisor.count_children()).active == 0
        await supervisor.terminate_child(worker)
        assert await states(system, root) == {"a": "stopped"}
        await supervisor.restart_child(worker)
        assert await worker.add(1) == 1


async def test_restart_child_that_does_not_start(tmp_path: Path) -> None:
    """A child that does not start when it is restarted stays stopped, and the supervisor runs."""
    root = crew(*workers("a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        await supervisor.terminate_child(worker)
        broken["a"] = 1
        assert await refused(supervisor.restart_child(worker)) == "start_failed"
        assert await states(system, root) == {"a": "stopped"}
        await supervisor.restart_child(worker)
        assert await worker.add(1) == 1


async def test_delete_child(tmp_path: Path) -> None:
    """A child that was stopped can be forgotten; what waits for it becomes dead letters."""
    root = crew(*workers(*"ab"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, worker = system.get(root, "root"), system.get(Worker, "a")
        assert await refused(supervisor.delete_child(worker)) == "running"
        await supervisor.terminate_child(worker)
        receipt = await worker.add.tell(1)
        await supervisor.delete_child(worker)
        assert await states(system, root) == {"b": "running"}
        assert await receipt.status() == "dead"
        assert await refused(supervisor.restart_child(worker)) == "not_found"


async def test_a_deleted_child_can_be_started_anew(tmp_path: Path) -> None:
    """A key that is free again begins from the first state, not from what a forgotten child left."""
    root = crew()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        worker = await supervisor.start_child(Child(Worker, "a", total=10))
        assert await worker.add(1) == 11
        await supervisor.terminate_child(worker)
        await supervisor.delete_child(worker)
        assert await (await supervisor.start_child(Child(Worker, "a", total=20))).add(1) == 21


@pytest.mark.parametrize("asked", ["terminate_child", "restart_child", "delete_child"])
async def test_not_found(tmp_path: Path, asked: str) -> None:
    """`not_found`: another supervisor's child, and one that never was, are nobody's to touch here."""
    other = crew(*workers("theirs"))
    root = crew(Child(other, "other"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for key in ("theirs", "never"):
            assert await refused(getattr(system.get(root, "root"), asked)(system.get(Worker, key))) == "not_found"
        assert await states(system, other, "other") == {"theirs": "running"}


async def test_a_branch_is_restarted_whole(tmp_path: Path) -> None:
    """Restarting a supervisor starts all below it, dynamic children too, those that were terminated as well."""
    inner = crew(*workers(*"ab"))
    root = crew(Child(inner, "inner"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, branch = system.get(root, "root"), system.get(inner, "inner")
        await branch.start_child(Child(Worker, "c"))
        await supervisor.terminate_child(branch)
        with pytest.raises(ActorStopped):
            await system.get(Worker, "c").add(1)
        events.clear()
        await supervisor.restart_child(branch)
        assert events == ["+inner", "+a", "+b", "+c"]
        assert set((await states(system, inner, "inner")).values()) == {"running"}


# what it says of them -------------------------------------------------------------------------------------------------


async def test_which_children(tmp_path: Path) -> None:
    """A supervisor tells who its children are, in start order, with restart type and state."""
    inner = crew()
    types: list[Restart] = ["permanent", "transient", "temporary"]
    root = crew(*[Child(Worker, life).options(restart=life) for life in types], Child(inner, "inner"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(Worker, "transient").leave()
        found = await system.get(root, "root").which_children()
        assert [(one.actor.key, one.restart, one.state) for one in found] == [
            ("permanent", "permanent", "running"),
            ("transient", "transient", "stopped"),
            ("temporary", "temporary", "running"),
            ("inner", "permanent", "running"),
        ]
        assert found[0].actor == system.get(Worker, "permanent")


async def test_count_children(tmp_path: Path) -> None:
    """A supervisor counts all of its children, those that run, and those that supervise others."""
    root = crew(*workers(*"abc"), Child(crew(), "inner"), Child(crew(), "other"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor = system.get(root, "root")
        await supervisor.terminate_child(system.get(Worker, "b"))
        assert await supervisor.count_children() == ChildCounts(specs=5, active=4, supervisors=2, workers=3)
