"""A system that was copied goes on where the old one stood."""

from __future__ import annotations

import asyncio

import pytest

from perdure import ActorSystem
from perdure.errors import EscalationError
from perdure.storage.copying.copy import copy, verify
from tests.copying import town
from tests.copying.conftest import Kind, NewTarget

KINDS: list[Kind] = ["sqlite", "postgres"]


@pytest.fixture(autouse=True)
def _forget() -> None:
    town.forget()


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("of", KINDS)
async def test_everything_under_way_completes_at_the_new_place(of: Kind, to: Kind, new_target: NewTarget) -> None:
    """No turn, ask, sleep, delayed message, watch or restart count is lost by a move; no finished step runs again."""
    old, new = new_target(of), new_target(to)
    await town.begin(old)
    copied = copy(old, new)
    assert copied.equal
    rows = {table.name: table.source.rows for table in copied.tables}
    assert all(rows[name] for name in rows if name != "turn"), rows
    assert verify(old, new) == copied
    await town.go_on(new)
    assert not verify(old, new).equal


async def test_restart_counts_are_carried_over(new_target: NewTarget) -> None:
    """A crew that had used up two of its three restarts gives up at the second failure at the new place."""
    old, new = new_target("sqlite"), new_target("postgres")
    await town.begin(old)
    copy(old, new)

    async def fail_twice() -> None:
        async with ActorSystem(new, root=town.Crew, limits=town.LIMITS, on_escalation="raise") as system:
            for number in range(2):
                await system.get(town.Worker, "crew-1").break_down.options(id=f"there/{number}").tell()
            await asyncio.sleep(20)

    with pytest.raises(EscalationError):
        await fail_twice()


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("of", KINDS)
async def test_numbers_go_on_above_those_that_were_given(of: Kind, to: Kind, new_target: NewTarget) -> None:
    """What the new place numbers is never taken for something that was copied, removed messages included."""
    old, middle, new = new_target(of), new_target(to), new_target(of)
    async with ActorSystem(old) as system:
        for number in range(5):
            await system.get(town.Worker, f"w{number}").note("old")
    copy(old, middle)
    async with ActorSystem(middle) as system:
        for number in range(5):
            assert await system.get(town.Worker, f"w{number}").note("middle") == ["old", "middle"]
            assert await system.get(town.Worker, f"x{number}").note("middle") == ["middle"]
    copy(middle, new)
    async with ActorSystem(new) as system:
        for number in range(5):
            assert await system.get(town.Worker, f"x{number}").note("new") == ["middle", "new"]
            assert await system.get(town.Worker, f"y{number}").note("new") == ["new"]
