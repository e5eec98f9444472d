"""A system with everything under way that can be: what is copied, and what has to go on at the new place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    DeadLetterError,
    Limit,
    Limits,
    OneForOne,
    Retry,
    Supervisor,
    Terminated,
    handler,
    sleep,
    step,
    watch,
)
from tests.unit.observing import until

DELAY_SECONDS = 3.0
LIMITS = Limits(grace=0.2, evict_after=0.05)

steps: Counter[str] = Counter()
"""How often each step began."""
gates: dict[str, asyncio.Event] = {}
"""What steps and handlers wait for."""


def forget() -> None:
    """Nothing of another test is left."""
    steps.clear()
    gates.clear()
    gates.update({name: asyncio.Event() for name in ("step", "answer", "flaky")})


@step(limit=Limit("copying.effects", concurrent=8, rate=100, per=60))
async def effect(name: str) -> str:
    """Done once, and counted for a limit."""
    steps[name] += 1
    return name


@step
async def held(name: str) -> str:
    """Runs until its gate opens, so it is interrupted when its system closes."""
    steps[name] += 1
    await gates["step"].wait()
    return name


class Worker(Actor, kind="copying.worker", retry=Retry(attempts=1)):
    """Is half-way through a turn of steps."""

    done: list[str] = []

    @handler
    async def work(self) -> list[str]:
        first, second = await effect("first"), await effect("second")
        self.done = [first, second, await held("third"), await effect("fourth")]
        return self.done

    @handler
    async def note(self, text: str) -> list[str]:
        self.done = [*self.done, text]
        return self.done

    @handler
    async def break_down(self) -> None:
        raise ValueError("broken")

    @handler
    async def leave(self) -> None:
        await self.stop()


class Asker(Actor, kind="copying.asker"):
    """Waits for another's answer, and for a time."""

    ended: list[str] = []

    @handler
    async def ask(self) -> str:
        await effect("before asking")
        answer = await self.system.get(Answerer, "a").answer("why")
        return await effect(f"after {answer}")

    @handler
    async def rest(self) -> str:
        await effect("before sleeping")
        await sleep(timedelta(seconds=DELAY_SECONDS))
        return await effect("after sleeping")

    @handler
    async def look_at(self, key: str) -> None:
        await watch(self.system.get(Worker, key), self.ref.gone)

    @handler
    async def gone(self, ended: Terminated) -> None:
        self.ended = [*self.ended, ended.actor.key]

    @handler
    async def all_ended(self) -> list[str]:
        return self.ended


class Answerer(Actor, kind="copying.answerer"):
    """Answers when it may."""

    @handler
    async def answer(self, question: str) -> str:
        await effect("answering")
        if not gates["answer"].is_set():
            await sleep(timedelta(seconds=DELAY_SECONDS))
        return f"because of {question}"


class Crew(Supervisor, strategy=OneForOne(max_restarts=3, within=timedelta(minutes=5), backoff=Backoff(0))):
    """Has restarted a child twice; may do so once more."""

    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Worker, "crew-1")
        yield Child(Worker, "crew-2")


async def begin(target: str) -> None:
    """Have everything under way, and close in good order."""
    async with ActorSystem(target, root=Crew, limits=LIMITS) as system:
        await system.get(Worker, "w").work.options(id="work").tell()
        await system.get(Worker, "w").note.options(id="behind").tell("behind")
        await system.get(Asker, "asker").ask.options(id="ask").tell()
        await system.get(Asker, "sleeper").rest.options(id="rest").tell()
        later = system.get(Worker, "later").note.options(id="later", delay=timedelta(seconds=DELAY_SECONDS))
        await later.tell("späť ☃ \x07 \"'\\")
        await system.get(Worker, "watched").note("here")
        await system.get(Asker, "watcher").look_at("watched")
        for number in range(2):
            await _fail(system, f"crew-1/{number}")
        await until(lambda: steps["third"] + steps["answering"] + steps["before sleeping"] == 3)


async def _fail(system: ActorSystem, id_: str) -> None:
    """Have a child of the crew fail and be restarted, and a dead letter be there."""
    receipt = await system.get(Worker, "crew-1").break_down.options(id=id_).tell()
    try:
        await receipt.result(timeout=20)
    except DeadLetterError:
        return
    raise AssertionError("it should be a dead letter")


async def go_on(target: str) -> None:
    """Have everything come to its end."""
    gates["step"].set()
    gates["answer"].set()
    async with ActorSystem(target, root=Crew, limits=LIMITS) as system:
        assert await system.receipt("work", Worker.work).result(timeout=20) == ["first", "second", "third", "fourth"]
        assert (await system.receipt("behind", Worker.note).result(timeout=20))[-1] == "behind"
        assert await system.receipt("ask", Asker.ask).result(timeout=20) == "after because of why"
        assert await system.receipt("rest", Asker.rest).result(timeout=20) == "after sleeping"
        assert await system.receipt("later", Worker.note).result(timeout=20) == ["späť ☃ \x07 \"'\\"]
        assert await system.get(Worker, "watched").note("there") == ["here", "there"]
        await system.get(Worker, "watched").leave()
        watcher = system.get(Asker, "watcher")

        async def heard() -> bool:
            return await watcher.all_ended() == ["watched"]

        await until(heard)
        await _fail(system, "crew-1/2")
        assert await system.get(Worker, "crew-1").note("still here") == ["still here"]
    assert steps.pop("third") == 2  # interrupted at the old place, so begun again under the same step_id
    assert set(steps.values()) == {1}, steps
