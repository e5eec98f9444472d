"""Processes that run nodes, and what befalls them; the blows are drawn from a seed, and what they did is checked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.acceptance.children import PATIENCE_SECONDS, ROOT
from tests.acceptance.forked import Forked
from tests.acceptance.many import node
from tests.acceptance.many.node import LEASE_SECONDS
from tests.acceptance.torture.facts import Fact, FactReader, read_facts

_KILLED, _STOPPED = "killed", "stopped"
_AIMED = 0.5
_AIM_LEASES = 2
_LOOK_SECONDS = 0.01


class Node(Protocol):
    """A process of a fleet, however it was started."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""


class Interpreter:
    """A node as users start it: an interpreter of its own."""

    def __init__(self, target: str, folder: Path, lease: float) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        command = [sys.executable, "-m", node.__name__, target, str(folder), str(lease)]
        with (folder / "errors").open("ab") as errors:
            self._process = subprocess.Popen(command, stderr=errors, env={**os.environ, "PYTHONPATH": path})
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)


def forked(target: str, folder: Path, lease: float) -> Node:
    """A node that begins at once."""
    return Forked(node.main, target, folder, lease, errors=folder / "errors")


Begin = Callable[[str, Path, float], Node]
"""How a node is started: on which database, with which folder, and the lease in seconds."""


class Blows(NamedTuple):
    """How many, and how far apart.

    Attributes:
        kills: Processes that are killed, and followed by another one each.
        stops: Processes that stand still, for half a lease to three of them, while the next blows fall.
        pause: Seconds between blows, at the most; each is between nothing and that.
        lease: Seconds after which a process that stands still is taken for dead.
        every: Seconds between the messages that are sent meanwhile, at least.
    """

    kills: int
    stops: int
    pause: float
    lease: float = LEASE_SECONDS
    every: float = 0.03


class Steps:
    """Who is in the middle of a step, as the ledger tells."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = FactReader(ledger)
        self._running: dict[int, set[str]] = defaultdict(set)

    def running(self, pid: int) -> bool:
        """Whether that process has begun a step and not ended it."""
        for fact in self._ledger.news():
            steps = self._running[fact.run]
            change = steps.add if fact.event == "begin" else steps.discard
            change(fact["work"])
        return bool(self._running[pid])


class Fleet:
    """Three processes, unless one has just been killed.

    Args:
        target: The database.
        folder: Where they write the ledger, and what they say.
        seed: What the blows are drawn from.
        begin: How a process is started.
        lease: Their lease, in seconds.

    Attributes:
        struck: What befell which process.
        died: When which process was killed, on the clock of the ledger.
        healed: When nothing stood still any more after the last blow, on the loop's clock; 0.0 until then.
    """

    def __init__(self, target: str, folder: Path, seed: int, *, begin: Begin, lease: float) -> None:
        self._target = target
        self._folder = folder
        self._lease = lease
        self._random = random.Random(seed)
        self._begin = begin
        self._processes: list[Node] = []
        self._standing: dict[Node, asyncio.Task[None]] = {}
        self._steps = Steps(folder / "ledger")
        self.struck: dict[int, list[str]] = defaultdict(list)
        self.died: dict[int, float] = {}
        self.healed = 0.0

    def __repr__(self) -> str:
        said = [blow for blows in self.struck.values() for blow in blows]
        return f"<Fleet: {said.count(_KILLED)} {_KILLED}, {said.count(_STOPPED)} {_STOPPED}>"

    def start(self) -> None:
        """One more."""
        self._processes.append(self._begin(self._target, self._folder, self._lease))

    async def strike(self, blows: Blows) -> None:
        """Let all of them fall, in an order of their own."""
        kinds = [_KILLED] * blows.kills + [_STOPPED] * blows.stops
        self._random.shuffle(kinds)
        for kind in kinds:
            victim = await self._victim()
            if kind == _KILLED:
                await self._kill(victim)
            else:
                await self._stop(victim)
            await asyncio.sleep(self._random.uniform(0, blows.pause))
        await asyncio.gather(*self._standing.values())
        self.healed = asyncio.get_running_loop().time()

    async def _victim(self) -> Node:
        """Anybody; every other time one who is in the middle of a step, if somebody soon is."""
        give_up = asyncio.get_running_loop().time() + _AIM_LEASES * self._lease
        aims = self._random.random() < _AIMED
        while aims and asyncio.get_running_loop().time() < give_up:
            if busy := [process for process in self._processes if self._steps.running(process.pid)]:
                return self._random.choice(busy)
            await asyncio.sleep(_LOOK_SECONDS)
        return self._random.choice(self._processes)

    async def kill(self, number: int) -> None:
        """Kill the one that was started as that, if none was killed before, and start another one."""
        await self._kill(self._processes[number])

    async def _kill(self, victim: Node) -> None:
        self.struck[victim.pid].append(_KILLED)
        if (standing := self._standing.pop(victim, None)) is not None:
            standing.cancel()
        self.died[victim.pid] = time.time()
        await asyncio.to_thread(victim.kill)
        self._processes.remove(victim)
        self.start()

    async def _stop(self, victim: Node) -> None:
        self.struck[victim.pid].append(_STOPPED)
        if (standing := self._standing.pop(victim, None)) is not None:
            await standing
        victim.signal(signal.SIGSTOP)
        self._standing[victim] = asyncio.create_task(self._go_on(victim))

    async def _go_on(self, victim: Node) -> None:
        await asyncio.sleep(self._random.uniform(0.5, 3) * self._lease)
        victim.signal(signal.SIGCONT)

    def end(self) -> None:
        """See to it that nothing is left."""
        for process in self._processes:
            process.kill()

    @property
    def hits(self) -> int:
        """How many of those that were killed were in the middle of a step: they began one and did not end it."""
        return sum(_KILLED in blows and self._steps.running(pid) for pid, blows in self.struck.items())

    def errors(self) -> str:
        """What they said."""
        return (self._folder / "errors").read_text(encoding="utf-8")


@asynccontextmanager
async def fleet(
    target: str, folder: Path, seed: int, count: int = 3, *, begin: Begin = forked, lease: float = LEASE_SECONDS
) -> AsyncGenerator[Fleet]:
    """A few processes."""
    found = Fleet(target, folder, seed, begin=begin, lease=lease)
    try:
        for _ in range(count):
            found.start()
        yield found
    finally:
        found.end()


def check_steps(folder: Path, count: int, nodes: Fleet) -> None:
    """Each step has one id, whoever ran it; whoever did not finish it had been struck, or says that he was buried."""
    begun: dict[str, list[Fact]] = defaultdict(list)
    ids: dict[str, set[str]] = defaultdict(set)
    for fact in read_facts(folder / "ledger"):
        ids[fact["work"]].add(fact["sid"])
        if fact.event == "begin":
            begun[fact["work"]].append(fact)
    assert len(ids) == count
    assert all(len(found) == 1 for found in ids.values())
    said = nodes.errors()
    for work, begins in begun.items():
        begins.sort(key=lambda fact: fact.time)  # one that was stopped as it wrote its line added it later
        for begin in begins[:-1]:
            assert nodes.struck[begin.run] or f"[{begin.run}] node" in said, f"{work} began again: {begins}"
