"""What every store does with who runs an actor: release, what falls due, claims, and the end of a dead node."""

from __future__ import annotations

import pytest

from perdure.storage.records import Outcome, Record
from perdure.storage.writes import (
    Append,
    Appended,
    Begin,
    Buried,
    Bury,
    Claim,
    Claimed,
    Committed,
    Due,
    Fired,
    Placed,
    Release,
    Watch,
)
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


async def fire(node: Node, now: float, limit: int = 1_000) -> Fired:
    """Let fall due what is due."""
    return want(Fired, await node.settle(Due(now, limit)))


async def keys_claimed(node: Node, *kinds: str, limit: int = 1_000) -> list[str]:
    """Claim, and say which actors came."""
    claimed = want(Claimed, await node.settle(Claim(kinds, limit)))
    assert all(place.epoch is not None for place in claimed.actors)
    return sorted(place.to.key for place in claimed.actors)


# releasing ------------------------------------------------------------------------------------------------------------


async def test_release(node: Node) -> None:
    """An actor with nothing to do leaves memory; the next message brings it back under a higher epoch."""
    first = await node.append()
    await node.finish(first)
    assert await node.release(first)
    second = await node.append()
    assert want(int, second.place.epoch) > want(int, first.place.epoch)
    assert (second.mail.number, second.place.fresh) == (2, False)


@pytest.mark.parametrize("how", ["claimed", "begun"])
async def test_who_has_a_turn_that_waits_may_go_on_by_himself(node: Node, how: str) -> None:
    """A turn that was taken up before its time and ended in memory leaves an actor that takes mail."""
    first = await node.append()
    await node.commit(sleeps(first, LATER))
    assert await node.release(first, waiting=True)
    if how == "claimed":
        place = await node.claim("a")
    else:
        place = want(Placed, await node.settle(Begin(first.place.actor, None)))
    again = Appended(place, first.mail)
    await node.commit(ended(again))
    assert await node.release(again)
    assert want(int, (await node.append()).place.epoch) > want(int, place.epoch)


@pytest.mark.parametrize("how", ["dies", "leaves", "gives it up"])
async def test_who_had_taken_up_a_turn_that_waits_goes(shared: Place, how: str) -> None:
    """What it waited for has come about in memory, so nothing else wakes it: whoever is left goes on."""
    async with on(shared) as staying:
        dying = await started(shared.store())
        first = await dying.append()
        await dying.commit(sleeps(first, LATER))
        assert await dying.release(first, waiting=True)
        again = Appended(await dying.claim("a"), first.mail)
        await dying.commit(segment(again, records=[Record("sleep#1", "sleep", "sleep", SENT, status="completed")]))
        if how == "dies":
            await shared.kill(dying.store)
            assert isinstance(await staying.settle(Bury(dying.id, 5, SENT)), Buried)
        elif how == "leaves":
            await dying.store.close()
        else:
            assert await dying.settle(Release(again.place.actor, want(int, again.place.epoch), anyway=True))
        assert await keys_claimed(staying, "Till") == ["a"]
        if how == "gives it up":
            await dying.store.close()


async def test_release_with_mail(node: Node) -> None:
    """An actor is not let go while a message that was just accepted waits for it."""
    first = await node.append()
    assert not await node.release(first)
    await node.finish(first)
    _, released = await node.write(Append(message()), Release(first.place.actor, want(int, first.place.epoch)))
    assert released is False
    await node.commit(segment(first))


async def test_release_of_a_parked_actor(node: Node) -> None:
    """A turn that cannot go on leaves memory with its mail kept, and new mail does not bring it back."""
    first = await node.append()
    await node.commit(segment(first, status="parked", reason="the code changed"))
    assert await node.release(first)
    assert (await node.append()).place.epoch is None
    assert await keys_claimed(node, "Till") == []
    assert (await node.find(first.mail.id)).status == "parked"


async def test_release_waiting_for_a_reply(node: Node) -> None:
    """A turn that waits for another actor need not stay in memory: the reply brings it back."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    assert await node.release(outer, waiting=True)
    assert (await node.look(outer.place.actor)).status == "waiting"
    done = await node.finish(inner)
    (place,) = done.woken
    assert (place.actor, place.epoch) == (outer.place.actor, want(int, outer.place.epoch) + 1)
    assert (await node.look(outer.place.actor)).status == "ready"
    assert [one.key for one in await node.store.completed(outer.mail.seq)] == ["ask#1"]


async def test_release_waiting_in_the_batch_of_the_ask(node: Node) -> None:
    """However quickly a turn leaves memory, the reply finds it: awake, or to be woken."""
    outer = await node.append("a")
    sent, released = await node.write(
        asks(outer, message("b")), Release(outer.place.actor, want(int, outer.place.epoch), outer.mail.seq)
    )
    done = await node.finish(want(Committed, sent).appended[0])
    assert bool(done.woken) is want(bool, released)


async def test_release_waiting_in_the_batch_of_the_reply(node: Node) -> None:
    """A turn that leaves memory at the very moment of its reply is not left behind."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    release = Release(outer.place.actor, want(int, outer.place.epoch), outer.mail.seq)
    _, refused = await node.write(ended(inner), release)
    assert refused is False
    again = await node.append("c")
    (inner,) = (await node.commit(asks(again, message("b")))).appended
    accepted, done = await node.write(
        Release(again.place.actor, want(int, again.place.epoch), again.mail.seq), ended(inner)
    )
    assert accepted is True
    assert [place.actor for place in want(Committed, done).woken] == [again.place.actor]


async def test_release_waiting_when_something_is_ready(node: Node) -> None:
    """A turn whose reply has come goes on instead of leaving."""
    outer = await node.append("a")
    part = asks(outer, message("b"))
    part.records = [*part.records, Record("receipt#1", "receipt", "receipt", SENT)]
    part.watches = [Watch("receipt#1", outer.mail.id)]
    (inner,) = (await node.commit(part)).appended
    await node.finish(inner)
    assert not await node.release(outer, waiting=True)
    await node.commit(segment(outer, numbered=[("ask#1", 1)]))
    assert await node.release(outer, waiting=True)


NOTHING_TO_WAIT_FOR: dict[str, list[Record]] = {
    "nothing": [],
    "a step": [Record("s#1", "step", "s", SENT)],
    "a sleep that is over": [Record("s#1", "sleep", "sleep", SENT, due=SENT + 1)],
    "a recorded result": [Record("s#1", "step", "s", SENT, status="completed", position=1, result="1")],
    "a message it sent": [Record("t#1", "tell", "t", SENT, status="completed")],
}


@pytest.mark.parametrize("records", NOTHING_TO_WAIT_FOR.values(), ids=NOTHING_TO_WAIT_FOR)
async def test_release_waiting_for_nothing(node: Node, records: list[Record]) -> None:
    """A turn that nothing would ever wake does not leave memory."""
    first = await node.append()
    await node.commit(segment(first, records=records))
    assert not await node.release(first, waiting=True)
    assert (await node.look(first.place.actor)).status == "ready"
    await node.finish(first)


async def test_mail_does_not_wake_a_waiting_turn(node: Node) -> None:
    """New mail for an actor whose turn waits is kept in order, and loads nothing."""
    first = await node.append()
    await node.commit(sleeps(first, LATER))
    assert await node.release(first, waiting=True)
    assert (await node.append()).place.epoch is None
    assert await keys_claimed(node, "Till") == []
    assert [mail.number for mail in (await node.look(first.place.actor)).mail] == [1, 2]


async def test_stop_wakes_who_waits(node: Node) -> None:
    """A turn that waits outside memory hears of it when the actor it asked ends."""
    first, outer = await node.append("b"), await node.append("a")
    await node.commit(asks(outer, message("b")))
    assert await node.release(outer, waiting=True)
    done = await node.finish(first, stop=True)
    assert [place.actor for place in done.woken] == [outer.place.actor]


# falling due ----------------------------------------------------------------------------------------------------------


async def test_due_in_order(node: Node) -> None:
    """Delayed messages come in the order of their times, and those of one time in the order sent; never early."""
    delays = {"c": 30.0, "a": 10.0, "b1": 20.0, "b2": 20.0, "d": 40.0}
    for name, delay in delays.items():
        await node.append(id=name, due=SENT + delay)
    assert await node.store.next_due() == SENT + 10
    assert (await fire(node, SENT + 9.999)).appended == ()
    fired = await fire(node, SENT + 30)
    assert [(one.mail.id, one.mail.number) for one in fired.appended] == [("a", 1), ("b1", 2), ("b2", 3), ("c", 4)]
    assert all(one.numbered and one.place.epoch is not None for one in fired.appended)
    assert await node.store.next_due() == SENT + 40
    assert (await fire(node, SENT + 30)).appended == ()


async def test_due_fires_once(node: Node) -> None:
    """A delayed message is handled once, behind what came before it."""
    await node.append()
    delayed = await node.append(id="later", due=SENT + 10)
    both = [await fire(node, SENT + 20), await fire(node, SENT + 20)]
    assert [one.mail.id for fired in both for one in fired.appended] == ["later"]
    assert [mail.number for mail in (await node.look(delayed.place.actor)).mail] == [1, 2]
    assert await node.store.next_due() is None


async def test_due_says_when_there_is_more(node: Node) -> None:
    """A crowd of timers is fired in portions, none forgotten."""
    for _ in range(5):
        await node.append(due=SENT + 1)
    counts: list[int] = []
    more = True
    while more:
        fired = await fire(node, SENT + 2, limit=2)
        counts.append(len(fired.appended))
        more = fired.more
    assert sum(counts) == 5


async def test_due_in_the_batch_of_the_message(node: Node) -> None:
    """A message whose time has come while it was written is not late."""
    delayed, fired = await node.write(Append(message(due=SENT + 1)), Due(SENT + 2))
    assert not want(Appended, delayed).numbered
    assert [one.mail.seq for one in want(Fired, fired).appended] == [want(Appended, delayed).mail.seq]


async def test_due_to_a_stopped_actor(node: Node) -> None:
    """A delayed message that finds its actor ended is a dead letter, not lost."""
    delayed = await node.append(due=SENT + 10)
    first = await node.append()
    await node.finish(first, stop=True)
    assert await node.outcome(delayed) is None
    assert (await fire(node, SENT + 10)).appended == ()
    found = await node.find(delayed.mail.id)
    assert want(Outcome, found.outcome).status == "dead"
    assert (found.number, found.cursor) == (2, 2)


async def test_due_of_a_kind_of_others(node: Node) -> None:
    """A timer fires on any node; who can run the actor claims it."""
    delayed = await node.append(due=SENT + 10)
    node.foreign.add("Till")
    (appended,) = (await fire(node, SENT + 10)).appended
    assert (appended.mail.number, appended.place.epoch) == (1, None)
    node.foreign.clear()
    assert await keys_claimed(node, "Till") == ["a"]
    assert (await node.look(delayed.place.actor)).tail == 1


@pytest.mark.parametrize("what", ["sleep", "ask", "step"])
async def test_due_wakes_a_waiting_turn(node: Node, what: str) -> None:
    """A sleep, a deadline, a step's next attempt: each brings a turn back into memory in time, and not before."""
    first = await node.append()
    due = LATER + 10
    parts = {
        "sleep": sleeps(first, due),
        "ask": asks(first, message("b"), due=due),
        "step": segment(first, records=[Record("s#1", "step", "s", SENT, attempt=2, due=due)]),
    }
    await node.commit(parts[what])
    assert await node.store.next_due() is None
    assert await node.release(first, waiting=True)
    assert await node.store.next_due() == due
    assert (await fire(node, due - 1)).woken == ()
    (place,) = (await fire(node, due)).woken
    assert (place.actor, place.epoch) == (first.place.actor, want(int, first.place.epoch) + 1)
    assert (await fire(node, due)).woken == ()
    assert await node.store.next_due() is None


async def test_timer_of_an_ended_turn(node: Node) -> None:
    """A timer that a turn left behind wakes nobody."""
    first, second = await node.append(), await node.append()
    await node.commit(sleeps(first, SENT + 10))
    await node.finish(first, Outcome("dead"))
    await node.commit(sleeps(second, LATER))
    assert await node.release(second, waiting=True)
    assert await node.store.next_due() == LATER
    assert (await fire(node, SENT + 20)).woken == ()
    assert (await node.look(first.place.actor)).status == "waiting"


# claiming -------------------------------------------------------------------------------------------------------------


async def unowned(node: Node, *keys: str) -> None:
    """Mail for actors that nobody has."""
    node.foreign.add("Till")
    for key in keys:
        await node.append(key)
    node.foreign.clear()


async def test_claim(node: Node) -> None:
    """Actors with work that nobody runs come to whoever asks, once."""
    await unowned(node, "a", "b", "c")
    assert await keys_claimed(node, "Till") == ["a", "b", "c"]
    assert await keys_claimed(node, "Till") == []


async def test_claim_takes_only_known_kinds(node: Node) -> None:
    """A process never gets an actor that it has no code for."""
    await unowned(node, "a")
    assert await keys_claimed(node, "Safe", "Door") == []
    assert await keys_claimed(node) == []
    node.foreign.add("Till")
    assert await keys_claimed(node, "Till") == []
    node.foreign.clear()
    assert await keys_claimed(node, "Safe", "Till") == ["a"]


async def test_claim_is_limited(node: Node) -> None:
    """A process takes as much as it asked for."""
    await unowned(node, *"abcde")
    counts = [len(await keys_claimed(node, "Till", limit=2)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


async def test_claim_leaves_what_is_owned_or_idle(node: Node) -> None:
    """What runs is not taken away, and what has nothing to do is not loaded."""
    await node.append("owned")
    idle = await node.append("idle")
    await node.finish(idle)
    await node.release(idle)
    await node.settle(spawn("spawned"))
    await node.append("delayed", due=LATER)
    assert await keys_claimed(node, "Till") == []


async def test_claim_of_one(node: Node) -> None:
    """A query reaches an actor that has nothing to do."""
    await node.settle(spawn("a"))
    place = await node.claim("a")
    again = await node.claim("a")
    assert (place.actor, place.epoch) == (again.actor, again.epoch)
    assert place.epoch is not None
    assert want(Claimed, await node.settle(Claim(only=till("nobody")))).actors == ()


async def test_claim_of_one_that_stopped(node: Node) -> None:
    """An actor that ended stays ended."""
    first = await node.append()
    await node.finish(first, stop=True)
    await node.release(first)
    assert (await node.claim("a")).epoch is None
