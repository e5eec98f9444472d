"""How trees stop: in which order, in how much time, and when significant children end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import Actor, ActorStopped, ActorSystem, Child, OneForAll, handler, step
from perdure.storage.records import Restart
from perdure.supervision.strategy import AutoShutdown
from tests.supervision.family import AT_ONCE, Worker, broken, crew, events, gates, workers
from tests.supervision.seeing import crash, is_in, states
from tests.unit.observing import until

steps: list[str] = []


@step
async def long_step(key: str) -> str:
    """Completes when the test lets it."""
    steps.append(f"begun {key}")
    await gates[f"step {key}"].wait()
    steps.append(f"completed {key}")
    return key


class Stepper(Worker, kind="stopping.stepper"):
    @handler
    async def go(self) -> str:
        return await long_step(self.key)


class Deaf(Worker, kind="stopping.deaf"):
    """Does not hear that it is cancelled."""

    @handler
    async def sit(self) -> None:
        events.append("sitting")
        while not gates[self.key].is_set():
            try:
                await gates[self.key].wait()
            except asyncio.CancelledError:
                events.append("ignored")


@pytest.fixture(autouse=True)
def _no_steps() -> None:
    """Nothing of another test's steps."""
    steps.clear()


# order ----------------------------------------------------------------------------------------------------------------


async def test_terminating_a_branch_stops_it_in_reverse(tmp_path: Path) -> None:
    """Nobody loses an elder that it still needs: the last started stops first, the supervisor last."""
    deep = crew(*workers("c", "d"))
    inner = crew(*workers("a", "b"), Child(deep, "deep"), *workers("e"))
    root = crew(Child(inner, "inner"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        events.clear()
        await system.get(root, "root").terminate_child(system.get(inner, "inner"))
        assert events == ["-e", "-d", "-c", "-deep", "-b", "-a", "-inner"]


async def test_closing_stops_the_tree_in_reverse(tmp_path: Path) -> None:
    """The end of the program is as orderly as any other stop."""
    inner = crew(*workers("a", "b"))
    async with ActorSystem(tmp_path / "a.db", root=crew(*workers("first"), Child(inner, "inner"), *workers("last"))):
        events.clear()
    assert events == ["-last", "-b", "-a", "-inner", "-first", "-root"]


async def test_the_children_of_a_pool_stop_together(tmp_path: Path) -> None:
    """Nothing orders the children of a pool, so a slow one holds no other up."""
    pool = crew()
    root = crew(Child(pool, "pool"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for key in "abc":
            await system.get(pool, "pool").start_child(Child(Worker, key))
        for key in "abc":
            gates[key] = asyncio.Event()
        stopping = asyncio.ensure_future(system.get(root, "root").terminate_child(system.get(pool, "pool")))
        await until(lambda: sorted(events[-3:]) == ["-a", "-b", "-c"])
        assert not stopping.done()
        for gate in gates.values():
            gate.set()
        await stopping
        assert events[-1] == "-pool"


# time -----------------------------------------------------------------------------------------------------------------


async def test_shutdown_waits_for_running_steps(tmp_path: Path) -> None:
    """A step that completes in time is not begun again: it is recorded, and the turn goes on from there."""
    root = crew(Child(Stepper, "s").options(shutdown="infinity"))
    gates["step s"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, stepper = system.get(root, "root"), system.get(Stepper, "s")
        receipt = await stepper.go.tell()
        await until(lambda: steps == ["begun s"])
        stopping = asyncio.ensure_future(supervisor.terminate_child(stepper))
        await until(lambda: is_in(system, root, "root", "s", "stopped"))
        assert not stopping.done()
        gates["step s"].set()
        await stopping
        await supervisor.restart_child(stepper)
        assert await receipt.result(timeout=20) == "s"
        assert steps == ["begun s", "completed s"]


async def test_shutdown_timeout_cancels(tmp_path: Path) -> None:
    """A child that needs longer than it has is cancelled; its step begins again when it is restarted."""
    root = crew(Child(Stepper, "s").options(shutdown=0.05))
    gates["step s"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, stepper = system.get(root, "root"), system.get(Stepper, "s")
        receipt = await stepper.go.tell()
        await until(lambda: steps == ["begun s"])
        await supervisor.terminate_child(stepper)
        assert events[-1] == "-s"
        gates["step s"].set()
        await supervisor.restart_child(stepper)
        assert await receipt.result(timeout=20) == "s"
        assert steps == ["begun s", "begun s", "completed s"]


async def test_brutal_kill_does_not_wait(tmp_path: Path) -> None:
    """A brutal stop waits for no step, and not even `stopping()` runs."""
    root = crew(Child(Stepper, "s").options(shutdown="brutal"))
    gates["step s"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(Stepper, "s").go.tell()
        await until(lambda: steps == ["begun s"])
        await system.get(root, "root").terminate_child(system.get(Stepper, "s"))
        assert events == ["+root", "+s"]
        assert await states(system, root) == {"s": "stopped"}


async def test_stopping_that_takes_too_long_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One child's slow `stopping()` does not hold up its supervisor past its time."""
    root = crew(Child(Worker, "slow").options(shutdown=0.05), *workers("b"))
    gates["slow"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        async with asyncio.timeout(30):
            await system.get(root, "root").terminate_child(system.get(Worker, "slow"))
        assert "did not return within" in caplog.text
        gates["slow"].set()
        await system.get(root, "root").restart_child(system.get(Worker, "slow"))
        assert await system.get(Worker, "slow").add(1) == 1


async def test_a_handler_that_does_not_stop_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that swallows its cancellation stops no tree, and nothing that it does afterwards is written."""
    root = crew(Child(Deaf, "d").options(shutdown="brutal"))
    gates["d"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        deaf = system.get(Deaf, "d")
        receipt = await deaf.sit.tell()
        await until(lambda: "sitting" in events)
        async with asyncio.timeout(30):
            await system.get(root, "root").terminate_child(deaf)
        assert "left behind" in caplog.text
        gates["d"].set()
        await until(lambda: "ignored" in events)
        assert await receipt.status() == "pending"
        await system.get(root, "root").restart_child(deaf)
        assert await receipt.result(timeout=20) is None


async def test_a_start_is_cut_short_by_a_stop(tmp_path: Path) -> None:
    """A child that hangs in `started()` can be stopped, and its supervisor with it."""

    class Hanging(Actor, kind="stopping.hanging"):
        async def started(self) -> None:
            events.append("hanging")
            await gates["hang"].wait()

    gates["hang"] = asyncio.Event()
    pool = crew()
    root = crew(Child(pool, "pool"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        starting = asyncio.ensure_future(system.get(pool, "pool").start_child(Child(Hanging, "h")))
        await until(lambda: "hanging" in events)
        async with asyncio.timeout(30):
            await system.get(root, "root").terminate_child(system.get(pool, "pool"))
        assert await states(system, root) == {"pool": "stopped"}
        with pytest.raises(ActorStopped):
            await starting


def test_who_has_how_much_time() -> None:
    """A worker has five seconds; a supervisor as long as those below it need; `infinity` and `brutal` are said."""
    inner = crew()
    assert Child(Worker, "w").spec.shutdown == 5
    assert Child(inner, "i").spec.shutdown is None
    assert [Child(Worker, "w").options(shutdown=how).spec.shutdown for how in ("infinity", "brutal", 2)] == [None, 0, 2]


# significant children -------------------------------------------------------------------------------------------------

ENDS: list[tuple[AutoShutdown, Restart, str, bool]] = [
    ("any_significant", "transient", "leave", True),
    ("any_significant", "transient", "crash", False),
    ("any_significant", "transient", "terminate", False),
    ("any_significant", "temporary", "leave", True),
    ("any_significant", "temporary", "crash", True),
    ("any_significant", "temporary", "terminate", False),
    ("never", "transient", "leave", False),
    ("all_significant", "transient", "leave", False),
    ("all_significant", "temporary", "crash", False),
]


@pytest.mark.parametrize(("auto", "life", "end", "ends"), ENDS)
async def test_when_a_significant_child_ends_its_supervisor(
    tmp_path: Path, auto: AutoShutdown, life: Restart, end: str, *, ends: bool
) -> None:
    """A supervisor whose work is done goes with its significant child, if that ended by itself and for good."""
    significant = workers(*"ab", restart=life, significant=True)
    inner = crew(*workers("other"), *significant, auto_shutdown=auto)
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        if end == "leave":
            await worker.leave()
        elif end == "crash":
            await crash(worker)
        else:
            await system.get(inner, "inner").terminate_child(worker)
        if ends:
            await until(lambda: is_in(system, root, "root", "inner", "stopped"))
            await until(lambda: [event for event in events if event[0] == "-" and event != "-a"][-3:]
                        == ["-b", "-other", "-inner"])  # fmt: skip
        else:
            assert await system.get(Worker, "other").add(1) == 1
            assert await states(system, root) == {"inner": "running"}
            assert "-inner" not in events


async def test_all_significant_children_end_their_supervisor(tmp_path: Path) -> None:
    """With `all_significant` the last one takes the supervisor along, not the first."""
    inner = crew(*workers(*"ab", restart="transient", significant=True), *workers("c"), auto_shutdown="all_significant")
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(Worker, "a").leave()
        assert await states(system, inner, "inner") == {"a": "stopped", "b": "running", "c": "running"}
        await system.get(Worker, "b").leave()
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))
        with pytest.raises(ActorStopped):
            await system.get(Worker, "c").add(1)


async def test_a_significant_child_that_a_group_restart_stops_ends_nobody(tmp_path: Path) -> None:
    """Only an end by itself counts: temporary significant siblings stopped by a restart end no supervisor."""
    once = Child(Worker, "once").options(restart="temporary", significant=True)
    inner = crew(once, *workers("a"), strategy=OneForAll(backoff=AT_ONCE), auto_shutdown="any_significant")
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(inner, "inner"))) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 2)
        assert await states(system, inner, "inner") == {"a": "running"}
        assert "-inner" not in events


async def test_a_permanent_supervisor_that_shut_down_runs_again(tmp_path: Path) -> None:
    """Auto-shutdown is an end like any other: a permanent supervisor is restarted, with all that it declares."""
    inner = crew(*workers("a", restart="transient", significant=True), *workers("b"), auto_shutdown="any_significant")
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(inner, "inner"))) as system:
        await system.get(Worker, "a").leave()
        await until(lambda: events.count("+inner") == 2 and events[-3:] == ["+inner", "+a", "+b"])
        assert await system.get(Worker, "a").add(1) == 1
        assert broken == {}
