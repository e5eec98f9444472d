"""Which children run again when one of them ended, in which order, and what comes back with them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from perdure import (
    ActorStopped,
    ActorSystem,
    Child,
    ChildCounts,
    DeadLetterError,
    OneForAll,
    OneForOne,
    RestForOne,
    Strategy,
)
from perdure.storage.records import Restart
from tests.supervision.family import AT_ONCE, Stubborn, Worker, broken, crew, events, failures, gates, workers
from tests.supervision.seeing import crash, is_in, states
from tests.unit.observing import until

LIVES: list[tuple[Restart, str, str]] = [
    ("permanent", "leave", "running"),
    ("permanent", "crash", "running"),
    ("transient", "leave", "stopped"),
    ("transient", "crash", "running"),
    ("temporary", "leave", "forgotten"),
    ("temporary", "crash", "forgotten"),
]


@pytest.mark.parametrize(("life", "end", "state"), LIVES)
async def test_who_runs_again(tmp_path: Path, life: Restart, end: str, state: str) -> None:
    """A child runs again when its restart type says so, after a normal end and after a failure."""
    root = crew(*workers("a", restart=life))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        if end == "leave":
            await worker.leave()
        else:
            await crash(worker)
        await until(lambda: is_in(system, root, "root", "a", state))
        if state == "running":
            assert await worker.add(1) == 1
            await until(lambda: events == ["+root", "+a", "-a", "+a"])
        else:
            await until(lambda: events == ["+root", "+a", "-a"])


GROUPS: list[tuple[type[Strategy], list[str], list[str]]] = [
    (OneForOne, [], ["+b"]),
    (OneForAll, ["-c", "-a"], ["+a", "+b", "+c"]),
    (RestForOne, ["-c"], ["+b", "+c"]),
]


@pytest.mark.parametrize("end", ["crash", "leave"])
@pytest.mark.parametrize(("strategy", "stops", "starts"), GROUPS)
async def test_who_restarts_with_a_child(
    tmp_path: Path, strategy: type[Strategy], stops: list[str], starts: list[str], end: str
) -> None:
    """Children that need each other restart together: stopped in reverse order, started in order."""
    async with ActorSystem(
        tmp_path / "a.db", root=crew(*workers(*"abc"), strategy=strategy(backoff=AT_ONCE))
    ) as system:
        worker = system.get(Worker, "b")
        await (crash(worker) if end == "crash" else worker.leave())
        await worker.add(1)
        await until(lambda: len(events) == 4 + len(stops) + 1 + len(starts))
        after = events[4:]
        assert [event for event in after[: len(stops) + 1] if event != "-b"] == stops
        assert after[len(stops) + 1 :] == starts


async def test_a_group_keeps_its_state_and_mail(tmp_path: Path) -> None:
    """A restart loses neither what siblings had committed nor what waits in their mailboxes."""
    root = crew(*workers(*"ab"), strategy=OneForAll(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        a, b = system.get(Worker, "a"), system.get(Worker, "b")
        assert await a.add(1) == 1
        gates["hold a"] = asyncio.Event()
        holding = await a.hold.tell()
        waiting = await a.add.tell(2)
        await until(lambda: "holding a" in events)
        crashing = asyncio.ensure_future(crash(b))
        await until(lambda: "-a" in events)
        gates["hold a"].set()
        await crashing
        assert await holding.result(timeout=20) == "a"
        assert await waiting.result(timeout=20) == 3


async def test_a_failed_message_changes_nothing(tmp_path: Path) -> None:
    """The state is as before the message that failed, in memory and on disk."""
    async with ActorSystem(tmp_path / "a.db", root=crew(*workers("a"))) as system:
        worker = system.get(Worker, "a")
        assert await worker.add(1) == 1
        await crash(worker)
        assert await worker.add(1) == 2


async def test_a_message_is_tried_again_after_a_group_restart(tmp_path: Path) -> None:
    """A message that failed is handled after the restart, before those behind it."""
    root = crew(Child(Stubborn, "a"), *workers("b"), strategy=OneForAll(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        stubborn = system.get(Stubborn, "a")
        first, second = await stubborn.stumble.tell(2), await stubborn.add.tell(1)
        assert (await first.result(timeout=20), await second.result(timeout=20)) == (1, 2)
        await until(lambda: events.count("+b") == 3)
        assert events.count("+a") == 3


async def test_temporary_siblings_are_stopped_and_forgotten(tmp_path: Path) -> None:
    """A group restart ends temporary siblings for good."""
    once = Child(Worker, "once").options(restart="temporary")
    root = crew(*workers("a"), once, *workers("b"), strategy=OneForAll(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "b"))
        await system.get(Worker, "b").add(1)
        assert await states(system, root) == {"a": "running", "b": "running"}
        assert events.count("+once") == events.count("-once") == 1
        with pytest.raises(ActorStopped):
            await system.get(Worker, "once").add(1)


async def test_a_group_restart_starts_terminated_and_ended_siblings(tmp_path: Path) -> None:
    """As in OTP, whoever restarts a group restarts all of it, those that were stopped as well."""
    ended = Child(Worker, "ended").options(restart="transient")
    root = crew(*workers("stopped"), ended, *workers("a"), strategy=OneForAll(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await system.get(root, "root").terminate_child(system.get(Worker, "stopped"))
        await system.get(Worker, "ended").leave()
        assert await states(system, root) == {"stopped": "stopped", "ended": "stopped", "a": "running"}
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "a", "running"))
        assert set((await states(system, root)).values()) == {"running"}
        assert await system.get(Worker, "ended").add(1) == 1
        assert await system.get(Worker, "stopped").add(1) == 1


@pytest.mark.parametrize(("fails", "state"), [(2, "running"), (3, "ended")])
async def test_a_restart_that_fails_counts_again(tmp_path: Path, fails: int, state: str) -> None:
    """A child that does not come back is tried until it does, or its supervisor's intensity is reached."""
    inner = crew(*workers(*"ab"), strategy=OneForAll(max_restarts=3, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        broken["b"] = fails
        await crash(system.get(Worker, "b"))
        await until(lambda: events.count("!b") == fails)
        if state == "running":
            await until(lambda: events[-2:] == ["+a", "+b"])
            assert await states(system, inner, "inner") == {"a": "running", "b": "running"}
        else:
            await until(lambda: events[-1] == "-inner")
            assert await states(system, root) == {"inner": "stopped"}
        assert events.count("+a") == 1 + fails + (state == "running")


async def test_a_single_restart_that_fails_counts_again(tmp_path: Path) -> None:
    """The same for a child that is restarted alone."""
    inner = crew(Child(Stubborn, "a"), strategy=OneForOne(max_restarts=2, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        broken["a"] = 2
        receipt = await system.get(Stubborn, "a").stumble.tell(1)
        await until(lambda: events.count("!a") == 2)
        await until(lambda: events[-1] == "-inner")
        assert await states(system, root) == {"inner": "stopped"}
        assert await receipt.status() == "pending"


async def test_a_child_that_was_restarted_runs_without_mail(tmp_path: Path) -> None:
    """A restarted child is there at once, as its first start was: nobody has to write to it first."""
    async with ActorSystem(tmp_path / "a.db", root=crew(*workers("a"))) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events == ["+root", "+a", "-a", "+a"])


@pytest.mark.parametrize("strategy", [OneForOne, OneForAll, RestForOne])
async def test_many_that_fail_at_once(tmp_path: Path, strategy: type[Strategy]) -> None:
    """However many fail in one moment, each is on record, all run again, and no message is lost or handled twice."""
    keys = [f"w{number}" for number in range(8)]
    root = crew(*workers(*keys), strategy=strategy(max_restarts=100, backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        team = [system.get(Worker, key) for key in keys]
        receipts = [await worker.crash.tell() for worker in team]
        receipts += [await worker.add.tell(1) for worker in team]
        results = await asyncio.gather(*(one.result(timeout=20) for one in receipts), return_exceptions=True)
        assert [type(one) for one in results[:8]] == [DeadLetterError] * 8
        assert results[8:] == [1] * 8
        with closing(sqlite3.connect(tmp_path / "a.db")) as beside:
            ((kept, counted),) = beside.execute(
                "SELECT (SELECT count(DISTINCT actor) FROM failure), (SELECT count(*) FROM restart)"
            )
        assert kept == len(keys)
        # who fails while its group is being stopped anyway changes nothing; a decision that was overtaken is made again
        assert counted <= len(failures) <= 2 * len(keys)
        assert 1 <= counted <= len(keys)
        assert strategy is not OneForOne or counted == len(keys)

        async def all_run() -> bool:
            return set((await states(system, root)).values()) == {"running"}

        await until(all_run)


async def test_terminated_in_the_middle_of_a_restart(tmp_path: Path) -> None:
    """A newer order wins: a branch that is terminated while it restarts stays stopped, all of it."""
    inner = crew(*workers(*"abc"), strategy=OneForAll(backoff=AT_ONCE))
    root = crew(Child(inner, "inner"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        gates["b"] = asyncio.Event()
        await crash(system.get(Worker, "a"))
        await until(lambda: events[-1] == "-b")
        stopping = asyncio.ensure_future(system.get(root, "root").terminate_child(system.get(inner, "inner")))
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))
        gates["b"].set()
        await stopping
        events.clear()
        assert await system.get(root, "root").count_children() == ChildCounts(1, 0, 1, 0)
        await system.get(root, "root").restart_child(system.get(inner, "inner"))
        assert events == ["+inner", "+a", "+b", "+c"]
        assert [await system.get(Worker, key).add(1) for key in "abc"] == [1, 1, 1]
