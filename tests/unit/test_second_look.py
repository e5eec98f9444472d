"""Which turns wait: not one whose task has just ended, for whoever waits for that is about to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Limits, handler, sleep
from perdure.actors.host import Host
from perdure.actors.leaving import Leaving
from perdure.actors.turn import Turn
from tests.unit.crashing import host_of
from tests.unit.observing import until

look: Callable[[], object] = print


class Racer(Actor, kind="second_look.racer"):
    @handler
    async def ping(self) -> None:
        pass

    @handler
    async def race(self, other: str) -> str:
        async def quick() -> str:
            await self.system.get(Racer, other).ping()
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_soon(look)  # in the next pass this has ended, and nobody was told
            return "went on"

        slow = asyncio.create_task(sleep(3_600))
        (done,), _ = await asyncio.wait({asyncio.create_task(quick()), slow}, return_when=asyncio.FIRST_COMPLETED)
        slow.cancel()
        await asyncio.wait([slow])
        return str(done.result())

    @handler
    async def be_late(self) -> None:
        async def slow() -> None:
            try:
                await sleep(3_600)
            finally:
                await sleep(7_200)

        await asyncio.wait_for(slow(), 0.01)


def _evict(host: Host) -> None:
    host.passivate()


def _leave(host: Host) -> None:
    Leaving(host, patiently=True)._stop_turns()  # noqa: SLF001  # in this very pass, as a drain may come upon it


@pytest.mark.parametrize("give_up", [_evict, _leave])
async def test_a_turn_about_to_go_on_does_not_wait(
    give_up: Callable[[Host], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither eviction nor a drain stops it for a wait that is over."""
    async with ActorSystem(":memory:", limits=Limits(evict_after=1e-9)) as system, asyncio.timeout(20):
        host = host_of(system)
        looked: list[Turn] = []

        def find() -> None:
            (racer,) = [each for each in host.activations.values() if each.address.key == "r"]
            assert racer.turn is not None
            assert racer.turn.waits_durably()
            looked.append(racer.turn)
            give_up(host)

        monkeypatch.setattr(__name__ + ".look", find)
        assert await system.get(Racer, "r").race("other") == "went on"
    assert [turn.stopped for turn in looked] == [None]


async def test_a_turn_that_waits_for_what_it_has_cancelled(tmp_path: Path) -> None:
    """It waits as long as that does, and goes on from a journal meanwhile like any other."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Racer, "r").be_late.tell()
        activations = host_of(system).activations
        await until(lambda: any(one.turn and len(one.turn.records) == 2 for one in activations.values()))
        await until(lambda: all(one.turn and one.turn.waits_durably() for one in activations.values()))
