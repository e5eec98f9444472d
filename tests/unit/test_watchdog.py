"""Who blocks the event loop is named, and fails if it goes on; who does not, is left in peace."""

from __future__ import annotations

import asyncio
import inspect
import io
import logging
import os
import pdb  # noqa: T100  # a test has somebody use it
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Child, Failure, Limits, Rejected, Supervisor, handler, step
from perdure.actors.scope import current
from perdure.actors.watchdog import Watchdog
from perdure.errors import BlockedLoopError
from perdure.supervision.strategy import Directive
from perdure.warning_types import BlockedLoopWarning
from tests.unit.crashing import host_of
from tests.unit.observing import until

failures: list[Failure] = []
runs: list[str] = []
said = threading.Event()
"""Set by the log, from the watchdog's thread."""
_WARNING = Limits(blocked_warning=0.05)
_FAILURE = Limits(blocked_warning=0.05, blocked_failure=0.15)
_IDLE = Limits(blocked_warning=float("inf"), blocked_failure=float("inf"))
_UNTIL_SAID, _UNTIL_FAILED = 30.0, 60.0
"""How long somebody blocks at the most who is to be noticed."""
_THINKS_SECONDS = 0.5


def block(seconds: float) -> None:
    """What a library does that knows nothing of asyncio; one that is to be noticed ends then, however long it took."""
    noticed = {_UNTIL_SAID: said.is_set, _UNTIL_FAILED: _has_failed}.get(seconds, lambda: False)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not noticed():
        time.sleep(min(seconds, 0.01))


def _has_failed() -> bool:
    scope = current.get()
    return scope is not None and scope.turn.blocked is not None


def _line_of(function: Callable[..., object], text: str) -> str:
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(at for at, line in enumerate(lines) if text in line)}"


@step
async def blocking_step(seconds: float) -> str:
    """A step that ought not to be a coroutine."""
    runs.append("step")
    block(seconds)
    return "done"


@step
def step_in_a_thread(seconds: float) -> str:
    """The remedy."""
    time.sleep(seconds)
    return "done"


class _Author(io.StringIO):
    """Somebody at a keyboard who thinks."""

    def readline(self, size: int = -1, /) -> str:
        time.sleep(_THINKS_SECONDS)
        return "continue\n"


class Worker(Actor, kind="watchdog.worker"):
    total: int = 0

    @handler
    async def hog(self, seconds: float) -> str:
        runs.append("hog")
        if runs.count("hog") == 1:
            block(seconds)
        return "done"

    @handler
    async def hog_and_wait(self, seconds: float) -> str:
        runs.append("hog")
        if runs.count("hog") == 1:
            block(seconds)
            await asyncio.sleep(3600)
        return "done"

    @handler
    async def hog_and_refuse(self, seconds: float) -> str:
        runs.append("hog")
        if runs.count("hog") == 1:
            block(seconds)
            raise Rejected("no")
        return "done"

    @handler
    async def hog_beneath(self, seconds: float) -> None:
        await asyncio.gather(self._deeper(seconds), asyncio.sleep(0))

    async def _deeper(self, seconds: float) -> None:
        await asyncio.sleep(0)
        block(seconds)

    @handler
    async def hog_in_a_step(self, seconds: float) -> str:
        runs.append("hog")
        first = runs.count("hog") == 1
        result = await blocking_step(seconds)
        if first:
            await asyncio.sleep(3600)
        return result

    @handler
    async def use_a_thread(self, seconds: float) -> str:
        return await step_in_a_thread(seconds)

    @handler
    async def search(self) -> None:
        re.match(r"(a+)+$", "a" * 22 + "b")

    @handler
    async def debug(self) -> None:
        debugger = pdb.Pdb(stdin=_Author(), stdout=io.StringIO(), readrc=False)
        debugger.runcall(block, 0)

    @handler
    async def add(self, seconds: float = 0) -> int:
        self.total += 1
        block(seconds)
        return self.total


class Crew(Supervisor, kind="watchdog.crew"):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Worker, "w")
        yield Child(Worker, "other")

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        failures.append(failure)
        return "restart"


class _Hears(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _line_of(block, "time.sleep") in record.getMessage():
            said.set()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing of another test."""
    failures.clear()
    runs.clear()
    said.clear()
    hears = _Hears()
    logging.getLogger("perdure.actors").addHandler(hears)
    yield
    logging.getLogger("perdure.actors").removeHandler(hears)


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of a test."""
    with warnings.catch_warnings(record=True) as those:
        warnings.simplefilter("always", BlockedLoopWarning)
        yield those


async def _warned(caught: list[warnings.WarningMessage]) -> warnings.WarningMessage:
    await until(lambda: any(each.category is BlockedLoopWarning for each in caught))
    (warned,) = [each for each in caught if each.category is BlockedLoopWarning]
    return warned


async def test_a_blocking_handler_is_named(
    caught: list[warnings.WarningMessage], caplog: pytest.LogCaptureFixture
) -> None:
    """Actor, message and line, how long, and what to do: said once a block, while nothing else is changed."""
    async with ActorSystem(":memory:", limits=_WARNING) as system:
        assert await system.get(Worker, "w").hog.options(id="m1")(_UNTIL_SAID) == "done"
        warned = await _warned(caught)
    where = _line_of(block, "time.sleep")
    assert f"{warned.filename}:{warned.lineno}" == where
    text = str(warned.message)
    assert text.startswith("watchdog.worker/w: 'hog' (message 'm1') blocked the event loop for 0.")
    assert where in text
    assert "`@step def`" in text
    assert "in hog\n    block(seconds)" in text
    assert runs == ["hog"]
    assert sum("blocked the event loop" in record.message for record in caplog.records) == 1


@pytest.mark.filterwarnings("ignore::perdure.BlockedLoopWarning")
async def test_the_log_says_so_while_the_loop_is_blocked() -> None:
    """A handler that never comes back is in the log all the same."""

    class Waits(Actor, kind="watchdog.waits"):
        @handler
        async def wait(self) -> bool:
            block(_UNTIL_SAID)
            return said.is_set()

    async with ActorSystem(":memory:", limits=_WARNING) as system:
        assert await system.get(Waits, "w").wait()
        await asyncio.sleep(0)


async def test_a_task_of_a_handler_is_named_by_its_actor(caught: list[warnings.WarningMessage]) -> None:
    """Whoever blocks in a gathered coroutine is found as well."""
    async with ActorSystem(":memory:", limits=_WARNING) as system:
        await system.get(Worker, "w").hog_beneath(_UNTIL_SAID)
        assert str((await _warned(caught)).message).startswith("watchdog.worker/w: 'hog_beneath'")


async def test_a_search_that_holds_the_interpreter_is_named(caught: list[warnings.WarningMessage]) -> None:
    """A regular expression lets no other thread run, and is found when it is over.

    Another thread than the watchdog's may be the next to run, so it may be found only when somebody searches again.
    """
    async with ActorSystem(":memory:", limits=_WARNING) as system, asyncio.timeout(30):
        while not caught:
            await system.get(Worker, "w").search()
            await asyncio.sleep(0.05)
        assert "'search'" in str(caught[0].message)


async def test_a_search_after_several_ticks_is_named(
    caught: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop had ticked twice since the watchdog looked, and then somebody held the interpreter."""

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            return super().wait(timeout * 4)

    async with ActorSystem(":memory:", limits=_IDLE) as system, asyncio.timeout(30):
        watchdog = Watchdog(host_of(system), _WARNING)
        monkeypatch.setattr(watchdog, "_closed", Late())
        watchdog.start()
        while not caught:
            await asyncio.sleep(0.08)
            await system.get(Worker, "w").search()
        watchdog.stop()
        assert "'search'" in str(caught[0].message)


@pytest.mark.parametrize("name", ["hog", "hog_and_wait", "hog_and_refuse"])
@pytest.mark.filterwarnings("ignore::perdure.BlockedLoopWarning")
async def test_blocking_for_long_is_a_failure(name: str) -> None:
    """The supervisor hears of it with the stack, the attempt counts, and nobody else's message is touched."""
    async with ActorSystem(":memory:", root=Crew, limits=_FAILURE) as system, asyncio.timeout(60):
        worker, other = system.get(Worker, "w"), system.get(Worker, "other")
        call = {"hog": worker.hog, "hog_and_wait": worker.hog_and_wait, "hog_and_refuse": worker.hog_and_refuse}[name]
        result, *totals = await asyncio.gather(
            call.options(id="m")(_UNTIL_FAILED), *(other.add() for _ in range(5)), worker.add()
        )
    assert result == "done"
    assert totals == [1, 2, 3, 4, 5, 1]
    assert runs == ["hog", "hog"]
    (failure,) = failures
    assert (failure.message, failure.attempt) == ("m", 1)
    assert failure.caused_by(BlockedLoopError)
    assert _line_of(block, "time.sleep") in failure.error
    assert f"in {name}\n    block(seconds)" in failure.traceback


@pytest.mark.filterwarnings("ignore::perdure.BlockedLoopWarning")
async def test_a_step_that_blocked_is_not_done_again() -> None:
    """The turn fails, but what its step had done is on disk."""
    async with ActorSystem(":memory:", root=Crew, limits=_FAILURE) as system, asyncio.timeout(60):
        assert await system.get(Worker, "w").hog_in_a_step(_UNTIL_FAILED) == "done"
    assert runs == ["hog", "step", "hog"]
    assert len(failures) == 1


async def test_many_short_turns_block_nobody() -> None:
    """An actor that handles its mail without a pause is busy; no single message of it is to blame."""
    limits = Limits(blocked_warning=0.3, blocked_failure=0.6)
    async with ActorSystem(":memory:", root=Crew, limits=limits) as system, asyncio.timeout(60):
        worker = system.get(Worker, "w")
        receipts = await asyncio.gather(*(worker.add.tell(0.03) for _ in range(50)))
        await asyncio.gather(*(receipt.result() for receipt in receipts))
    assert failures == []


async def test_a_step_in_a_thread_blocks_nobody() -> None:
    """What the warning advises is no reason for one."""
    async with ActorSystem(":memory:", root=Crew, limits=_FAILURE) as system:
        assert await system.get(Worker, "w").use_a_thread(0.4) == "done"
    assert failures == []


async def test_a_debugger_is_not_a_block() -> None:
    """Whoever steps through a handler is not told that it is slow, and loses no attempt."""
    async with ActorSystem(":memory:", root=Crew, limits=_FAILURE) as system:
        await system.get(Worker, "w").debug()
        await asyncio.sleep(0.02)
    assert failures == []


async def test_code_outside_handlers_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A program's own task that blocks holds every actor up, and is named too; it fails nothing."""
    async with ActorSystem(":memory:", limits=_FAILURE):
        await asyncio.sleep(0)
        block(_UNTIL_SAID)
    told = [record.getMessage() for record in caplog.records if "blocks the event loop" in record.getMessage()]
    assert any(_line_of(block, "time.sleep") in each for each in told)  # a busy machine may hold something else up


async def test_only_the_system_of_the_actor_speaks(caught: list[warnings.WarningMessage]) -> None:
    """Two systems on one loop do not say the same thing twice."""
    async with ActorSystem(":memory:", limits=_WARNING) as one, ActorSystem(":memory:", limits=_WARNING):
        await one.get(Worker, "w").hog(_UNTIL_SAID)
        await _warned(caught)
        await asyncio.sleep(0.05)
        await _warned(caught)


async def test_a_closed_system_leaves_no_thread() -> None:
    """Watching ends with the system; without thresholds there is no thread at all."""
    await until(lambda: not _watchdogs())  # of tests before this one
    async with ActorSystem(":memory:", limits=Limits(blocked_warning=float("inf"), blocked_failure=float("inf"))):
        assert not _watchdogs()
    async with ActorSystem(":memory:"):
        assert len(_watchdogs()) == 1
    await until(lambda: not _watchdogs())


async def test_an_idle_watchdog_wakes_seldom() -> None:
    """Watching costs a few wake-ups a second."""
    async with ActorSystem(":memory:") as system:
        watchdog, loop = Watchdog(host_of(system), Limits()), asyncio.get_running_loop()
        began = loop.time()
        watchdog.start()
        await asyncio.sleep(0.6)
        watchdog.stop()
        ticks = int(repr(watchdog).split()[1])
        assert 2 <= ticks <= 1 + (loop.time() - began) / 0.2


def _watchdogs() -> set[threading.Thread]:
    """Those that watch: one that has just stopped is listed for a moment more."""
    return {thread for thread in threading.enumerate() if thread.name == "perdure-watchdog" and thread.is_alive()}


_PROGRAM = """
import asyncio, sys, time
from perdure import Actor, ActorSystem, Limits, handler

class Worker(Actor, kind="worker"):
    @handler
    async def work(self) -> int:
        print("at work", flush=True)
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        return 1

async def main():
    limits = Limits(blocked_warning=1.5, blocked_failure=2)
    async with ActorSystem(sys.argv[1], limits=limits) as system:
        for _ in range(2):
            await system.get(Worker, "w").work()
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)

asyncio.run(main())
"""


def test_a_stopped_process_is_not_blocked(tmp_path: Path) -> None:
    """A laptop that sleeps, or a SIGSTOP, in the middle of a handler is no reason to blame it."""
    with subprocess.Popen(
        [sys.executable, "-W", "always", "-c", _PROGRAM, str(tmp_path / "a.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for _ in range(2):
            assert child.stdout.readline() == "at work\n"
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(2.5)
            os.kill(child.pid, signal.SIGCONT)
        errors = child.stderr.read()
    assert child.returncode == 0, errors
    assert "blocked" not in errors
    assert "failed" not in errors
