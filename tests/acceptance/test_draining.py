"""SIGTERM drains a node: nothing is lost, nothing that was complete is done again, and others go on at once."""

import asyncio
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from perdure import ActorSystem, Receipt
from tests.acceptance.children import stand_still
from tests.acceptance.deploying.app import HELD, Member, Worker, gate_of
from tests.acceptance.deploying.nodes import PATIENCE_SECONDS, RunningNode, client, facts, node
from tests.unit.crashing import connection_of
from tests.unit.observing import until

HURRIED = 128 + signal.SIGTERM


async def came(directory: Path, event: str, count: int) -> None:
    """Wait until the nodes have done something so often."""
    await until(lambda: len(facts(directory, event)) >= count, seconds=30)


def let(directory: Path, *names: str) -> None:
    """Let what is held go on."""
    for name in names:
        gate_of(directory, name).touch()


async def ended(running: RunningNode) -> int:
    """Wait for a node's end beside everything else; its exit code."""
    return await asyncio.to_thread(running.ended)


def once(directory: Path, event: str) -> None:
    """Every effect has happened once."""
    counts = Counter(fact["work"] for fact in facts(directory, event))
    assert {work: count for work, count in counts.items() if count > 1} == {}


async def twenty(system: ActorSystem) -> list[Receipt[str]]:
    """Turns in steps, turns that wait, and one after the other that have ended."""
    for n in range(6):
        await system.get(Worker, f"idle{n}").note(f"idle{n}")
    receipts = [await system.get(Worker, f"s{n}").steps.tell(f"s{n}", 4, 0.5) for n in range(8)]
    receipts += [await system.get(Worker, f"n{n}").nap.tell(f"n{n}", 1.5) for n in range(3)]
    return receipts + [await system.get(Worker, f"a{n}").ask.tell(f"a{n}", 0.4) for n in range(3)]


async def test_sigterm_hands_everything_over(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Twenty turns in steps, waits and between messages: the other process ends them all, and repeats no step."""
    async with client(tmp_path) as system, node(tmp_path) as second:
        stand_still(second.process.pid, tmp_path / "app.db")  # so that the other has everything
        async with node(tmp_path) as first:
            receipts = await twenty(system)
            await came(tmp_path, "begin", 14)
            second.signal(signal.SIGCONT)
            at = time.time()
            first.signal(signal.SIGTERM)
            assert await ended(first) == 0
            assert first.said_all("drained")[0]["cut"] == 0
        async with asyncio.timeout(60):
            assert [await each.result() for each in receipts] == [
                *(f"s{n}" for n in range(8)), *(f"n{n}/after" for n in range(3)), *(f"a{n}/asked" for n in range(3)),
            ]  # fmt: skip
        assert await system.get(Worker, "idle0").note("again") == 2
        second.signal(signal.SIGTERM)
        assert await ended(second) == 0
    once(tmp_path, "begin")
    once(tmp_path, "end")
    latencies = adoptions(tmp_path, at)
    assert len(latencies) >= 8, "no turn changed its process in the middle"
    record_property("adoption_seconds", latencies)


def adoptions(directory: Path, since: float) -> list[float]:
    """Seconds from the last step of a turn in one process to its next one in another."""
    ends = {fact["work"]: fact for fact in facts(directory, "end")}
    found: list[float] = []
    for begin in facts(directory, "begin"):
        tag, _, place = begin["work"].rpartition("/")
        before = ends.get(f"{tag}/{int(place) - 1}") if place.isdigit() else None
        if before is not None and before.run != begin.run and begin.time > since:
            found.append(begin.time - max(before.time, since))
    return sorted(found)


async def test_a_second_sigterm_hurries(tmp_path: Path) -> None:
    """Whoever cannot wait gets the process's end at once; what was cut begins again elsewhere, the rest goes on."""
    async with client(tmp_path) as system:
        async with node(tmp_path) as first:
            receipt = await system.get(Worker, "s").steps.tell("s", 3, HELD)
            let(tmp_path, "s/0")
            await came(tmp_path, "end", 1)
            await came(tmp_path, "begin", 2)
            first.signal(signal.SIGTERM)
            assert first.said("draining")["turns"] == 1
            await asyncio.sleep(0.2)  # or it would be the same one
            first.signal(signal.SIGTERM)
            assert await ended(first) == HURRIED
            assert "cut off" in first.text()
        let(tmp_path, "s/1", "s/2")
        async with node(tmp_path):
            async with asyncio.timeout(60):
                assert await receipt.result() == "s"
    assert Counter(fact["work"] for fact in facts(tmp_path, "begin")) == {"s/0": 1, "s/1": 2, "s/2": 1}
    once(tmp_path, "end")


async def test_the_deadline_cuts_what_is_left(tmp_path: Path) -> None:
    """A deployment does not wait for one long step: it begins again elsewhere, and the drain is one all the same."""
    async with client(tmp_path) as system:
        async with node(tmp_path, "make", "--drain", "0.5") as first:
            receipt = await system.get(Worker, "s").steps.tell("s", 1, HELD)
            await came(tmp_path, "begin", 1)
            first.signal(signal.SIGTERM)
            assert await ended(first) == 0
            assert first.said_all("drained")[0]["cut"] == 1
        let(tmp_path, "s/0")
        async with node(tmp_path):
            assert await receipt.result(timeout=60) == "s"
    assert len(facts(tmp_path, "begin")) == 2
    once(tmp_path, "end")


async def test_a_handlers_own_code_goes_on_to_its_next_step(tmp_path: Path) -> None:
    """What a handler does outside of steps is not thrown away either, if there is time."""
    async with client(tmp_path) as system:
        async with node(tmp_path) as first:
            receipt = await system.get(Worker, "o").own_code.tell("o", HELD)
            await came(tmp_path, "turn", 1)
            first.signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.said, "draining")
            let(tmp_path, "o")
            assert await ended(first) == 0
        assert len(facts(tmp_path, "own code")) == 1
        assert facts(tmp_path, "begin") == []
        async with node(tmp_path):
            assert await receipt.result(timeout=60) == "o/after"


async def test_a_handler_that_swallows_its_cancellation_is_left_behind(tmp_path: Path) -> None:
    """It keeps neither the process from ending nor others from its message."""
    async with client(tmp_path) as system:
        async with node(tmp_path, "make", "--drain", "0.3") as first:
            receipt = await system.get(Worker, "c").cling.tell("c")
            await came(tmp_path, "turn", 1)
            first.signal(signal.SIGTERM)
            assert await ended(first) == 0
            assert first.said_all("drained")[0]["left"] == 1
        assert facts(tmp_path, "swallowed")
        async with node(tmp_path):
            assert await receipt.result(timeout=60) == "c"


async def test_a_kill_in_the_middle_of_a_drain(tmp_path: Path) -> None:
    """Whoever has no time for a drain loses no more than at any kill: what was released is safe, the rest is found."""
    async with client(tmp_path) as system, node(tmp_path) as second:
        stand_still(second.process.pid, tmp_path / "app.db")
        async with node(tmp_path) as first:
            receipts = [await system.get(Worker, f"s{n}").steps.tell(f"s{n}", 2, HELD) for n in range(8)]
            await came(tmp_path, "begin", 8)
            first.signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.said, "draining")
            let(tmp_path, *(f"s{n}/0" for n in range(3)))
            await until(lambda: completed_steps(system) == 3)
            first.kill()
        let(tmp_path, *(f"s{n}/{place}" for n in range(8) for place in range(2)))
        second.signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            assert [await each.result() for each in receipts] == [f"s{n}" for n in range(8)]
    once(tmp_path, "end")


def completed_steps(system: ActorSystem) -> int:
    """How many steps are recorded."""
    found = connection_of(system).execute("SELECT count(*) FROM journal WHERE kind = 'step' AND status = 'completed'")
    return int(found.fetchone()[0])


async def test_a_third_signal_ends_a_process_that_hears_nothing(tmp_path: Path) -> None:
    """A handler that blocks the event loop does not make the process deaf."""
    async with client(tmp_path) as system, node(tmp_path) as first:
        await system.get(Worker, "b").block.tell("b")
        await came(tmp_path, "turn", 1)
        for _ in range(3):
            first.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
        assert await ended(first) == HURRIED


async def test_ctrl_c_drains_too(tmp_path: Path) -> None:
    """At a terminal it is as orderly; hurried it says so with the code that shells know."""
    async with node(tmp_path) as first:
        first.signal(signal.SIGINT)
        assert await ended(first) == 0
    async with client(tmp_path) as system, node(tmp_path) as second:
        await system.get(Worker, "s").steps.tell("s", 1, HELD)
        await came(tmp_path, "begin", 1)
        second.signal(signal.SIGINT)
        assert await asyncio.to_thread(second.said, "draining")
        await asyncio.sleep(0.2)  # or it would be the same one
        second.signal(signal.SIGINT)
        assert await ended(second) == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("place", "options", "code", "says"),
    [
        ("nothing", (), 2, "has no 'nothing'"),
        ("number", (), 2, "is int, no ActorSystem"),
        ("Worker", (), 2, "no ActorSystem"),
        ("system", ("--db", "/dev/null"), 2, "/dev/null"),
        ("system", ("--db", "/nowhere/app.db"), 2, "/nowhere"),
        ("broken", (), 1, "it is not configured"),
        ("early", (), 0, "drained"),
    ],
)
def test_what_does_not_run_says_why(tmp_path: Path, place: str, options: tuple[str, ...], code: int, says: str) -> None:
    """Whoever supervises the process, or wrote the command, learns what to mend."""
    running = RunningNode(tmp_path, place, *options)
    assert running.ended() == code, running.text()
    assert says in running.text()


# trees ----------------------------------------------------------------------------------------------------------------


def started_in(directory: Path, running: RunningNode) -> list[str]:
    """The members that have started in a process, in order."""
    return [fact["actor"] for fact in facts(directory, "started") if fact.run == running.process.pid]


async def test_a_tree_is_handed_over(tmp_path: Path) -> None:
    """A drained tree has not been terminated: the other process starts it, in order, without anybody's mail."""
    async with client(tmp_path) as system, node(tmp_path, "tree") as first:
        receipt = await system.get(Member, "second").steps.tell("t", 2, 0.6)
        await came(tmp_path, "begin", 1)
        async with node(tmp_path, "tree") as second:
            first.signal(signal.SIGTERM)
            assert await ended(first) == 0
            await until(lambda: started_in(tmp_path, second) == ["first", "second", "third"])
            assert await receipt.result(timeout=60) == "t"
            assert await system.get(Member, "third").add(1) == 1
    stopped = [fact["actor"] for fact in facts(tmp_path, "stopping") if fact.run == first.process.pid]
    assert stopped == ["third", "second", "first"]
    once(tmp_path, "begin")


async def test_a_drain_in_the_middle_of_a_group_restart(tmp_path: Path) -> None:
    """The order goes on in the other process when its time has come, and nobody starts twice."""
    async with client(tmp_path) as system, node(tmp_path, "tree") as first, node(tmp_path, "tree") as second:
        await system.get(Member, "second").crash.tell()
        await came(tmp_path, "stopping", 3)
        first.signal(signal.SIGTERM)
        assert await ended(first) == 0
        await until(lambda: len(started_in(tmp_path, second)) >= 3)
        assert started_in(tmp_path, second) == ["first", "second", "third"]
        assert await system.get(Member, "first").add(1) == 1


async def test_a_root_that_gives_up_ends_the_process(tmp_path: Path) -> None:
    """Whoever supervises the process starts it again: it has failed, and says so."""
    async with client(tmp_path) as system, node(tmp_path, "doomed") as first:
        await system.get(Member, "only").crash.tell()
        assert await ended(first) == 1
        assert "EscalationError" in first.text()


# deployments ----------------------------------------------------------------------------------------------------------


class Traffic:
    """What a client sends while processes come and go, and how long its asks take."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.sent: list[Receipt[str]] = []
        self.seconds: list[float] = []

    def begin(self) -> None:
        """From now on."""
        self._tasks = [asyncio.create_task(self._tell(name)) for name in range(4)]
        self._tasks += [asyncio.create_task(self._ask(name)) for name in range(4)]

    async def end(self) -> None:
        """No more, and everything that was sent has come about."""
        self._over.set()
        await asyncio.gather(*self._tasks)
        async with asyncio.timeout(30):
            assert [await each.result() for each in self.sent] == [each.id for each in self.sent]

    async def _tell(self, name: int) -> None:
        for n in count():
            tag = f"{name}.{n}"
            worker = self._system.get(Worker, f"w{name}.{n % 5}")
            self.sent.append(await worker.steps.options(id=tag).tell(tag, 2, 0.02))
            await asyncio.sleep(0.02)
            if self._over.is_set():
                return

    async def _ask(self, name: int) -> None:
        for n in count():
            at = time.monotonic()
            await self._system.get(Worker, f"q{name}.{n % 5}").note(f"{name}.{n}")
            self.seconds.append(time.monotonic() - at)
            await asyncio.sleep(0.02)
            if self._over.is_set():
                return


async def _roll(target: str, directory: Path) -> Traffic:
    """Three processes, replaced one after the other under load."""
    running = [RunningNode(directory, "make", target=target) for _ in range(3)]
    try:
        async with ActorSystem.client(target) as system:
            for each in running:
                await asyncio.to_thread(each.said, "ready")
            traffic = Traffic(system)
            traffic.begin()
            for place in range(3):
                old, new = running[place], RunningNode(directory, "make", target=target)
                running.append(new)
                await asyncio.to_thread(new.said, "ready")
                old.signal(signal.SIGTERM)
                assert await ended(old) == 0
            await traffic.end()
    finally:
        for each in running:
            each.kill()
    return traffic


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_rolling_deployment_loses_nothing(
    tmp_path: Path, store: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    """Every message is handled once, no step is repeated, and nobody who asks waits for a process that has gone."""
    target = f"sqlite:///{tmp_path / 'app.db'}" if store == "sqlite" else request.getfixturevalue("postgres")
    traffic = await _roll(target, tmp_path)
    median, p99 = (statistics.quantiles(traffic.seconds, n=100)[place] for place in (49, 98))
    figures = f"{len(traffic.seconds)} asks: median {median * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
    record_property("asks", figures)
    print(f"{store}: {figures}, longest {max(traffic.seconds) * 1e3:.0f} ms")  # noqa: T201  # for those who ask with -s
    assert max(traffic.seconds) < PATIENCE_SECONDS / 2
    assert len(traffic.sent) > 100
    once(tmp_path, "begin")
    once(tmp_path, "end")
