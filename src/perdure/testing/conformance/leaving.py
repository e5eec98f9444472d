"""What every store does for a node that leaves while it works: actors given back with work, and the end of the rest."""

from __future__ import annotations

import pytest

from perdure.errors import FencedError
from perdure.storage.history_writes import Purge
from perdure.storage.offer_writes import Offer
from perdure.storage.records import Found, NodeRecord, Record, TurnRecord
from perdure.storage.writes import Append, Appended, Begin, Bury, Claim, Claimed, Leave, Order, Placed, Release
from perdure.testing.conformance.nodes import LATER, SENT, Node, asks, ended, message, on, segment, sleeps, want
from perdure.testing.conformance.places import Place


def handover(of: Appended, *, waiting: bool = False) -> Release:
    """An actor given back, whatever there is to do."""
    return Release(of.place.actor, want(int, of.place.epoch), of.mail.seq if waiting else None, anyway=True)


async def test_an_actor_is_given_back_with_its_work(node: Node) -> None:
    """Whoever leaves does not keep what he has not done."""
    first = await node.append()
    assert await node.settle(handover(first)) is True
    want(FencedError, await node.settle(ended(first)))
    (place,) = want(Claimed, await node.settle(Claim(("Till",)))).actors
    assert want(int, place.epoch) > want(int, first.place.epoch)


@pytest.mark.parametrize("how", ["released", "offered", "left", "closed"])
async def test_mail_that_had_just_come_is_taken_over(shared: Place, how: str) -> None:
    """However an actor changes hands, all of its mail goes with it, and later mail gets numbers behind it."""
    async with on(shared) as staying, on(shared) as leaving:
        await leaving.finish(await leaving.append("a"))
        last = [await leaving.append("a") for _ in range(2)]
        actor, epoch = last[0].place.actor, want(int, last[0].place.epoch)
        if how == "released":
            await leaving.settle(handover(last[0]))
        elif how == "offered":
            await leaving.settle(Offer(((actor, epoch),), staying.id))
        elif how == "left":
            await leaving.settle(Leave())
        else:
            await leaving.store.close()
        (place,) = want(Claimed, await staying.settle(Claim(("Till",)))).actors
        loaded = await staying.look(place.actor)
        assert (loaded.cursor, loaded.tail, [mail.id for mail in loaded.mail]) == (1, 3, [of.mail.id for of in last])
        assert (await staying.append("a")).mail.number == 4


async def test_a_turn_that_waits_is_given_back_as_one_that_waits(node: Node) -> None:
    """Nobody loads it before there is something to go on with."""
    first = await node.append()
    await node.commit(sleeps(first, LATER))
    assert await node.settle(handover(first, waiting=True)) is True
    assert (await node.look(first.place.actor)).status == "waiting"
    assert want(Claimed, await node.settle(Claim(("Till",)))).actors == ()


@pytest.mark.parametrize("same", [True, False], ids=["in one batch", "before"])
async def test_a_turn_whose_reply_has_come_is_given_back_to_go_on(node: Node, *, same: bool) -> None:
    """One that was said to wait, and need not any more, is claimed at once."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    if same:
        _, released = await node.write(ended(inner), handover(outer, waiting=True))
    else:
        await node.finish(inner)
        released = await node.settle(handover(outer, waiting=True))
    assert released is True
    assert (await node.look(outer.place.actor)).status == "ready"
    assert [place.actor for place in want(Claimed, await node.settle(Claim(("Till",)))).actors] == [outer.place.actor]


async def test_a_parked_turn_stays_parked(node: Node) -> None:
    """A handover mends no code."""
    first = await node.append()
    await node.commit(segment(first, status="parked", reason="the code changed"))
    assert await node.settle(handover(first)) is True
    assert (await node.find(first.mail.id)).status == "parked"


async def park(node: Node, key: str) -> Appended:
    """A turn that does not fit the code of its node."""
    first = await node.append(key)
    await node.commit(segment(first, status="parked", reason="the code changed"))
    return first


@pytest.mark.parametrize("ends", [Leave, Bury, None], ids=["left", "dead", "closed"])
async def test_what_is_parked_is_tried_by_those_that_stay(shared: Place, ends: type | None) -> None:
    """In a rolling deployment it may be the old process's code that did not fit; when that ends, nobody need look."""
    async with on(shared) as staying:
        async with on(shared) as ending:
            first = await park(ending, "a")
            if ends is Leave:
                await ending.settle(Leave())
            elif ends is Bury:
                await staying.settle(Bury(ending.id, 5, SENT))
        assert (await staying.find(first.mail.id)).status == "ready"
        (place,) = want(Claimed, await staying.settle(Claim(("Till",)))).actors
        assert place.actor == first.place.actor


async def test_what_is_parked_stays_so_where_nobody_stays(shared: Place) -> None:
    """Whoever looks at a system that does not run sees what is to be mended."""
    store = shared.store()
    await store.open(NodeRecord("client", 1, "here", "3.11", "0", SENT, runs=False), lambda _: False)
    async with on(shared) as last:
        first = await park(last, "a")
    assert want(Found, await store.find(first.mail.id)).status == "parked"
    await store.close()


async def test_leaving_gives_up_the_rest(shared: Place) -> None:
    """The node is gone for the others, although its process goes on; it is not to be buried, and nobody is blamed."""
    async with on(shared) as leaving, on(shared) as other:
        first = await leaving.append()
        await leaving.commit(segment(first, turn=TurnRecord(1, suspect=True, executing=leaving.id)))
        assert await other.store.departed() == []
        assert await leaving.settle(Leave()) == 1
        assert await other.store.departed() == [leaving.id]
        assert await other.store.dead_nodes() == []
        want(FencedError, await leaving.settle(ended(first)))
        (place,) = want(Claimed, await other.settle(Claim(("Till",)))).actors
        loaded = await other.look(place.actor)
        assert want(TurnRecord, loaded.turn).executing is None
        assert await leaving.settle(Leave()) == 0


async def test_who_ran_for_long_is_remembered_as_long_as_others(shared: Place) -> None:
    """That a process left or died is known as long as history is kept from then on, not from its start."""
    async with on(shared) as leaving, on(shared) as dying, on(shared) as other:
        yesterday = SENT + 1  # all of them were started before
        leaving.foreign.add("Till")
        await leaving.settle(Leave())
        await other.settle(Bury(dying.id, 5, SENT + 2))
        await other.settle(Purge(yesterday, yesterday, 0))
        assert sorted(await other.store.departed()) == sorted([leaving.id, dying.id])
        want(Appended, await leaving.settle(Append(message())))
        await other.settle(Purge(LATER, LATER, 0))
        assert await other.store.departed() == []


async def test_who_has_left_still_sends(shared: Place) -> None:
    """It is a client from then on: what it appends is unowned, and runs where somebody is."""
    async with on(shared) as leaving, on(shared) as other:
        leaving.foreign.add("Till")
        await leaving.settle(Leave())
        sent = want(Appended, await leaving.settle(Append(message())))
        assert sent.place.epoch is None
        assert [one.actor for one in want(Claimed, await other.settle(Claim(("Till",)))).actors] == [sent.place.actor]


async def test_orders_of_a_node_that_left_are_anybodys(shared: Place) -> None:
    """What it had decided and not begun goes on elsewhere."""
    async with on(shared) as leaving, on(shared) as other:
        actor = (await leaving.append()).place.actor
        await leaving.settle(Order(SENT, restart=[actor], restart_at=SENT))
        await leaving.settle(Leave())
        assert [one.actor for one in await other.store.restarting()] == [actor]
        assert want(Placed, await other.settle(Begin(actor, SENT))).epoch is not None


async def test_the_buried_have_departed_too(shared: Place) -> None:
    """A node that another one buried is missed by all."""
    async with on(shared) as first, on(shared) as second, on(shared) as third:
        await second.settle(Bury(first.id, 5, SENT))
        assert await third.store.departed() == [first.id]


async def test_a_step_that_was_recorded_is_there_for_the_next_owner(node: Node) -> None:
    """The completion and the release may be in one batch: whoever goes on does not do it again."""
    first = await node.append()
    step = Record("s#1", "step", "s", SENT, status="completed", result="1", position=1, finished=SENT)
    await node.write(segment(first, records=[step]), handover(first))
    (place,) = want(Claimed, await node.settle(Claim(("Till",)))).actors
    assert (await node.records(place.actor))["s#1"].status == "completed"
