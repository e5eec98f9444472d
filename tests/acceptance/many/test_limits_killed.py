"""Three processes that share limits, killed at random while they hold slots."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import ActorSystem
from tests.acceptance.children import PATIENCE_SECONDS
from tests.acceptance.forked import Forked
from tests.acceptance.many import holder
from tests.acceptance.many.fleet import Blows, Fleet, Node, fleet
from tests.acceptance.many.holder import SLOTS, Caller, Holder
from tests.acceptance.many.node import shared
from tests.acceptance.torture.facts import Fact, read_facts

KEYS = 12
EACH = 10
# Whoever is taken for dead and lives may hold more for a moment: long enough for that not to happen.
BLOWS = Blows(kills=20, stops=0, pause=1.0, lease=4.0)


def _forked(target: str, folder: Path, lease: float) -> Node:
    return Forked(holder.main, target, folder, lease, errors=folder / "errors")


def most(facts: list[Fact], limit: str, died: dict[int, float]) -> int:
    """The most that were under way at once; those of a process that was killed had ended by then."""
    inside: dict[int, int] = dict.fromkeys({fact.run for fact in facts}, 0)
    deaths = sorted(died.items(), key=lambda death: death[1])
    found = 0
    for fact in sorted(facts, key=lambda fact: fact.time):
        while deaths and deaths[0][1] <= fact.time:
            inside[deaths.pop(0)[0]] = 0
        if fact["limit"] == limit and fact.time < died.get(fact.run, fact.time + 1):
            inside[fact.run] += 1 if fact.event == "begin" else -1
        found = max(found, sum(inside.values()))
    return found


def test_what_was_under_way_at_once() -> None:
    """The reckoning can find too many, and a death ends what was under way."""
    facts = [Fact(event, at, run, {"limit": "step"}) for event, at, run in (("begin", 1, 7), ("begin", 2, 7))]
    late = Fact("begin", 4, 8, {"limit": "step"})
    assert most([*facts, late], "step", {}) == 3
    assert most([*facts, late], "step", {7: 3}) == 2
    assert most([*facts, late], "turn", {}) == 0


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_slots_of_killed_processes(tmp_path: Path, request: pytest.FixtureRequest, store: str) -> None:
    """What a killed process held is free with its actors, and no sooner: all work is done, never too much at once."""
    target = f"sqlite:///{tmp_path / 'a.db'}" if store == "sqlite" else request.getfixturevalue("postgres")
    async with (
        ActorSystem.client(target, limits=shared(BLOWS.lease)) as client,
        fleet(target, tmp_path, 1, begin=_forked, lease=BLOWS.lease) as nodes,
    ):
        receipts = [
            await client.get(cls, f"k{key}").work.tell(number)
            for number in range(EACH)
            for key in range(KEYS)
            for cls in (Caller, Holder)
        ]
        await nodes.strike(BLOWS)
        async with asyncio.timeout(3 * BLOWS.lease + PATIENCE_SECONDS):
            assert [await one.result() for one in receipts] == [n for n in range(EACH) for _ in range(2 * KEYS)]
    _check(tmp_path, nodes)


def _check(folder: Path, nodes: Fleet) -> None:
    facts = read_facts(folder / "ledger")
    assert nodes.hits, "no process held a slot when it was killed"
    assert {limit: most(facts, limit, nodes.died) for limit in ("step", "turn")} == {"step": SLOTS, "turn": SLOTS}
