"""What every store that several nodes share does so that none of them has to look all the time."""

from __future__ import annotations

import asyncio

from perdure.storage.writes import Append, Bury, Order, Release
from perdure.testing.conformance.nodes import SENT, Node, asks, message, on, segment, started, want
from perdure.testing.conformance.places import Place

PATIENCE = 20.0


async def quiet(*nodes: Node) -> None:
    """Know each other, and hear of nothing any more."""
    for node in nodes:
        await node.store.dead_nodes()
    for node in nodes:
        while await node.store.wait(0.05):
            await node.store.changed()


async def test_waiting_ends(node: Node) -> None:
    """Who is alone is not woken, and looks all the same."""
    assert not await node.store.wait(0.01)


async def test_a_newcomer_is_noticed(shared: Place) -> None:
    """A process that has been alone knows at once that it is not any more."""
    async with on(shared) as one:
        assert not await one.store.wait(0.01)
        async with on(shared):
            assert await one.store.wait(PATIENCE)
            assert await one.store.changed()


async def test_mail_wakes_its_receivers_node(shared: Place) -> None:
    """A message for an actor in another process is not found by chance."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await quiet(one, two)
        await two.append()
        heard = await one.store.wait(PATIENCE)
        assert heard.anything or heard.actors == {first.place.actor}
        assert await one.store.changed()
        assert [grown.actor for grown in await one.store.grown([(first.place.actor, 1)], 10)] == [first.place.actor]


async def test_a_wake_up_comes_while_waiting(shared: Place) -> None:
    """Who waits already goes on as soon as there is something."""
    async with on(shared) as one, on(shared) as two:
        await one.append()
        await quiet(one, two)
        waiting = asyncio.create_task(one.store.wait(PATIENCE))
        await asyncio.sleep(0)
        await two.append()
        assert await waiting


async def test_replies_wake_the_callers_node(shared: Place) -> None:
    """An actor that asked one in another process goes on when it is answered."""
    async with on(shared) as one, on(shared) as two:
        outer, inner = await one.append("a"), await two.append("b")
        await one.commit(asks(outer, message("b")))
        await two.finish(inner)
        await quiet(one, two)
        (mail,) = await two.store.mail(inner.place.actor, 1, 10)
        inner.mail = mail
        await two.finish(inner)
        heard = await one.store.wait(PATIENCE)
        assert heard.anything or heard.actors == {outer.place.actor}
        assert [one.key for one in await one.store.completed(outer.mail.seq)] == ["ask#1"]


async def test_an_awaited_end_wakes_who_waits(shared: Place) -> None:
    """A receipt is answered when its message has ended, whichever process has sent it."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await quiet(one, two)
        two.store.await_ends([first.mail.seq])
        await asyncio.sleep(0.05)
        await one.finish(first)
        heard = await two.store.wait(PATIENCE)
        assert heard.anything or heard.ended == {first.mail.seq}
        ((id_, found),) = await two.store.find_all([first.mail.id, "unknown"])
        assert (id_, found.outcome) == (first.mail.id, await one.outcome(first))


async def test_an_end_that_is_awaited_too_late_wakes_all_the_same(shared: Place) -> None:
    """A message may end before the process that runs it hears that it is awaited; nobody waits for the next look."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await one.finish(first)
        await quiet(one, two)
        two.store.await_ends([first.mail.seq])
        heard = await two.store.wait(PATIENCE)
        assert heard.anything or heard.ended == {first.mail.seq}


async def test_what_is_for_everybody_is_looked_for_everywhere(shared: Place) -> None:
    """A hint that says where to look must not hide what came beside it."""
    async with on(shared) as one, on(shared) as two:
        await one.append("a")
        two.foreign.add("Till")
        await quiet(one, two)
        await asyncio.gather(two.append("a"), two.append("b"))
        heard = await one.store.wait(PATIENCE)
        while not heard.anything:
            heard = await one.store.wait(PATIENCE)
            assert heard
        assert await one.store.unknown_kinds(()) == [("Till", 1)]


async def test_work_that_anybody_may_do_wakes_all(shared: Place) -> None:
    """What the process that accepts it cannot run is taken up by one that can."""
    async with on(shared) as one, on(shared) as two:
        one.foreign.add("Till")
        await quiet(one, two)
        appended = await one.append()
        assert appended.place.epoch is None
        assert await two.store.wait(PATIENCE)


async def test_orders_wake_those_that_obey(shared: Place) -> None:
    """A supervisor in one process is obeyed in the other, and told when that is done."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await quiet(one, two)
        await two.settle(Order(SENT, restart=[first.place.actor]))
        assert await one.store.wait(PATIENCE)
        assert [member.actor for member in await one.store.unwanted()] == [first.place.actor]
        await quiet(one, two)
        await one.settle(Release(first.place.actor, want(int, first.place.epoch)))
        assert await two.store.wait(PATIENCE)
        assert await two.store.elsewhere([first.place.actor]) == []


async def test_leaving_wakes_the_others(shared: Place) -> None:
    """A deployment that replaces its processes one by one loses no time: what one gives up, another takes."""
    one = await started(shared.store())
    async with on(shared) as two:
        await one.append()
        await quiet(one, two)
        await one.store.close()
        assert await two.store.wait(PATIENCE)
        assert await two.store.unknown_kinds(()) == [("Till", 1)]


async def test_death_and_burial_wake_the_others(shared: Place) -> None:
    """A process that was killed is noticed at once, and what it left is known to all when one has buried it."""
    dying = await started(shared.store())
    async with on(shared) as one, on(shared) as two:
        await dying.append()
        await quiet(dying, one, two)
        await shared.kill(dying.store)
        if shared.tells:
            assert await one.store.wait(PATIENCE)
            assert await one.store.dead_nodes() == [dying.id]
        await quiet(two)
        await one.settle(Bury(dying.id, 5, SENT))
        await one.store.buried(dying.id)
        assert await two.store.wait(PATIENCE)
        assert await two.store.dead_nodes() == []


async def test_nothing_is_lost_with_a_wake_up(shared: Place) -> None:
    """What nobody was woken for is found by looking."""
    async with on(shared) as one:
        async with on(shared) as two:
            first = await two.append()
            await two.settle(Append(message("b")))
        while await one.store.wait(0.3):  # a hint may be on its way still
            pass
        assert await one.store.changed()
        assert await one.store.unknown_kinds(()) == [("Till", 2)]
        assert not await one.store.wait(0)
        assert (await one.look(first.place.actor)).tail == 1


async def test_completions_of_several_turns_are_read_at_once(shared: Place) -> None:
    """A process with many turns that wait reads once what was answered."""
    async with on(shared) as one:
        outers = [await one.append(f"outer{n}") for n in range(3)]
        inners = [(await one.commit(asks(outer, message(f"inner{n}")))).appended[0] for n, outer in enumerate(outers)]
        for inner in inners[:2]:
            await one.finish(inner)
        seqs = [outer.mail.seq for outer in outers]
        assert sorted(one.message for one in await one.store.completed(*seqs)) == seqs[:2]
        await one.commit(segment(outers[0], numbered=[("ask#1", 1)]))
        assert [one.message for one in await one.store.completed(*seqs)] == seqs[1:2]
