"""What every store does with messages that somebody waits for: asks, receipts, and those who give up."""

from __future__ import annotations

import json

import pytest

from perdure.errors import PerdureError
from perdure.storage.failure import encode_failure, failure_fields
from perdure.storage.records import Completion, Outcome, OutcomeStatus, Record
from perdure.storage.writes import Append, Appended, Committed, Due, Fired, Order, Segment, Send, Watch
from perdure.testing.conformance.nodes import DONE, LATER, SENT, Node, asks, ended, message, segment, want

GIVEN_UP = encode_failure(PerdureError("no reply in time"))
FAILURES: tuple[OutcomeStatus, ...] = ("rejected", "cancelled", "expired", "dead")


def failed(status: OutcomeStatus) -> Outcome:
    """An outcome that is no success."""
    return Outcome(status, error=encode_failure(PerdureError("no")))


def watches(of: Appended, id_: str, key: str = "receipt#1") -> Segment:
    """A segment that waits for another message's outcome."""
    return segment(of, records=[Record(key, "receipt", "receipt", SENT)], watches=[Watch(key, id_)])


def gives_up(of: Appended, key: str = "ask#1") -> Segment:
    """A segment in which the caller gives an ask up."""
    return segment(of, settles=[(key, GIVEN_UP)])


def text(error: str | None) -> str:
    """What an error says."""
    return str(failure_fields(error)["text"])


async def asked(node: Node, caller: str = "a", callee: str = "b") -> tuple[Appended, Appended]:
    """A caller whose turn waits for a callee, and what the callee got."""
    outer = await node.append(caller)
    (inner,) = (await node.commit(asks(outer, message(callee)))).appended
    return outer, inner


# replies --------------------------------------------------------------------------------------------------------------


async def test_ask_names_what_it_waits_for(node: Node) -> None:
    """An ask and its message are on disk together, and know each other."""
    outer, inner = await asked(node)
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.target) == ("started", inner.mail.seq)


async def test_reply_completes_the_ask(node: Node) -> None:
    """A reply is on disk for its caller as soon as the callee is done, in one commit."""
    outer, inner = await asked(node)
    done = await node.finish(inner, Outcome("succeeded", '"yes"'))
    expected = Completion(outer.place.actor, outer.mail.seq, "ask#1", Outcome("succeeded", '"yes"'))
    assert list(done.completions) == [expected]
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.result, record.position) == ("completed", '"yes"', None)
    assert await node.store.completed(outer.mail.seq) == [expected]


@pytest.mark.parametrize("status", FAILURES)
async def test_failure_reaches_the_caller(node: Node, status: OutcomeStatus) -> None:
    """The caller hears how its message ended, also when it hears of it only after a crash."""
    outer, inner = await asked(node)
    done = await node.finish(inner, failed(status))
    assert [completion.outcome for completion in done.completions] == [failed(status)]
    (stored,) = await node.store.completed(outer.mail.seq)
    assert (stored.outcome.status, text(stored.outcome.error)) == (status, "no")


async def test_reply_in_the_batch_of_the_ask(node: Node) -> None:
    """A record that waits and the outcome it waits for may be written together."""
    outer, inner = await node.append("a"), await node.append("b", id="order")
    _, done = await node.write(asks(outer, message("b", id="order")), ended(inner))
    assert [completion.outcome for completion in want(Committed, done).completions] == [DONE]
    assert (await node.records(outer.place.actor))["ask#1"].status == "completed"


async def test_reply_that_was_handed_over_is_not_told_again(node: Node) -> None:
    """A reply keeps its place among a turn's results."""
    outer, inner = await asked(node)
    await node.finish(inner)
    await node.commit(segment(outer, numbered=[("ask#1", 4)]))
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.result, record.position) == ("completed", "1", 4)
    assert await node.store.completed(outer.mail.seq) == []


async def test_several_wait_for_one(node: Node) -> None:
    """Whoever waits for a message hears of its end, once."""
    callers = [await node.append(key) for key in "cde"]
    inner = await node.append("b", id="order")
    for caller in callers:
        await node.commit(asks(caller, message("b", id="order")))
    await node.commit(watches(callers[0], "order"))
    done = await node.finish(inner)
    told = sorted((completion.message, completion.key) for completion in done.completions)
    assert told == sorted([(caller.mail.seq, "ask#1") for caller in callers] + [(callers[0].mail.seq, "receipt#1")])


async def test_ask_of_a_message_that_ended(node: Node) -> None:
    """An ask under a known id gets the first outcome."""
    inner = await node.append("b", id="order")
    await node.finish(inner)
    outer = await node.append("a")
    done = await node.commit(asks(outer, message("b", id="order")))
    assert [completion.outcome for completion in done.completions] == [DONE]
    assert done.appended == ()
    assert (await node.records(outer.place.actor))["ask#1"].status == "completed"


async def test_ask_under_an_id_of_another(node: Node) -> None:
    """An ask under an id that means something else fails, and its turn goes on."""
    await node.append("b", id="order")
    outer = await node.append("a")
    done = await node.commit(asks(outer, message("b", id="order", args="{}")))
    (completion,) = done.completions
    assert completion.outcome.status == "rejected"
    assert "IdReusedError" in want(str, completion.outcome.error)
    assert (await node.records(outer.place.actor))["ask#1"].status == "failed"


async def test_ask_to_a_stopped_actor(node: Node) -> None:
    """Who asks an actor that has ended hears of it, and does not wait."""
    await node.finish(await node.append("b"), stop=True)
    outer = await node.append("a")
    (completion,) = (await node.commit(asks(outer, message("b", id="order")))).completions
    assert "ActorStopped" in want(str, completion.outcome.error)
    assert await node.store.find("order") is None
    assert [one.key for one in await node.store.completed(outer.mail.seq)] == ["ask#1"]


async def test_ask_to_an_actor_never_spawned(node: Node) -> None:
    """Who asks an actor that was never begun hears of it, and does not wait."""
    outer = await node.append("a")
    (completion,) = (await node.commit(asks(outer, message("b", must_exist=True)))).completions
    assert "NotSpawnedError" in want(str, completion.outcome.error)
    assert (await node.records(outer.place.actor))["ask#1"].status == "failed"


async def test_stop_tells_the_callers(node: Node) -> None:
    """Who waits for an actor that ends hears of it in the same commit, once."""
    first = await node.append("b")
    outer, inner = await asked(node)
    done = await node.finish(first, stop=True)
    (completion,) = done.completions
    assert (completion.message, completion.outcome.status) == (outer.mail.seq, "dead")
    assert [seq for seq, _ in done.ended] == [inner.mail.seq]
    (stored,) = await node.store.completed(outer.mail.seq)
    assert stored.outcome.status == "dead"


async def test_stop_in_the_batch_of_the_ask(node: Node) -> None:
    """Who asks in the very commit in which the callee ends hears of it, once."""
    first, outer = await node.append("b"), await node.append("a")
    _, done = await node.write(asks(outer, message("b")), ended(first, stop=True))
    told = [(completion.key, completion.outcome.status) for completion in want(Committed, done).completions]
    assert told == [("ask#1", "dead")]


async def test_delayed_ask_to_an_actor_that_stopped(node: Node) -> None:
    """A delayed message that finds its receiver ended is a dead letter, and its caller hears of it."""
    first, outer = await node.append("b"), await node.append("a")
    await node.commit(asks(outer, message("b", id="later", due=SENT + 10)))
    await node.finish(first, stop=True)
    fired = want(Fired, await node.settle(Due(SENT + 11)))
    assert fired.appended == ()
    assert [(one.message, one.outcome.status) for one in fired.completions] == [(outer.mail.seq, "dead")]
    assert want(Outcome, (await node.find("later")).outcome).status == "dead"


# actors that handle nothing until they are restarted ------------------------------------------------------------------


held = pytest.mark.parametrize("how", ["fail", "terminate"])


def holding(how: str, actor: int) -> Order:
    """An order by which an actor does not run, and its mail is kept."""
    return Order(SENT, fail=[actor] if how == "fail" else (), terminate=[actor] if how == "terminate" else ())


@held
async def test_who_waits_for_an_actor_that_is_held(node: Node, how: str) -> None:
    """Whoever waits for an actor that does not run any more hears of it in the order's commit."""
    outer, inner = await asked(node)
    done = want(Committed, await node.settle(holding(how, inner.place.actor)))
    assert [(one.message, one.outcome.status) for one in done.completions] == [(outer.mail.seq, "rejected")]
    assert await node.outcome(inner) is None


@held
async def test_ask_again_of_what_a_held_actor_keeps(node: Node, how: str) -> None:
    """Whoever asks again, as after a failure, gets no reply either, and does not wait for one."""
    outer, inner = await asked(node)
    await node.settle(holding(how, inner.place.actor))
    await node.commit(segment(outer, renewed=["ask#1"]))
    (completion,) = (await node.commit(asks(outer, message("b", id=inner.mail.id)))).completions
    assert (completion.message, completion.key, completion.outcome.status) == (outer.mail.seq, "ask#1", "rejected")
    assert "perdure restart Till/b" in text(completion.outcome.error)
    assert (await node.records(outer.place.actor))["ask#1"].status == "failed"


@held
async def test_watch_of_what_a_held_actor_keeps(node: Node, how: str) -> None:
    """A receipt's result of a message that nobody handles is an error, as outside of turns."""
    inner, outer = await node.append("b"), await node.append("a")
    await node.settle(holding(how, inner.place.actor))
    (completion,) = (await node.commit(watches(outer, inner.mail.id))).completions
    assert (completion.key, completion.outcome.status) == ("receipt#1", "rejected")


@held
async def test_delayed_ask_to_an_actor_that_is_held(node: Node, how: str) -> None:
    """A delayed message that falls due where nobody handles it is kept, and its caller does not wait."""
    first, outer = await node.append("b"), await node.append("a")
    await node.commit(asks(outer, message("b", id="later", due=SENT + 10)))
    await node.settle(holding(how, first.place.actor))
    fired = want(Fired, await node.settle(Due(SENT + 11)))
    assert [(one.message, one.outcome.status) for one in fired.completions] == [(outer.mail.seq, "rejected")]
    assert (await node.find("later")).outcome is None


# receipts -------------------------------------------------------------------------------------------------------------


async def test_watch_of_a_running_message(node: Node) -> None:
    """A receipt's result comes with the commit that ends its message."""
    inner, outer = await node.append("b"), await node.append("a")
    assert (await node.commit(watches(outer, inner.mail.id))).completions == ()
    done = await node.finish(inner)
    assert [(one.key, one.outcome) for one in done.completions] == [("receipt#1", DONE)]
    assert [(one.key, one.outcome) for one in await node.store.completed(outer.mail.seq)] == [("receipt#1", DONE)]


@pytest.mark.parametrize("status", ["succeeded", *FAILURES])
async def test_watch_of_an_ended_message(node: Node, status: OutcomeStatus) -> None:
    """A receipt whose message has ended gives its outcome at once."""
    outcome = DONE if status == "succeeded" else failed(status)
    inner, outer = await node.append("b"), await node.append("a")
    await node.finish(inner, outcome)
    (completion,) = (await node.commit(watches(outer, inner.mail.id))).completions
    assert completion.outcome == outcome
    assert (await node.records(outer.place.actor))["receipt#1"].status != "started"


async def test_watch_beside_the_end(node: Node) -> None:
    """A wait that begins in the very commit that ends its message misses nothing, before it or after."""
    inner, early, late = await node.append("b"), await node.append("a"), await node.append("c")
    first, second, third = await node.write(watches(early, inner.mail.id), ended(inner), watches(late, inner.mail.id))
    told = [[one.message for one in want(Committed, done).completions] for done in (first, second, third)]
    assert told == [[], [early.mail.seq], [late.mail.seq]]


async def test_watch_of_what_was_sent_just_now(node: Node) -> None:
    """A turn may wait at once for the message that it sends."""
    outer = await node.append("a")
    envelope = message("b")
    part = watches(outer, envelope.id)
    part.sends = [Send(envelope)]
    done = await node.commit(part)
    assert done.completions == ()
    assert [one.key for one in (await node.finish(done.appended[0])).completions] == ["receipt#1"]


async def test_watch_of_what_was_appended_just_now(node: Node) -> None:
    """A receipt may be waited for in the commit that accepts its message."""
    outer = await node.append("a")
    envelope = message("b")
    appended, waiting = await node.write(Append(envelope), watches(outer, envelope.id))
    assert want(Committed, waiting).completions == ()
    assert [one.key for one in (await node.finish(want(Appended, appended))).completions] == ["receipt#1"]


async def test_watch_of_an_unknown_message(node: Node) -> None:
    """Who waits for a message that is not kept hears of it, and does not wait for ever."""
    outer = await node.append("a")
    (completion,) = (await node.commit(watches(outer, "nothing"))).completions
    assert completion.outcome.status == "rejected"
    assert (await node.records(outer.place.actor))["receipt#1"].status == "failed"


# giving up ------------------------------------------------------------------------------------------------------------


async def test_deadline_before_the_reply(node: Node) -> None:
    """An ask that was given up stays given up, though a reply comes later."""
    outer, inner = await asked(node)
    (completion,) = (await node.commit(gives_up(outer))).completions
    assert (completion.outcome.status, text(completion.outcome.error)) == ("rejected", "no reply in time")
    assert (await node.finish(inner)).completions == ()
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.result, text(record.error)) == ("failed", None, "no reply in time")


@pytest.mark.parametrize("status", ["succeeded", *FAILURES])
async def test_reply_before_the_deadline(node: Node, status: OutcomeStatus) -> None:
    """A reply that is on disk is the ask's outcome, though the caller gives up in ignorance of it."""
    outcome = DONE if status == "succeeded" else failed(status)
    outer, inner = await asked(node)
    await node.finish(inner, outcome)
    (completion,) = (await node.commit(gives_up(outer))).completions
    assert (completion.outcome.status, completion.outcome.result) == (outcome.status, outcome.result)
    if outcome.error is not None:
        assert text(completion.outcome.error) == "no"
    (stored,) = await node.store.completed(outer.mail.seq)
    assert (stored.outcome.status, stored.outcome.result) == (outcome.status, outcome.result)


@pytest.mark.parametrize("between", ["nothing", "stop"])
async def test_deadline_before_the_reply_in_one_batch(node: Node, between: str) -> None:
    """What the caller is told first is what is on disk: a replay after a crash decides no other way."""
    outer, inner = await asked(node)
    others = [ended(await node.append("c"), stop=True)] if between == "stop" else []
    first, *_, second = await node.write(gives_up(outer), *others, ended(inner))
    (completion,) = want(Committed, first).completions
    assert completion.outcome.status == "rejected"
    assert want(Committed, second).completions == ()
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.result) == ("failed", None)
    assert await node.outcome(inner) == DONE


async def test_reply_before_the_deadline_in_one_batch(node: Node) -> None:
    """A reply committed just before the caller gives up is the ask's outcome."""
    outer, inner = await asked(node)
    first, second = await node.write(ended(inner), gives_up(outer))
    for done in (first, second):
        assert [completion.outcome for completion in want(Committed, done).completions] == [DONE]
    assert (await node.records(outer.place.actor))["ask#1"].status == "completed"


async def test_deadline_in_the_batch_of_the_ask(node: Node) -> None:
    """An ask may be given up before it is even on disk; its message goes on."""
    outer = await node.append("a")
    sent, given_up = await node.write(asks(outer, message("b"), due=LATER), gives_up(outer))
    assert [completion.key for completion in want(Committed, given_up).completions] == ["ask#1"]
    (inner,) = want(Committed, sent).appended
    assert (await node.finish(inner)).completions == ()
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, json.loads(want(str, record.error))["text"]) == ("failed", "no reply in time")


async def test_caller_cancelled_before_the_reply(node: Node) -> None:
    """An ask that its caller cancelled stays cancelled when the reply comes."""
    outer, inner = await asked(node)
    cancelled = Record("ask#1", "ask", "Till.add", SENT, status="cancelled", position=1, target=inner.mail.seq)
    await node.commit(segment(outer, records=[cancelled]))
    assert (await node.finish(inner)).completions == ()
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.position, record.result) == ("cancelled", 1, None)


async def test_caller_cancelled_and_replied_to_in_one_batch(node: Node) -> None:
    """A race that was decided stays decided."""
    outer, inner = await asked(node)
    cancelled = Record("ask#1", "ask", "Till.add", SENT, status="cancelled", position=1, target=inner.mail.seq)
    await node.write(segment(outer, records=[cancelled]), ended(inner))
    record = (await node.records(outer.place.actor))["ask#1"]
    assert (record.status, record.position, record.result) == ("cancelled", 1, None)


async def test_ask_of_an_ended_turn(node: Node) -> None:
    """A caller that ended without its reply changes nothing for the callee, nor for its next turn."""
    outer, inner = await asked(node)
    following = await node.append("a")
    await node.finish(outer, failed("dead"))
    await node.commit(segment(following, records=[Record("sleep#1", "sleep", "sleep", SENT, due=LATER)]))
    assert await node.release(following, waiting=True)
    assert (await node.finish(inner)).woken == ()
    assert await node.outcome(inner) == DONE
    assert (await node.look(outer.place.actor)).status == "waiting"
