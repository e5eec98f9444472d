"""The programs of the promise tests: `python -m tests.acceptance.programs NAME DIRECTORY [ARGUMENTS]`.

What they do in the world goes to a ledger that a SIGKILL cannot take back; where they are to die, they kill themselves.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    DeadLetterError,
    IdReusedError,
    Limits,
    Rejected,
    Retry,
    handler,
    step,
    step_id,
)
from tests.acceptance.torture.facts import WORLD

QUICK = Retry(attempts=3, backoff=Backoff(first=0.01, most=0.05))


def die_once(name: str) -> None:
    """Kill this process, the first time that anybody comes here under that name."""
    if WORLD.happens(f"die {name}", 1):
        os.kill(os.getpid(), signal.SIGKILL)


@step
async def effect(name: str) -> str:
    """An effect outside that takes a moment."""
    WORLD.write("begin", work=name, sid=step_id())
    await asyncio.sleep(0.002)
    WORLD.write("end", work=name, sid=step_id())
    return step_id()


@step
async def deadly(name: str) -> str:
    """An effect during which the process dies, once."""
    WORLD.write("begin", work=name, sid=step_id())
    die_once(name)
    WORLD.write("end", work=name, sid=step_id())
    return step_id()


async def opening(gate: str) -> None:
    """Wait until somebody makes the file `gate`."""
    while not await asyncio.to_thread(os.path.exists, gate):  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.01)


@step
async def gated(name: str, gate: str) -> str:
    """An effect that lasts until somebody makes the file `gate`."""
    WORLD.write("begin", work=name, sid=step_id())
    await opening(gate)
    WORLD.write("end", work=name, sid=step_id())
    return step_id()


class Notes(Actor, kind="notes"):
    """Writes down what it is told."""

    history: list[str] = []

    @handler
    async def note(self, text: str) -> int:
        WORLD.write("noted", text=text, actor=self.key)
        self.history.append(text)
        return len(self.history)


class Doomed(Actor, kind="doomed", retry=QUICK):
    """Handlers during which the process dies."""

    history: list[str] = []

    @handler
    async def at_first_line(self, tag: str) -> str:
        WORLD.write("turn", tag=tag)
        die_once(tag)
        self.history.append(tag)
        return tag

    @handler
    async def between_steps(self, tag: str) -> list[str]:
        first = await effect(f"{tag}/first")
        second = await deadly(f"{tag}/second")
        self.history.append(tag)
        return [first, second]

    @handler
    async def in_second_segment(self, tag: str) -> None:
        await self._send(f"{tag}/one")
        self.history.append(tag)
        await effect(f"{tag}/first")
        await self._send(f"{tag}/two")
        die_once(tag)
        await effect(f"{tag}/second")

    async def _send(self, name: str) -> None:
        for place in range(3):
            await self.system.get(Notes, f"n{place}").note.options(id=f"{name}/{place}").tell(f"{name}/{place}")
        await self.spawn(Notes, f"{self.key}/{name}", history=[name])

    @handler
    async def after_predecessors(self, tag: str, last: bool) -> int:  # noqa: FBT001  # an argument of a message
        before = len(self.history)
        self.history.append(tag)
        if last:
            WORLD.write("base", tag=tag, turns=before)
            await deadly(f"{tag}/step")
        return before

    @handler
    async def after_reply(self, tag: str) -> int:
        heard = await self.system.get(Notes, "asked").note.options(id=f"{tag}/asked")(tag)
        WORLD.write("heard", tag=tag, value=heard)
        die_once(tag)
        return heard

    @handler
    async def through_gate(self, tag: str, gate: str) -> str:
        self.history.append(tag)
        sid = await gated(f"{tag}/gated", gate)
        await self.system.get(Notes, "told").note.tell(tag)
        await effect(f"{tag}/after")
        return sid

    @handler
    async def stamp(self, value: int) -> str:
        WORLD.write("turn", tag=f"stamp {value}")
        self.history.append(str(value))
        return f"{os.getpid()}:{value}"


class Trial(Actor, kind="trial", retry=QUICK):
    """Succeeds, rejects or fails, as it is told."""

    history: list[str] = []

    @handler
    async def go(self, tag: str, way: str) -> str:
        self.history.append(tag)
        await effect(tag)
        if way == "reject":
            raise Rejected(tag)
        if way == "fail":
            raise RuntimeError(tag)
        return tag


class Chatter(Actor, kind="chatter"):
    """Tells a row of messages to several receivers, before and after a durable point."""

    said: int = 0

    @handler
    async def talk(self, receivers: list[str], count: int) -> None:
        for place in range(count):
            for key in receivers:
                await self.system.get(Notes, key).note.tell(f"{self.key}:{self.said:06}")
            self.said += 1
            if place == count // 2:
                await effect(f"{self.key}:{self.said}")


class Innocent(Actor, kind="innocent"):
    """A turn that harms nobody."""

    history: list[str] = []

    @handler
    async def work(self, tag: str, steps: int) -> int:
        await asyncio.sleep(0.05)
        for place in range(steps):
            await effect(f"{tag}/{place}")
        self.history.append(tag)
        return steps


class Killer(Actor, kind="killer"):
    """A turn that always kills its process."""

    @handler
    async def work(self, tag: str, steps: int) -> int:
        WORLD.write("kill", tag=tag)
        await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
        return steps


async def rest(system: ActorSystem) -> None:
    """Do nothing but have the system open, until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


async def tell_for_ever(system: ActorSystem, prefix: str) -> None:
    """Twenty senders that tell without end, and note what was acknowledged."""

    async def sender(name: int) -> None:
        n = 0
        while True:
            id_ = f"{prefix}.{name}.{n}"
            await system.get(Notes, f"n{n % 7}").note.options(id=id_).tell(id_)
            WORLD.write("acked", id=id_)
            n += 1

    async with asyncio.TaskGroup() as tasks:
        for name in range(20):
            tasks.create_task(sender(name))


async def tell(system: ActorSystem, handler_name: str, *args: str) -> None:
    """Tell one message to a doomed actor, and rest."""
    bound = getattr(system.get(Doomed, "d"), handler_name)
    await bound.options(id="m").tell("m", *args)
    WORLD.write("told")
    await rest(system)


async def tell_successors(system: ActorSystem, count: str) -> None:
    """Tell many messages to one actor at once, whose last turn dies in a step."""
    doomed = system.get(Doomed, "d")
    async with asyncio.TaskGroup() as tasks:
        for n in range(int(count)):
            last = n == int(count) - 1
            tasks.create_task(doomed.after_predecessors.options(id=f"m{n}").tell(f"m{n}", last))
    await rest(system)


async def zombie(system: ActorSystem, gate: str) -> None:
    """Work behind a gate; when that is open, show that the process itself is well."""
    await system.get(Doomed, "d").through_gate.options(id="m").tell("m", gate)
    await opening(gate)
    for n in range(20):
        await asyncio.sleep(0.02)
        await system.get(Notes, "other").note(f"well {n}")
    WORLD.write("well")
    await rest(system)


async def stamp(system: ActorSystem, value: str) -> None:
    """Ask for a stamp under an id that never changes."""
    try:
        reply = await system.get(Doomed, "d").stamp.options(id="stamp")(int(value))
    except IdReusedError as error:
        WORLD.write("reply", value=type(error).__name__)
    else:
        WORLD.write("reply", value=reply)


async def reuse(system: ActorSystem) -> None:
    """Use the same id for another actor, and for another handler."""
    for attempt in (
        system.get(Doomed, "another").stamp.options(id="stamp").tell(1),
        system.get(Doomed, "d").at_first_line.options(id="stamp").tell("1"),
    ):
        try:
            await attempt
        except IdReusedError as error:
            WORLD.write("reply", value=type(error).__name__)
        else:
            WORLD.write("reply", value="accepted")


async def try_all(system: ActorSystem) -> None:
    """Sixty messages of three sorts, sent again by every process; wait for their outcomes."""
    receipts = [
        await system.get(Trial, f"t{n % 5}").go.options(id=f"m{n}").tell(f"m{n}", ("succeed", "reject", "fail")[n % 3])
        for n in range(60)
    ]
    for receipt in receipts:
        try:
            WORLD.write("outcome", id=receipt.id, value=await receipt.result())
        except (Rejected, DeadLetterError) as error:
            WORLD.write("outcome", id=receipt.id, value=type(error).__name__)


async def chatter(system: ActorSystem) -> None:
    """Everybody talks to everybody, the sender outside too."""
    receivers = [f"n{n}" for n in range(5)]
    async with asyncio.TaskGroup() as tasks:
        for n in range(20):
            talk = system.get(Chatter, f"c{n}").talk
            tasks.create_task(talk.options(id=f"talk {n}").tell(receivers, 20))
        for n in range(400):
            note = system.get(Notes, receivers[n % 5]).note
            tasks.create_task(note.options(id=f"outside {n}").tell(f"outside:{n:06}"))
    await rest(system)


async def swarm(system: ActorSystem, innocents: str, killers: str) -> None:
    """A thousand innocent turns and a few that kill the process, sent under ids, and awaited."""
    kinds: list[tuple[type[Innocent | Killer], int]] = [(Innocent, n) for n in range(int(innocents))]
    kinds += [(Killer, n) for n in range(int(killers))]

    async def one(kind: type[Innocent | Killer], n: int) -> None:
        id_ = f"{kind.__name__} {n}"
        work = system.get(kind, str(n)).work.options(id=id_)
        try:
            await (await work.tell(id_, n % 3)).result()
        except DeadLetterError:
            WORLD.write("dead", id=id_)

    async with asyncio.TaskGroup() as tasks:
        for kind, n in kinds:
            tasks.create_task(one(kind, n))
    WORLD.write("done")


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    program.__name__: program
    for program in (chatter, rest, reuse, stamp, swarm, tell, tell_for_ever, tell_successors, try_all, zombie)
}


async def _main(name: str, directory: Path, args: list[str]) -> None:
    # these programs are about messages; how often an actor may fail is another matter
    async with ActorSystem(directory / "app.db", limits=Limits(restarts=1_000_000)) as system:
        WORLD.write("up")
        await PROGRAMS[name](system, *args)


if __name__ == "__main__":
    WORLD.open(Path(sys.argv[2]), os.getpid())
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
