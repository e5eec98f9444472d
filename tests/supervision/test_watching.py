"""Whoever watches an actor is told, once and durably, that it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Child, Limits, OneForAll, OneForOne, Supervisor, Terminated, handler, watch
from perdure.errors import ArgumentsError
from tests.supervision.family import AT_ONCE, Worker, broken, crew, events, workers
from tests.supervision.seeing import crash
from tests.unit.crashing import crashing
from tests.unit.observing import until


class Watcher(Worker, kind="watching.watcher"):
    """Watches from its own turn."""

    keys: list[str] = []

    @handler
    async def look_at(self, key: str) -> None:
        await watch(self.system.get(Worker, key), self.ref.gone)

    @handler
    async def look_and_fail(self, key: str) -> None:
        await watch(self.system.get(Worker, key), self.ref.gone)
        raise ValueError(key)

    @handler
    async def named(self, ended: Terminated) -> None:
        self.keys.append(f"{ended.actor.key} {ended.reason}")

    @handler
    async def all_named(self) -> list[str]:
        return self.keys


def watcher_of(system: ActorSystem) -> Watcher:
    """The one who watches."""
    return system.get(Watcher, "w")


async def heard(system: ActorSystem) -> list[str]:
    """Why the watched ones ended, as far as the watcher has heard."""
    return await watcher_of(system).all_heard()


async def hears(system: ActorSystem, *reasons: str) -> None:
    """Wait until it has heard so much, and see that it hears no more."""

    async def enough() -> bool:
        return len(await heard(system)) >= len(reasons)

    await until(enough)
    assert await heard(system) == list(reasons)


async def leave(system: ActorSystem, root: type[Supervisor]) -> None:
    """It ends by itself."""
    await system.get(Worker, "a").leave()


async def terminate(system: ActorSystem, root: type[Supervisor]) -> None:
    """Its supervisor stops it."""
    await system.get(root, "root").terminate_child(system.get(Worker, "a"))


async def fail(system: ActorSystem, root: type[Supervisor]) -> None:
    """It fails, and is not restarted."""
    await crash(system.get(Worker, "a"))


ENDS: list[tuple[Callable[[ActorSystem, type[Supervisor]], Awaitable[None]], str]] = [
    (leave, "normal"),
    (terminate, "shutdown"),
    (fail, "ValueError: a"),
]


@pytest.mark.parametrize(("end", "reason"), ENDS)
async def test_why_it_ended(
    tmp_path: Path, end: Callable[[ActorSystem, type[Supervisor]], Awaitable[None]], reason: str
) -> None:
    """A watcher is told whether it ended by itself, was stopped, or failed."""
    root = crew(*workers("a", restart="temporary"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await watch(system.get(Worker, "a"), watcher_of(system).gone)
        assert await heard(system) == []
        await end(system, root)
        await hears(system, reason)


@pytest.mark.parametrize("end", [leave, terminate])
async def test_the_end_of_a_child_that_stays_one(
    tmp_path: Path, end: Callable[[ActorSystem, type[Supervisor]], Awaitable[None]]
) -> None:
    """A transient child's end is an end, and after a restart it can be watched again."""
    root = crew(*workers("a", restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        reason = "normal" if end is leave else "shutdown"
        for times in (1, 2):
            await watch(worker, watcher_of(system).gone)
            await end(system, root)
            await hears(system, *[reason] * times)
            await until(lambda times=times: events.count("-a") == times)
            await system.get(root, "root").restart_child(worker)


async def test_an_actor_that_failed_for_good(tmp_path: Path) -> None:
    """One that the root has given up has ended for those who watch it."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=1)) as system:
        await system.get(Worker, "a").add(1)
        await watch(system.get(Worker, "a"), watcher_of(system).gone)
        await crash(system.get(Worker, "a"))
        assert await heard(system) == []
        await crash(system.get(Worker, "a"))
        await hears(system, "ValueError: a; more than 1 restarts in 60 s")


async def test_an_actor_that_does_not_start(tmp_path: Path) -> None:
    """One that never came to life is told of, too."""
    broken["a"] = 1
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=0)) as system:
        await system.spawn(Worker, "a")
        await watch(system.get(Worker, "a"), watcher_of(system).gone)
        await system.get(Worker, "a").add.tell(1)
        await until(lambda: "!a" in events)
        await until(lambda: any("w heard" in event for event in events))
        (reason,) = await heard(system)
        assert "started() raised ConnectionError" in reason


async def test_a_restart_is_no_end(tmp_path: Path) -> None:
    """Neither its own restart nor its group's is told of."""
    root = crew(*workers(*"ab"), strategy=OneForAll(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for key in "ab":
            await watch(system.get(Worker, key), watcher_of(system).gone)
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+b") == 2)
        assert await heard(system) == []
        await system.get(root, "root").terminate_child(system.get(Worker, "b"))
        await hears(system, "shutdown")


async def test_all_below_a_supervisor_that_gave_up(tmp_path: Path) -> None:
    """Whoever is stopped because its supervisor ended is told of as well."""
    inner = crew(*workers(*"ab"), strategy=OneForOne(max_restarts=0))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for actor in (system.get(Worker, "b"), system.get(inner, "inner")):
            await watch(actor, watcher_of(system).named)
        await crash(system.get(Worker, "a"))

        async def both() -> bool:
            return len(await watcher_of(system).all_named()) == 2

        await until(both)
        reason = "ValueError: a; more than 0 restarts in 60 s"
        assert sorted(await watcher_of(system).all_named()) == [f"b {reason}", f"inner {reason}"]


async def test_what_has_ended_already(tmp_path: Path) -> None:
    """Whoever comes too late is told at once."""
    root = crew(*workers("a", restart="transient"), *workers("b"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(Worker, "a").leave()
        await system.get(root, "root").terminate_child(system.get(Worker, "b"))
        await watch(system.get(Worker, "a"), watcher_of(system).gone)
        await hears(system, "normal")
        await watch(system.get(Worker, "b"), watcher_of(system).gone)
        await hears(system, "normal", "shutdown")


async def test_what_does_not_exist(tmp_path: Path) -> None:
    """An actor that is not there is told of at once, and not begun by that."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await watch(system.get(Worker, "never"), watcher_of(system).gone)
        await hears(system, "it does not exist")
        assert "+never" not in events


async def test_exactly_once(tmp_path: Path) -> None:
    """Watching twice tells once; another handler is told besides."""
    root = crew(*workers("a", restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        for _ in range(3):
            await watch(worker, watcher_of(system).gone)
        await watch(worker, watcher_of(system).named)
        await worker.leave()
        await hears(system, "normal")
        assert await watcher_of(system).all_named() == ["a normal"]


async def test_a_watch_in_a_turn_leaves_with_it(tmp_path: Path) -> None:
    """A turn that fails has not watched anybody."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=9)) as system:
        await system.get(Worker, "a").add(1)
        await system.get(Worker, "b").add(1)
        await watcher_of(system).look_at("a")
        with pytest.raises(Exception, match="ValueError"):
            await watcher_of(system).look_and_fail("b")
        await system.get(Worker, "b").leave()
        await system.get(Worker, "a").leave()
        await hears(system, "normal")


@pytest.mark.parametrize("ending", [ActorSystem, crashing], ids=["closed", "crashed"])
async def test_a_watch_outlives_the_process(tmp_path: Path, ending: Callable[..., ActorSystem]) -> None:
    """A new process tells a watcher of the old one."""
    async with ending(tmp_path / "a.db") as system:
        await system.get(Worker, "a").add(1)
        await watch(system.get(Worker, "a"), watcher_of(system).gone)
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Worker, "a").leave()
        await hears(system, "normal")
    async with ActorSystem(tmp_path / "a.db") as system:
        await hears(system, "normal")


async def test_a_watcher_needs_a_handler_with_one_parameter(tmp_path: Path) -> None:
    """A watcher that could not be told is refused where it watches."""

    class Wrong(Actor, kind="watching.wrong"):
        @handler
        async def two(self, ended: Terminated, more: int = 0) -> None:
            pass

    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(ArgumentsError, match="one"):
            await watch(system.get(Worker, "a"), system.get(Wrong, "w").two)
