"""A limit that several nodes share: never more together, none without for long, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from perdure import Actor, ActorSystem, Limit, LimitWarning, handler
from perdure.actors.host import Host
from perdure.actors.slots import Line, Place
from perdure.storage.allotment import usable_seconds
from perdure.storage.limit_writes import Granted
from perdure.storage.writes import Bury
from perdure.testing.conformance.nodes import want
from tests.unit.limited import Meter, opened
from tests.unit.observing import until

meters: dict[str, Meter] = {}


@pytest.fixture(autouse=True)
def _fresh_meters() -> None:
    meters["turn"] = Meter()


_TURN = Limit("nodes.turn", concurrent=2)


class Turner(Actor, kind="limit.nodes", limit=_TURN):
    @handler
    async def turn(self, n: int) -> int:
        await meters["turn"].pass_through()
        return n

    @handler
    async def quick(self, n: int) -> int:
        return n

    @handler
    async def brief(self) -> None:
        meter = meters["turn"]
        meter.inside += 1
        meter.most = max(meter.most, meter.inside)
        await asyncio.sleep(0.005)
        meter.inside -= 1


class Free(Actor, kind="limit.free"):
    @handler
    async def free(self) -> None:
        pass


async def test_nodes_share_a_limit(tmp_path: Path) -> None:
    """Three processes on one file have no more than one would, and none of them goes without."""
    meter = meters["turn"]
    async with AsyncExitStack() as stack:
        systems = await opened(stack, tmp_path / "a.db", 3)
        refs = [[system.get(Turner, f"{at}-{n}") for n in range(6)] for at, system in enumerate(systems)]
        asked = [asyncio.ensure_future(ref.turn(1)) for some in refs for ref in some]
        for entries in range(2, 18):
            await until(lambda entries=entries: meter.inside == 2 and meter.entries >= entries)
            meter.gate.set()
            meter.gate = asyncio.Event()
        await until(lambda: meter.entries == 18)
        meter.gate.set()
        assert await asyncio.gather(*asked) == [1] * 18
    assert meter.most == 2


async def test_an_idle_node_gives_its_slots_to_one_that_needs_them(tmp_path: Path) -> None:
    """What a busy hour left on one node is not lost to the others."""
    meter = meters["turn"]
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        meter.gate.set()
        await asyncio.gather(*(first.get(Turner, f"first-{n}").turn(n) for n in range(4)))
        meter.gate.clear()
        asked = [asyncio.ensure_future(second.get(Turner, f"second-{n}").turn(n)) for n in range(4)]
        await until(lambda: meter.inside == 2)
        meter.gate.set()
        assert await asyncio.gather(*asked) == list(range(4))
    assert meter.most == 2


async def test_a_slot_above_the_share_is_given_back_as_it_comes_free(tmp_path: Path) -> None:
    """At once, and not when somebody looks the next time."""
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        slots = want(Host, first._host).slots  # noqa: SLF001  # nothing public is as exact about time
        places = [slots.enter(_TURN, n, begins=True) for n in range(2)]
        await until(lambda: all(place.holds for place in places))
        asked = [asyncio.ensure_future(second.get(Turner, str(n)).turn(n)) for n in range(2)]
        await until(lambda: slots.line(_TURN).share == 1)
        places[0].leave()
        assert slots.line(_TURN).has == 2
        await asyncio.sleep(0)
        assert slots.is_asking
        await until(lambda: meters["turn"].inside == 1)
        places[1].leave()
        meters["turn"].gate.set()
        assert await asyncio.gather(*asked) == [0, 1]


async def test_no_slot_is_given_that_may_be_taken_away(tmp_path: Path) -> None:
    """While a demand is under way, what it does not call used may be another node's by the time it is answered."""
    async with ActorSystem(tmp_path / "a.db") as system:
        slots = want(Host, system._host).slots  # noqa: SLF001  # it needs a loop, and nothing else of it
        line = Line(slots, Limit("nodes.line", concurrent=3))
        first, second, third, fourth = (Place(line, n, begins=True) for n in range(4))
        for place in (first, second, third):
            line.entered(place)
        assert (line.ask().uses, line.waits) == (0, 3)
        line.granted(Granted(line.name, line.allowance, 3, None, 3, None))
        first.leave()
        second.leave()
        assert line.ask().uses == 1
        line.entered(fourth)
        assert (third.holds, fourth.holds) == (True, False)
        line.granted(Granted(line.name, line.allowance, 1, 1, 0, None))
        assert not fourth.holds
        third.leave()
        assert fourth.holds


async def test_a_grant_that_is_not_known_of_is_not_used(tmp_path: Path) -> None:
    """Where a commit failed, what is in use stays so, and the database is asked again."""
    async with ActorSystem(tmp_path / "a.db") as system:
        slots = want(Host, system._host).slots  # noqa: SLF001  # it needs a loop, and nothing else of it
        line = Line(slots, Limit("nodes.other", concurrent=3))
        first, second = (Place(line, n, begins=True) for n in range(2))
        line.entered(first)
        line.ask()
        line.granted(Granted(line.name, line.allowance, 2, None, 1, None))
        line.ask()
        line.refused()
        line.entered(second)
        assert (first.holds, second.holds, line.wants()) == (True, False, True)


async def test_starts_are_not_used_late(tmp_path: Path) -> None:
    """A grant that came too late is lost, for a window may have begun without it."""
    async with ActorSystem(tmp_path / "a.db") as system:
        slots = want(Host, system._host).slots  # noqa: SLF001  # it needs a loop, and nothing else of it
        line = Line(slots, Limit("nodes.late", rate=5, per=0.1))
        first, second = (Place(line, n, begins=True) for n in range(2))
        line.entered(first)
        line.ask()
        line.granted(Granted(line.name, line.allowance, 0, None, 5, None))
        assert first.holds
        await asyncio.sleep(usable_seconds(0.1))
        line.entered(second)
        assert (second.holds, line.wants()) == (False, True)


async def test_a_node_that_was_taken_for_dead_goes_on(tmp_path: Path) -> None:
    """What it had is free, what it asked for under its new name is known to it, and all turns come to their ends."""
    meter = meters["turn"]
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        receipts = [await first.get(Turner, str(n)).turn.tell(n) for n in range(4)]
        await until(lambda: meter.inside == 2)
        (peer,) = await second._store.peers()  # noqa: SLF001  # no public way to bury a node that lives
        await second._store.write([Bury(peer.id, 5, 1.0)])  # noqa: SLF001  # see above
        await second.get(Free, "wakes the other one").free()
        await first.get(Free, "learns that it is buried").free()
        meter.gate.set()
        with anyio.fail_after(30):
            assert [await receipt.result() for receipt in receipts] == list(range(4))
        for system in (first, second):
            asked = [system.get(Turner, f"{id(system)}-{n}").quick(n) for n in range(3)]
            with anyio.fail_after(30):
                assert await asyncio.gather(*asked) == [0, 1, 2]


async def test_who_was_taken_for_dead_is_no_newer_for_that(tmp_path: Path) -> None:
    """An old process that goes on under another name does not bring back what a deployment has changed."""
    meter = meters["turn"]
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        with sqlite3.connect(tmp_path / "a.db") as database:
            database.execute("INSERT INTO allowance VALUES ('nodes.turn', 3, NULL, 60, ?)", [time.time()])
        database.close()
        (peer,) = await second._store.peers()  # noqa: SLF001  # no public way to bury a node that lives
        await second._store.write([Bury(peer.id, 5, 1.0)])  # noqa: SLF001  # see above
        await first.get(Free, "learns that it is buried").free()
        asked = [asyncio.ensure_future(first.get(Turner, str(n)).turn(n)) for n in range(5)]
        with pytest.warns(LimitWarning, match=r"'nodes.turn' is concurrent=2 here, and concurrent=3"):
            await until(lambda: meter.inside == 3)
        meter.gate.set()
        await asyncio.gather(*asked)


async def test_a_busy_node_lets_others_have_their_share(tmp_path: Path) -> None:
    """Who comes to a limit that another process could use up by itself does not wait until that has nothing to do."""
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        busy = [asyncio.ensure_future(first.get(Turner, f"busy-{n}").brief()) for n in range(400)]
        await until(lambda: sum(one.done() for one in busy) > 5)
        await asyncio.gather(*(second.get(Turner, f"other-{n}").brief() for n in range(10)))
        assert not all(one.done() for one in busy)
        await asyncio.gather(*busy)
    assert meters["turn"].most == 2


async def test_a_demand_that_meets_the_burial_is_the_new_nodes(tmp_path: Path) -> None:
    """What a node is granted under its new name, without having asked under it, is not lost to everybody."""
    meter = meters["turn"]
    async with AsyncExitStack() as stack:
        first, second = await opened(stack, tmp_path / "a.db", 2)
        (peer,) = await second._store.peers()  # noqa: SLF001  # no public way to bury a node that lives
        await second._store.write([Bury(peer.id, 5, 1.0)])  # noqa: SLF001  # see above
        place = want(Host, first._host).slots.enter(_TURN, 1, begins=True)  # noqa: SLF001  # as a turn that is lost would
        await until(lambda: place.holds)
        place.leave()
        asked = [asyncio.ensure_future(second.get(Turner, str(n)).turn(n)) for n in range(2)]
        await until(lambda: meter.inside == 2)
        meter.gate.set()
        assert await asyncio.gather(*asked) == [0, 1]


async def test_the_newest_process_says_what_the_limit_is(tmp_path: Path) -> None:
    """In a rolling deployment that changes it, the others follow, and say so once."""
    meter = meters["turn"]
    async with ActorSystem(tmp_path / "a.db") as system:
        meter.gate.set()
        await system.get(Turner, "a").turn(1)
        meter.gate.clear()
        with sqlite3.connect(tmp_path / "a.db") as database:
            database.execute("UPDATE allowance SET concurrent = 3, defined = defined + 60 WHERE name = 'nodes.turn'")
        database.close()
        asked = [asyncio.ensure_future(system.get(Turner, str(n)).turn(n)) for n in range(5)]
        with pytest.warns(LimitWarning, match=r"'nodes.turn' is concurrent=2 here, and concurrent=3"):
            await until(lambda: meter.inside == 3)
        meter.gate.set()
        await asyncio.gather(*asked)
    assert meter.most == 3
