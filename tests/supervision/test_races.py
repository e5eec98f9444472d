"""What happens in the middle of something else: an end in a restart, a start that is cut off, an order in a stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import ActorSystem, Child, ChildError, OneForAll, OneForOne, Retry, StartError, Supervisor, handler, step
from perdure.actors.activation import Activation
from perdure.actors.stops import Drained
from tests.supervision.family import AT_ONCE, Worker, crew, events, failures, gates, workers
from tests.supervision.seeing import crash, is_in, states
from tests.unit.crashing import crashing, host_of
from tests.unit.observing import until

cancelled: Counter[str] = Counter()
"""How often `started()` of the actor with a key is still to await what somebody has cancelled."""
wrong: Counter[str] = Counter()
"""How often `children()` of the supervisor with a key is still to give a state that cannot be encoded."""
deadlines: dict[str, asyncio.Timeout] = {}
"""How long the handler `impatient` of the supervisor with a key waits; a test may end it."""


@pytest.fixture(autouse=True)
def _no_races() -> None:
    """Nothing of another test is left."""
    for counter in (cancelled, wrong):
        counter.clear()
    deadlines.clear()


@step
async def errand(key: str) -> str:
    """Completes when the test lets it."""
    events.append(f"begun {key}")
    if f"step {key}" in gates:
        await gates[f"step {key}"].wait()
    events.append(f"completed {key}")
    return key


class Slow(Worker, kind="races.slow", retry=Retry(1)):
    """Starts when the test lets it, and leaves after an errand."""

    async def started(self) -> None:
        await super().started()
        if f"start {self.key}" in gates:
            await gates[f"start {self.key}"].wait()
        if cancelled[self.key] > 0:
            cancelled[self.key] -= 1
            nothing = asyncio.get_running_loop().create_future()
            nothing.cancel()
            await nothing

    @handler
    async def run_errand(self) -> str:
        return await errand(self.key)

    @handler
    async def leave_after_errand(self) -> None:
        await errand(self.key)
        await self.stop()


class Impatient(Supervisor, kind="races.impatient"):
    """Waits for its child no longer than the test lets it."""

    @handler
    async def impatient(self, child: str) -> str:
        try:
            async with asyncio.timeout(None) as deadlines[self.key]:
                await self.start_child(Child(Slow, child))
        except TimeoutError:
            return "timed out"
        return "started"


class Unsayable(Supervisor, kind="races.unsayable", strategy=OneForAll(max_restarts=0)):
    """Declares, as often as the test says, a child with a state that nothing can encode."""

    def children(self) -> list[Child[Any]]:
        if wrong[self.key] > 0:
            wrong[self.key] -= 1
            return [*workers("a"), Child(Worker, "b", total=cast("Any", object()))]
        return [*workers("a")]


# ends -----------------------------------------------------------------------------------------------------------------


async def test_a_permanent_child_that_stops_itself_in_a_group_restart(tmp_path: Path) -> None:
    """A permanent child that stops itself while its group restarts runs again, and keeps its mail."""
    root = crew(Child(Slow, "a"), *workers("b"), strategy=OneForAll(backoff=AT_ONCE))
    gates["step a"] = asyncio.Event()
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(Slow, "a").leave_after_errand.tell()
        kept = await system.get(Slow, "a").add.tell(1)
        await until(lambda: "begun a" in events)
        await crash(system.get(Worker, "b"))
        await until(lambda: "-b" in events)
        gates["step a"].set()
        assert await kept.result(timeout=20) == 1
        await until(lambda: is_in(system, root, "root", "b", "running"))
        assert await states(system, root) == {"a": "running", "b": "running"}
        assert await system.get(Slow, "a").add(1) == 2


async def test_a_permanent_child_that_stops_itself_once_too_often(tmp_path: Path) -> None:
    """A permanent child whose own end exceeds the intensity keeps its mail: it runs again with its supervisor."""
    low = crew(*workers("a"), strategy=OneForOne(max_restarts=0, backoff=AT_ONCE))
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db", root=crew(Child(low, "low"))) as system:
        worker = system.get(Worker, "a")
        for total in (1, 2):
            await worker.leave.tell()
            kept = await worker.add.tell(1)
            assert await kept.result(timeout=20) == total
        assert events.count("+low") == 3


# starts that are cut off ----------------------------------------------------------------------------------------------


async def test_a_start_of_a_child_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    """A handler that gives up waiting for its new child leaves one that runs and takes messages."""
    gates["start w"] = asyncio.Event()
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db") as system:
        pool = system.get(Impatient, "pool")
        answer = await pool.impatient.tell("w")
        await until(lambda: "+w" in events)
        deadlines["pool"].reschedule(asyncio.get_running_loop().time())
        assert await answer.result(timeout=20) == "timed out"
        gates["start w"].set()
        assert await system.get(Slow, "w").add.options(timeout=20)(1) == 1
        await until(lambda: is_in(system, Impatient, "pool", "w", "running"))


async def test_a_start_of_the_system_that_is_cancelled(tmp_path: Path) -> None:
    """A timeout around the start of a system ends it, and the next start has all its children at work."""
    root = crew(Child(Slow, "a"), *workers("b"))
    gates["start a"] = asyncio.Event()

    async def opened() -> None:
        async with ActorSystem(tmp_path / "a.db", root=root):
            pass

    async with asyncio.timeout(30):
        opening = asyncio.create_task(opened())
        await until(lambda: "+a" in events)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert "+b" not in events
        gates["start a"].set()
        async with ActorSystem(tmp_path / "a.db", root=root) as system:
            assert await system.get(Slow, "a").add.options(timeout=20)(1) == 1
            assert await system.get(Worker, "b").add.options(timeout=20)(1) == 1


async def test_a_start_that_its_own_code_cancels(tmp_path: Path) -> None:
    """A `started()` that awaits something cancelled has failed like any other: it is said, and tried again."""
    root = crew(Child(Slow, "a"))
    cancelled["a"] = 1
    async with asyncio.timeout(30):
        with pytest.raises(StartError, match="cancelled by its own code"):
            async with ActorSystem(tmp_path / "a.db", root=root):
                pass
        async with ActorSystem(tmp_path / "a.db", root=root) as system:
            cancelled["a"] = 1
            await crash(system.get(Slow, "a"))
            assert await system.get(Slow, "a").add.options(timeout=20)(1) == 1
            assert cancelled["a"] == 0


# children that cannot be ----------------------------------------------------------------------------------------------


async def test_children_that_cannot_be_encoded(tmp_path: Path) -> None:
    """A state in `children()` that cannot be kept fails that start by name, and nobody else."""
    root = crew(*workers("other"), Child(Unsayable, "s"))
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db", root=root) as system:
        supervisor, unsayable = system.get(root, "root"), system.get(Unsayable, "s")
        await supervisor.terminate_child(unsayable)
        wrong.update(s=1, s2=1)
        with pytest.raises(ChildError, match=r"children\(\) raised EncodingError"):
            await supervisor.restart_child(unsayable)
        with pytest.raises(ChildError, match=r"children\(\) raised EncodingError"):
            await supervisor.start_child(Child(Unsayable, "s2"))
        assert await states(system, root) == {"other": "running", "s": "stopped"}
        await supervisor.restart_child(unsayable)
        assert await system.get(Worker, "a").add.options(timeout=20)(1) == 1


async def test_a_restart_with_children_that_cannot_be_encoded(tmp_path: Path) -> None:
    """A restart that such a state fails is judged like any other, so the branch comes back when it can."""
    root = crew(Child(Unsayable, "s"))
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db", root=root) as system:
        wrong["s"] = 1
        await crash(system.get(Worker, "a"))
        kept = await system.get(Worker, "a").add.tell(1)
        assert await kept.result(timeout=20) == 1
        assert [one.actor.key for one in failures if "EncodingError" in one.error] == ["s"]
        await until(lambda: is_in(system, root, "root", "s", "running"))


@pytest.mark.parametrize("adopting", ["top", "below"])
async def test_a_supervisor_that_would_be_below_itself(tmp_path: Path, adopting: str) -> None:
    """A tree cannot be bent into a ring, which nobody would stand above: the start is refused, the tree works on."""
    pool = crew(strategy=OneForAll(backoff=AT_ONCE))
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db") as system:
        top, below = system.get(pool, "top"), system.get(pool, "below")
        await top.start_child(Child(pool, "below"))
        worker = await below.start_child(Child(Worker, "w"))
        with pytest.raises(ChildError, match="supervises this supervisor, or is it"):
            await system.get(pool, adopting).start_child(Child(pool, "top"))
        await crash(worker)
        assert await worker.add.options(timeout=20)(1) == 1
        assert (await states(system, pool, "top"), list(await states(system, pool, "below"))) == (
            {"below": "running"},
            ["w"],
        )


# orders about those that are stopping ---------------------------------------------------------------------------------


async def test_restart_child_that_is_still_stopping(tmp_path: Path) -> None:
    """A child that is restarted while it still closes what it had open does run, after that."""
    pool = crew(decides=lambda _: "stop")
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db") as system:
        supervisor = system.get(pool, "pool")
        worker = await supervisor.start_child(Child(Worker, "w"))
        gates["w"] = asyncio.Event()
        await crash(worker)
        kept = await worker.add.tell(1)
        await until(lambda: "-w" in events)
        await until(lambda: is_in(system, pool, "pool", "w", "stopped"))
        restarting = asyncio.ensure_future(supervisor.restart_child(worker))
        await asyncio.wait([restarting], timeout=0.1)
        assert not restarting.done()  # it is still stopping
        gates["w"].set()
        await restarting
        assert await kept.result(timeout=20) == 1
        assert events == ["+pool", "+w", "-w", "+w"]


async def test_start_child_whose_former_one_is_still_stopping(tmp_path: Path) -> None:
    """A child that is started anew begins with the state it was given, not with that of one which had ended."""
    pool = crew()
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db") as system:
        supervisor = system.get(pool, "pool")
        worker = await supervisor.start_child(Child(Worker, "w").options(restart="temporary"))
        assert await worker.add(100) == 100
        gates["w"] = asyncio.Event()
        await worker.leave()
        await until(lambda: "-w" in events)
        starting = asyncio.ensure_future(supervisor.start_child(Child(Worker, "w", total=5)))
        await until(lambda: is_in(system, pool, "pool", "w", "running"))
        receipts = [await worker.add.tell(1) for _ in range(3)]
        await asyncio.wait([starting], timeout=0.1)
        gates["w"].set()
        await starting
        assert [await receipt.result(timeout=20) for receipt in receipts] == [6, 7, 8]


async def test_a_step_whose_turn_was_stopped_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is not begun for a turn that has been stopped already: its action runs once, not twice."""
    settled = Activation._settled  # noqa: SLF001  # the moment is in there
    stopped: list[int] = []

    def stopping(self: Activation, write: Any, got: Any, future: Any) -> None:  # noqa: ANN401  # whatever it takes
        """Stop the turn in the very pass of the loop in which its step came to be on disk."""
        settled(self, write, got, future)
        if not stopped and getattr(write, "records", None) and self.turn is not None:
            stopped.append(self.turn.running_steps)
            self.turn.stop(Drained("its supervisor stops it"))

    monkeypatch.setattr(Activation, "_settled", stopping)
    async with asyncio.timeout(30), ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Slow, "a").run_errand.options(timeout=20)() == "a"
        assert stopped == [0]
        assert [event for event in events if event.endswith("n a")] == ["begun a"]


# starts ---------------------------------------------------------------------------------------------------------------


async def test_a_tree_that_starts_slowly_starts_in_order(tmp_path: Path) -> None:
    """Work that a crash left does not begin before its actor's elders run, however long the system takes to open."""
    root = crew(Child(Slow, "a"), *workers("b", "c"))
    gates["hold c"] = asyncio.Event()
    async with crashing(tmp_path / "a.db", root=root) as system:
        await system.get(Worker, "c").hold.tell()
        await until(lambda: events[-1:] == ["holding c"])
    events.clear()
    gates["start a"] = asyncio.Event()
    system = ActorSystem(tmp_path / "a.db", root=root)
    opening = asyncio.create_task(system.__aenter__())
    await until(lambda: events == ["+root", "+a"])
    await asyncio.sleep(1)  # several looks at what nobody has
    assert events == ["+root", "+a"]
    gates["start a"].set()
    await opening
    gates["hold c"].set()
    await until(lambda: events == ["+root", "+a", "+b", "+c", "holding c"])
    await system.__aexit__(None, None, None)


async def test_a_death_while_a_tree_starts_after_another(tmp_path: Path) -> None:
    """A tree that is being started goes on in its order, whoever dies meanwhile."""
    branch = crew(Child(Slow, "a"), *workers("b"))
    gates["hold b"] = asyncio.Event()
    async with crashing(tmp_path / "a.db") as system:
        await system.get(branch, "branch").start_child(Child(Worker, "c"))
        await system.get(Worker, "b").hold.tell()
        await until(lambda: events[-1:] == ["holding b"])
    events.clear()
    gates["start a"] = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db") as system:
        await until(lambda: events == ["+branch", "+a"])
        async with crashing(tmp_path / "a.db") as other:
            dead = host_of(other).node

        async def buried() -> bool:
            return dead not in {peer.id for peer in await host_of(system).store.peers()}

        await until(buried)
        await asyncio.sleep(0.2)
        assert events == ["+branch", "+a"]
        gates["start a"].set()
        gates["hold b"].set()
        await until(lambda: events == ["+branch", "+a", "+b", "+c", "holding b"])
