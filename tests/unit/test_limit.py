"""`Limit`: never more at once than it says, on one node and on many; nobody waits for ever."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Limit,
    Limits,
    MessageExpired,
    Retry,
    StepError,
    fan_out,
    handler,
    sleep,
    step,
    step_id,
)
from perdure.actors.slots import Line, Place
from perdure.console.inspect import Inspector
from tests.unit.limited import Meter, opened
from tests.unit.observing import until

meters: dict[str, Meter] = {}


@pytest.fixture(autouse=True)
def _fresh_meters() -> None:
    meters.clear()
    for name in ("step", "turn"):
        meters[name] = Meter()


@step(limit=Limit("unit.step", concurrent=3))
async def call_model(n: int) -> int:
    """What costs."""
    await meters["step"].pass_through()
    return n


class Caller(Actor, kind="limit.caller"):
    @handler
    async def call(self, n: int) -> int:
        return await call_model(n)

    @handler
    async def call_many(self, count: int) -> list[int]:
        return await fan_out(call_model, range(count))


class Turner(Actor, kind="limit.turner", limit=Limit("unit.turn", concurrent=2)):
    @handler
    async def turn(self, n: int) -> int:
        await meters["turn"].pass_through()
        return n

    @handler
    async def quick(self, n: int) -> int:
        return n


async def test_steps_at_once(tmp_path: Path) -> None:
    """Not one call more than the provider allows is under way, and not one fewer."""
    meter = meters["step"]
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(system.get(Caller, str(n)).call(n)) for n in range(10)]
        await until(lambda: meter.inside == 3)
        await asyncio.sleep(0.05)
        assert meter.most == 3
        meter.gate.set()
        assert await asyncio.gather(*asked) == list(range(10))
    assert meter.most == 3


async def test_steps_of_one_turn(tmp_path: Path) -> None:
    """A wide fan-out is under the limit like everything else."""
    meter = meters["step"]
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(system.get(Caller, "a").call_many(12))
        await until(lambda: meter.inside == 3)
        meter.gate.set()
        assert await asked == list(range(12))
    assert meter.most == 3


async def test_turns_at_once(tmp_path: Path) -> None:
    """A kind's turns are limited, and others go on beside those that wait."""
    meter = meters["turn"]
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(system.get(Turner, str(n)).turn(n)) for n in range(8)]
        await until(lambda: meter.inside == 2)
        meters["step"].gate.set()
        assert await system.get(Caller, "beside").call(5) == 5
        assert meter.most == 2
        meter.gate.set()
        assert await asyncio.gather(*asked) == list(range(8))
    assert meter.most == 2


async def test_a_node_alone_asks_once(tmp_path: Path) -> None:
    """A limit costs nothing at every turn where nobody competes for it."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Turner, "a").quick(0)
        with sqlite3.connect(tmp_path / "a.db") as database:
            # people are shown once more, within a second, that it waits no longer
            await until(lambda: database.execute("SELECT waiting FROM slot").fetchone() == ("[]",))
            before = database.execute("SELECT batch FROM node").fetchone()
            for n in range(20):
                await system.get(Turner, "a").quick(n)
            # a transaction without messages and outcomes counts as a batch of its own, and there was none
            assert database.execute("SELECT batch FROM node").fetchone() == before
            assert database.execute("SELECT has FROM slot").fetchall() == [(1,)]
        database.close()


class Nested(Actor, kind="limit.nested", limit=Limit("unit.nested", concurrent=1)):
    @handler
    async def down(self, depth: int) -> int:
        return depth if depth == 0 else await self.system.get(Nested, str(depth - 1)).down(depth - 1)

    @handler
    async def down_aside(self, depth: int) -> int:
        """Asks in a task, and does something of its own for a while."""
        asked = asyncio.ensure_future(self.down(depth))
        await asyncio.sleep(0.05)
        return await asked

    @handler
    async def nap(self) -> None:
        await sleep(0.05)
        meters["turn"].inside += 1
        meters["turn"].most = max(meters["turn"].most, meters["turn"].inside)
        await asyncio.sleep(0.01)
        meters["turn"].inside -= 1

    @handler
    async def give_up(self) -> str:
        try:
            async with asyncio.timeout(0.05):
                await sleep(3600)
        except TimeoutError:
            await meters["turn"].pass_through()
        return "gave up"


async def test_a_turn_that_waits_for_a_reply_lends_its_slot(tmp_path: Path) -> None:
    """Actors under one limit ask each other, however small it is, and none waits for itself."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with anyio.fail_after(20):
            assert await system.get(Nested, "5").down(5) == 0
            assert await system.get(Nested, "3").down_aside(3) == 0


async def test_who_goes_on_after_a_wait_takes_a_slot_again(tmp_path: Path) -> None:
    """Turns that slept at once do not go on at once."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with anyio.fail_after(20):
            await asyncio.gather(*(system.get(Nested, str(n)).nap() for n in range(6)))
    assert meters["turn"].most == 1


async def test_who_gives_a_wait_up_takes_a_slot_again(tmp_path: Path) -> None:
    """A handler's own timeout does not bring it past the limit."""
    meter = meters["turn"]
    async with ActorSystem(tmp_path / "a.db") as system, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(system.get(Nested, str(n)).give_up()) for n in range(4)]
        await until(lambda: meter.inside == 1)
        await asyncio.sleep(0.2)
        meter.gate.set()
        assert await asyncio.gather(*asked) == ["gave up"] * 4
    assert (meter.most, meter.entries) == (1, 4)


class Confused(Actor, kind="limit.confused", limit=Limit("unit.confused", concurrent=1)):
    @handler
    async def call(self) -> int:
        return await step(_free, limit=Limit("unit.confused", concurrent=1))()


async def _free() -> int:
    return 1


async def test_a_step_under_the_limit_of_its_turn_is_refused(tmp_path: Path) -> None:
    """What would wait for itself for ever says so."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(Exception, match="would wait for each other"):
            await system.get(Confused, "a").call()


_tries: list[str] = []


@step(retry=Retry(2), timeout=3, limit=Limit("unit.failing", concurrent=1))
async def fail_or_stay(how: str) -> str:
    """Fails, or stays for a while, or is quick."""
    _tries.append(how)
    if how == "fail":
        raise ValueError(how)
    if how == "stay":
        await asyncio.sleep(1.1)
    return how


class Failing(Actor, kind="limit.failing"):
    @handler
    async def work(self, how: str) -> str:
        try:
            return await fail_or_stay(how)
        except StepError:
            return "failed"


async def test_a_step_that_fails_gives_its_slot_back(tmp_path: Path) -> None:
    """A failure costs no slot, and a wait for one neither an attempt nor time of the step's timeout."""
    _tries.clear()
    async with ActorSystem(tmp_path / "a.db") as system:
        with anyio.fail_after(60):
            hows = ["stay", "stay", "fail", "stay", "quick"]
            found = await asyncio.gather(*(system.get(Failing, str(n)).work(how) for n, how in enumerate(hows)))
    assert found == ["stay", "stay", "failed", "stay", "quick"]
    assert sorted(_tries) == ["fail", "fail", "quick", "stay", "stay", "stay"]


async def test_a_drain_does_not_wait_for_a_slot(tmp_path: Path) -> None:
    """Who waits in line is released like everything that waits, and goes on elsewhere."""
    meter = meters["step"]
    async with ActorSystem(tmp_path / "a.db", limits=Limits(grace=0.1)) as system:
        receipts = [await system.get(Caller, str(n)).call.tell(n) for n in range(6)]
        receipts += [await system.get(Turner, str(n)).turn.tell(n) for n in range(6)]
        await until(lambda: meter.inside == 3 and meters["turn"].inside == 2)
    assert (meter.entries, meters["turn"].entries) == (3, 2)
    meter.gate.set()
    meters["turn"].gate.set()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert [await system.receipt(receipt.id).result() for receipt in receipts] == [*range(6), *range(6)]


async def test_who_waits_past_his_latest_start_is_not_begun(tmp_path: Path) -> None:
    """A message that may be too late is so in line, too."""
    meter = meters["turn"]
    async with ActorSystem(tmp_path / "a.db") as system:
        asked = [asyncio.ensure_future(system.get(Turner, str(n)).turn(n)) for n in range(2)]
        await until(lambda: meter.inside == 2)
        late = await system.get(Turner, "late").turn.options(timeout=0.05).tell(5)
        await asyncio.sleep(0.1)
        meter.gate.set()
        with pytest.raises(MessageExpired):
            await late.result()
        assert await asyncio.gather(*asked) == [0, 1]
    assert meter.entries == 2


async def test_recorded_steps_take_no_slot(tmp_path: Path) -> None:
    """A replay answers from the journal, however full the line is."""
    meters["step"].gate.set()
    async with ActorSystem(tmp_path / "a.db", limits=Limits(evict_after=0.05)) as system:
        receipt = await system.get(Sleeper, "a").work.tell()
        await until(lambda: meters["step"].entries == 1)
        assert await receipt.result() == 1
    assert meters["step"].entries == 1


class Sleeper(Actor, kind="limit.sleeper"):
    @handler
    async def work(self) -> int:
        found = await call_model(1)
        await sleep(1)
        return found


# the rate -------------------------------------------------------------------------------------------------------------

_begun: list[str] = []


@step(limit=Limit("unit.rate", rate=3, per=0.6))
async def begin() -> None:
    """Begins."""
    _begun.append(step_id())


class Beginner(Actor, kind="limit.beginner"):
    @handler
    async def go(self) -> None:
        await begin()


async def test_no_more_begin_than_the_rate_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that hurry, and a third one later, no more than three may begin in any 0.6 seconds."""
    _begun.clear()
    may: list[float] = []
    give = Line._give  # noqa: SLF001  # how long a step takes to begin from there is the disk's affair

    def noting(line: Line, place: Place) -> None:
        may.append(asyncio.get_running_loop().time())
        give(line, place)

    monkeypatch.setattr(Line, "_give", noting)
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            systems = await opened(stack, tmp_path / "a.db", 2)
            asked = [system.get(Beginner, f"{at}-{n}").go() for at, system in enumerate(systems) for n in range(3)]
            await asyncio.gather(*asked)
        async with ActorSystem(tmp_path / "a.db") as system:
            await asyncio.gather(*(system.get(Beginner, f"later-{n}").go() for n in range(3)))
    assert len(_begun) == len(may) == 9
    assert all(after - before >= 0.6 for before, after in zip(may, may[3:], strict=False))
    with sqlite3.connect(tmp_path / "a.db") as database:
        slices = database.execute("SELECT count(*) FROM starts").fetchone()
    database.close()
    assert slices[0] <= 20


async def test_a_recorded_step_takes_no_start(tmp_path: Path) -> None:
    """A replay costs nothing of the rate; an attempt does."""
    _costs.clear()
    async with ActorSystem(tmp_path / "a.db", limits=Limits(evict_after=0.05)) as system:
        with anyio.fail_after(30):
            assert await system.get(Costly, "a").work() == 2
    with sqlite3.connect(tmp_path / "a.db") as database:
        assert database.execute("SELECT sum(number) FROM starts WHERE name = 'unit.costly'").fetchone() == (2,)
    database.close()


_costs: list[int] = []


@step(retry=Retry(2, backoff=Backoff(first=0.01)), limit=Limit("unit.costly", rate=1_000, per=3600))
async def cost() -> int:
    """Fails the first time."""
    _costs.append(1)
    if len(_costs) == 1:
        raise ValueError
    return len(_costs)


class Costly(Actor, kind="limit.costly"):
    @handler
    async def work(self) -> int:
        found = await cost()
        await sleep(1)
        return found


# people ---------------------------------------------------------------------------------------------------------------


async def test_people_see_what_waits_for_a_limit(tmp_path: Path) -> None:
    """Whoever looks from outside learns why nothing goes on, and soon that it does."""
    async with ActorSystem(tmp_path / "a.db") as system:
        inspector = Inspector(tmp_path / "a.db")
        asked = [asyncio.ensure_future(system.get(Turner, str(n)).turn(n)) for n in range(3)]
        await until(lambda: meters["turn"].inside == 2)
        await until(lambda: _waits(inspector) == ["'turn' is running"] * 2 + ["waits for limit unit.turn"])
        meters["turn"].gate.set()
        meters["turn"].gate = asyncio.Event()
        await until(lambda: _waits(inspector) == ["'turn' is running"])
        meters["turn"].gate.set()
        assert await asyncio.gather(*asked) == [0, 1, 2]


def _waits(inspector: Inspector) -> list[str]:
    return sorted(actor.wait.text for actor in inspector.overview().actors if actor.wait is not None)
