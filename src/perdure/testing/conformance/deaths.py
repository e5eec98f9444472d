"""What every store does when a process dies: who is freed, who is suspected, who is blamed."""

from __future__ import annotations

import pytest

from perdure.errors import FencedError, NodeBuried
from perdure.storage.failure import failure_fields
from perdure.storage.history_writes import Purge
from perdure.storage.limit_writes import Allowance, Demand, Want
from perdure.storage.query_writes import Inquire
from perdure.storage.records import NodeRecord, Outcome, Record, TurnRecord
from perdure.storage.writes import Append, Appended, Beat, Buried, Bury, Claim, Claimed, Due, Leave, Segment, Watch
from perdure.testing.conformance.nodes import (
    LATER,
    SENT,
    Node,
    asks,
    ended,
    message,
    on,
    segment,
    sleeps,
    spawn,
    started,
    till,
    want,
)
from perdure.testing.conformance.places import Place


async def keys_claimed(node: Node) -> list[str]:
    """Claim, and say which actors came."""
    return sorted(place.to.key for place in want(Claimed, await node.settle(Claim(("Till",)))).actors)


async def bury(node: Node, dead: Node, *, deaths: int = 5) -> Buried:
    """End another node."""
    return want(Buried, await node.settle(Bury(dead.id, deaths, SENT + 5)))


def runs(of: Appended, node: Node, blame: int = 0) -> Segment:
    """The started-record of a suspect turn."""
    return segment(of, turn=TurnRecord(blame=blame, suspect=True, executing=node.id))


# burying --------------------------------------------------------------------------------------------------------------


async def test_bury_frees_the_actors(living: Node, dying: Node) -> None:
    """What a dead process was running is free for others; the dead can write nothing any more, nor take anything."""
    first, second = await dying.append("a"), await dying.append("b")
    assert await bury(living, dying) == Buried(2, (), ())
    for write in (ended(first), Append(message("c")), Claim(("Till",))):
        with pytest.raises(NodeBuried, match=dying.id):
            await dying.write(write)
    assert await keys_claimed(living) == ["a", "b"]
    loaded = await living.look(second.place.actor)
    assert loaded.epoch > want(int, second.place.epoch)
    assert [mail.id for mail in loaded.mail] == [second.mail.id]


async def test_who_was_buried_and_forgotten_is_told_so(living: Node, dying: Node) -> None:
    """A process that stood still for days learns that it was buried, whatever it writes first."""
    first = await dying.append("a")
    await bury(living, dying)
    await living.settle(Purge(LATER, LATER, 0))
    assert await living.store.departed() == []
    for write in (
        Beat(1),
        Demand((Want("llm", Allowance(5, 5, 60.0), 1, 1, 1),)),
        Append(message("c")),
        spawn("d"),
        Inquire("q", till("a"), "look", "{}", LATER),
        Claim(("Till",)),
        ended(first),
        Due(SENT),
        Leave(),
    ):
        with pytest.raises(NodeBuried, match=dying.id):
            await dying.write(write)


async def test_who_was_buried_goes_on_as_another(living: Node, dying: Node) -> None:
    """Under a new identity it is a node as any; what it had is not its own any more."""
    first = await dying.append("a")
    await bury(living, dying)
    await dying.store.rejoin(NodeRecord("risen", 1, "here", "3.11", "0", SENT))
    (stale,) = await dying.write(ended(first))
    want(FencedError, stale)
    assert (await dying.append("b")).place.epoch is not None
    assert [peer.id for peer in await living.store.peers()] == ["risen"]


async def test_bury_twice(living: Node, dying: Node) -> None:
    """Two processes that find a third dead count its death once."""
    first = await dying.append()
    await dying.commit(runs(first, dying))
    await bury(living, dying)
    assert await living.settle(Bury(dying.id, 5, SENT + 5)) is False
    assert want(TurnRecord, (await living.look(first.place.actor)).turn).blame == 1


async def test_a_node_that_gave_a_sign_of_life_is_not_buried(living: Node, dying: Node) -> None:
    """It was judged by a counter, and the counter has risen since."""
    first = await dying.append()
    (seen,) = await living.store.peers()
    assert await dying.settle(Beat(7)) == seen.beats + 1
    assert await living.settle(Bury(dying.id, 5, SENT, seen.beats)) is False
    await dying.finish(first)
    (seen,) = await living.store.peers()
    assert (seen.id, seen.load) == (dying.id, 7)
    want(Buried, await living.settle(Bury(dying.id, 5, SENT, seen.beats)))
    assert await living.store.peers() == []


async def test_bury_suspects_the_heads(living: Node, dying: Node) -> None:
    """After a death, what may have caused it is watched; what waited behind it is not."""
    first = await dying.append("a")
    await dying.append("a")
    done = await dying.append("idle")
    await dying.finish(done)
    await bury(living, dying)
    turn = want(TurnRecord, (await living.look(first.place.actor)).turn)
    assert (turn.suspect, turn.blame, turn.executing) == (True, 0, None)
    place = await living.claim("a")
    await living.commit(ended(Appended(place, first.mail)))
    assert (await living.look(first.place.actor)).turn is None


async def test_bury_leaves_what_had_just_come(living: Node, dying: Node) -> None:
    """Mail is claimed with its actor, although the actor's death came right after it."""
    await dying.finish(await dying.append("a"))
    last = await dying.append("a")
    await bury(living, dying)
    assert await keys_claimed(living) == ["a"]
    loaded = await living.look(last.place.actor)
    assert (loaded.cursor, loaded.tail, [mail.id for mail in loaded.mail]) == (1, 2, [last.mail.id])
    assert (await living.append("a")).mail.number == 3


async def test_bury_blames_what_was_executing(living: Node, dying: Node) -> None:
    """A death is blamed on what was executing, and on no neighbour, nor on what had made progress since."""
    killer, rested, innocent = [await dying.append(key) for key in "abc"]
    await dying.write(runs(killer, dying), runs(rested, dying))
    await dying.commit(segment(rested, turn=TurnRecord(suspect=True, executing=None)))
    buried = await bury(living, dying)
    assert (buried.actors, buried.blamed, buried.dead) == (3, (killer.mail.id,), ())
    blames = [want(TurnRecord, (await living.look(of.place.actor)).turn).blame for of in (killer, rested, innocent)]
    assert blames == [1, 0, 0]


async def test_bury_names_only_whom_it_blamed(living: Node, dying: Node) -> None:
    """A message that was blamed once and did not run since is not blamed again."""
    killer = await dying.append()
    await dying.commit(runs(killer, dying, blame=2))
    await dying.commit(segment(killer, turn=TurnRecord(blame=2, suspect=True)))
    buried = await bury(living, dying)
    assert buried.blamed == ()
    assert want(TurnRecord, (await living.look(killer.place.actor)).turn).blame == 2


async def test_bury_ends_the_killer(living: Node, dying: Node) -> None:
    """A message that keeps killing its process is a dead letter; who waits hears of it, and the mailbox goes on."""
    outer = await dying.append("a")
    (killer,) = (await dying.commit(asks(outer, message("b")))).appended
    following = await dying.append("b")
    assert await dying.release(outer, waiting=True)
    await dying.commit(runs(killer, dying, blame=1))
    buried = await bury(living, dying, deaths=2)
    assert (buried.blamed, buried.dead) == ((killer.mail.id,), (killer.mail.id,))
    assert [(one.message, one.key, one.outcome.status) for one in buried.completions] == [
        (outer.mail.seq, "ask#1", "dead")
    ]
    outcome = want(Outcome, await living.outcome(killer))
    assert (outcome.status, failure_fields(outcome.error)["type"]) == ("dead", "perdure.errors.DeadLetterError")
    (told,) = await living.store.completed(outer.mail.seq)
    assert told.outcome.status == "dead"
    assert await keys_claimed(living) == ["a", "b"]
    loaded = await living.look(killer.place.actor)
    assert (loaded.cursor, [mail.id for mail in loaded.mail]) == (1, [following.mail.id])


# in parts -------------------------------------------------------------------------------------------------------------


async def part(node: Node, dead: Node, *, limit: int = 2) -> Buried:
    """End a part of another node."""
    return want(Buried, await node.settle(Bury(dead.id, 2, SENT + 5, limit=limit)))


async def test_bury_in_parts(living: Node, dying: Node) -> None:
    """A process that had many actors does not hold up all that is sent to any of them until the last one is free."""
    mails = [await dying.append(key) for key in "abcde"]
    parts = [await part(living, dying) for _ in range(3)]
    assert [(one.actors, one.more) for one in parts] == [(2, True), (2, True), (1, False)]
    for of in mails:
        loaded = await living.look(of.place.actor)
        assert loaded.epoch > want(int, of.place.epoch)
        assert want(TurnRecord, loaded.turn).suspect
    assert await living.settle(Bury(dying.id, 2, SENT + 5)) is False


async def test_a_part_of_a_burial_ends_the_dead(living: Node, dying: Node) -> None:
    """Of what is free, the dead process can write nothing any more, nor of what is still to come; the rest waits."""
    mails = [await dying.append(key) for key in "abc"]
    await part(living, dying)
    for of in mails:
        with pytest.raises(NodeBuried, match=dying.id):
            await dying.finish(of)
    assert await living.store.peers() == []
    freed = await keys_claimed(living)
    assert len(freed) == 2
    assert (await living.append(({*"abc"} - {*freed}).pop())).place.epoch is None
    assert not (await part(living, dying)).more
    assert sorted([*freed, *await keys_claimed(living)]) == ["a", "b", "c"]


async def test_parts_blame_what_was_executing_once(living: Node, dying: Node) -> None:
    """However many parts there are, each message that was executing takes the blame once, and a killer ends."""
    killer, *others = [await dying.append(key) for key in "abcde"]
    await dying.commit(runs(killer, dying, blame=1))
    await dying.write(*(runs(of, dying) for of in others))
    parts = [await part(living, dying, limit=1) for _ in range(6)]
    assert sorted(id_ for one in parts for id_ in one.blamed) == sorted(of.mail.id for of in (killer, *others))
    assert [id_ for one in parts for id_ in one.dead] == [killer.mail.id]
    blames = [want(TurnRecord, (await living.look(of.place.actor)).turn).blame for of in others]
    assert blames == [1] * 4
    assert want(Outcome, await living.outcome(killer)).status == "dead"


async def test_nobody_looks_for_what_is_not_free_yet(living: Node, dying: Node) -> None:
    """A tree of which some members are still the dead process's is not started in parts; history keeps its node."""
    for key in "abc":
        await dying.append(key)
    await part(living, dying)
    await living.settle(Purge(SENT * 4, SENT * 4, 0))
    assert await living.store.departed() == []
    assert await living.store.unburied() == [dying.id]
    await part(living, dying)
    assert await living.store.departed() == [dying.id]
    assert await living.store.unburied() == []


@pytest.mark.parametrize("ends", ["kills", "leaves"])
async def test_whoever_is_left_ends_a_burial(shared: Place, ends: str) -> None:
    """If the process that buries another ends as well, what it had not come to is freed by the next one that looks."""
    dying, burying = await started(shared.store()), await started(shared.store())
    async with on(shared) as node:
        for key in "abc":
            await dying.append(key)
        await shared.kill(dying.store)
        await part(burying, dying)
        assert await node.store.unburied() == []
        assert await node.settle(Bury(dying.id, 2, SENT + 5)) is False
        if ends == "kills":
            await shared.kill(burying.store)
            await bury(node, burying)
        else:
            await burying.store.close()
        assert await node.store.unburied() == [dying.id]
        rest = await part(node, dying)
        assert (rest.actors, rest.more) == (1, False)
        assert await keys_claimed(node) == ["a", "b", "c"]


# deaths ---------------------------------------------------------------------------------------------------------------


async def test_dead_node_is_found(shared: Place) -> None:
    """A process that died is noticed by those that live, and by nobody before; once buried it is at rest."""
    dying = await started(shared.store())
    async with on(shared) as node:
        mail = await dying.append()
        assert await node.store.dead_nodes() == []
        await shared.kill(dying.store)
        assert await node.store.dead_nodes() == ([dying.id] if shared.tells else [])
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
        assert await node.store.dead_nodes() == ([dying.id] if shared.tells else [])
        assert [peer.id for peer in await node.store.peers()] == [dying.id]
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
