"""Systems that are taken for dead again and again while they live, and go on: the blows are drawn from a seed.

They share a process, so that it happens far more often than it can to processes, and to whatever is under way: a step,
a commit, an order, the start of a tree, another's burial. In between one stands still, crashes or closes, and another
one opens. Checked, by a client that outlives them: every message was handled, once, and in the order sent; nothing is
left undone once the blows have ended; and nobody cried.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    Limits,
    OneForAll,
    OneForOne,
    Receipt,
    RestForOne,
    Retry,
    Supervisor,
    handler,
    sleep,
    step,
)
from perdure.storage.postgres import PostgresStore
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.store import Store
from perdure.storage.targets import is_postgres
from perdure.storage.writes import Bury, Settled, Write
from tests.acceptance.children import PATIENCE_SECONDS
from tests.unit.crashing import crash, host_of

AT_ONCE = Backoff(first=0.001, most=0.01)
PAUSE_SECONDS = 0.1
FAILS = 0.1
KEYS = ("a", "b", "c", "last", "free", "other")
MANY = 1_000_000
LIMITS = Limits(lease=2, heartbeat=0.2, deaths=MANY, restarts=MANY, evict_after=0.1, blocked_warning=math.inf)


@step
async def work() -> None:
    """Something that takes a while."""
    await asyncio.sleep(random.uniform(0, 0.02))


class Clerk(
    Actor,
    kind="buried.clerk",
    retry=Retry(attempts=MANY, backoff=AT_ONCE),
    passivate_after=timedelta(milliseconds=100),
):
    seen: list[int] = []

    @handler
    async def note(self, number: int, other: str | None) -> int:
        """Note a number, with a step, or a rest, or with the help of another; now and then it does not go well."""
        await work()
        if number % 4 == 0:
            await sleep(0.1)
        if other is not None:
            await self.system.get(Clerk, other).note(-number, None)
        if random.random() < FAILS:
            raise ValueError(number)
        self.seen.append(number)
        return number

    @handler
    async def all(self) -> list[int]:
        """What it has noted."""
        return self.seen


class Office(Supervisor, kind="buried.office", strategy=OneForAll(max_restarts=MANY, backoff=AT_ONCE)):
    def children(self) -> Iterator[Child[Actor]]:
        """Those who restart together."""
        yield from (Child(Clerk, key) for key in "abc")


class Street(Supervisor, kind="buried.street", strategy=OneForOne(max_restarts=MANY, backoff=AT_ONCE)):
    def children(self) -> Iterator[Child[Actor]]:
        """Those who restart alone; under the system's root they would soon wait long before that."""
        yield from (Child(Clerk, key) for key in ("free", "other"))


class House(Supervisor, kind="buried.house", strategy=RestForOne(max_restarts=MANY, backoff=AT_ONCE)):
    def children(self) -> Iterator[Child[Actor]]:
        """Both, and a younger one."""
        yield Child(Street, "street")
        yield Child(Office, "office")
        yield Child(Clerk, "last")


def standing(target: str, going: asyncio.Event) -> Store:
    """A store that stands still before and after its commits while it may not go on."""
    store = PostgresStore(target) if is_postgres(target) else SQLiteStore(target)
    write = store.write

    async def stand_and_write(batch: Sequence[Write]) -> list[Settled]:
        await going.wait()
        settled = await write(batch)
        await going.wait()
        return settled

    setattr(store, "write", stand_and_write)  # noqa: B010  # what it is stays what it was, whichever it is
    return store


class Crowd:
    """Three systems, and what befalls them."""

    def __init__(self, target: str, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._systems: dict[ActorSystem, asyncio.Event] = {}
        self.buried = self.ended = 0

    def __repr__(self) -> str:
        return f"<Crowd: {self.buried} buried alive, {self.ended} crashed or closed>"

    async def open(self) -> None:
        """One more; two of three run the tree if nobody does."""
        going = asyncio.Event()
        going.set()
        root = House if self._random.random() < 2 / 3 else None
        system = ActorSystem(standing(self._target, going), root=root, limits=LIMITS)
        await system.__aenter__()
        self._systems[system] = going

    async def strike(self) -> None:
        """One blow."""
        victim, other = self._random.sample(list(self._systems), 2)
        chance = self._random.random()
        if chance < 2 / 3:
            self.buried += 1
            await host_of(other).committer.write(Bury(host_of(victim).node, LIMITS.deaths, host_of(other).timestamp()))
        elif chance < 5 / 6:
            going = self._systems[victim]
            going.clear()
            asyncio.get_running_loop().call_later(self._random.uniform(0, 2 * LIMITS.lease), going.set)
        else:
            self.ended += 1
            del self._systems[victim]
            await (crash(victim) if self._random.random() < 1 / 2 else victim.__aexit__(None, None, None))
            await self.open()
        await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS))

    async def close(self) -> None:
        """End all of them."""
        for system, going in self._systems.items():
            going.set()
            await system.__aexit__(None, None, None)


class Load:
    """What a client sends, and what is to come of it."""

    def __init__(self, client: ActorSystem, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._receipts: list[Receipt[int]] = []
        self._sent: dict[str, list[int]] = {key: [] for key in KEYS}
        self.ended = False
        """Set rather than cancelled: a message whose sender is cancelled is sent all the same, and in no list."""

    async def send(self) -> None:
        """Send until told to end; whom an actor asks is always a later one, or they would wait in a circle."""
        while not self.ended:
            number, first = len(self._receipts) + 1, self._random.randrange(len(KEYS))
            other = self._random.choice([None, *KEYS[first + 1 :]])
            self._receipts.append(await self._client.get(Clerk, KEYS[first]).note.tell(number, other))
            self._sent[KEYS[first]].append(number)
            if other is not None:
                self._sent[other].append(-number)
            await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS / 2))

    async def settle(self) -> int:
        """Wait for all, and compare; how many there were."""
        count = len(self._receipts)
        assert [await receipt.result(PATIENCE_SECONDS) for receipt in self._receipts] == list(range(1, count + 1))
        for key, sent in self._sent.items():
            seen = await self._client.get(Clerk, key).all()
            assert [one for one in seen if one > 0] == [one for one in sent if one > 0]
            assert sorted(one for one in seen if one < 0) == sorted(one for one in sent if one < 0)
        return count


async def run(target: str, *, seed: int, blows: int) -> str:
    """Load, blows, and the reckoning."""
    random.seed(seed)
    crowd = Crowd(target, seed)
    for _ in range(3):
        await crowd.open()
    try:
        async with ActorSystem.client(target, limits=Limits(lease=LIMITS.lease, heartbeat=LIMITS.heartbeat)) as client:
            load = Load(client, seed)
            sending = asyncio.create_task(load.send())
            for _ in range(blows):
                await crowd.strike()
            load.ended = True
            await sending
            return f"seed {seed}: {crowd}, {await load.settle()} messages"
    finally:
        await crowd.close()


def cries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said that nobody may have to read."""
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    return [text for level, text in said if level == "CRITICAL" or "bug" in text or "never retrieved" in text]


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind."""
    return str(tmp_path / "a.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


async def test_buried_alive(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a process is at when it is wrongly taken for dead, nothing is lost, and nothing waits for ever."""
    await run(target, seed=1, blows=20)
    assert cries(caplog) == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(2, 6))
async def test_buried_alive_for_long(target: str, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """The same, for an hour of unlucky processes."""
    print(await run(target, seed=seed, blows=1_000))  # noqa: T201  # `make torture` tells it
    assert cries(caplog) == []
