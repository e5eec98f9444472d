"""What a supervisor is told of a failure and may answer, and what others hear of an actor that failed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ActorFailed,
    ActorSystem,
    Backoff,
    Child,
    DeadLetterError,
    Limits,
    OneForAll,
    OneForOne,
    Retry,
    StepError,
    Supervisor,
    ephemeral,
    handler,
    step,
)
from perdure.supervision.strategy import Directive, Failure
from tests.supervision.family import (
    AT_ONCE,
    Noting,
    Stubborn,
    Worker,
    broken,
    crew,
    events,
    failures,
    gates,
    workers,
)
from tests.supervision.seeing import crash, is_in, states
from tests.unit.observing import until


class Timed(Exception):  # named for what happened
    """A step's own error."""


@step(retry=Retry(1))
async def slow() -> None:
    """Fails."""
    raise Timed("too slow")


class Careful(Noting, kind="failures.careful", retry=Retry(3, backoff=AT_ONCE)):
    """Remembers in memory how often it was tried."""

    memory: list[int] = ephemeral(factory=list)
    total: int = 0

    @handler
    async def go(self, times: int) -> int:
        self.memory.append(1)
        self.total += 1
        if len(self.memory) < times:
            raise LookupError(len(self.memory))
        return self.total

    @handler
    async def call(self) -> None:
        await slow()


def deciding(directive: Directive, *children: Child[Any], **options: Any) -> type[Supervisor]:  # noqa: ANN401  # whatever crew takes
    """A supervisor that answers every failure so."""
    return crew(*children, decides=lambda _: directive, **options)


# what it is told ------------------------------------------------------------------------------------------------------


async def test_what_decide_is_told(tmp_path: Path) -> None:
    """A supervisor knows which actor failed, with which message, how often, and why."""
    root = crew(Child(Stubborn, "a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        actor = system.get(Stubborn, "a")
        await actor.stumble.options(id="m")(2)
        assert [(one.actor, one.message, one.attempt) for one in failures] == [(actor, "m", 1), (actor, "m", 2)]
        first = failures[0]
        assert (first.error_type, first.error) == ("builtins.ValueError", "a")
        assert "in stumble" in first.traceback
        assert first.caused_by(ValueError)
        assert first.caused_by(KeyError, Exception)
        assert not first.caused_by(KeyError)


async def test_what_decide_is_told_of_a_step(tmp_path: Path) -> None:
    """The step's own exception tells, though what reached the handler was a StepError, also after a restart."""
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(Careful, "a"))) as system:
        with pytest.raises(DeadLetterError):
            await system.get(Careful, "a").call()
        assert len(failures) == 3
        for one in failures:
            assert one.caused_by(StepError)
            assert one.caused_by(Timed)
            assert not one.caused_by(ValueError)


async def test_what_decide_is_told_of_a_start(tmp_path: Path) -> None:
    """An actor that does not start has no message to blame; its attempts are its starts in a row."""
    inner = crew(*workers("a"), strategy=OneForOne(backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(inner, "inner"))) as system:
        broken["a"] = 2
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+a") == 2)
        assert [(one.message is None, one.attempt) for one in failures] == [(False, 1), (True, 1), (True, 2)]
        assert failures[1].error_type.endswith("ActivationError")
        assert "ConnectionError" in failures[1].error


# what it answers ------------------------------------------------------------------------------------------------------


async def test_restart_takes_a_new_instance(tmp_path: Path) -> None:
    """A restart throws memory away: what a failure left there is gone."""
    root = deciding("restart", Child(Careful, "a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        with pytest.raises(DeadLetterError):
            await system.get(Careful, "a").go(2)
        await until(lambda: events == ["+root", *["+a", "-a"] * 3, "+a"])


async def test_resume_keeps_the_instance_and_counts_nothing(tmp_path: Path) -> None:
    """`resume` tries again with the same instance, its state as before the message, and spends no restart."""
    root = deciding("resume", Child(Careful, "a"), strategy=OneForOne(max_restarts=0, backoff=AT_ONCE))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert await system.get(Careful, "a").go(3) == 1
        assert events == ["+root", "+a"]
        assert len(failures) == 2


async def test_resume_goes_on_after_a_dead_letter(tmp_path: Path) -> None:
    """A message that is given up costs no restart either where the supervisor resumes."""
    root = deciding("resume", *workers("a"), strategy=OneForAll(max_restarts=0))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        for _ in range(3):
            await crash(system.get(Worker, "a"))
        assert await system.get(Worker, "a").add(1) == 1
        assert events == ["+root", "+a"]


async def test_stop_keeps_the_mail(tmp_path: Path) -> None:
    """`stop` stops the child, and the message that failed waits with the others until it is restarted."""
    root = deciding("stop", Child(Stubborn, "a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        actor = system.get(Stubborn, "a")
        first, second = await actor.stumble.tell(1), await actor.add.tell(1)
        await until(lambda: is_in(system, root, "root", "a", "stopped"))
        assert await second.status() == "pending"
        await system.get(root, "root").restart_child(actor)
        assert (await first.result(timeout=20), await second.result(timeout=20)) == (1, 2)


async def test_stop_ends_a_temporary_child(tmp_path: Path) -> None:
    """A temporary child that is stopped is forgotten, and its mail becomes dead letters."""
    once = Child(Stubborn, "a").options(restart="temporary")
    root = deciding("stop", once)
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        first = await system.get(Stubborn, "a").stumble.tell(1)
        second = await system.get(Stubborn, "a").add.tell(1)
        await until(lambda: is_in(system, root, "root", "a", "forgotten"))
        assert (await first.status(), await second.status()) == ("dead", "dead")


async def test_escalate_fails_the_supervisor(tmp_path: Path) -> None:
    """`escalate` has the next supervisor restart the whole branch, and counts nothing below it."""
    inner = deciding("escalate", *workers(*"ab"), strategy=OneForOne(max_restarts=0))
    root = crew(*workers("other"), Child(inner, "inner").options(restart="transient"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        await crash(system.get(Worker, "a"))
        await until(lambda: events.count("+inner") == 2 and events[-3:] == ["+inner", "+a", "+b"])
        assert [event for event in events if event == "+other"] == ["+other"]
        assert [one.actor.key for one in failures] == ["a", "a"]
        assert await states(system, root) == {"other": "running", "inner": "running"}


WRONG: list[Any] = [RuntimeError("decide"), "retsart", None]


@pytest.mark.parametrize("answer", WRONG, ids=repr)
async def test_a_wrong_decide_restarts(tmp_path: Path, answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in `decide` does not leave a child in limbo: it is restarted, and the log says why."""

    def decides(_: Failure) -> Any:  # noqa: ANN401  # what no decide should give
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with ActorSystem(tmp_path / "a.db", root=crew(Child(Stubborn, "a"), decides=decides)) as system:
        assert await system.get(Stubborn, "a").stumble(1) == 1
        assert "decide()" in caplog.text


# what others hear -----------------------------------------------------------------------------------------------------


class Parent(Supervisor, kind="failures.parent", strategy=OneForOne(max_restarts=5, backoff=AT_ONCE)):
    """Asks its own child."""

    def children(self) -> list[Child[Any]]:
        return [Child(Stubborn, "child")]

    @handler
    async def ask_child(self, times: int) -> int:
        return await self.system.get(Stubborn, "child").stumble(times)


async def test_a_parent_that_asks_its_crashing_child(tmp_path: Path) -> None:
    """A supervisor that waits for its child is no deadlock: the child is restarted beside it, and answers."""
    async with ActorSystem(tmp_path / "a.db", root=crew(Child(Parent, "p"))) as system:
        assert await system.get(Parent, "p").ask_child.options(timeout=10)(3) == 1
        assert events.count("+child") == 4


async def test_asks_of_a_failed_actor_raise_and_tells_wait(tmp_path: Path) -> None:
    """Nobody waits for an actor that failed for good; what is told is kept until somebody mends it."""
    limits = Limits(restarts=0)
    async with ActorSystem(tmp_path / "a.db", limits=limits) as system:
        worker = system.get(Worker, "a")
        await crash(worker)
        with pytest.raises(ActorFailed, match="perdure restart"):
            await worker.add(1)
        receipt = await worker.add.tell(1)
        assert await receipt.status() == "pending"
        with pytest.raises(ActorFailed):
            await receipt.result(timeout=20)


class Caller(Noting, kind="failures.caller", retry=Retry(2, backoff=AT_ONCE)):
    """Asks a worker, and again if that fails."""

    @handler
    async def ask(self, key: str) -> int:
        events.append("asks")
        return await self.system.get(Worker, key).add(1)


def _mail(path: Path, key: str) -> int:
    """How many messages wait for an actor."""
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT count(*) FROM mailbox JOIN actor ON actor.id = mailbox.actor WHERE key = ?"
        return int(connection.execute(sql, (key,)).fetchone()[0])


async def test_an_ask_that_is_made_again_of_an_actor_that_does_not_run(tmp_path: Path) -> None:
    """A turn that was told so and is tried again does not wait for what nobody handles."""
    async with ActorSystem(tmp_path / "a.db", root=deciding("stop", Child(Worker, "a"))) as system:
        worker = system.get(Worker, "a")
        gates["hold a"] = asyncio.Event()
        held = await worker.hold.tell()
        await until(lambda: "holding a" in events)
        crashing = await worker.crash.tell()
        call = await system.get(Caller, "c").ask.tell("a")
        await until(lambda: _mail(tmp_path / "a.db", "a") == 3)
        gates["hold a"].set()
        assert await held.result(timeout=20) == "a"
        for ended in (crashing, call):
            with pytest.raises(DeadLetterError):
                await ended.result(timeout=20)
        assert events.count("asks") == 2


async def test_a_failed_child_is_mended_by_its_supervisor(tmp_path: Path) -> None:
    """Restarted, an actor that was given up goes on with all that waited."""
    root = deciding("stop", Child(Worker, "a"))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        worker = system.get(Worker, "a")
        await crash(worker)
        receipts = [await worker.add.tell(1) for _ in range(3)]
        await system.get(root, "root").restart_child(worker)
        assert [await receipt.result(timeout=20) for receipt in receipts] == [1, 2, 3]


async def test_starts_that_fail_spend_no_attempt(tmp_path: Path) -> None:
    """A message is not blamed for an actor that cannot start: it is handled when that can."""
    broken["a"] = 3
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=3)) as system:
        receipt = await system.get(Worker, "a").add.tell(1)
        assert await receipt.result(timeout=20) == 1
        assert events.count("!a") == 3


async def test_stopping_is_called_when_a_handler_crashed(tmp_path: Path) -> None:
    """What `started()` opened is closed before another instance opens it again."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(restarts=9)) as system:
        assert await system.get(Stubborn, "a").stumble(2) == 1
        assert events == ["+a", "-a", "+a", "-a", "+a"]


async def test_the_backoff_of_a_supervisor_holds_a_message_back(tmp_path: Path) -> None:
    """A message that is tried again waits as long as its supervisor says, not less."""
    root = crew(Child(Stubborn, "a"), strategy=OneForOne(backoff=Backoff(60, jitter=0)))
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        receipt = await system.get(Stubborn, "a").stumble.tell(1)
        await until(lambda: len(failures) == 1)
        await until(lambda: "-a" in events)
        assert await receipt.status() in {"pending", "running"}
        assert events == ["+root", "+a", "-a"]
