"""What every store does when a process dies: who is freed, who is suspected, who is blamed."""

from __future__ import annotations

from perdure.errors import FencedError
from perdure.storage.failure import failure_fields
from perdure.storage.records import Outcome, Record, TurnRecord
from perdure.storage.writes import Append, Appended, Buried, Bury, Claim, Claimed, Segment, Watch
from tests.conformance.node import SENT, Node, asks, ended, message, on, segment, sleeps, started, want
from tests.conformance.places import Place


async def keys_claimed(node: Node) -> list[str]:
    """Claim, and say which actors came."""
    return sorted(place.to.key for place in want(Claimed, await node.settle(Claim(("Till",)))).actors)


async def bury(node: Node, *, deaths: int = 5) -> Buried:
    """End this node in its own eyes, as another would after its death."""
    return want(Buried, await node.settle(Bury(node.id, deaths, SENT + 5)))


def runs(of: Appended, node: Node, blame: int = 0) -> Segment:
    """The started-record of a suspect turn."""
    return segment(of, turn=TurnRecord(blame=blame, suspect=True, executing=node.id))


# burying --------------------------------------------------------------------------------------------------------------


async def test_bury_frees_the_actors(node: Node) -> None:
    """What a dead process was running is free for others, and the dead can write nothing any more."""
    first, second = await node.append("a"), await node.append("b")
    assert await bury(node) == Buried(2, (), ())
    stale, good = await node.write(ended(first), Append(message("c")))
    want(FencedError, stale)
    want(Appended, good)
    assert await keys_claimed(node) == ["a", "b"]
    loaded = await node.look(second.place.actor)
    assert loaded.epoch > want(int, second.place.epoch)
    assert [mail.id for mail in loaded.mail] == [second.mail.id]


async def test_bury_twice(node: Node) -> None:
    """Two processes that find a third dead count its death once."""
    first = await node.append()
    await node.commit(runs(first, node))
    await bury(node)
    assert await bury(node) == Buried(0, (), ())
    assert want(TurnRecord, (await node.look(first.place.actor)).turn).blame == 1


async def test_bury_suspects_the_heads(node: Node) -> None:
    """After a death, what may have caused it is watched; what waited behind it is not."""
    first = await node.append("a")
    await node.append("a")
    done = await node.append("idle")
    await node.finish(done)
    await bury(node)
    turn = want(TurnRecord, (await node.look(first.place.actor)).turn)
    assert (turn.suspect, turn.blame, turn.executing) == (True, 0, None)
    place = await node.claim("a")
    await node.commit(ended(Appended(place, first.mail)))
    assert (await node.look(first.place.actor)).turn is None


async def test_bury_blames_what_was_executing(node: Node) -> None:
    """A death is blamed on what was executing, and on no neighbour, nor on what had made progress since."""
    killer, rested, innocent = [await node.append(key) for key in "abc"]
    await node.write(runs(killer, node), runs(rested, node))
    await node.commit(segment(rested, turn=TurnRecord(suspect=True, executing=None)))
    buried = await bury(node)
    assert (buried.actors, buried.blamed, buried.dead) == (3, (killer.mail.id,), ())
    blames = [want(TurnRecord, (await node.look(of.place.actor)).turn).blame for of in (killer, rested, innocent)]
    assert blames == [1, 0, 0]


async def test_bury_names_only_whom_it_blamed(node: Node) -> None:
    """A message that was blamed once and did not run since is not blamed again."""
    killer = await node.append()
    await node.commit(runs(killer, node, blame=2))
    await node.commit(segment(killer, turn=TurnRecord(blame=2, suspect=True)))
    buried = await bury(node)
    assert buried.blamed == ()
    assert want(TurnRecord, (await node.look(killer.place.actor)).turn).blame == 2


async def test_bury_ends_the_killer(node: Node) -> None:
    """A message that keeps killing its process is a dead letter; who waits hears of it, and the mailbox goes on."""
    outer = await node.append("a")
    (killer,) = (await node.commit(asks(outer, message("b")))).appended
    following = await node.append("b")
    assert await node.release(outer, waiting=True)
    await node.commit(runs(killer, node, blame=1))
    buried = await bury(node, deaths=2)
    assert (buried.blamed, buried.dead) == ((killer.mail.id,), (killer.mail.id,))
    assert [(one.message, one.key, one.outcome.status) for one in buried.completions] == [
        (outer.mail.seq, "ask#1", "dead")
    ]
    outcome = want(Outcome, await node.outcome(killer))
    assert (outcome.status, failure_fields(outcome.error)["type"]) == ("dead", "perdure.errors.DeadLetterError")
    (told,) = await node.store.completed(outer.mail.seq)
    assert told.outcome.status == "dead"
    assert await keys_claimed(node) == ["a", "b"]
    loaded = await node.look(killer.place.actor)
    assert (loaded.cursor, [mail.id for mail in loaded.mail]) == (1, [following.mail.id])


# deaths ---------------------------------------------------------------------------------------------------------------


async def test_dead_node_is_found(shared: Place) -> None:
    """A process that died is noticed by those that live, and by nobody before; once buried it is at rest."""
    dying = await started(shared.store())
    async with on(shared) as node:
        mail = await dying.append()
        assert await node.store.dead_nodes() == []
        await shared.kill(dying.store)
        assert await node.store.dead_nodes() == [dying.id]
        buried = want(Buried, await node.settle(Bury(dying.id, 5, SENT)))
        await node.store.buried(dying.id)
        assert buried.actors == 1
        assert await node.store.dead_nodes() == []
        (place,) = want(Claimed, await node.settle(Claim(("Till",)))).actors
        assert want(int, place.epoch) > want(int, mail.place.epoch)


async def test_death_is_found_by_the_next_start(shared: Place) -> None:
    """A process that starts again finds what it left."""
    dying = await started(shared.store())
    mail = await dying.append()
    await dying.commit(segment(mail, turn=TurnRecord(suspect=True, executing=dying.id)))
    await shared.kill(dying.store)
    async with on(shared) as node:
        assert await node.store.dead_nodes() == [dying.id]
        assert want(Buried, await node.settle(Bury(dying.id, 5, SENT))).blamed == (mail.mail.id,)


async def test_death_spares_the_neighbours(shared: Place) -> None:
    """What runs in a process that lives is neither taken from it nor blamed for another's death."""
    dying = await started(shared.store())
    async with on(shared) as node:
        mine, other = await node.append("mine"), await dying.append("other")
        for one, of in ((node, mine), (dying, other)):
            await one.commit(segment(of, turn=TurnRecord(suspect=True, executing=one.id)))
        await shared.kill(dying.store)
        buried = want(Buried, await node.settle(Bury(dying.id, 5, SENT)))
        assert (buried.actors, buried.blamed) == (1, (other.mail.id,))
        assert want(TurnRecord, (await node.look(mine.place.actor)).turn).blame == 0
        await node.finish(mine)


async def test_waiting_beside_a_burial(shared: Place) -> None:
    """Who begins to wait, or sends again, in the commit that ends a killer hears how it ended, before it or after."""
    dying = await started(shared.store())
    async with on(shared) as node:
        killer = await dying.append("b", id="order")
        early, late = await node.append("early"), await node.append("late")
        await dying.commit(segment(killer, turn=TurnRecord(blame=1, suspect=True, executing=dying.id)))
        await shared.kill(dying.store)
        waits = [
            segment(of, records=[Record("r#1", "receipt", "r", SENT)], watches=[Watch("r#1", "order")])
            for of in (early, late)
        ]
        await node.write(waits[0], Bury(dying.id, 2, SENT), waits[1], Append(message("b", id="order")))
        for of in (early, late):
            assert [one.outcome.status for one in await node.store.completed(of.mail.seq)] == ["dead"]
        assert want(Outcome, (await node.find("order")).outcome).status == "dead"


async def test_leaving_is_not_dying(shared: Place) -> None:
    """A process that stops in good order is not blamed on what it was executing."""
    leaving = await started(shared.store())
    mail = await leaving.append()
    await leaving.commit(segment(mail, turn=TurnRecord(suspect=True, executing=leaving.id)))
    await leaving.store.close()
    async with on(shared) as node:
        assert await node.store.dead_nodes() == []
        turn = want(TurnRecord, (await node.look(mail.place.actor)).turn)
        assert (turn.blame, turn.executing) == (0, None)


async def test_sleepers_outlive_a_death(shared: Place) -> None:
    """A turn that waits for time belongs to nobody, so no death disturbs it."""
    dying = await started(shared.store())
    mail = await dying.append()
    await dying.commit(sleeps(mail, SENT * 4))
    assert await dying.release(mail, waiting=True)
    await shared.kill(dying.store)
    async with on(shared) as node:
        assert want(Buried, await node.settle(Bury(dying.id, 5, SENT))).actors == 0
        assert (await node.look(mail.place.actor)).turn is None
        assert await node.store.next_due() == SENT * 4
