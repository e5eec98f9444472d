"""An actor with `supervision=` keeps running what it spawns."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorExists,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    Child,
    DeadLetterError,
    Limits,
    OneForAll,
    OneForOne,
    Retry,
    handler,
)
from perdure.errors import ActorDefinitionError
from perdure.storage.records import Restart
from perdure.supervision.strategy import Directive, Failure
from tests.supervision.family import AT_ONCE, Noting, Stubborn, Worker, events, failures
from tests.supervision.seeing import crash
from tests.unit.crashing import crashing
from tests.unit.observing import until


class Boss(Noting, kind="spawned.boss", supervision=OneForAll(max_restarts=2, backoff=AT_ONCE), retry=Retry(1)):
    """Spawns workers, in the restart type it is told."""

    spawned: list[str] = []

    @handler
    async def hire(self, key: str, restart: Restart | None = None) -> None:
        if restart is None:
            await self.spawn(Worker, key)
        else:
            await self.spawn(Child(Worker, key).options(restart=restart))
        self.spawned.append(key)

    @handler
    async def ask(self, key: str, times: int) -> int:
        child = await self.spawn(Child(Stubborn, key).options(restart="permanent"))
        return await child.stumble(times)

    @handler
    async def quit(self) -> None:
        await self.stop()

    @handler
    async def crash(self) -> None:
        raise ValueError(self.key)

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        failures.append(failure)
        return "restart"


class Loner(Actor, kind="spawned.loner", retry=Retry(1)):
    """Supervises nobody."""

    @handler
    async def hire(self, key: str) -> None:
        await self.spawn(Child(Worker, key))

    @handler
    async def begin(self, key: str) -> None:
        await self.spawn(Worker, key)

    @handler
    async def pass_on(self, child: Child[Worker]) -> Worker:
        return await self.system.spawn(child)


async def hired(system: ActorSystem, *keys: str, restart: Restart | None = None) -> list[Worker]:
    """The boss's workers, each having handled a message."""
    for key in keys:
        await system.get(Boss, "boss").hire(key, restart)
        await system.get(Worker, key).add(1)
    return [system.get(Worker, key) for key in keys]


async def test_what_it_spawned_restarts_by_its_strategy(tmp_path: Path) -> None:
    """Children of an actor are restarted as its class says, and it is told why."""
    async with ActorSystem(tmp_path / "a.db") as system:
        a, _ = await hired(system, "a", "b")
        events.clear()
        await crash(a)
        await until(lambda: [event for event in events if event[0] == "+"] == ["+a", "+b"])
        assert [event for event in events if event == "-boss"] == []
        assert [one.actor for one in failures] == [a]
        assert await a.add(1) == 2


@pytest.mark.parametrize(
    ("restart", "ends"), [(None, True), ("transient", True), ("temporary", True), ("permanent", False)]
)
async def test_who_runs_again_after_a_normal_end(tmp_path: Path, restart: Restart | None, *, ends: bool) -> None:
    """What is spawned plainly is transient; a Child says otherwise."""
    async with ActorSystem(tmp_path / "a.db") as system:
        (worker,) = await hired(system, "a", restart=restart)
        await worker.leave()
        if ends:
            with pytest.raises(ActorStopped):
                await worker.add(1)
        else:
            assert await worker.add(1) == 2


async def test_a_temporary_child_does_not_run_again(tmp_path: Path) -> None:
    """A child spawned for one job is gone when it failed."""
    async with ActorSystem(tmp_path / "a.db") as system:
        (worker,) = await hired(system, "a", restart="temporary")
        await crash(worker)
        with pytest.raises(ActorStopped):
            await worker.add(1)


async def test_too_many_restarts_fail_the_boss(tmp_path: Path) -> None:
    """An actor whose children keep failing fails with them, seen by everybody who asks, its mail kept."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=0)) as system:
        (worker,) = await hired(system, "a", restart="permanent")
        for times in (2, 3):
            await crash(worker)
            await until(lambda times=times: events.count("+a") == times)
        await crash(worker)
        with pytest.raises(ActorFailed):
            await system.get(Boss, "boss").hire("b")
        with pytest.raises(ActorFailed):
            await worker.add(1)


async def test_a_boss_that_crashes_restarts_with_its_children(tmp_path: Path) -> None:
    """Children live as long as whoever spawned them: its restart is theirs."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=9)) as system:
        (worker,) = await hired(system, "a")
        with pytest.raises(DeadLetterError):
            await system.get(Boss, "boss").crash()
        assert await worker.add(1) == 2
        await system.get(Boss, "boss").hire("b")
        assert events.count("+boss") == 2


async def test_a_boss_that_ends_stops_its_children(tmp_path: Path) -> None:
    """Nothing is left running that nobody supervises."""
    async with ActorSystem(tmp_path / "a.db") as system:
        a, b = await hired(system, "a", "b")
        await system.get(Boss, "boss").quit()
        for worker in (a, b):
            with pytest.raises(ActorStopped):
                await worker.add(1)
        await until(lambda: [event for event in events if event in {"-a", "-b"}] == ["-b", "-a"])


async def test_a_boss_that_asks_its_crashing_child(tmp_path: Path) -> None:
    """An actor in the middle of a turn waits for the child it just spawned, however often that restarts."""
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Boss, "boss").ask.options(timeout=10)("child", 3) == 1
        assert events.count("+child") == 4
        assert events.count("+boss") == 1


async def test_children_outlive_the_process_with_their_boss(tmp_path: Path) -> None:
    """Who supervises whom is durable, so a crash makes nobody an orphan."""
    async with crashing(tmp_path / "a.db") as system:
        await hired(system, "a", "b")
    async with ActorSystem(tmp_path / "a.db") as system:
        a, b = system.get(Worker, "a"), system.get(Worker, "b")
        await a.add(1)
        await b.add(1)
        failures.clear()
        await crash(a)
        assert [one.actor for one in failures] == [a]
        await until(lambda: events.count("+b") == 3)


async def test_without_supervision_the_root_restarts_it(tmp_path: Path) -> None:
    """What an actor spawns that supervises nobody stands alone."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Loner, "l").begin("a")
        await crash(system.get(Worker, "a"))
        assert await system.get(Worker, "a").add(1) == 1
        with pytest.raises(DeadLetterError, match=ActorDefinitionError.__name__):
            await system.get(Loner, "l").hire("b")


async def test_a_child_without_options_needs_no_supervisor(tmp_path: Path) -> None:
    """Declared with a key and a state, an actor is spawned by the system as it is by a supervisor."""
    async with ActorSystem(tmp_path / "a.db") as system:
        worker = await system.spawn(Child(Worker, "a", total=3))
        assert worker == system.get(Worker, "a")
        assert await worker.add(1) == 4
        assert await system.spawn(Child(Worker, "a", total=3)) == worker
        with pytest.raises(ActorExists):
            await system.spawn(Child(Worker, "a", total=4))
        assert await (await system.spawn(Child(Worker))).add(1) == 1
        other = await system.get(Loner, "l").pass_on(Child(Worker, "b", total=5))
        assert await other.add(1) == 6
        await worker.leave()
        with pytest.raises(ActorStopped):
            await worker.add(1)


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
async def test_a_child_with_options_needs_a_supervisor(tmp_path: Path, restart: Restart) -> None:
    """Options that nobody would keep are refused, with a word on who keeps them; nothing begins."""
    child = Child(Worker, "a", total=3).options(restart=restart)
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(ActorDefinitionError, match="start_child"):
            await system.spawn(child)
        assert await system.get(Worker, "a").add(1) == 1
        if restart != "permanent":
            with pytest.raises(DeadLetterError, match="start_child"):
                await system.get(Loner, "l").pass_on(child)


async def test_each_boss_has_its_own_budget(tmp_path: Path) -> None:
    """One boss's failing children cost another nothing."""

    class Other(Boss, kind="spawned.other", supervision=OneForOne(max_restarts=0)):
        pass

    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=0)) as system:
        (worker,) = await hired(system, "a")
        await system.get(Other, "o").hire("b")
        await crash(system.get(Worker, "b"))
        with pytest.raises(ActorFailed):
            await system.get(Worker, "b").add(1)
        assert await worker.add(1) == 2
