"""Calls that every type checker accepts, with the types it must infer. Checked, never run."""

from __future__ import annotations

import asyncio
import random as random_numbers
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, assert_type
from uuid import UUID

from perdure import (
    Actor,
    ActorSystem,
    AskTimeout,
    Backoff,
    BlockedLoopError,
    BlockedLoopWarning,
    Child,
    ChildCounts,
    ChildError,
    ChildStatus,
    Directive,
    Encrypted,
    EscalationError,
    Failure,
    Limit,
    Limits,
    OneForAll,
    OneForOne,
    Receipt,
    Ref,
    Rejected,
    RestForOne,
    Retry,
    Signed,
    StartError,
    StepError,
    Strategy,
    StubbornHandlerError,
    SupervisionError,
    Supervisor,
    Terminated,
    environment_keys,
    ephemeral,
    fan_out,
    field,
    handler,
    now,
    query,
    random,
    sleep,
    step,
    step_id,
    uuid4,
    watch,
)


class Client:
    """Something that is not state."""

    async def get(self, url: str) -> str:
        return url


@step
async def asynchronous(x: int) -> str:
    return f"{x} {step_id()}"


@step(retry=Retry(attempts=3, backoff=Backoff(0.1, timedelta(seconds=3))), timeout=60, name="async", aliases=["a"])
async def asynchronous_with_options(x: int, y: str = "") -> str:
    return f"{x}{y}"


@step
def blocking(x: int) -> str:
    return str(x)


@step(timeout=timedelta(seconds=3), limit=Limit("llm", concurrent=8, rate=60, per=timedelta(minutes=1)))
def blocking_with_options(x: int, y: str = "") -> str:
    return f"{x}{y}"


async def no_step(x: int) -> str:
    return str(x)


class Counter(Actor, kind="counter", version=2, retry=Retry(3), passivate_after=timedelta(minutes=1)):
    """State of every sort, steps, handlers and queries."""

    total: int = 0
    notes: list[str] = []
    labels: dict[str, str] = field(factory=dict)
    step_size: int = field(default=1)
    client: Client = ephemeral()
    cache: dict[str, int] = ephemeral(factory=dict)
    peer: Ref[Counter] | None = None
    job: Receipt[int] | None = None

    async def started(self) -> None:
        self.client = Client()

    async def stopping(self) -> None:
        self.cache.clear()

    @classmethod
    def migrate(cls, old_version: int, fields: dict[str, Any]) -> Mapping[str, Any]:
        return {**fields, "total": old_version}

    @step
    async def fetch(self, url: str) -> str:
        return await self.client.get(url)

    @step(retry=Retry(attempts=3), timeout=60)
    async def fetch_with_options(self, url: str) -> str:
        return await self.client.get(url)

    @step
    def parse(self, page: str) -> int:
        return len(page)

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        assert_type(self.key, str)
        assert_type(self.system, ActorSystem)
        assert_type(await self.ref.value(), int)
        self.job = await self.ref.add.tell(3)
        return await self.ref.add(n)

    @handler(retry=Retry(), timeout=3, aliases=["multiply"])
    async def mul(self, n: int, *, twice: bool = False) -> int:
        assert_type(await self.add(n), int)
        if twice:
            raise Rejected("no")
        return n

    @handler
    async def report(self) -> None:
        await self.stop()

    @query
    async def value(self, unit: str = "") -> int:
        return self.total + len(unit)

    async def plain(self, n: int) -> int:
        return n


class Doubler(Counter):
    """A subclass overrides a handler and gets its state from above."""

    factor: int = 2

    @handler
    async def add(self, n: int) -> int:
        assert_type(await super().add(n), int)
        return n


class Needs(Actor):
    """A field without a default must be given when the actor is spawned."""

    goal: str
    depth: int = 1

    @handler
    async def go(self) -> list[str]:
        return [self.goal]


class Boss(Actor, aliases=["Chef"], mailbox_limit=10, timeout=60, limit=Limit("bosses", concurrent=5)):
    """What is called inside a turn."""

    worker: Counter | None = None
    workers: dict[str, Ref[Counter]] = {}

    @handler
    async def steps(self, counter: Ref[Counter]) -> None:
        assert_type(await asynchronous(1), str)
        assert_type(await asynchronous_with_options(1, y="a"), str)
        assert_type(await blocking(1), str)
        assert_type(await blocking_with_options(1, y="a"), str)
        assert_type(await step(asynchronous_with_options, key="k")(1, y="a"), str)
        assert_type(await step(blocking_with_options, key="k")(1, y="a"), str)
        assert_type(await step(no_step, name="outside", retry=Retry(1))(1), str)
        assert_type(await step(no_step, key="k", timeout=3)(1), str)
        assert_type(await counter.fetch("u"), str)
        assert_type(await counter.fetch_with_options("u"), str)
        assert_type(await counter.parse("u"), int)
        assert_type(await step(counter.fetch_with_options, key="k")("u"), str)

    @handler
    async def many(self, counter: Ref[Counter]) -> None:
        assert_type(await fan_out(asynchronous, [1, 2], concurrency=3), list[str])
        assert_type(await fan_out(blocking, [1, 2], key=str), list[str])
        assert_type(await fan_out(counter.fetch, ["a"]), list[str])
        assert_type(await fan_out(counter.add, range(3)), list[int])
        assert_type(await fan_out(no_step, {1, 2}), list[str])
        assert_type(await fan_out(lambda n: asynchronous_with_options(n, "q"), [1, 2]), list[str])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(counter.add(1))
            other = group.create_task(asynchronous(1))
        assert_type(task.result(), int)
        assert_type(other.result(), str)

    @handler
    async def free_functions(self) -> None:
        assert_type(now(), datetime)
        assert_type(uuid4(), UUID)
        assert_type(random(), random_numbers.Random)
        await sleep(3)
        await sleep(timedelta(days=3))

    @handler
    async def spawns(self) -> None:
        assert_type(await self.spawn(Counter, "k", total=3, notes=["a"], labels={"a": "b"}, step_size=3), Counter)
        assert_type(await self.spawn(Counter, total=3), Counter)
        assert_type(await self.spawn(Doubler, "k", total=3, factor=4), Doubler)
        assert_type(await self.spawn(Needs, "x", goal="g"), Needs)
        assert_type(await self.spawn(Boss), Boss)
        self.worker = await self.spawn(Counter, "k")
        self.workers["k"] = self.worker


async def outside_turns(path: Path) -> None:
    async with ActorSystem(path, limits=Limits(attempts=3, grace=1.5)) as system:
        assert_type(system, ActorSystem)
        counter = system.get(Counter, "c")
        assert_type(counter, Counter)
        assert_type(await counter.add(3), int)
        assert_type(await counter.mul(3, twice=True), int)
        assert_type(await counter.value(), int)
        assert_type(await counter.value(unit="m"), int)
        assert_type(await system.get(Doubler, "d").add(3), int)
        assert_type(await system.get(Needs, "n").go(), list[str])
        await counter.report()
        assert_type(await system.spawn(Needs, "x", goal="g"), Needs)
        assert_type(await system.spawn(Counter, peer=counter), Counter)
        first, second = await asyncio.gather(counter.add(1), counter.value())
        assert_type(first, int)
        assert_type(second, int)
        await asyncio.wait_for(counter.add(1), timeout=3)
        asked: set[Counter] = {counter}
        assert_type(asked.pop().key, str)


async def receipts(system: ActorSystem, counter: Counter) -> None:
    receipt = await counter.add.tell(3)
    assert_type(receipt, Receipt[int])
    assert_type(receipt.id, str)
    assert_type(await receipt.result(), int)
    assert_type(await receipt.result(timeout=timedelta(seconds=3)), int)
    assert_type(await counter.add.options(id="x", delay=1, timeout=timedelta(hours=1))(3), int)
    assert_type(await counter.add.options(at=datetime.now(UTC)).tell(3), Receipt[int])
    assert_type(await counter.mul.options(id="x").tell(3, twice=True), Receipt[int])
    assert_type(system.receipt("x"), Receipt[object])
    assert_type(system.receipt("x", Counter.add), Receipt[int])
    assert_type(system.receipt("x", Needs.go), Receipt[list[str]])
    assert_type(await of_any_reply(receipt), object)


async def of_any_reply(receipt: Receipt[object]) -> object:
    return await receipt.result()


async def failures(counter: Counter) -> None:
    try:
        await counter.add(3)
    except StepError as error:
        assert_type(error.error_type, str)
        assert_type(error.caused_by(OSError, TimeoutError), bool)
    except AskTimeout as error:
        assert_type(await error.receipt.result(), object)


async def unit_test_of_an_actor() -> None:
    counter = Counter(total=3)
    assert_type(counter.total, int)
    assert_type(counter.notes, list[str])
    assert_type(await counter.add(3), int)
    assert_type(await counter.plain(3), int)


# supervision ----------------------------------------------------------------------------------------------------------


class Crew(Supervisor, strategy=RestForOne(max_restarts=3, within=timedelta(minutes=1), backoff=Backoff(0.1, 30))):
    """Children of several classes, with every sort of option."""

    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Counter, "a", total=3).options(restart="transient", shutdown=5)
        yield Child(Needs, "b", goal="x")
        yield Child(Boss).options(restart="temporary", shutdown="brutal", significant=True)
        yield Child(Pool, "pool").options(shutdown="infinity")
        yield Child(Counter, "c").options(shutdown=timedelta(seconds=3)).options(restart="permanent")

    @classmethod
    def decide(cls, failure: Failure) -> Literal["restart", "resume", "stop", "escalate"]:
        assert_type(failure.actor, Actor)
        assert_type(failure.message, str | None)
        assert_type(failure.attempt, int)
        assert_type(failure.error_type, str)
        assert_type(failure.error, str)
        assert_type(failure.traceback, str)
        assert_type(failure.caused_by(OSError, StubbornHandlerError), bool)
        if failure.caused_by(BlockedLoopError):
            return "stop"
        return "resume" if failure.attempt < 3 else super().decide(failure)


class Pool(Supervisor, kind="pool", strategy=OneForOne(max_restarts=0), auto_shutdown="all_significant"):
    """Children of one class, in a list; those of a pool are started at run time."""

    size: int = 1

    def children(self) -> list[Child[Counter]]:
        return [Child(Counter, f"c{n}", total=n) for n in range(self.size)]

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        return "escalate" if failure.message is None else "restart"


class Idle(Supervisor, auto_shutdown="any_significant"):
    """What a supervisor does without being told; it says less than it may."""

    @classmethod
    def decide(cls, failure: Failure) -> Literal["stop"]:
        del failure
        return "stop"


class Chosen(Supervisor):
    """A supervisor with state of its own, and a child chosen by it."""

    names: tuple[str, ...] = ()

    def children(self) -> Iterable[Child[Actor]]:
        return tuple(Child(Counter, name) for name in self.names)


class Foreman(Actor, supervision=OneForAll(within=3)):
    """Supervises what it spawns, and is told when it ends."""

    gone: list[str] = []

    @handler
    async def hire(self, goal: str) -> None:
        assert_type(await self.spawn(Child(Needs, "x", goal=goal)), Needs)
        assert_type(await self.spawn(Child(Needs, goal=goal).options(restart="permanent")), Needs)
        counter = await self.spawn(Child(Counter, "k", total=3).options(restart="temporary", shutdown=1.5))
        assert_type(counter, Counter)
        await watch(counter, self.ref.note)
        await watch(counter, self.ref.count.options(id="gone"))

    @handler
    async def note(self, terminated: Terminated) -> None:
        assert_type(terminated.actor, Actor)
        assert_type(terminated.reason, str)
        self.gone.append(terminated.reason)

    @handler
    async def count(self, terminated: Terminated) -> int:
        return len(terminated.reason)

    @handler
    async def count_from(self, terminated: Terminated, start: int = 0) -> int:
        return start + len(terminated.reason)

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        return "stop" if failure.caused_by(ValueError) else "restart"


async def supervisors(path: Path) -> None:
    async with ActorSystem(path, root=Crew, on_escalation="raise") as system:
        crew = system.get(Crew, "root")
        assert_type(crew, Crew)
        counter = await crew.start_child(Child(Counter, "z", total=3))
        assert_type(counter, Counter)
        assert_type(await crew.start_child(Child(Needs, goal="g").options(restart="transient")), Needs)
        assert_type(await system.get(Pool, "pool").start_child(Child(Pool, "below", size=2)), Pool)
        assert_type(await crew.which_children(), list[ChildStatus])
        for status in await crew.which_children():
            assert_type(status.actor, Actor)
            assert_type(status.restart, Literal["permanent", "transient", "temporary"])
            assert_type(status.state, Literal["running", "restarting", "stopped", "failed"])
            await crew.terminate_child(status.actor)
        counts = await crew.count_children()
        assert_type(counts, ChildCounts)
        assert_type((counts.specs, counts.active, counts.supervisors, counts.workers), tuple[int, int, int, int])
        await crew.terminate_child(counter)
        await crew.restart_child(counter)
        await crew.delete_child(counter)
        await watch(counter, system.get(Foreman, "f").note)
        assert_type(await system.spawn(Child(Needs, "x", goal="g")), Needs)
        assert_type(await system.spawn(Child(Counter)), Counter)
        assert_type(await system.spawn(Crew, "other"), Crew)
    ActorSystem(path, root=Supervisor, on_escalation="stop")


def sealed(path: Path) -> list[ActorSystem]:
    """A seal has keys; both kinds go where one is wanted."""
    keys = environment_keys()
    assert_type(keys, list[bytes])
    seals = [Signed(keys), Signed(keys, everything=True, accepts_plain=True), Encrypted((b"k" * 32,))]
    return [ActorSystem(path, seal=None), *(ActorSystem(path, seal=seal) for seal in seals)]


def chosen(strategy: Strategy) -> type[Supervisor]:
    """A supervisor made by a function, as a test makes one."""

    class Made(Supervisor, strategy=strategy, auto_shutdown="never"):
        pass

    return Made


def children_by_name() -> dict[str, Child[Actor]]:
    """A child of some class is a child."""
    counter = Child(Counter, "a", total=3)
    assert_type(counter, Child[Counter])
    assert_type(counter.options(significant=True, restart="transient"), Child[Counter])
    strategies: list[Strategy] = [OneForOne(), OneForAll(), RestForOne(), Strategy(max_restarts=1, within=2.5)]
    backoffs = [Backoff(), Backoff(timedelta(seconds=1), 3, factor=1.5, jitter=0)]
    assert_type(backoffs[0].delay(len(strategies)), float)
    return {"counter": counter, "needs": Child(Needs, "b", goal="x")}


async def failures_of_supervision(pool: Pool, counter: Counter) -> BlockedLoopWarning | None:
    try:
        await pool.restart_child(counter)
    except ChildError as error:
        if error.reason == "not_found":
            return None
        assert_type(
            error.reason, Literal["already_started", "already_present", "running", "restarting", "start_failed"]
        )
    except (StartError, EscalationError) as error:
        assert_type(error, StartError | EscalationError)
        general: SupervisionError = error
        raise general from None
    return BlockedLoopWarning("a handler blocks the event loop")
