"""What every store does with actors that a node offers another: kept for it, taken, withdrawn, void when it is gone."""

from __future__ import annotations

import asyncio

import pytest

from perdure.errors import FencedError
from perdure.storage.offer_writes import Offer, Take, Withdraw
from perdure.storage.query_writes import Inquire
from perdure.storage.records import NodeRecord, Record
from perdure.storage.writes import (
    Append,
    Appended,
    Beat,
    Begin,
    Bury,
    Claim,
    Claimed,
    Committed,
    Due,
    Fired,
    Leave,
    Order,
    Placed,
)
from perdure.testing.conformance.nodes import LATER, SENT, Node, ended, message, on, segment, till, want
from perdure.testing.conformance.places import Place

PATIENCE = 20.0


def offer(to: Node, *mails: Appended) -> Offer:
    """What the owner of these messages' actors offers."""
    return Offer(tuple((of.place.actor, want(int, of.place.epoch)) for of in mails), to.id)


async def taken(node: Node) -> list[Placed]:
    """What a node takes of what it is offered."""
    return list(want(Claimed, await node.settle(Take())).actors)


async def claimed(node: Node) -> list[int]:
    """The actors that a node claims."""
    return [place.actor for place in want(Claimed, await node.settle(Claim(("Till",)))).actors]


async def test_an_idle_actor_goes_to_another_node(shared: Place) -> None:
    """It is at home there: whoever had it can write nothing, and its mail goes where it is."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        await giver.finish(first)
        assert await giver.settle(offer(other, first)) == 1
        assert await other.store.offered() == [first.place.actor]
        (place,) = await taken(other)
        assert place.to == till("a")
        assert want(int, place.epoch) > want(int, first.place.epoch)
        assert await other.store.offered() == []
        second = await giver.append()
        assert (second.place.epoch, second.mail.number) == (None, 2)
        want(FencedError, await giver.settle(segment(first, records=[Record("s#1", "step", "s", SENT)])))
        await other.commit(ended(Appended(place, second.mail)))


async def test_mail_goes_with_its_actor_in_order(shared: Place) -> None:
    """What was sent before, between and after is handled once, in one order, by one node after the other."""
    async with on(shared) as giver, on(shared) as other:
        first, second = await giver.append(), await giver.append()
        _, settled = await giver.write(ended(first), offer(other, first))
        assert settled == 1
        third = await giver.append()
        assert third.place.epoch is None
        (place,) = await taken(other)
        loaded = await other.look(place.actor)
        assert (loaded.cursor, [mail.id for mail in loaded.mail]) == (1, [second.mail.id, third.mail.id])


@pytest.mark.parametrize("by", ["mail", "claim", "name", "query", "time"])
async def test_an_offer_keeps_others_away(shared: Place, by: str) -> None:
    """Else whoever sends to it takes it back, and nothing is ever evened out."""
    async with on(shared) as giver, on(shared) as other, on(shared) as third:
        first = await giver.append()
        await giver.append(due=SENT + 1)
        await giver.settle(offer(other, first))
        for node in (giver, third):
            match by:
                case "mail":
                    assert (await node.append()).place.epoch is None
                case "claim":
                    assert await node.store.unknown_kinds(()) == []
                    assert await claimed(node) == []
                case "name":
                    assert (await node.claim("a")).epoch is None
                case "query":
                    assert await node.settle(Inquire(f"q-{node.id}", till("a"), "coins", "{}", LATER)) is True
                    assert await node.store.open_queries(["Till"], 10) == []
                case _:
                    fired = want(Fired, await node.settle(Due(SENT + 2)))
                    assert [one.place.epoch for one in fired.appended] in ([None], [])
        assert len(await taken(other)) == 1
        if by == "query":
            assert len(await other.store.open_queries([], 10)) == 2


@pytest.mark.parametrize("how", ["left", "dead", "drains", "unknown"])
async def test_nothing_is_offered_to_who_has_gone(shared: Place, how: str) -> None:
    """Whoever is found gone in the transaction itself is given nothing; the giver keeps what it has."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        match how:
            case "left":
                await other.settle(Leave())
            case "dead":
                await giver.settle(Bury(other.id, 5, SENT))
            case "drains":
                await other.settle(Beat(0, draining=True))
            case _:
                other.id = "nobody"
        assert await giver.settle(offer(other, first)) == 0
        await giver.finish(first)


@pytest.mark.parametrize("how", ["left", "dead"])
async def test_an_offer_is_void_when_its_node_has_gone(shared: Place, how: str) -> None:
    """Whoever dies before it has taken what it was offered takes nothing with it."""
    async with on(shared) as giver, on(shared) as other, on(shared) as third:
        first = await giver.append("a")
        idle = await giver.append("b")
        await giver.finish(idle)
        await giver.settle(offer(other, first, idle))
        await (other.settle(Leave()) if how == "left" else third.settle(Bury(other.id, 5, SENT)))
        assert await third.store.unknown_kinds(()) == [("Till", 1)]
        assert await claimed(third) == [first.place.actor]
        assert want(int, (await giver.append("b")).place.epoch) > want(int, idle.place.epoch)


async def test_a_dead_givers_offers_stand(shared: Place, dying: Node) -> None:
    """What was offered is not the giver's any more: its death blames nothing of it."""
    async with on(shared) as other, on(shared) as third:
        first = await dying.append()
        await dying.settle(offer(other, first))
        await third.settle(Bury(dying.id, 5, SENT))
        assert await claimed(third) == []
        (place,) = await taken(other)
        assert (await other.look(place.actor)).turn is None


async def test_a_dead_takers_actors_are_adopted(shared: Place, dying: Node) -> None:
    """Once taken it is the taker's like any other, and so is found when that one dies."""
    async with on(shared) as giver:
        first = await giver.append()
        await giver.settle(offer(dying, first))
        assert len(await taken(dying)) == 1
        await giver.settle(Bury(dying.id, 5, SENT))
        assert await claimed(giver) == [first.place.actor]


async def test_what_was_not_taken_is_withdrawn(shared: Place) -> None:
    """A node that stands still keeps nobody's mail: what has work is the giver's again, the rest anybody's."""
    async with on(shared) as giver, on(shared) as other, on(shared) as third:
        first, idle, gone = [await giver.append(key) for key in "abc"]
        await giver.finish(idle)
        await giver.settle(offer(other, first, idle))
        await giver.settle(offer(third, gone))
        actors = tuple(of.place.actor for of in (first, idle, gone))
        (place,) = want(Claimed, await giver.settle(Withdraw(actors, other.id))).actors
        assert place.actor == first.place.actor
        assert place.epoch is not None
        assert await other.store.offered() == []
        assert await taken(other) == []
        assert (await third.append("b")).place.epoch is not None
        assert await third.store.offered() == await giver.store.offered(third.id) == [gone.place.actor]


async def test_what_was_taken_is_not_withdrawn(shared: Place) -> None:
    """The taker was faster: it stays its own."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        await giver.settle(offer(other, first))
        (place,) = await taken(other)
        assert want(Claimed, await giver.settle(Withdraw((place.actor,), other.id))).actors == ()
        await other.commit(ended(Appended(place, first.mail)))


async def test_who_does_not_run_it_leaves_it_to_the_others(shared: Place) -> None:
    """An offer to one that drains, or has not the class after all, is declined, and told to all."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        other.foreign.add("Till")
        await giver.settle(offer(other, first))
        assert await taken(other) == []
        assert await other.store.offered() == []
        assert await claimed(giver) == [first.place.actor]


async def test_an_actor_under_an_order_is_not_offered(shared: Place) -> None:
    """It is given up for whoever carries the order out."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        want(Committed, await giver.settle(Order(SENT, restart=[first.place.actor], restart_at=SENT)))
        await giver.settle(offer(other, first))
        assert await other.store.offered() == []
        assert want(Placed, await giver.settle(Begin(first.place.actor, SENT))).epoch is not None


@pytest.mark.parametrize("what", ["restart", "terminate", "end"])
async def test_an_order_about_what_is_offered_comes_first(shared: Place, what: str) -> None:
    """Nobody takes what is to stop; who decided goes on with it at once."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        await giver.settle(offer(other, first))
        order = Order(SENT, restart_at=SENT)
        setattr(order, what, [first.place.actor])
        await giver.settle(order)
        begun = await giver.settle(Begin(first.place.actor, SENT))
        assert begun is False if what != "restart" else want(Placed, begun).epoch is not None
        assert await taken(other) == []
        assert await other.store.offered() == []


async def test_only_its_owner_offers_an_actor(shared: Place) -> None:
    """Whoever was given up for dead and comes back gives nothing away."""
    async with on(shared) as giver, on(shared) as other, on(shared) as third:
        first, second = await giver.append("a"), await giver.append("b")
        await giver.release(first)
        await giver.settle(Offer(((first.place.actor, 99),), third.id))
        assert await other.settle(offer(third, first, second)) == 0
        assert await third.store.offered() == []
        await giver.finish(second)


async def test_a_parked_actor_stays_parked(shared: Place) -> None:
    """Another node's memory mends no code."""
    async with on(shared) as giver, on(shared) as other:
        first = await giver.append()
        await giver.commit(segment(first, status="parked", reason="the code changed"))
        await giver.settle(offer(other, first))
        assert await other.store.offered() == []
        assert (await giver.find(first.mail.id)).status == "parked"


async def test_loads_count_what_is_offered(shared: Place) -> None:
    """Two that give to one see each other's offers, and do not give it too much."""
    async with on(shared) as giver, on(shared) as other:
        mails = [await giver.append(key) for key in "abcde"]
        await other.append("f")
        assert await giver.store.loads() == {giver.id: 5, other.id: 1}
        await giver.settle(offer(other, *mails[:2]))
        assert await giver.store.loads() == await other.store.loads() == {giver.id: 3, other.id: 3}
        await taken(other)
        assert await other.store.loads() == {giver.id: 3, other.id: 3}


async def test_an_offer_wakes_its_node(shared: Place) -> None:
    """What is offered rests for milliseconds."""
    async with on(shared) as giver, on(shared) as other:
        for node in (giver, other):
            await node.store.dead_nodes()
        first = await giver.append()
        while await other.store.wait(0.05):
            await other.store.changed()
        await giver.settle(offer(other, first))
        assert await other.store.wait(PATIENCE)
        assert await other.store.changed()


async def test_who_takes_nothing_says_so(shared: Place) -> None:
    """A node that drains, and a client, look light to the others, and are offered nothing."""
    async with on(shared) as giver, on(shared) as other:
        client = shared.store()
        await client.open(
            NodeRecord("client", 1, "here", "3.11", "0", SENT, runs=False, kinds=("Till",)), lambda _: False
        )
        await other.settle(Beat(3, draining=True))
        peers = {peer.id: (peer.takes, peer.load) for peer in await giver.store.peers()}
        assert peers == {other.id: (False, 3), "client": (False, 0)}
        await other.settle(Beat(3))
        assert [peer.takes for peer in await giver.store.peers() if peer.id == other.id] == [True]
        first = await giver.append()
        assert await giver.settle(Offer(((first.place.actor, want(int, first.place.epoch)),), "client")) == 0
        await client.close()


async def test_mail_and_takings_at_once(shared: Place) -> None:
    """While actors go from one node to the other and are sent to by both, no number is lost or given twice."""
    async with on(shared) as one, on(shared) as two:
        mails = [await one.append(key) for key in "abcd"]
        await one.write(*(ended(mail) for mail in mails))
        sends = [node.settle(Append(message(key))) for _ in range(5) for key in "abcd" for node in (one, two)]
        settled = await asyncio.gather(*sends, one.settle(offer(two, *mails)), two.settle(Take()), two.settle(Take()))
        numbers: dict[str, list[int]] = {}
        for each in settled[:-3]:
            appended = want(Appended, each)
            numbers.setdefault(appended.place.to.key, []).append(appended.mail.number)
        assert {key: sorted(found) for key, found in numbers.items()} == {key: list(range(2, 12)) for key in "abcd"}
        await two.settle(Take())
        assert await one.store.loads() in ({two.id: 4}, {one.id: 4})
