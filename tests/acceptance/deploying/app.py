"""The application of the deployment tests: `perdure run tests.acceptance.deploying.app:make`.

What its actors do in the world goes to a ledger that every process of a test writes to.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    Limits,
    OneForAll,
    OneForOne,
    Retry,
    Supervisor,
    handler,
    sleep,
    step,
    step_id,
)
from tests.acceptance.torture.facts import WORLD
from tests.unit.observing import until

HELD = -1.0
"""Instead of seconds: until the test lets it go on, whatever the machine is busy with."""


def gate_of(directory: Path, name: str) -> Path:
    """The file that is there once the test lets something go on."""
    return directory / f"go {name.replace('/', '.')}"


async def _passes(name: str, seconds: float) -> None:
    if seconds != HELD:
        await asyncio.sleep(seconds)
        return
    await until(gate_of(Path(os.environ["DEPLOYING"]), name).exists, 3600)


@step
async def effect(name: str, seconds: float) -> str:
    """An effect outside that takes its time."""
    WORLD.write("begin", work=name, sid=step_id())
    await _passes(name, seconds)
    WORLD.write("end", work=name, sid=step_id())
    return name


class Worker(Actor, kind="deploying.worker"):
    """Does what it is told, step by step or otherwise."""

    done: list[str] = []

    @handler
    async def steps(self, tag: str, count: int, seconds: float) -> str:
        WORLD.write("turn", tag=tag)
        for place in range(count):
            await effect(f"{tag}/{place}", seconds)
        self.done.append(tag)
        return tag

    @handler
    async def nap(self, tag: str, seconds: float) -> str:
        WORLD.write("turn", tag=tag)
        await effect(f"{tag}/before", 0)
        await sleep(seconds)
        return await effect(f"{tag}/after", 0)

    @handler
    async def ask(self, tag: str, seconds: float) -> str:
        WORLD.write("turn", tag=tag)
        return await self.system.get(Worker, f"{self.key}.asked").steps(f"{tag}/asked", 2, seconds)

    @handler
    async def note(self, tag: str) -> int:
        WORLD.write("turn", tag=tag)
        self.done.append(tag)
        return len(self.done)

    @handler
    async def own_code(self, tag: str, seconds: float) -> str:
        WORLD.write("turn", tag=tag)
        await _passes(tag, seconds)
        WORLD.write("own code", tag=tag)
        return await effect(f"{tag}/after", 0)

    @handler
    async def cling(self, tag: str) -> str:
        if not WORLD.happens(f"cling {tag}", 1):
            return tag
        WORLD.write("turn", tag=tag)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                WORLD.write("swallowed", tag=tag)

    @handler
    async def block(self, tag: str) -> None:
        WORLD.write("turn", tag=tag)
        time.sleep(3600)  # noqa: ASYNC251  # it is to block the loop


class Member(Actor, kind="deploying.member", retry=Retry(1)):
    """One of a group that restarts together."""

    total: int = 0

    async def started(self) -> None:
        WORLD.write("started", actor=self.key)

    async def stopping(self) -> None:
        WORLD.write("stopping", actor=self.key)

    @handler
    async def add(self, number: int) -> int:
        self.total += number
        return self.total

    @handler
    async def crash(self) -> None:
        raise ValueError(self.key)

    @handler
    async def steps(self, tag: str, count: int, seconds: float) -> str:
        for place in range(count):
            await effect(f"{tag}/{place}", seconds)
        return tag


class Team(Supervisor, kind="deploying.team", strategy=OneForAll(backoff=Backoff(0.5, 0.5, jitter=0))):
    """Three that restart together, half a second after one failed."""

    def children(self) -> Iterator[Child[Actor]]:
        for key in ("first", "second", "third"):
            yield Child(Member, key)


def _target() -> str:
    WORLD.open(Path(os.environ["DEPLOYING"]), os.getpid())
    return os.environ["DEPLOYING_ON"]


async def make() -> ActorSystem:
    """The system without a tree."""
    return ActorSystem(_target(), limits=Limits(blocked_failure=float("inf")))


def tree() -> ActorSystem:
    """The system with its tree."""
    return ActorSystem(_target(), root=Team)


class Doomed(Supervisor, kind="deploying.doomed", strategy=OneForOne(max_restarts=0)):
    """Gives up at the first failure."""

    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Member, "only")


def doomed() -> ActorSystem:
    """The system whose tree gives up."""
    return ActorSystem(_target(), root=Doomed)


def broken() -> ActorSystem:
    """What a mistake in the application's code does."""
    raise RuntimeError("it is not configured")


def early() -> ActorSystem:
    """A process that is told to stop before it is ready."""
    os.kill(os.getpid(), signal.SIGTERM)
    return ActorSystem(_target())


number = 7
system = ActorSystem("app.db")
