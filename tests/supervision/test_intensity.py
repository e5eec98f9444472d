"""How often children restart before their supervisor gives up, and who is asked then."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from perdure import (
    ActorFailed,
    ActorStopped,
    ActorSystem,
    Child,
    DeadLetterError,
    EscalationError,
    Limits,
    OneForAll,
    OneForOne,
    RestForOne,
    Strategy,
)
from perdure.errors import SystemClosedError
from perdure.storage.records import Restart
from tests.supervision.family import AT_ONCE, Stubborn, Worker, broken, crew, events, workers
from tests.supervision.hands import Hands
from tests.supervision.seeing import crash, is_in, states
from tests.unit.observing import until


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_one_restart_too_many_ends_the_supervisor(tmp_path: Path, most: int) -> None:
    """A child that keeps failing is not restarted for ever: its supervisor stops its children and itself."""
    inner = crew(*workers(*"ab"), strategy=OneForOne(max_restarts=most, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="temporary"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for _ in range(most):
            await crash(system.get(Worker, "a"))
            await until(lambda: is_in(system, inner, "inner", "a", "running"))
        await crash(system.get(Worker, "a"))
        await until(lambda: events[-1] == "-inner")
        assert [event for event in events if event in {"+b", "-b"}] == ["+b", "-b"]
        assert events.count("+a") == 1 + most
        assert await states(system, root) == {}


async def test_the_window_slides(tmp_path: Path) -> None:
    """Failures that are far apart never add up."""
    clock = Hands()
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=1, within=60, backoff=AT_ONCE))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root, clock=clock) as system:
        for times in range(2, 6):
            await crash(system.get(Worker, "a"))
            await until(lambda times=times: events.count("+a") == times)
            clock.move(61)
        assert await states(system, root) == {"inner": "running"}
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 6)
        clock.move(59)
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))


async def test_retries_of_one_message_are_one_restart(tmp_path: Path) -> None:
    """A poisonous message becomes a dead letter before it can stop a tree."""
    inner = crew(Child(Stubborn, "a"), strategy=OneForOne(max_restarts=1, backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(inner, "inner"))) as system:
        with pytest.raises(DeadLetterError):
            await system.get(Stubborn, "a").stumble(5)
        assert await system.get(Stubborn, "a").add(1) == 1
        await until(lambda: is_in(system, inner, "inner", "a", "running"))
        assert events.count("+inner") == 1


@pytest.mark.parametrize("strategy", [OneForOne, OneForAll, RestForOne])
async def test_escalation_restarts_the_supervisor_by_its_own_supervisor(
    tmp_path: Path, strategy: type[Strategy]
) -> None:
    """Where one level cannot help, the next restarts the whole branch, and counting begins anew there."""
    inner = crew(*workers(*"ab"), strategy=strategy(max_restarts=1, backoff=AT_ONCE))
    root = crew(*workers("before"), Child(inner, "inner"), *workers("after"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for rounds in (1, 2):
            for times in (1, 2):
                await crash(system.get(Worker, "a"))
                await until(lambda rounds=rounds, times=times: events.count("+a") == 2 * rounds + times - 2 + 1)
            await until(lambda rounds=rounds: events.count("+inner") == rounds + 1)
            await until(lambda: is_in(system, inner, "inner", "b", "running"))
        assert await states(system, root) == {"before": "running", "inner": "running", "after": "running"}
        assert events.count("+before") == events.count("+after") == events.count("+root") == 1


GROUPS: list[tuple[type[Strategy], list[str]]] = [
    (OneForOne, ["+inner", "+a"]),
    (OneForAll, ["+before", "+inner", "+a", "+after"]),
    (RestForOne, ["+inner", "+a", "+after"]),
]


@pytest.mark.parametrize(("strategy", "starts"), GROUPS)
async def test_an_escalated_branch_restarts_with_its_group(
    tmp_path: Path, strategy: type[Strategy], starts: list[str]
) -> None:
    """A supervisor that gave up is a child like any other to the one above."""
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=0))
    root = crew(*workers("before"), Child(inner, "inner"), *workers("after"), strategy=strategy(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        events.clear()
        await crash(system.get(Worker, "a"))
        await until(lambda: [event for event in events if event[0] == "+"] == starts)
        stops = [event for event in events if event[0] == "-" and event != "-a"]
        assert stops == [f"-{start[1:]}" for start in reversed(starts) if start != "+a"]


SUPERVISORS: list[tuple[Restart, str]] = [
    ("permanent", "running"),
    ("transient", "stopped"),
    ("temporary", "forgotten"),
]


@pytest.mark.parametrize(("life", "state"), SUPERVISORS)
async def test_a_supervisor_that_gave_up_has_ended_with_shutdown(tmp_path: Path, life: Restart, state: str) -> None:
    """As in OTP, a supervisor that gives up ends `shutdown`: a transient one stays ended."""
    inner = crew(*workers("a"), strategy=OneForOne(max_restarts=0))
    root = crew(Child(inner, "inner").options(restart=life))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "inner", state))
        await until(lambda: events.count("+a") == (2 if state == "running" else 1))


async def test_the_mail_below_a_supervisor_that_gave_up(tmp_path: Path) -> None:
    """Children of a supervisor that ended keep their mail; asks hear that they were stopped."""
    inner = crew(*workers(*"ab"), strategy=OneForOne(max_restarts=0))
    root = crew(Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: is_in(system, root, "root", "inner", "stopped"))
        receipt = await system.get(Worker, "b").add.tell(4)
        with pytest.raises(ActorStopped):
            await system.get(Worker, "b").add(1)
        await system.get(root, "root").restart_child(system.get(inner, "inner"))
        assert await receipt.result(timeout=20) == 4


# past the root --------------------------------------------------------------------------------------------------------


async def test_past_the_root_the_system_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By default the system closes, says so loudly, and refuses what comes after by name."""
    root = crew(*workers(*"ab"), strategy=OneForOne(max_restarts=0))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: "closed" in repr(system))
        with pytest.raises(SystemClosedError, match="could not keep its children running"):
            await system.get(Worker, "b").add(1)
    assert [event for event in events if event != "-a"] == ["+root", "+a", "+b", "-b", "-root"]
    (said,) = [record for record in caplog.records if "could not keep" in record.message]
    assert said.levelno == logging.CRITICAL
    assert "ValueError: a; more than 0 restarts" in said.message


async def test_past_the_root_the_system_raises(tmp_path: Path) -> None:
    """Asked to raise, it cancels whoever is inside and tells why."""
    root = crew(*workers("a"), strategy=OneForOne(max_restarts=0))
    inside = asyncio.current_task()
    assert inside is not None

    async def work() -> None:
        async with ActorSystem(tmp_path / "a.db", root=root, on_escalation="raise") as system:
            await system.get(Worker, "a").crash.tell()
            await asyncio.Event().wait()

    with pytest.raises(EscalationError, match="ValueError"):
        await work()
    assert inside.cancelling() == 0


async def test_after_an_escalation_the_next_start_begins_anew(tmp_path: Path) -> None:
    """Starting the program again is all that is needed: the root counts from nothing, and the mail is there."""
    root = crew(*workers(*"ab"), strategy=OneForOne(max_restarts=1, backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 2)
        await crash(system.get(Worker, "a"))
        await until(lambda: events[-1] == "-root")
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await states(system, root) == {"a": "running", "b": "running"}
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 4)
        assert await system.get(Worker, "a").add(1) == 1


# under the system's root ----------------------------------------------------------------------------------------------


async def test_an_actor_under_the_system_root_fails_alone(tmp_path: Path) -> None:
    """The root counts each actor alone: one that keeps failing fails, the others go on, and its mail is kept."""
    limits = Limits(restarts=2, attempts=1)
    async with ActorSystem(tmp_path / "a.db", limits=limits) as system:
        bad, good = system.get(Worker, "bad"), system.get(Worker, "good")
        for _ in range(2):
            await crash(bad)
            await crash(good)
        await crash(bad)
        with pytest.raises(ActorFailed, match="ValueError"):
            await bad.add(1)
        assert await good.add(1) == 1
        assert await (await bad.add.tell(1)).status() == "pending"


async def test_an_actor_that_does_not_start_fails_too(tmp_path: Path) -> None:
    """Starts that fail are counted as restarts, whoever they were for."""
    broken["a"] = 9
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=0)) as system:
        with pytest.raises(ActorFailed, match="ConnectionError"):
            await system.get(Worker, "a").add(1)
    assert events == ["!a"]
