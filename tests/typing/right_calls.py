"""Calls that every type checker accepts, with the types it must infer. Checked, never run."""

from __future__ import annotations

import asyncio
import random as random_numbers
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

from perdure import (
    Actor,
    ActorSystem,
    AskTimeout,
    Backoff,
    Limits,
    Receipt,
    Ref,
    Rejected,
    Retry,
    StepError,
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


@step(timeout=timedelta(seconds=3))
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


class Boss(Actor, aliases=["Chef"], mailbox_limit=10, timeout=60):
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
