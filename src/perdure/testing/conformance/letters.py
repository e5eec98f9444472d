"""What every store does with dead letters: one is tried again as the same message, or removed with all of its own."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from perdure.errors import ActorStopped, NoSuchMessage, NotADeadLetter
from perdure.storage.history_writes import Forget, Purge, Purged, Resend
from perdure.storage.records import FailureRecord, Outcome, Record, RecordStatus, TurnRecord
from perdure.storage.writes import Append, Appended, Begin, Claim, Claimed, Committed, End, Existing, Order, Placed
from perdure.testing.conformance.nodes import (
    DONE,
    LATER,
    SENT,
    Node,
    asks,
    ended,
    message,
    on,
    segment,
    till,
    want,
    wants,
)
from perdure.testing.conformance.places import Place

DEAD = Outcome("dead", error='{"type":"builtins.ValueError","text":"no"}')


def step(key: str, status: RecordStatus, position: int | None = None) -> Record:
    """A step of a journal."""
    return Record(key, "step", key.partition("#")[0], SENT, status=status, position=position)


def failed(of: Appended, *escaped: str, attempt: int = 1) -> Order:
    """The order that notes a failure of a message, and the steps whose errors its handler let out."""
    note = FailureRecord(of.place.actor, of.mail.seq, attempt, SENT, DEAD.error or "", "give up", escaped)
    return Order(now=SENT, failure=note)


async def die(node: Node, of: Appended, *records: Record, order: Order | None = None) -> None:
    """Give a message up."""
    end = End(of.mail.number, DEAD, SENT, SENT)
    await node.commit(segment(of, records=records, turn=TurnRecord(5, 1, error="{}"), end=end, order=order))


async def resend(node: Node, of: Appended) -> Appended:
    """Try a dead letter again."""
    return want(Appended, await node.settle(Resend(of.mail.id)))


async def order(node: Node, **parts: Any) -> Committed:  # noqa: ANN401  # any part of an order
    """Carry out what a supervisor decided."""
    return want(Committed, await node.settle(Order(now=SENT, **parts)))


# trying again ---------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_goes_to_the_end_of_its_mailbox(node: Node) -> None:
    """What was given up is tried again after all that was sent meanwhile, and ends once more."""
    first = await node.append(args='{"n":7}', cause=7, chain=("Till/x",))
    await die(node, first)
    second = await node.append()
    again = await resend(node, first)
    assert (again.mail.seq, again.mail.id, again.mail.number) == (first.mail.seq, first.mail.id, 3)
    assert (again.mail.args, again.mail.cause, again.mail.chain) == ('{"n":7}', 7, ("Till/x",))
    assert (again.place.epoch, again.numbered, again.mail.past) == (first.place.epoch, True, True)
    assert await node.outcome(first) is None
    loaded = await node.look(first.place.actor)
    assert (loaded.cursor, loaded.tail, [mail.number for mail in loaded.mail]) == (1, 3, [2, 3])
    await node.finish(second)
    await node.finish(again)
    assert await node.outcome(first) == DONE


async def test_a_receipt_of_a_dead_letter_finds_its_new_outcome(node: Node) -> None:
    """Sending under the id of a letter that is tried again joins it, instead of getting what was given up."""
    first = await node.append(id="order")
    await die(node, first)
    again, joined = await node.write(Resend("order"), Append(message(id="order")))
    assert want(Existing, joined) == Existing(first.mail.seq, None)
    await node.finish(want(Appended, again))
    assert want(Existing, await node.settle(Append(message(id="order")))).outcome == DONE


async def test_an_end_and_a_new_try_in_one_transaction(node: Node) -> None:
    """A letter can be tried again at the very moment of its death."""
    first = await node.append(id="order")
    settled = await node.write(
        ended(first, DEAD), Resend("order"), Append(message(id="order")), Resend("order"), ended(first, DEAD)
    )
    want(Committed, settled[0])
    assert want(Appended, settled[1]).mail.number == 2
    assert want(Existing, settled[2]).outcome is None
    want(NotADeadLetter, settled[3])
    assert await node.outcome(first) is None


async def test_finished_steps_are_kept_and_the_one_that_failed_begins_anew(node: Node) -> None:
    """A new try pays for nothing twice, and what the handler had dealt with comes out as it was (P6)."""
    first = await node.append()
    statuses: list[RecordStatus] = ["completed", "failed", "failed", "cancelled", "cancelled"]
    records = [step(f"fetch#{number}", status, number) for number, status in enumerate(statuses, 1)]
    await node.commit(segment(first, records=records))
    await die(node, first, order=failed(first, "fetch#3", "fetch#5"))
    again = await resend(node, first)
    turn, kept = await node.store.past(first.mail.seq)
    assert {record.key: (record.status, record.position) for record in kept} == {
        "fetch#1": ("completed", 1),
        "fetch#2": ("failed", 2),
        "fetch#3": ("cancelled", 0),
        "fetch#4": ("cancelled", 4),
        "fetch#5": ("cancelled", 0),
    }
    assert again.mail.past
    assert turn is not None
    assert (turn.attempts, turn.blame, turn.suspect, turn.executing, turn.retry_at) == (0, 0, False, None, None)


async def test_only_the_last_failure_counts(node: Node) -> None:
    """A step that failed once and was done in a later try is not done a third time (P6)."""
    first = await node.append()
    await node.commit(segment(first, records=[step("fetch#1", "failed", 1)], order=failed(first, "fetch#1")))
    await node.commit(segment(first, records=[step("fetch#1", "completed", 1), step("save#1", "failed", 2)]))
    await die(node, first, order=failed(first, "save#1", attempt=2))
    again = await resend(node, first)
    _, kept = await node.store.past(first.mail.seq)
    assert {record.key: record.status for record in kept} == {"fetch#1": "completed", "save#1": "cancelled"}
    # given up for another reason, of which no failure was noted: what escaped before is complete by now
    await node.commit(segment(again, records=[step("save#1", "completed", 2)]))
    await die(node, again)
    await resend(node, first)
    _, kept = await node.store.past(first.mail.seq)
    assert {record.key: record.status for record in kept} == {"fetch#1": "completed", "save#1": "completed"}


async def test_mail_says_that_it_has_a_past(node: Node) -> None:
    """A letter that is tried again behind other mail goes on from its journal, not from nothing."""
    first, second = await node.append(), await node.append()
    await die(node, first, step("fetch#1", "completed", 1))
    await resend(node, first)
    assert [mail.past for mail in (await node.look(first.place.actor)).mail] == [False, True]
    assert [mail.past for mail in await node.store.mail(first.place.actor, 2, 10)] == [True]
    assert await node.store.past(second.mail.seq) == (None, [])


async def test_a_latest_start_is_over(node: Node) -> None:
    """Whoever has a letter tried again wants it done, however late it is."""
    first = await node.append(expires=SENT + 1)
    await die(node, first)
    assert (await resend(node, first)).mail.expires is None
    assert [mail.expires for mail in (await node.look(first.place.actor)).mail] == [None]


async def test_an_actor_that_nobody_has_takes_up_a_letter(node: Node) -> None:
    """An actor that had left memory comes back for a letter that is tried again."""
    first = await node.append()
    await die(node, first)
    assert await node.release(first)
    again = await resend(node, first)
    assert want(int, again.place.epoch) > want(int, first.place.epoch)
    await node.finish(again)


async def test_a_letter_of_a_kind_that_this_node_does_not_run(shared: Place) -> None:
    """A letter can be sent again by who cannot run it: a node that can finds it."""
    async with on(shared) as here, on(shared) as there:
        first = await here.append()
        await die(here, first)
        assert await here.release(first)
        there.foreign.add("Till")
        assert (await resend(there, first)).place.epoch is None
        (place,) = want(Claimed, await here.settle(Claim(("Till",)))).actors
        await here.finish(Appended(place, replace(first.mail, number=2)))


async def test_a_letter_reaches_an_actor_that_another_node_has(shared: Place) -> None:
    """Beside a running system a letter can be sent again, and whoever has the actor notices."""
    async with on(shared) as here, on(shared) as there:
        first = await here.append()
        await die(here, first)
        assert (await resend(there, first)).place.epoch is None
        assert [grown.actor for grown in await here.store.grown([(first.place.actor, 1)], 10)] == [first.place.actor]
        await here.finish(Appended(first.place, replace(first.mail, number=2)))
        assert await there.outcome(first) == DONE


@pytest.mark.parametrize("fate", ["fail", "terminate"])
async def test_an_actor_that_does_not_run_keeps_the_letter(node: Node, fate: str) -> None:
    """A letter to an actor that has failed waits for its restart with the rest of the mail."""
    first = await node.append()
    await die(node, first)
    assert await node.release(first)
    await order(node, **{fate: [first.place.actor]})
    again = await resend(node, first)
    assert (again.mail.number, again.place.epoch) == (2, None)
    assert want(Claimed, await node.settle(Claim(("Till",)))).actors == ()
    await order(node, restart=[first.place.actor])
    place = want(Placed, await node.settle(Begin(first.place.actor, None)))
    await node.finish(Appended(place, again.mail))


async def test_a_letter_to_an_actor_that_has_stopped(node: Node) -> None:
    """Nobody is promised that an actor which has ended will handle anything; once it runs again, it does."""
    first, second = await node.append(), await node.append()
    await node.finish(first, stop=True)
    refused = want(ActorStopped, await node.settle(Resend(second.mail.id)))
    assert f"perdure dead purge {second.mail.id}" in str(refused)
    assert want(Outcome, await node.outcome(second)).status == "dead"
    await order(node, restart=[first.place.actor])
    place = want(Placed, await node.settle(Begin(first.place.actor, None)))
    again = await resend(node, second)
    assert not (await node.look(first.place.actor)).mail[0].past
    await node.finish(Appended(place, again.mail))


async def test_what_is_no_dead_letter_is_not_sent_again(node: Node) -> None:
    """No message is handled twice by a slip of the hand, and other letters do not suffer from it (P4)."""
    dead, done, delayed = await node.append("a"), await node.append("b"), await node.append("c", due=LATER)
    await die(node, dead)
    await node.finish(done)
    *refused, taken = await node.write(
        Resend("nothing"), Resend(done.mail.id), Resend(delayed.mail.id), Resend(dead.mail.id)
    )
    assert [type(one) for one in refused] == [NoSuchMessage, NotADeadLetter, NotADeadLetter]
    assert ["nothing" in str(refused[0]), "succeeded" in str(refused[1]), "not ended" in str(refused[2])] == [True] * 3
    want(Appended, taken)
    want(NotADeadLetter, await node.settle(Resend(dead.mail.id)))
    assert await node.outcome(done) == DONE


async def test_who_was_told_of_the_death_stays_told(node: Node) -> None:
    """An answer that a turn has built on does not change afterwards (P4)."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    await die(node, inner)
    again = await resend(node, inner)
    assert (await node.finish(again)).completions == ()
    (told,) = await node.store.completed(outer.mail.seq)
    assert told.outcome.status == "dead"


async def test_who_asks_again_hears_the_new_outcome(node: Node) -> None:
    """A caller that joins a letter while it is tried again gets what comes of it."""
    inner = await node.append("b", id="order")
    await die(node, inner)
    again = await resend(node, inner)
    outer = await node.append("a")
    assert (await node.commit(asks(outer, message("b", id="order")))).completions == ()
    (completion,) = (await node.finish(again)).completions
    assert (completion.message, completion.outcome) == (outer.mail.seq, DONE)


# removing -------------------------------------------------------------------------------------------------------------


async def test_a_forgotten_letter_is_gone_with_all_of_its_own(node: Node) -> None:
    """What was looked at and is of no use takes no room any more; what it would have done is not done."""
    first, second = await node.append(id="order"), await node.append()
    await die(node, first, step("fetch#1", "completed", 1), order=failed(first))
    assert await node.settle(Forget(("order",))) == 1
    assert await node.store.find("order") is None
    assert await node.store.past(first.mail.seq) == (None, [])
    want(NoSuchMessage, await node.settle(Resend("order")))
    await node.finish(second)


async def test_only_dead_letters_are_forgotten(node: Node) -> None:
    """Mail that waits, and history that people look at, cannot be thrown away by a slip of the hand."""
    dead, done, waiting = [await node.append(key) for key in "abc"]
    await die(node, dead)
    await node.finish(done)
    names = (dead.mail.id, done.mail.id, waiting.mail.id, "nothing")
    assert await node.settle(Forget(names)) == 1
    assert await node.settle(Forget(names)) == 0
    assert [await node.store.find(name) is not None for name in names] == [False, True, True, False]


async def test_the_id_of_a_forgotten_letter_is_free(node: Node) -> None:
    """Work whose letter was removed can be sent anew under its own name."""
    first = await node.append(id="order")
    await die(node, first)
    removed, fresh = await node.write(Forget(("order",)), Append(message(id="order", args='{"n":2}')))
    assert removed == 1
    assert want(Appended, fresh).mail.seq > first.mail.seq


async def test_no_number_is_given_twice_after_a_letter_is_forgotten(shared: Place) -> None:
    """A new message is never taken for one that was removed."""
    async with on(shared) as node:
        first = await node.append()
        await die(node, first)
        assert await node.settle(Forget((first.mail.id,))) == 1
    async with on(shared) as node:
        assert (await node.append()).mail.seq > first.mail.seq


async def test_many_letters_at_once(node: Node) -> None:
    """After an outage, all that it killed is tried again in one go, in the order it was sent in."""
    mails = wants(Appended, await node.write(*(Append(message()) for _ in range(50))))
    for of in mails:
        await die(node, of)
    again = wants(Appended, await node.write(*(Resend(of.mail.id) for of in mails)))
    assert [one.mail.number for one in again] == list(range(51, 101))
    assert [mail.id for mail in (await node.look(mails[0].place.actor)).mail] == [of.mail.id for of in mails]
    assert str(again[0].place.to) == str(till("a"))


async def test_retention_removes_what_is_known_of_failures(node: Node) -> None:
    """The failures of a message that came right go with it, so that history stays bounded."""
    first = await node.append()
    await node.commit(segment(first, order=failed(first)))
    await node.finish(first)
    assert want(Purged, await node.settle(Purge(history=LATER, ids=LATER, keep=0))).removed == 1
    assert want(Purged, await node.settle(Purge(history=LATER, ids=LATER, keep=0))).removed == 0
