"""Several processes on one database, killed and stopped at random under load, on SQLite and on PostgreSQL.

Every message is sent by a client, which outlives them all. Checked at the end, by the client: everything was handled
once and in the order sent, and a step that ran again had been interrupted, and had the same id.
"""

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

import pytest

from perdure import ActorSystem, Limits, Receipt
from tests.acceptance.children import ROOT
from tests.acceptance.many.node import LEASE_SECONDS, LIMITS, Accountant
from tests.acceptance.torture.facts import read_facts

KEYS = [f"k{number}" for number in range(8)]
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
            victim.kill()
            victim.wait(PATIENCE_SECONDS)
            self._processes.remove(victim)
            self.start()
            return
        self.blows["stopped"] += 1
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.5, 3) * LEASE_SECONDS)
        victim.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """See to it that nothing is left."""
        for process in self._processes:
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def errors(self) -> str:
        """The end of what they said."""
        return (self._folder / "errors").read_text(encoding="utf-8")[-3_000:]


@asynccontextmanager
async def fleet(target: str, folder: Path, seed: int) -> AsyncGenerator[Fleet]:
    """Three processes."""
    found = Fleet(target, folder, seed)
    try:
        for _ in range(3):
            found.start()
        yield found
    finally:
        found.end()


async def run(target: str, folder: Path, *, seed: int, blows: int, pause: float) -> None:
    """Load, blows, and the reckoning."""
    sent: dict[str, list[int]] = defaultdict(list)
    receipts: list[Receipt[int]] = []
    choice = random.Random(seed)
    async with (
        ActorSystem.client(target, limits=Limits(lease=LIMITS.lease, heartbeat=LIMITS.heartbeat)) as client,
        fleet(target, folder, seed) as nodes,
    ):
        striking = asyncio.create_task(_strike(nodes, blows, pause))
        number = 0
        while not striking.done() or number < 100:
            number += 1
            key, other = choice.sample(KEYS, 2)
            sent[key].append(number)
            asked = (
                other if key < other and number % 3 == 0 else None
            )  # in one direction, or they would wait in a circle
            receipts.append(await client.get(Accountant, key).add.tell(number, asked))
            await asyncio.sleep(0.03)
        await striking
        try:
            async with asyncio.timeout(3 * LEASE_SECONDS + PATIENCE_SECONDS):
                assert [await receipt.result() for receipt in receipts] == list(range(1, number + 1))
                seen = {key: await client.get(Accountant, key).all() for key in KEYS}
        except TimeoutError:
            raise AssertionError(f"not done: {nodes.blows}; {nodes.errors()}") from None
    assert {key: [one for one in numbers if one > 0] for key, numbers in seen.items()} == {
        key: sent[key] for key in KEYS
    }
    confirmed = Counter(one for numbers in seen.values() for one in numbers if one < 0)
    assert set(confirmed.values()) <= {1}
    _check_steps(folder, number, sum(nodes.blows.values()))


async def _strike(nodes: Fleet, blows: int, pause: float) -> None:
    await asyncio.sleep(2)
    for _ in range(blows):
        await nodes.strike()
        await asyncio.sleep(pause)


def _check_steps(folder: Path, number: int, blows: int) -> None:
    """Each step has one id, whoever ran it; those that ran again were interrupted by a blow."""
    facts = read_facts(folder / "ledger")
    ids: dict[str, set[str]] = defaultdict(set)
    begun: Counter[str] = Counter()
    for fact in facts:
        ids[fact["work"]].add(fact["sid"])
        begun[fact["work"]] += fact.event == "begin"
    assert len(ids) == number
    assert all(len(found) == 1 for found in ids.values())
    assert sum(begun.values()) - number <= blows * len(KEYS)


@pytest.mark.parametrize("seed", [1])
async def test_blows_on_sqlite(tmp_path: Path, seed: int) -> None:
    """A process that is killed is found by its lock; one that is stopped holds all writers up, at the worst."""
    await run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, seed=seed, blows=12, pause=0.4)


@pytest.mark.parametrize("seed", [1])
async def test_blows_on_postgres(tmp_path: Path, postgres: str, seed: int) -> None:
    """Killed or stopped, a process is found by its heartbeats."""
    await run(postgres, tmp_path, seed=seed, blows=10, pause=1.5)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 110))
async def test_many_blows_on_sqlite(tmp_path: Path, seed: int) -> None:
    """The same for long."""
    await run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, seed=seed, blows=150, pause=0.4)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 110))
async def test_many_blows_on_postgres(tmp_path: Path, postgres: str, seed: int) -> None:
    """The same for long."""
    await run(postgres, tmp_path, seed=seed, blows=100, pause=1.5)
