"""What every store does with orders when a tree lives in several nodes: who has its actors, and who starts them."""

from __future__ import annotations

from perdure.storage.writes import Begin, Bury, Committed, Order, Placed, Yield
from perdure.testing.conformance.nodes import SENT, on, want
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
