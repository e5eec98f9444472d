"""A nested tree under work: members fail, their groups restart, and every start and stop is put on the ledger.

    Forest (rest_for_one) ─┬─ first
                           ├─ Grove (one_for_all, soon exhausted) ─┬─ left
                           │                                       ├─ middle
                           │                                       └─ right
                           └─ last

`main` sends work until its process is killed; to `finish`, it waits until all of it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    Limits,
    OneForAll,
    Receipt,
    RestForOne,
    Retry,
    Supervisor,
    ephemeral,
    handler,
    step,
)
from tests.acceptance.torture.facts import WORLD

NAMES = ("first", "left", "middle", "right", "last")
_QUICK = Retry(attempts=10_000, backoff=Backoff(first=0.001, most=0.004))
_SOON = Backoff(first=0.001, most=0.01)
_BURST = 12
_LIMITS = Limits(restarts=1_000_000, deaths=1_000_000)  # the innocent are killed here


@step
async def touch(name: str, message: str) -> None:
    """An effect in the world."""
    WORLD.write("effect", actor=name, message=message)
    await asyncio.sleep(0.002)


class Tree(Actor, kind="tree", retry=_QUICK):
    done: list[str] = []
    crashed: bool = ephemeral(factory=bool)

    async def started(self) -> None:
        """Put it on the ledger, where a SIGKILL cannot take it back."""
        WORLD.write("up", actor=self.key)
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            WORLD.write("down", actor=self.key, crashed=False)
            raise

    async def stopping(self) -> None:
        """Say how it ended: by its own failure, or because it was stopped."""
        WORLD.write("down", actor=self.key, crashed=self.crashed)

    @handler
    async def grow(self, message: str, failures: int) -> int:
        """Fail some times, then add the message to the state."""
        await touch(self.key, message)
        if WORLD.happens(f"{self.key}.{message}", failures):
            self.crashed = True
            WORLD.write("failed", actor=self.key, message=message)
            raise ValueError(message)
        self.done = [*self.done, message]
        return len(self.done)


class Grove(Supervisor, kind="grove", strategy=OneForAll(max_restarts=2, within=timedelta(seconds=0.3), backoff=_SOON)):
    def children(self) -> Iterator[Child[Tree]]:
        """The trees of the grove."""
        for name in ("left", "middle", "right"):
            yield Child(Tree, name).options(shutdown=2)


class Forest(Supervisor, kind="forest", strategy=RestForOne(max_restarts=1_000_000, backoff=_SOON)):
    def children(self) -> Iterator[Child[Actor]]:
        """A tree, a grove, a tree."""
        yield Child(Tree, "first").options(shutdown=2)
        yield Child(Grove, "grove")
        yield Child(Tree, "last").options(shutdown=2)


def main(directory: Path, seed: int, run: int, finish: bool) -> None:  # noqa: FBT001  # as a process is started
    """Send work; what an earlier process left unfinished goes on by itself."""
    WORLD.open(directory, run)
    sent = directory / "sent"
    asyncio.run(_finish(directory, sent.read_text("utf-8").splitlines()) if finish else _work(directory, seed, run))


async def _work(directory: Path, seed: int, run: int) -> None:
    chance = Random(f"{seed} {run}")
    number = 0
    async with _forest(directory) as system:
        WORLD.write("open")
        while True:
            for _ in range(_BURST):
                number += 1
                name, id_ = chance.choice(NAMES), f"{run}-{number}"
                failures = chance.choice((0, 0, 0, 1, 2))
                with (directory / "sent").open("a") as sent:
                    sent.write(f"{id_} {name} {failures}\n")
                await system.get(Tree, name).grow.options(id=id_).tell(id_, failures)
            await asyncio.sleep(0.05)


async def _finish(directory: Path, sent: list[str]) -> None:
    """Send everything again, for whoever was killed may not have come to it, and wait until all of it is done."""
    async with _forest(directory) as system:
        WORLD.write("open")
        receipts: list[Receipt[int]] = []
        for line in sent:
            id_, name, failures = line.split()
            receipts.append(await system.get(Tree, name).grow.options(id=id_).tell(id_, int(failures)))
        for receipt in receipts:
            await receipt.result(timeout=60)
        async with asyncio.timeout(60):
            while not await _stands(system):  # noqa: ASYNC110  # the last restart of a group may still be under way
                await asyncio.sleep(0.05)


def _forest(directory: Path) -> ActorSystem:
    return ActorSystem(directory / "app.db", root=Forest, limits=_LIMITS)


async def _stands(system: ActorSystem) -> bool:
    found = [*await system.get(Forest, "root").which_children(), *await system.get(Grove, "grove").which_children()]
    return all(child.state == "running" for child in found)
