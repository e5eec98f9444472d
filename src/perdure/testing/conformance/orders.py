"""What every store does with orders when a tree lives in several nodes: who has its actors, and who starts them."""

from __future__ import annotations

import asyncio

from perdure.errors import StaleDecision
from perdure.storage.records import Address, ChildSpec
from perdure.storage.writes import Adopt, Adopted, Begin, Bury, Committed, Order, Placed, Remaining, Spawn, Yield
from perdure.testing.conformance.nodes import SENT, Node, on, want
from perdure.testing.conformance.places import Place


async def test_an_order_about_an_actor_that_another_node_has(shared: Place) -> None:
    """Its node learns of it and alone may let it go; until then nobody can begin it."""
    async with on(shared) as mine, on(shared) as other:
        actor = (await other.append("a")).place.actor
        assert await mine.store.elsewhere([actor]) == [actor]
        assert await other.store.elsewhere([actor]) == []
        order = Order(SENT, restart=[actor], restart_at=SENT, reason="told to")
        assert [one.actor for one in want(Committed, await mine.settle(order)).members] == [actor]
        assert await mine.store.unwanted() == []
        assert [(one.actor, one.life) for one in await other.store.unwanted()] == [(actor, "restarting")]
        assert await mine.settle(Begin(actor, SENT)) is False
        assert [one.life for one in await other.store.unwanted()] == ["restarting"]


async def test_the_node_that_decided_starts_again(shared: Place) -> None:
    """Others leave what it is to start alone, unless it yields it."""
    async with on(shared) as mine, on(shared) as other:
        first = await other.append("a")
        actor = first.place.actor
        await mine.settle(Order(SENT, restart=[actor], restart_at=SENT))
        assert await other.release(first)
        assert [one.actor for one in await mine.store.restarting()] == [actor]
        assert await other.store.restarting() == []
        await other.settle(Yield((actor,)))
        assert await other.store.restarting() == []  # it is not the other's to yield
        await mine.settle(Yield((actor,)))
        assert [one.actor for one in await other.store.restarting()] == [actor]
        assert want(Placed, await other.settle(Begin(actor, SENT))).epoch is not None


async def test_an_order_of_a_node_that_died_is_anybodys(shared: Place) -> None:
    """Whoever buries it goes on with what it had decided."""
    async with on(shared) as other, on(shared) as mine:
        actor = (await mine.append("a")).place.actor
        await mine.settle(Order(SENT, restart=[actor], restart_at=SENT))
        assert await other.store.restarting() == []
        await other.settle(Bury(mine.id, 5, SENT))
        assert [one.actor for one in await other.store.restarting()] == [actor]


async def test_a_temporary_child_that_is_asked_for_again(node: Node) -> None:
    """One that ended by itself under a key of its own is not begun again; one that was stopped, or has any key, is."""
    supervisor = (await node.append("supervisor")).place.actor
    spec = ChildSpec("temporary", 5.0, significant=False)

    async def begin(key: str, *, once: bool) -> Placed | None:
        child = Spawn(Address("Clerk", key), 1, "json", "{}", SENT)
        return want(Adopted, await node.settle(Adopt(supervisor, child, spec, 7, once))).place

    for key, once, by_itself in (("a", True, True), ("b", True, False), ("c", False, True)):
        place = want(Placed, await begin(key, once=once))
        last = await node.append(key, kind="Clerk")
        if by_itself:
            await node.finish(last, stop=True)
        else:
            await node.settle(Order(SENT, discard=[place.actor], reason="shutdown"))
        assert await node.store.children(supervisor) == []
        again = await begin(key, once=once)
        assert (again is None) is (once and by_itself)
        assert len(await node.store.children(supervisor)) == (0 if again is None else 1)
        if again is not None:
            await node.settle(Order(SENT, discard=[again.actor], reason="shutdown"))


async def child_of(node: Node, supervisor: int, key: str) -> int:
    """A significant child of a kind of its own, that runs on this node."""
    spec = ChildSpec("transient", 5.0, significant=True)
    adopted = await node.settle(Adopt(supervisor, Spawn(Address("Clerk", key), 1, "json", "{}", SENT), spec, None))
    (member,) = want(Adopted, adopted).children
    return member.actor


async def test_two_siblings_that_each_take_the_other_for_alive(shared: Place) -> None:
    """Of two significant children that end at once in two nodes, one is judged anew, and sees that it was the last."""
    async with on(shared) as mine, on(shared) as other:
        supervisor = (await mine.append("supervisor")).place.actor
        ends: list[Order] = []
        for node, key in ((mine, "a"), (other, "b")):
            actor = await child_of(node, supervisor, key)
            ends.append(Order(SENT, actor, remaining=[Remaining(supervisor, actor, 1)], end=[actor]))
        assert [(await mine.store.lineage(one.remaining[0].child))[0].others for one in ends] == [1, 1]
        settled = await asyncio.gather(mine.settle(ends[0]), other.settle(ends[1]), return_exceptions=True)
        assert sorted(type(one).__name__ for one in settled) == ["Committed", "StaleDecision"]
        (late,) = (order for order, one in zip(ends, settled, strict=True) if isinstance(one, StaleDecision))
        child = late.remaining[0].child
        assert (await mine.store.lineage(child))[0].others == 0
        alone = Order(SENT, child, remaining=[Remaining(supervisor, child, 0)], end=[supervisor])
        want(Committed, await mine.settle(alone))
