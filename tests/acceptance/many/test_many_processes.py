"""Three processes on one database, killed and stopped at random under load, on SQLite and on PostgreSQL.

Every message is sent by a client, which outlives them all. Checked, by the client and by a reader outside:

- every message that was accepted is handled, once, and in the order sent (P1, P3, P4, P5);
- a step that began again had been interrupted by a blow, and had the same id (P6);
- under one epoch an actor has one owner; nothing goes back (P8);
- all work is done within three leases after the last blow, but for what a busy machine takes (P10).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from perdure import ActorSystem, Receipt
from tests.acceptance.many.fleet import Begin, Blows, Interpreter, check_steps, fleet, forked
from tests.acceptance.many.node import Accountant, shared
from tests.acceptance.many.witness import witness

KEYS = [f"k{number}" for number in range(8)]
AT_LEAST = 100
OPEN = 64
DONE_LEASES = 3
BUSY_SECONDS = 60.0  # what else goes on on the machine; only a hang takes longer


class Load:
    """What a client sends, and what is to come of it."""

    def __init__(self, client: ActorSystem, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._sent: dict[str, list[int]] = defaultdict(list)
        self._receipts: list[Receipt[int]] = []
        self._open = asyncio.Semaphore(OPEN)
        self._waiting: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many messages it has sent."""
        return len(self._receipts)

    @property
    def open(self) -> int:
        """How many of them have not been handled."""
        return len(self._waiting)

    async def send(self) -> None:
        """One message, as soon as there are not too many that have not been handled."""
        await self._open.acquire()
        number = self.count + 1
        key, other = self._random.sample(KEYS, 2)
        self._sent[key].append(number)
        # asks go in one direction, or they would wait in a circle
        asked = other if key < other and number % 3 == 0 else None
        receipt = await self._client.get(Accountant, key).add.tell(number, asked, naps=number % 5 == 0)
        self._receipts.append(receipt)
        task = asyncio.create_task(self._handled(receipt))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _handled(self, receipt: Receipt[int]) -> None:
        await receipt.result()
        self._open.release()

    def end(self) -> None:
        """Wait for nothing any more."""
        for task in self._waiting:
            task.cancel()

    async def settle(self) -> None:
        """Wait for all, and compare."""
        assert [await receipt.result() for receipt in self._receipts] == list(range(1, self.count + 1))
        seen = {key: await self._client.get(Accountant, key).all() for key in KEYS}
        assert {key: [one for one in found if one > 0] for key, found in seen.items()} == {
            key: self._sent[key] for key in KEYS
        }
        confirmed = Counter(one for found in seen.values() for one in found if one < 0)
        assert set(confirmed.values()) <= {1}


async def run(target: str, folder: Path, *, seed: int, blows: Blows, begin: Begin = forked) -> None:
    """Load, blows, and the reckoning."""
    loop = asyncio.get_running_loop()
    async with (
        ActorSystem.client(target, limits=shared(blows.lease)) as client,
        witness(target) as seen,
        fleet(target, folder, seed, begin=begin, lease=blows.lease) as nodes,
    ):
        load = Load(client, seed)
        await load.send()
        over = asyncio.Event()
        sending = asyncio.create_task(_send(load, over, blows.every))
        await nodes.strike(blows)
        left = load.open
        over.set()
        try:
            async with asyncio.timeout(DONE_LEASES * blows.lease + BUSY_SECONDS):
                await sending
                await load.settle()
        except TimeoutError:
            undone = f"{load.open} of {load.count} messages left"
            raise AssertionError(
                f"not done: seed {seed}; {nodes}; {undone}; {seen}; {nodes.errors()[-3_000:]}"
            ) from None
        finally:
            sending.cancel()
            load.end()
        took = loop.time() - nodes.healed
    said = f"{nodes}, of which {nodes.hits} in the middle of a step, {load.count} messages, {seen}"
    print(f"seed {seed}: {said}, done {took:.1f} s after the last blow, when {left} were open")  # noqa: T201  # `make torture` tells it
    assert nodes.hits >= blows.kills // 25, f"{said}: the blows came at the wrong times"
    assert not seen.wrong
    assert seen.activations > len(KEYS)
    check_steps(folder, load.count, nodes)


async def _send(load: Load, over: asyncio.Event, pause: float) -> None:
    while not over.is_set() or load.count < AT_LEAST:
        await load.send()
        await asyncio.sleep(pause)


# SIGSTOP may meet the process that is just writing to SQLite: then all wait until it goes on (P12).
@pytest.mark.parametrize(("seed", "begin"), [(1, Interpreter), (2, forked)])
async def test_blows_on_sqlite(tmp_path: Path, seed: int, begin: Begin) -> None:
    """A process that is killed is found by its lock."""
    await run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, seed=seed, blows=Blows(50, 5, pause=0.6), begin=begin)


@pytest.mark.parametrize(("seed", "begin"), [(1, Interpreter), (2, forked)])
async def test_blows_on_postgres(tmp_path: Path, postgres: str, seed: int, begin: Begin) -> None:
    """Killed or stopped, a process is found by its heartbeats."""
    await run(postgres, tmp_path, seed=seed, blows=Blows(50, 5, pause=2.0), begin=begin)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 200))
async def test_many_blows_on_sqlite(tmp_path: Path, seed: int) -> None:
    """The same for long: 10,000 kills and 500 stops in all."""
    blows = Blows(100, 5, pause=0.8, lease=1.0, every=0.1)
    await run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, seed=seed, blows=blows)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 200))
async def test_many_blows_on_postgres(tmp_path: Path, postgres: str, seed: int) -> None:
    """The same for long: 10,000 kills and 500 stops in all."""
    await run(postgres, tmp_path, seed=seed, blows=Blows(100, 5, pause=1.5, lease=1.0, every=0.1))
