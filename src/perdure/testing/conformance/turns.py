"""What every store does with what turns write: the fence, whole segments, the journal, the end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from perdure.errors import ActorExists, ActorStopped, FencedError, IdReusedError, NotSpawnedError, PerdureError
from perdure.storage.records import Outcome, OutcomeStatus, Record, Snapshot, TurnRecord
from perdure.storage.writes import Append, Appended, Claim, Claimed, Committed, End, Release, Segment, Send, Watch
from perdure.testing.conformance.nodes import DONE, SENT, Node, ended, message, segment, spawn, till, want

STEP = Record("fetch#1", "step", "fetch", SENT, b"digest")

# the fence ------------------------------------------------------------------------------------------------------------

EVERY_KIND: dict[str, dict[str, Any]] = {
    "nothing": {},
    "records": {"records": [STEP]},
    "numbered": {"numbered": [("kept#1", 5)]},
    "renewed": {"renewed": ["kept#1"]},
    "sends": {"sends": [Send(message("b", id="sent"))]},
    "asks": {"records": [Record("ask#1", "ask", "x", SENT)], "sends": [Send(message("b", id="sent"), "ask#1")]},
    "watches": {"records": [Record("r#1", "receipt", "r", SENT)], "watches": [Watch("r#1", "open")]},
    "spawns": {"spawns": [spawn("b")]},
    "settles": {"settles": [("kept#1", "{}")]},
    "turn": {"turn": TurnRecord(attempts=3)},
    "status": {"status": "parked", "reason": "why"},
    "end": {"end": End(1, DONE, SENT, SENT, "{}", Snapshot(1, "json", '{"coins":1}'))},
    "stop": {"end": End(1, DONE, SENT, SENT, stop=True)},
}


async def claimed_anew(node: Node) -> tuple[Appended, Appended]:
    """A message as the activation before and the one now know it: parked, given up, and claimed again."""
    before = await node.append(id="open")
    kept = Record("kept#1", "ask", "kept", SENT)
    await node.commit(segment(before, records=[kept], status="parked"))
    assert await node.release(before)
    place = await node.claim("a")
    assert want(int, place.epoch) > want(int, before.place.epoch)
    return before, Appended(place, before.mail)


@pytest.mark.parametrize("parts", EVERY_KIND.values(), ids=EVERY_KIND)
async def test_stale_epoch_writes_nothing(node: Node, parts: dict[str, Any]) -> None:
    """An activation that lost its actor changes nothing, whatever it writes; what is in its batch is written."""
    stale, _ = await claimed_anew(node)
    loaded = to_builtins(await node.look(stale.place.actor))
    good, refused, more = await node.write(
        Append(message("c", id="good")), segment(stale, **parts), Append(message("c", id="more"))
    )
    want(FencedError, refused)
    assert [want(Appended, one).mail.number for one in (good, more)] == [1, 2]
    assert to_builtins(await node.look(stale.place.actor)) == loaded
    assert await node.store.find("sent") is None
    assert want(Claimed, await node.settle(Claim(only=till("b")))).actors == ()


async def test_stale_release_changes_nothing(node: Node) -> None:
    """An activation that lost its actor cannot give it away."""
    stale, now = await claimed_anew(node)
    await node.settle(Release(stale.place.actor, want(int, stale.place.epoch)))
    await node.commit(segment(now, records=[STEP]))


async def test_fence_within_one_batch(node: Node) -> None:
    """A release holds from the next write of its batch on."""
    first = await node.append()
    await node.finish(first)
    released, refused = await node.write(
        Release(first.place.actor, want(int, first.place.epoch)), segment(first, records=[STEP])
    )
    assert released is True
    want(FencedError, refused)


async def test_unknown_actor_is_fenced(node: Node) -> None:
    """An activation of an actor that is not there writes nothing."""
    want(FencedError, await node.settle(Segment(999, 1, 1, records=[STEP])))


# whole segments -------------------------------------------------------------------------------------------------------


async def test_segment_is_written_whole(node: Node) -> None:
    """What a turn did up to a durable point is all there together."""
    first = await node.append()
    turn = TurnRecord(2, 1, suspect=True, executing=node.id, retry_at=SENT, error='{"text":"x"}')
    done = await node.commit(
        segment(
            first,
            records=[STEP],
            spawns=[spawn("b")],
            sends=[Send(message("b", must_exist=True)), Send(message("c"))],
            turn=turn,
            status="parked",
            reason="the code changed",
        )
    )
    assert [(sent.place.to, sent.mail.number) for sent in done.appended] == [(till("b"), 1), (till("c"), 1)]
    loaded = await node.look(first.place.actor)
    assert [to_builtins(record) for record in loaded.records] == [to_builtins(STEP)]
    assert to_builtins(want(TurnRecord, loaded.turn)) == to_builtins(turn)
    assert (loaded.status, loaded.cursor) == ("parked", 0)
    assert want(Snapshot, (await node.look(done.appended[0].place.actor)).snapshot).state == '{"coins":5}'


REFUSED: dict[str, tuple[dict[str, Any], type[PerdureError]]] = {
    "spawn of another": ({"spawns": [spawn("b"), spawn("there")]}, ActorExists),
    "two spawns that differ": ({"spawns": [spawn("b"), spawn("b", '{"coins":6}')]}, ActorExists),
    "id of another": ({"sends": [Send(message("b")), Send(message("b", id="taken"))]}, IdReusedError),
    "two under one id": ({"sends": [Send(message("b", id="i")), Send(message("c", id="i"))]}, IdReusedError),
    "never spawned": ({"sends": [Send(message("b")), Send(message("no", must_exist=True))]}, NotSpawnedError),
}


@pytest.mark.parametrize(("parts", "error"), REFUSED.values(), ids=REFUSED)
async def test_refused_segment_leaves_nothing(node: Node, parts: dict[str, Any], error: type[PerdureError]) -> None:
    """When one part of a segment cannot be, none of it is: a turn is never half on disk."""
    first = await node.append()
    await node.append("there", id="taken")
    await node.settle(spawn("other"))
    whole = segment(
        first, records=[STEP], turn=TurnRecord(1), status="parked", end=End(1, DONE, SENT, SENT, stop=True), **parts
    )
    good, refused, more = await node.write(Append(message("c")), whole, Append(message("c")))
    want(error, refused)
    assert [want(Appended, one).mail.number for one in (good, more)] == [1, 2]
    loaded = await node.look(first.place.actor)
    assert (loaded.status, loaded.cursor, loaded.records, loaded.turn) == ("ready", 0, [], None)
    assert await node.outcome(first) is None
    assert want(Claimed, await node.settle(Claim(only=till("b")))).actors == ()


async def test_refused_turn_can_go_on(node: Node) -> None:
    """A turn that was refused something may end another way."""
    first = await node.append()
    await node.append("b")
    want(ActorExists, await node.settle(segment(first, spawns=[spawn("b")])))
    await node.finish(first, Outcome("rejected", error="{}"))


async def test_pickled_sends_of_one_turn_are_not_compared(node: Node) -> None:
    """Arguments without one encoding do not turn a repeated message of one turn into another."""
    first = await node.append()
    twice = [Send(message("b", id="i", codec="cloudpickle@3.11", args=args)) for args in ("gASV", "gASX")]
    done = await node.commit(segment(first, sends=twice))
    assert len(done.appended) == 1


async def test_sends_keep_their_order(node: Node) -> None:
    """What a turn sends is handled in the order it was sent."""
    first = await node.append()
    sends = [Send(message("b")) for _ in range(300)]
    await node.commit(segment(first, sends=sends[:150]))
    done = await node.commit(segment(first, sends=sends[150:]))
    mail = await node.store.mail(done.appended[0].place.actor, 0, 1_000)
    assert [one.id for one in mail] == [send.envelope.id for send in sends]


async def test_known_send_is_not_sent_again(node: Node) -> None:
    """A turn that sends under a known id does not do the work twice."""
    first = await node.append()
    other = await node.append("b", id="order")
    done = await node.commit(segment(first, sends=[Send(message("b", id="order"))]))
    assert done.appended == ()
    assert (await node.look(other.place.actor)).tail == 1


async def test_tell_to_a_stopped_actor(node: Node) -> None:
    """What a turn sends to an actor that has ended is kept as a dead letter, with the reason."""
    other = await node.append("b")
    await node.finish(other, stop=True)
    first = await node.append()
    done = await node.commit(segment(first, records=[STEP], sends=[Send(message("b", id="late"))]))
    assert done.appended == ()
    found = await node.find("late")
    outcome = want(Outcome, found.outcome)
    assert outcome.status == "dead"
    assert "ActorStopped" in want(str, outcome.error)
    assert (found.number, found.cursor, found.status) == (2, 2, "stopped")
    assert "fetch#1" in await node.records(first.place.actor)


# the journal ----------------------------------------------------------------------------------------------------------


async def test_records_come_back_whole(node: Node) -> None:
    """A replay finds exactly what was recorded."""
    first = await node.append()
    records = [
        STEP,
        Record("fetch#2", "step", "fetch", SENT, b"\0\xff", "completed", 3, 2, '"π"', None, None, None, SENT + 1),
        Record("fetch#3", "step", "fetch", SENT, None, "failed", 5, 1, None, '{"text":"no"}', None, SENT + 9, SENT + 2),
        Record("now#1", "value", "now", SENT, status="completed", result="1.5"),
    ]
    await node.commit(segment(first, records=records))
    stored = await node.records(first.place.actor)
    assert {key: to_builtins(record) for key, record in stored.items()} == {r.key: to_builtins(r) for r in records}


async def test_record_is_replaced(node: Node) -> None:
    """A step that has completed is completed, however often it was begun."""
    first = await node.append()
    done = replace(STEP, status="completed", attempt=2, position=1, result="7", finished=SENT + 1)
    await node.write(segment(first, records=[STEP]), segment(first, records=[replace(STEP, attempt=2)]))
    await node.commit(segment(first, records=[done]))
    assert to_builtins((await node.records(first.place.actor))["fetch#1"]) == to_builtins(done)


async def test_record_of_any_shape_becomes_one_of_any_other(node: Node) -> None:
    """Nothing of what a record was is left in what it has become."""
    first = await node.append()
    shapes = [
        Record("", "step", "fetch", SENT),
        Record("", "step", "fetch", SENT, b"\1", attempt=2, error='{"text":"no"}', due=SENT + 9),
        Record("", "step", "fetch", SENT, b"\2", "completed", 3, 2, '"yes"', finished=SENT + 1),
        Record("", "step", "fetch", SENT, b"\3", "completed", 4, 1, '"yes"', None, 1, SENT + 8, SENT + 2),
        Record("", "step", "fetch", SENT, b"\4", "failed", 5, 3, None, '{"text":"no"}', None, None, SENT + 3),
        Record("", "step", "fetch", SENT + 6, b"\5", target=1, due=SENT + 7),
    ]
    pairs = {f"{n}>{m}": (before, after) for n, before in enumerate(shapes) for m, after in enumerate(shapes)}
    await node.commit(segment(first, records=[replace(before, key=key) for key, (before, _) in pairs.items()]))
    await node.commit(segment(first, records=[replace(after, key=key) for key, (_, after) in pairs.items()]))
    stored = await node.records(first.place.actor)
    assert {key: to_builtins(record) for key, record in stored.items()} == {
        key: to_builtins(replace(after, key=key)) for key, (_, after) in pairs.items()
    }


async def test_record_is_renewed(node: Node) -> None:
    """A step that failed an attempt begins anew in the next."""
    first = await node.append()
    await node.commit(segment(first, records=[STEP, replace(STEP, key="fetch#2")]))
    await node.commit(segment(first, renewed=["fetch#1"]))
    records = await node.records(first.place.actor)
    assert (records["fetch#1"].status, records["fetch#1"].position, records["fetch#1"].result) == ("cancelled", 0, None)
    assert to_builtins(records["fetch#2"]) == to_builtins(replace(STEP, key="fetch#2"))


async def test_renewed_and_begun_in_one_batch(node: Node) -> None:
    """A step that begins anew at once is on record: it is not run a third time."""
    first = await node.append()
    await node.commit(segment(first, records=[replace(STEP, status="failed")]))
    await node.write(segment(first, renewed=["fetch#1"]), segment(first, records=[STEP]))
    assert (await node.records(first.place.actor))["fetch#1"].status == "started"


async def test_journals_do_not_mix(node: Node) -> None:
    """The same keys in different turns are different steps."""
    first, second = await node.append("a"), await node.append("b")
    await node.write(
        segment(first, records=[replace(STEP, result="1")]), segment(second, records=[replace(STEP, result="2")])
    )
    assert (await node.records(first.place.actor))["fetch#1"].result == "1"
    assert (await node.records(second.place.actor))["fetch#1"].result == "2"


async def test_next_turn_has_a_journal_of_its_own(node: Node) -> None:
    """A turn never replays what the one before it did."""
    first, second = await node.append(), await node.append()
    await node.commit(segment(first, records=[STEP], turn=TurnRecord(1)))
    await node.finish(first)
    loaded = await node.look(first.place.actor)
    assert (loaded.records, loaded.turn, loaded.mail[0].id) == ([], None, second.mail.id)


# the end --------------------------------------------------------------------------------------------------------------

STATUSES: tuple[OutcomeStatus, ...] = ("succeeded", "rejected", "cancelled", "expired", "dead")


@pytest.mark.parametrize("status", STATUSES)
async def test_end(node: Node, status: OutcomeStatus) -> None:
    """A message ends in one outcome, whichever; its actor goes on with the next from the state that was kept."""
    first, second = await node.append(), await node.append()
    outcome = Outcome(status, "1" if status == "succeeded" else None, None if status == "succeeded" else '{"text":"x"}')
    end = End(1, outcome, SENT, SENT, '{"coins":4}', Snapshot(3, "other", '{"coins":4}'))
    await node.commit(segment(first, end=end))
    assert await node.outcome(first) == outcome
    loaded = await node.look(first.place.actor)
    assert (loaded.cursor, loaded.tail, [mail.id for mail in loaded.mail]) == (1, 2, [second.mail.id])
    assert to_builtins(want(Snapshot, loaded.snapshot)) == to_builtins(Snapshot(3, "other", '{"coins":4}'))


async def test_end_without_a_change(node: Node) -> None:
    """A turn that changed nothing leaves the state as it was."""
    await node.settle(spawn("a"))
    first = await node.append()
    await node.finish(first)
    assert want(Snapshot, (await node.look(first.place.actor)).snapshot).state == '{"coins":5}'


async def test_ends_in_one_batch(node: Node) -> None:
    """Turns that run ahead of the disk end in their order."""
    mails = [await node.append() for _ in range(5)]
    ends = [
        segment(of, end=End(n, DONE, SENT, SENT, snapshot=Snapshot(1, "json", f'{{"coins":{n}}}')))
        for n, of in enumerate(mails, 1)
    ]
    for settled in await node.write(*ends):
        want(Committed, settled)
    loaded = await node.look(mails[0].place.actor)
    assert (loaded.cursor, want(Snapshot, loaded.snapshot).state) == (5, '{"coins":5}')


async def test_end_out_of_order_is_refused_alone(node: Node) -> None:
    """No message is passed over, and none ends twice; others in the batch are none the worse."""
    first, second = await node.append(), await node.append()
    early, good = await node.write(ended(second), Append(message("b")))
    assert isinstance(early, PerdureError)
    want(Appended, good)
    await node.finish(first)
    twice, good = await node.write(ended(first, Outcome("dead")), Append(message("b")))
    assert isinstance(twice, PerdureError)
    want(Appended, good)
    assert await node.outcome(first) == DONE
    assert (await node.look(first.place.actor)).cursor == 1


# stopping -------------------------------------------------------------------------------------------------------------


async def test_stop_with_mail_left(node: Node) -> None:
    """When an actor ends, what it has not handled is a dead letter with the reason, at once."""
    mails = [await node.append() for _ in range(4)]
    await node.finish(mails[0])
    done = await node.finish(mails[1], stop=True)
    assert [seq for seq, _ in done.ended] == [mails[2].mail.seq, mails[3].mail.seq]
    for of, (_, told) in zip(mails[2:], done.ended, strict=True):
        outcome = want(Outcome, await node.outcome(of))
        assert outcome.status == told.status == "dead"
        assert "ActorStopped" in want(str, outcome.error)
    assert [await node.outcome(of) for of in mails[:2]] == [DONE, DONE]
    loaded = await node.look(mails[0].place.actor)
    assert (loaded.status, loaded.cursor, loaded.tail, loaded.mail) == ("stopped", 4, 4, [])


async def test_stopped_actor_takes_nothing(node: Node) -> None:
    """Who sends to an actor that has ended hears of it."""
    first = await node.append()
    _, refused = await node.write(ended(first, stop=True), Append(message()))
    want(ActorStopped, refused)
    want(ActorStopped, await node.settle(Append(message(due=SENT))))


async def test_stop_beside_mail_of_the_same_batch(node: Node) -> None:
    """Mail accepted in the very commit that ends its actor has an outcome too."""
    first = await node.append()
    late, _ = await node.write(Append(message()), ended(first, stop=True))
    assert want(Outcome, await node.outcome(want(Appended, late))).status == "dead"


async def test_stop_after_a_message_to_itself(node: Node) -> None:
    """What an actor sent itself in its last turn has an outcome too."""
    first = await node.append()
    last = ended(first, stop=True)
    last.sends = [Send(message(id="self"))]
    await node.commit(last)
    assert want(Outcome, (await node.find("self")).outcome).status == "dead"
