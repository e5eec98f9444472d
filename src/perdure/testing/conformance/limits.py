"""Limits across the deployment: slots that nodes have, and starts that they are granted, never more than there are."""

from __future__ import annotations

import asyncio

from perdure.storage.limit_writes import Allowance, Demand, Granted, Grants, Want
from perdure.storage.records import NodeRecord
from perdure.storage.writes import Bury, Leave
from perdure.testing.conformance.nodes import SENT, Node, on, started, want
from perdure.testing.conformance.places import Place
from perdure.testing.conformance.wakes import PATIENCE, quiet

FIVE = Allowance(5, None, 60.0)


def wanted(
    waits: int, *, uses: int = 0, allowance: Allowance = FIVE, name: str = "llm", starts: int | None = None
) -> Want:
    """What a node wants where so many wait to begin."""
    return Want(name, allowance, uses, waits, waits if starts is None else starts)


async def demand(node: Node, *wants: Want) -> list[Granted]:
    """What a node is granted."""
    return list(want(Grants, await node.settle(Demand(wants))).granted)


async def slots(node: Node, name: str = "llm") -> dict[str, tuple[int, int]]:
    """What every node has, and wants."""
    (state,) = await node.store.limits([name])
    return {slot.node: (slot.has, slot.wants) for slot in state.slots}


async def held(node: Node, name: str) -> int:
    """How many slots of a limit the nodes have together."""
    return sum(has for has, _ in (await slots(node, name)).values())


async def test_a_node_is_granted_slots(node: Node) -> None:
    """Who is alone gets what it wants, no more than there is, and keeps it."""
    (found,) = await demand(node, wanted(2))
    assert (found.has, found.share, found.starts, found.again) == (2, None, 2, None)
    (found,) = await demand(node, wanted(9, uses=2))
    assert (found.has, found.share, found.starts) == (5, None, 3)
    (found,) = await demand(node, wanted(0))
    assert found.has == 5
    assert await slots(node) == {node.id: (5, 0)}
    assert await node.store.limits(["other"]) == []


async def test_two_nodes_have_no_more_than_there_is(shared: Place) -> None:
    """What one has the other does not get, until the one that has too many gives them back."""
    async with on(shared) as one, on(shared) as two:
        await demand(one, wanted(8))
        (found,) = await demand(two, wanted(8))
        assert (found.has, found.starts) == (0, 0)
        (found,) = await demand(one, wanted(3, uses=5))
        assert found.has == 5
        (found,) = await demand(one, wanted(3, uses=0))
        given = found.has
        assert given in {2, 3}
        assert found.share == given
        (found,) = await demand(two, wanted(8))
        assert found.has == 5 - given


async def test_who_is_short_wakes_who_has_some(shared: Place) -> None:
    """A node that needs a slot need not wait until the others look by themselves; nor one that gets some back."""
    async with on(shared) as one, on(shared) as two:
        await demand(one, wanted(5))
        await quiet(one, two)
        await demand(two, wanted(1))
        assert await one.store.wait(PATIENCE)
        await quiet(one, two)
        await demand(one, wanted(0))
        assert await two.store.wait(PATIENCE)


async def test_who_has_left_has_no_slots(shared: Place) -> None:
    """Nobody buries a node that left: one that is killed afterwards keeps nothing that it asked for in between."""
    async with on(shared) as leaving, on(shared) as other:
        await demand(leaving, wanted(3))
        await leaving.settle(Leave())
        await demand(leaving, wanted(2, uses=3))
        assert await slots(other) == {}
        (found,) = await demand(other, wanted(5))
        assert found.has == 5


async def test_a_dead_nodes_slots_come_free(living: Node, dying: Node) -> None:
    """With its actors, in the same commit, and not before."""
    await demand(dying, wanted(5))
    (found,) = await demand(living, wanted(5))
    assert found.has == 0
    await living.settle(Bury(dying.id, 5, SENT))
    (found,) = await demand(living, wanted(5))
    assert found.has == 5
    assert await slots(living) == {living.id: (5, 5)}


async def test_a_leaving_nodes_slots_come_free(shared: Place) -> None:
    """Whether it drains, or closes."""
    async with on(shared) as one:
        two, three = await started(shared.store()), await started(shared.store())
        await demand(two, wanted(2))
        await demand(three, wanted(2))
        assert want(int, await two.settle(Leave())) == 0
        await three.store.close()
        assert await slots(one) == {}
        await two.store.close()


async def test_nodes_that_ask_at_once_have_no_more_than_there_is(shared: Place) -> None:
    """However many begin together, with limits that nobody has defined before."""
    async with on(shared) as one, on(shared) as two, on(shared) as three:
        names = [f"limit-{n}" for n in range(5)]
        wants = [wanted(4, name=name, allowance=Allowance(5, 7, 3600.0)) for name in names]
        nodes = (one, two, three)
        found = await asyncio.gather(*(demand(node, *wants) for node in nodes for _ in range(4)))
        given = [await held(one, name) for name in names]
        assert max(given) <= 5
        while min(given) < 5:  # whoever asked last, and gave some back, may have been the last to ask at all
            found += [await demand(node, *wants) for node in nodes]
            given = [await held(one, name) for name in names]
        assert given == [5] * 5
        for at in range(5):
            assert sum(granted[at].starts for granted in found) <= 7


async def test_starts_are_counted_for_all_nodes(shared: Place) -> None:
    """A rate is one for everybody, and outlives those who used it."""
    rate = Allowance(None, 3, 3600.0)
    async with on(shared) as one:
        (found,) = await demand(one, wanted(2, allowance=rate))
        assert (found.has, found.starts, found.again) == (0, 2, None)
    async with on(shared) as two:
        (found,) = await demand(two, wanted(5, allowance=rate))
        assert found.starts == 1
        (found,) = await demand(two, wanted(5, allowance=rate))
        assert found.starts == 0
        assert 3500 < want(float, found.again) <= 3800


async def test_starts_come_back(node: Node) -> None:
    """After a period, and not before it."""
    rate = Allowance(None, 1, 0.5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    (found,) = await demand(node, wanted(1, allowance=rate))
    assert (found.starts, found.again) == (1, None)
    (found,) = await demand(node, wanted(1, allowance=rate))
    while not found.starts:
        await asyncio.sleep(want(float, found.again))
        (found,) = await demand(node, wanted(1, allowance=rate))
    assert loop.time() - began >= 0.5


async def test_starts_only_for_those_who_have_slots(node: Node) -> None:
    """What waits for a slot wastes no start."""
    both = Allowance(2, 10, 3600.0)
    (found,) = await demand(node, wanted(8, allowance=both))
    assert (found.has, found.starts) == (2, 2)
    (found,) = await demand(node, wanted(6, uses=2, allowance=both))
    assert found.starts == 0
    (found,) = await demand(node, wanted(6, uses=1, allowance=both, starts=5))
    assert found.starts == 0, "the one that goes on has the slot"


async def test_a_high_rate_needs_few_rows(node: Node) -> None:
    """Ten thousand at once are one number."""
    (found,) = await demand(node, wanted(20_000, allowance=Allowance(None, 10_000, 60.0)))
    assert found.starts == 10_000


async def test_the_newest_node_defines(shared: Place) -> None:
    """While processes are replaced one by one, all follow the newer code, whoever asks last."""
    async with on(shared) as old:
        await demand(old, wanted(8))
        new = Node(shared.store(), "newer")
        await new.store.open(NodeRecord("newer", 1, "here", "3.11", "1", SENT + 60), lambda _: True)
        eight = Allowance(8, None, 60.0)
        (found,) = await demand(new, wanted(8, allowance=eight))
        assert (found.allowance, found.has) == (eight, 3)
        (found,) = await demand(old, wanted(3, uses=5))
        assert (found.allowance, found.has) == (eight, 5)
        await demand(new, wanted(8, allowance=Allowance(8, 2, 3600.0)))
        (state,) = await old.store.limits(["llm"])
        assert state.allowance == eight, "a node's first definition stands"
        await new.store.close()
