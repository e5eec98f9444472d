"""Systems on one database give each other actors until they have about the same, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Child, Limits, Receipt, Supervisor, handler, query, step
from perdure.actors.activation import Activation
from perdure.supervision.balance import differ
from perdure.supervision.balancer import Balancer
from tests.unit.crashing import balancer_of, host_of
from tests.unit.observing import until

LIMITS = Limits(lease=10, heartbeat=0.2)
SLACK = 0.2
PATIENCE = 120.0

events: list[str] = []
gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's."""
    events.clear()
    gates.clear()


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    return f"sqlite:///{tmp_path / 'a.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")


@step
async def gate(name: str) -> str:
    """Completes when the test lets it."""
    events.append(f"at {name}")
    await gates[name].wait()
    return name


class Clerk(Actor, kind="balance.clerk", passivate_after=3600):  # nobody leaves but to another node
    seen: list[int] = []

    async def started(self) -> None:
        events.append(f"+{self.key}")

    async def stopping(self) -> None:
        events.append(f"-{self.key}")
        if "stopping" in gates:
            await gates["stopping"].wait()

    @handler
    async def note(self, number: int) -> int:
        self.seen.append(number)
        return number

    @handler
    async def slow(self, number: int) -> int:
        self.seen.append(number)
        await asyncio.sleep(0.03)
        return number

    @handler
    async def wait(self, name: str) -> str:
        return await gate(name)

    @query
    async def count(self) -> int:
        return len(self.seen)

    @query
    async def all(self) -> list[int]:
        return self.seen


class Gpu(Actor, kind="balance.gpu", needs={"gpu"}):
    @handler
    async def touch(self) -> None:
        pass


class Fixed(Actor, kind="balance.fixed", passivate_after=math.inf):
    @handler
    async def touch(self) -> None:
        pass


class Office(Supervisor, kind="balance.office"):
    def children(self) -> Iterator[Child[Actor]]:
        for number in range(4):
            yield Child(Clerk, f"child{number}")


@asynccontextmanager
async def systems(target: str, count: int, limits: Limits = LIMITS) -> AsyncGenerator[list[ActorSystem]]:
    """So many systems on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ActorSystem(target, limits=limits)) for _ in range(count)]


def load(system: ActorSystem) -> int:
    """How many actors a system has in memory."""
    return len(host_of(system).activations)


def activations(*systems: ActorSystem) -> dict[str, list[Activation]]:
    """Every actor in memory, by key."""
    found: dict[str, list[Activation]] = defaultdict(list)
    for system in systems:
        for activation in host_of(system).activations.values():
            found[activation.address.key].append(activation)
    return found


def even(*systems: ActorSystem) -> bool:
    """Whether nobody has much more than another."""
    loads = [load(system) for system in systems]
    return not any(differ(a, b, SLACK) for a in loads for b in loads)


@contextmanager
def given_nothing() -> Generator[None]:
    """Nobody evens out what is being filled."""

    async def nothing(_: Balancer) -> None:
        """Give nothing."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Balancer, "_even_out", nothing)
        yield


async def fill(system: ActorSystem, keys: list[str]) -> None:
    """Bring actors into a system's memory."""
    await asyncio.gather(*(system.get(Clerk, key).note(0) for key in keys))


async def beats(of: ActorSystem, seen_by: ActorSystem, count: int) -> None:
    """Wait for so many heartbeats of a system that gave one before."""

    async def now() -> int:
        peers = await host_of(seen_by).store.peers()
        return next(peer.beats for peer in peers if peer.id == host_of(of).node)

    first = await now()

    async def beaten() -> bool:
        return await now() >= first + count

    await until(beaten, PATIENCE)


async def test_a_third_node_gets_its_part(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New machines take work from loaded ones, to within a fifth; few moves, nothing lost, all in order."""
    for name in ("_TAKEN_SECONDS", "STAYS_SECONDS"):  # a busy machine may take longer
        monkeypatch.setattr(f"perdure.supervision.balancer.{name}", math.inf)
    async with systems(target, 2) as (a, b):
        keys = {system: [f"{name}{number}" for number in range(500)] for system, name in ((a, "a"), (b, "b"))}
        busy = [f"busy{number}" for number in range(20)]
        with given_nothing():
            for system in (a, b):
                await fill(system, keys[system])
        sent: dict[str, list[int]] = defaultdict(list)
        receipts: list[Receipt[int]] = []
        done = asyncio.Event()

        async def keep_busy() -> None:
            number = 0
            while not done.is_set() or number < 40:
                number += 1
                for key in busy:
                    sent[key].append(number)
                    receipts.append(await a.get(Clerk, key).note.tell(number))
                await asyncio.sleep(0.02)

        keeping = asyncio.create_task(keep_busy())
        async with ActorSystem.client(target), systems(target, 1) as (c,):
            await until(lambda: load(c) > 0 and even(a, b, c), PATIENCE)
            done.set()
            await keeping
            assert len(await asyncio.gather(*(receipt.result(timeout=PATIENCE) for receipt in receipts))) == len(
                receipts
            )
            for key in busy:
                assert await c.get(Clerk, key).all() == sent[key]
            for system, each in keys.items():
                assert await asyncio.gather(*(system.get(Clerk, key).note(1) for key in each)) == [1] * 500
            once = dict.fromkeys([*keys[a], *keys[b], *busy], 1)
            # a giver hears a little later than the taker that what it offered is not its own any more
            await until(lambda: {key: len(found) for key, found in activations(a, b, c).items()} == once, PATIENCE)
            there = activations(a, b, c)
            assert max(found[0].epoch for found in there.values()) <= 3  # mostly 2: moved once
            assert sum(balancer_of(system).given for system in (a, b, c)) <= 450  # 340 are as many as it takes
            assert sum(map(load, (a, b, c))) == 1_020


async def test_what_is_idle_goes_first(target: str) -> None:
    """An actor in a turn stays as long as others can go; then it goes when the turn is over, with its mail in order."""
    async with systems(target, 2) as (a, b):
        await fill(a, [f"idle{number}" for number in range(10)])
        waits = [await a.get(Clerk, f"busy{number}").wait.tell("open") for number in range(10)]
        await until(lambda: events.count("at open") == 10)
        await until(lambda: even(a, b), PATIENCE)
        assert all(key.startswith("idle") for key in activations(b))
        gates["open"].set()
        assert [await wait.result(timeout=PATIENCE) for wait in waits] == ["open"] * 10
        assert events.count("at open") == 10


async def test_busy_actors_go_between_turns(target: str) -> None:
    """Where nobody is ever idle, an actor goes when its turn ends: none is cut, and all is handled once, in order."""
    async with systems(target, 2) as (a, b):
        keys = [f"k{number}" for number in range(8)]
        with given_nothing():
            first = [await a.get(Clerk, key).wait.tell("open") for key in keys]
            await until(lambda: events.count("at open") == len(keys))
        later: list[Receipt[int]] = []
        await beats(a, b, 12)
        assert load(b) == 0
        done = asyncio.Event()

        async def send_faster_than_they_are() -> None:
            number = 0
            while not done.is_set():
                numbers = range(number, number + 4)
                later.extend(await asyncio.gather(*(a.get(Clerk, key).slow.tell(n) for n in numbers for key in keys)))
                number += len(numbers)
                await asyncio.sleep(0.02)

        sending = asyncio.create_task(send_faster_than_they_are())
        await until(lambda: len(later) >= 20 * len(keys))
        gates["open"].set()
        await until(lambda: load(b) > 0 and even(a, b), PATIENCE)
        done.set()
        await sending
        assert [await wait.result(timeout=PATIENCE) for wait in first] == ["open"] * len(keys)
        for receipt in later:
            await receipt.result(timeout=PATIENCE)
        for key in keys:
            assert await b.get(Clerk, key).all() == list(range(len(later) // len(keys)))
        assert events.count("at open") == len(keys)


async def test_whoever_asks_is_answered_meanwhile(target: str) -> None:
    """Asks and queries of actors that are just being moved wait for milliseconds, and see all that was done."""
    async with systems(target, 2) as (a, b):
        keys = [f"k{number}" for number in range(60)]
        await fill(a, keys)
        counts = dict.fromkeys(keys, 1)

        async def ask(key: str, system: ActorSystem) -> None:
            while not (load(b) > 20 and even(a, b)):
                assert await system.get(Clerk, key).note(counts[key]) == counts[key]
                counts[key] += 1
                assert await system.get(Clerk, key).count() == counts[key]
                await asyncio.sleep(0.01)

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number, key in enumerate(keys[::3]):
                group.create_task(ask(key, (a, b)[number % 2]))
        for key in keys:
            assert await a.get(Clerk, key).all() == list(range(counts[key]))


async def test_an_actor_stops_here_before_it_starts_there(target: str) -> None:
    """What it opened outside is closed first: nobody sees it in two places."""
    async with systems(target, 2) as (a, b):
        with given_nothing():
            await fill(a, [f"k{number}" for number in range(6)])
            gates["stopping"] = asyncio.Event()
        await until(lambda: any(event.startswith("-") for event in events), PATIENCE)
        assert await host_of(a).store.loads() == {host_of(a).node: 6}
        gates.pop("stopping").set()
        await until(lambda: even(a, b), PATIENCE)
        moved = set(activations(b))
        assert moved
        for key in moved:
            await a.get(Clerk, key).note(1)
            assert [event for event in events if event[1:] == key] == [f"+{key}", f"-{key}", f"+{key}"]


async def test_supervisors_and_who_never_leaves_memory_stay(target: str) -> None:
    """A tree stands where its root is; what is to be in one place is."""
    async with ActorSystem(target, limits=LIMITS, root=Office) as a, systems(target, 1) as (b,):
        await asyncio.gather(*(a.get(Fixed, f"f{number}").touch() for number in range(5)))
        await until(lambda: load(b) == 4, PATIENCE)
        await beats(a, b, 5)
        assert {each.spec.kind for each in host_of(a).activations.values()} == {"balance.office", "balance.fixed"}
        assert set(activations(b)) == {f"child{number}" for number in range(4)}
        await a.get(Clerk, "child0").note(1)


async def test_only_who_runs_it_is_given_it(target: str) -> None:
    """A node without the tag gets none of what needs it, however little it has."""
    async with (
        ActorSystem(target, limits=LIMITS, tags={"gpu"}) as a,
        ActorSystem(target, limits=LIMITS, tags={"gpu"}) as b,
        ActorSystem(target, limits=LIMITS) as c,
    ):
        await asyncio.gather(*(a.get(Gpu, f"g{number}").touch() for number in range(30)))
        await until(lambda: even(a, b), PATIENCE)
        await beats(a, b, 5)
        assert load(c) == 0


async def test_alone_or_alike_nobody_writes_for_it(target: str) -> None:
    """Evening out costs nothing while there is nothing to even out."""
    async with systems(target, 1) as (a,):
        await fill(a, [f"a{number}" for number in range(20)])
        committer = host_of(a).committer
        before = committer.transactions
        await asyncio.sleep(1)
        assert committer.transactions == before
        async with systems(target, 1) as (b,):
            with given_nothing():
                await fill(b, [f"b{number}" for number in range(17)])
            await beats(a, b, 8)
            assert (load(a), load(b)) == (20, 17)
            assert balancer_of(a).given == balancer_of(b).given == 0


async def test_it_can_be_turned_off(target: str) -> None:
    """Whoever wants actors to stay where they are says so."""
    limits = Limits(lease=10, heartbeat=0.2, imbalance=1)
    async with systems(target, 2, limits) as (a, b):
        await fill(a, [f"a{number}" for number in range(20)])
        await beats(a, b, 8)
        assert (load(a), load(b)) == (20, 0)


async def test_what_is_not_taken_is_withdrawn(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that gives signs of life, and takes nothing, holds nobody's mail up for long; it is offered no more."""
    async with systems(target, 2) as (a, b):

        async def nothing() -> None:
            """Take nothing."""

        monkeypatch.setattr(balancer_of(b), "take", nothing)
        monkeypatch.setattr("perdure.supervision.balancer._SHUN_SECONDS", math.inf)  # twenty beats may take long
        await fill(a, [f"a{number}" for number in range(10)])
        await until(lambda: balancer_of(a).given > 0, PATIENCE)

        async def withdrawn() -> bool:
            return await host_of(a).store.offered(host_of(b).node) == []

        await until(withdrawn, PATIENCE)
        given = balancer_of(a).given
        await beats(b, a, 20)
        assert balancer_of(a).given == given
        for number in range(10):
            assert await a.get(Clerk, f"a{number}").note.options(timeout=PATIENCE)(1) == 1


@pytest.mark.parametrize("who", ["giver", "taker"])
async def test_a_drain_in_the_middle(target: str, who: str) -> None:
    """Whoever leaves while actors are moved leaves them whole."""
    async with systems(target, 3) as (a, b, c):
        keys = [f"k{number}" for number in range(120)]
        await fill(a, keys)
        await until(lambda: load(b) + load(c) > 0, PATIENCE)
        receipts = [await c.get(Clerk, key).note.tell(1) for key in keys]
        await (a if who == "giver" else b).drain(10)
        for receipt in receipts:
            assert await receipt.result(timeout=PATIENCE) == 1
        assert await asyncio.gather(*(c.get(Clerk, key).all() for key in keys)) == [[0, 1]] * len(keys)
        assert load(a if who == "giver" else b) == 0


async def test_what_was_given_is_kept_for_a_while(target: str) -> None:
    """An actor is not passed on from node to node, as each of them joins."""
    async with systems(target, 2) as (a, b):
        await fill(a, [f"a{number}" for number in range(12)])
        await until(lambda: even(a, b), PATIENCE)
        moved = set(activations(b))
        async with systems(target, 1) as (c,):
            await until(lambda: load(c) > 0 and even(a, c), PATIENCE)
            await beats(b, c, 6)
            assert set(activations(b)) == moved
