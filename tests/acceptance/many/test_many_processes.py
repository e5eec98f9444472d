"""Several processes on one database, killed and stopped at random under load, on SQLite and on PostgreSQL.

Every message is sent by a client, which outlives them all. Checked at the end, by the client: everything was handled
once and in the order sent, and a step that ran again had been interrupted, and had the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from perdure import ActorSystem, Limits, Receipt
from tests.acceptance.many.fleet import PATIENCE_SECONDS, Fleet, check_steps, fleet
from tests.acceptance.many.node import LEASE_SECONDS, LIMITS, Accountant

KEYS = [f"k{number}" for number in range(8)]


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
    check_steps(folder, number, sum(nodes.blows.values()) * len(KEYS))


async def _strike(nodes: Fleet, blows: int, pause: float) -> None:
    await asyncio.sleep(2)
    for _ in range(blows):
        await nodes.strike()
        await asyncio.sleep(pause)


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
