"""Processes that run nodes, and what befalls them; the blows are drawn from a seed, and what they did is checked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.children import ROOT
from tests.acceptance.many.node import LEASE_SECONDS
from tests.acceptance.torture.facts import Fact, read_facts

PATIENCE_SECONDS = 60.0
_KILLED, _STOPPED = "killed", "stopped"


class Blows(NamedTuple):
    """How many, and how far apart.

    Attributes:
        kills: Processes that are killed, and followed by another one each.
        stops: Processes that stand still, for half a lease to three of them, while the next blows fall.
        pause: Seconds between blows, at the most; each is between nothing and that.
    """

    kills: int
    stops: int
    pause: float


class Fleet:
    """Three processes, unless one has just been killed.

    Attributes:
        struck: When which process was struck, on the clock of the ledger.
        healed: When nothing stood still any more after the last blow, on the loop's clock; 0.0 until then.
    """

    def __init__(self, target: str, folder: Path, seed: int) -> None:
        self._target = target
        self._folder = folder
        self._random = random.Random(seed)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._standing: dict[subprocess.Popen[bytes], asyncio.Task[None]] = {}
        self.struck: dict[int, list[str]] = defaultdict(list)
        self.healed = 0.0

    def __repr__(self) -> str:
        said = [blow for blows in self.struck.values() for blow in blows]
        return f"<Fleet: {said.count(_KILLED)} {_KILLED}, {said.count(_STOPPED)} {_STOPPED}>"

    def start(self) -> None:
        """One more."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with (self._folder / "errors").open("ab") as errors:
            command = [sys.executable, "-m", "tests.acceptance.many.node", self._target, str(self._folder)]
            environment = {**os.environ, "PYTHONPATH": path}
            self._processes.append(subprocess.Popen(command, stderr=errors, env=environment))

    async def strike(self, blows: Blows) -> None:
        """Let all of them fall, in an order of their own."""
        kinds = [_KILLED] * blows.kills + [_STOPPED] * blows.stops
        self._random.shuffle(kinds)
        for kind in kinds:
            victim = self._random.choice(self._processes)
            if kind == _KILLED:
                await self._kill(victim)
            else:
                await self._stop(victim)
            await asyncio.sleep(self._random.uniform(0, blows.pause))
        await asyncio.gather(*self._standing.values())
        self.healed = asyncio.get_running_loop().time()

    async def kill(self, number: int) -> None:
        """Kill the one that was started as that, if none was killed before, and start another one."""
        await self._kill(self._processes[number])

    async def _kill(self, victim: subprocess.Popen[bytes]) -> None:
        self.struck[victim.pid].append(_KILLED)
        victim.kill()
        await asyncio.to_thread(victim.wait, PATIENCE_SECONDS)
        self._processes.remove(victim)
        if (standing := self._standing.pop(victim, None)) is not None:
            standing.cancel()
        self.start()

    async def _stop(self, victim: subprocess.Popen[bytes]) -> None:
        self.struck[victim.pid].append(_STOPPED)
        if (standing := self._standing.pop(victim, None)) is not None:
            await standing
        victim.send_signal(signal.SIGSTOP)
        self._standing[victim] = asyncio.create_task(self._go_on(victim))

    async def _go_on(self, victim: subprocess.Popen[bytes]) -> None:
        await asyncio.sleep(self._random.uniform(0.5, 3) * LEASE_SECONDS)
        victim.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """See to it that nothing is left."""
        for process in self._processes:
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def errors(self) -> str:
        """What they said."""
        return (self._folder / "errors").read_text(encoding="utf-8")


@asynccontextmanager
async def fleet(target: str, folder: Path, seed: int, count: int = 3) -> AsyncGenerator[Fleet]:
    """A few processes."""
    found = Fleet(target, folder, seed)
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
        for begin in begins[:-1]:
            assert nodes.struck[begin.run] or f"[{begin.run}] node" in said, f"{work} began again: {begins}"
