"""A handler that waits for long where perdure cannot know of it is named, once."""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, IdleTurnWarning, Limits, handler, sleep, step
from perdure.actors.host import Host
from perdure.storage.records import Address
from tests.unit.crashing import host_of
from tests.unit.observing import until

_HOUR = 3_600.0
_SHORT = Limits(idle_warning=0.001, evict_after=math.inf, grace=0.01)

gate: asyncio.Event | None = None


@step
async def at_the_gate() -> None:
    """A step as long as the gate is closed."""
    assert gate is not None
    await gate.wait()


class Waiter(Actor, kind="idle.waiter"):
    waited: int = 0

    @handler
    async def outside(self) -> int:
        assert gate is not None
        await gate.wait()  # where it waits
        self.waited += 1
        return self.waited

    @handler
    async def in_a_step(self) -> None:
        await at_the_gate()

    @handler
    async def durably(self) -> None:
        await sleep(_HOUR)


def _where_it_waits() -> str:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return f"{__file__}:{next(at for at, line in enumerate(lines, 1) if line.endswith('# where it waits'))}"


@asynccontextmanager
async def _waiting(name: str) -> AsyncGenerator[Host]:
    """A turn of that handler, past the limit."""
    global gate  # noqa: PLW0603  # the handler waits for it
    gate = asyncio.Event()
    async with ActorSystem(":memory:", limits=_SHORT) as system:
        host = host_of(system)
        await getattr(system.get(Waiter, "w"), name).tell()

        def turn_rests() -> bool:
            found = [each.turn for each in host.activations.values() if each.address == Address("idle.waiter", "w")]
            turn = found[0] if found else None
            return turn is not None and host.timestamp() - max(turn.last_change, turn.started) > _SHORT.idle_warning

        await until(turn_rests)
        yield host
        gate.set()


async def _look(host: Host, *, times: int) -> None:
    for _ in range(times):
        host.passivate()
        await asyncio.sleep(0)


async def test_a_wait_outside_is_spoken_of_once() -> None:
    """With the line that waits, and what to do instead; the turn goes on."""
    async with _waiting("outside") as host:
        with pytest.warns(IdleTurnWarning) as said:
            await _look(host, times=3)
        assert len(said) == 1
        text = str(said[0].message)
        assert text.startswith("idle.waiter/w: 'outside' (message '")
        assert _where_it_waits() in text
        assert "perdure.sleep()" in text
        assert gate is not None
        gate.set()
        ref = host.system.get(Waiter, "w")
        assert await ref.outside() == 2


@pytest.mark.parametrize("name", ["in_a_step", "durably"])
async def test_what_perdure_knows_of_may_take_long(name: str) -> None:
    """Steps and durable waits are what long waits are for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdleTurnWarning)
        async with _waiting(name) as host:
            complaints: list[dict[str, object]] = []
            host.loop.set_exception_handler(lambda _, context: complaints.append(context))
            await _look(host, times=1)
            assert not complaints


def test_the_limit_is_a_time() -> None:
    """Never is infinity; nothing is less than nothing."""
    assert Limits(idle_warning=math.inf).idle_warning == math.inf
    with pytest.raises(ValueError, match="idle_warning"):
        Limits(idle_warning=0)
