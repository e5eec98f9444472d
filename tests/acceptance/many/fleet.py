"""Processes of the many-process tests, what befalls them, and what their steps have left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.children import ROOT
from tests.acceptance.many.node import LEASE_SECONDS
from tests.acceptance.torture.facts import read_facts

PATIENCE_SECONDS = 60.0


class Fleet:
    """Processes that run a node, and what befalls them."""

    def __init__(self, target: str, folder: Path, seed: int) -> None:
        self._target = target
        self._folder = folder
        self._random = random.Random(seed)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.blows: Counter[str] = Counter()

    def start(self) -> None:
        """One more."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with (self._folder / "errors").open("ab") as errors:
            command = [sys.executable, "-m", "tests.acceptance.many.node", self._target, str(self._folder)]
            environment = {**os.environ, "PYTHONPATH": path}
            self._processes.append(subprocess.Popen(command, stderr=errors, env=environment))

    async def strike(self) -> None:
        """Kill one and start another, or stop one for a while."""
        victim = self._random.choice(self._processes)
        if self._random.random() < 0.7:
            self.blows["killed"] += 1
            self._kill(victim)
            self.start()
            return
        self.blows["stopped"] += 1
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.5, 3) * LEASE_SECONDS)
        victim.send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        """End the one that was started as that, if none was killed before."""
        self.blows["killed"] += 1
        self._kill(self._processes[number])

    def _kill(self, victim: subprocess.Popen[bytes]) -> None:
        victim.kill()
        victim.wait(PATIENCE_SECONDS)
        self._processes.remove(victim)

    def end(self) -> None:
        """See to it that nothing is left."""
        for process in self._processes:
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def errors(self) -> str:
        """The end of what they said."""
        return (self._folder / "errors").read_text(encoding="utf-8")[-3_000:]


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


def check_steps(folder: Path, number: int, interrupted: int) -> None:
    """Each step has one id, whoever ran it; those that ran again were interrupted, and at most so many were."""
    facts = read_facts(folder / "ledger")
    ids: dict[str, set[str]] = defaultdict(set)
    begun: Counter[str] = Counter()
    for fact in facts:
        ids[fact["work"]].add(fact["sid"])
        begun[fact["work"]] += fact.event == "begin"
    assert len(ids) == number
    assert all(len(found) == 1 for found in ids.values())
    assert sum(begun.values()) - number <= interrupted
