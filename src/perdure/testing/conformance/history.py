"""What every store does with the past, and with questions: retention, and the reads."""

from __future__ import annotations

from msgspec import to_builtins

from perdure.storage.history_writes import Forget, Purge, Purged, Resend
from perdure.storage.records import Completion, Found, OpenAsk, Outcome, Record, TurnRecord
from perdure.storage.writes import Append, Appended, Existing, Send, Watch
from perdure.testing.conformance.nodes import (
    DONE,
    LATER,
    SENT,
    Node,
    asks,
    ended,
    message,
    segment,
    sleeps,
    spawn,
    till,
    want,
    wants,
)

ALL = 10**9
"""More messages than a test writes."""


async def purge(node: Node, *, history: float = LATER, ids: float = LATER, keep: int = ALL, limit: int = 1_000) -> int:
    """Remove what has passed its retention; everything that has ended, unless told otherwise."""
    return want(Purged, await node.settle(Purge(history, ids, keep, limit))).removed


# retention ------------------------------------------------------------------------------------------------------------


async def test_purge_takes_what_has_ended(node: Node) -> None:
    """Old history leaves the disk, with all that belonged to it."""
    mails = [await node.append() for _ in range(3)]
    await node.commit(segment(mails[0], records=[Record("s#1", "step", "s", SENT)], turn=TurnRecord(1)))
    for of in mails[:2]:
        await node.finish(of)
    assert await purge(node) == 2
    assert [await node.store.find(of.mail.id) for of in mails[:2]] == [None, None]
    loaded = await node.look(mails[0].place.actor)
    assert (loaded.cursor, loaded.tail, [mail.id for mail in loaded.mail]) == (2, 3, [mails[2].mail.id])
    assert await purge(node) == 0


async def test_purge_leaves_what_a_turn_sent_until_it_ends(node: Node) -> None:
    """A turn that is tried again may ask again under the same id, however long it takes: handled once all the same."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b", cause=outer.mail.seq)))).appended
    await node.finish(inner)
    assert await purge(node) == 0
    await node.commit(segment(outer, renewed=["ask#1"]))
    again = await node.commit(asks(outer, message("b", id=inner.mail.id, cause=outer.mail.seq)))
    assert (list(again.appended), [one.outcome for one in again.completions]) == ([], [DONE])
    await node.finish(outer)
    assert await purge(node) == 2


async def test_purge_leaves_what_a_dead_letter_sent(node: Node) -> None:
    """A letter that is tried again after a year may ask again under the same id: handled once all the same."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b", cause=outer.mail.seq)))).appended
    await node.finish(inner)
    await node.finish(outer, Outcome("dead", error='{"text":"no"}'))
    assert await purge(node) == 0
    letter = want(Appended, await node.settle(Resend(outer.mail.id)))
    await node.commit(segment(letter, renewed=["ask#1"]))
    again = await node.commit(asks(letter, message("b", id=inner.mail.id, cause=outer.mail.seq)))
    assert (list(again.appended), [one.outcome for one in again.completions]) == ([], [DONE])
    await node.finish(letter)
    assert await purge(node) == 2


async def test_purge_takes_what_a_forgotten_letter_sent(node: Node) -> None:
    """Once a dead letter is removed by hand, nothing is kept for its sake."""
    outer = await node.append("a")
    (inner,) = (await node.commit(asks(outer, message("b", cause=outer.mail.seq)))).appended
    await node.finish(inner)
    await node.finish(outer, Outcome("dead", error='{"text":"no"}'))
    assert await node.settle(Forget((outer.mail.id,))) == 1
    assert await purge(node) == 1
    assert await node.store.find(inner.mail.id) is None


async def test_purge_of_the_newest(node: Node) -> None:
    """A place in a mailbox is given once, although nothing is left of whoever had the last one."""
    mails = [await node.append() for _ in range(3)]
    await node.write(*(ended(of) for of in mails))
    assert await purge(node) == 3
    assert (await node.look(mails[0].place.actor)).tail == 3
    assert (await node.append()).mail.number == 4
    assert await node.release(mails[0]) is False


async def test_purge_looks_at_some(node: Node) -> None:
    """A long history that is not to go yet costs no more than a look at its beginning; what is old behind it goes."""
    mails = [await node.append() for _ in range(8)]
    times = [20, 10, 20, 20, 20, 10, 20, 20]
    await node.write(*(ended(of, finished=SENT + at) for of, at in zip(mails, times, strict=True)))

    async def look(after: int, *, history: float, keep: int = ALL) -> tuple[int, int | None]:
        write = Purge(SENT + history, SENT + history, keep, after=after, looks=2)
        purged = want(Purged, await node.settle(write))
        return purged.removed, purged.after

    seqs = [of.mail.seq for of in mails]
    assert await look(0, history=5) == (0, None)
    assert await look(0, history=15) == (1, seqs[1])
    assert await look(seqs[1], history=15) == (0, None)
    assert await look(seqs[3], history=15) == (1, seqs[5])
    assert await look(seqs[5], history=25) == (2, seqs[7])
    assert await look(seqs[7], history=25) == (0, None)
    assert [await node.store.find(of.mail.id) is None for of in mails] == [at in {1, 5, 6, 7} for at in range(8)]


async def test_purge_goes_by_age(node: Node) -> None:
    """History is kept for as long as was asked."""
    old, young = await node.append(), await node.append()
    await node.write(ended(old, finished=SENT + 10), ended(young, finished=SENT + 20))
    assert await purge(node, history=SENT + 15) == 1
    assert await node.outcome(young) == DONE
    assert await node.store.find(old.mail.id) is None


async def test_purge_goes_by_number(node: Node) -> None:
    """History is kept for no more messages than was asked, the youngest."""
    mails = [await node.append() for _ in range(5)]
    for of in mails:
        await node.finish(of)
    assert await purge(node, history=0, ids=0, keep=2) == 3
    assert [await node.store.find(of.mail.id) is not None for of in mails] == [False, False, False, True, True]


async def test_purge_leaves_what_is_recent(node: Node) -> None:
    """Whoever lost the answer to a commit, or waits elsewhere, finds what came of it, however little is kept."""
    mails = [await node.append(id=f"m{n}" if n > 2 else f"made-{n}", chosen=n > 2) for n in range(6)]
    await node.write(*(ended(of, finished=SENT + 10 * n) for n, of in enumerate(mails)))
    for keep, left in ((ALL, [4, 5]), (0, [4, 5])):
        await node.settle(Purge(LATER, LATER, keep, recent=SENT + 35))
        assert [n for n, of in enumerate(mails) if await node.store.find(of.mail.id)] == left
    looked = want(Purged, await node.settle(Purge(LATER, LATER, 0, after=0, looks=1, recent=SENT + 35)))
    assert looked == Purged(0, None)


async def test_purge_is_limited(node: Node) -> None:
    """Removal goes in portions, so that nobody waits long for it."""
    mails = [await node.append() for _ in range(5)]
    for of in mails:
        await node.finish(of)
    assert [await purge(node, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_purge_keeps_chosen_ids_longer(node: Node) -> None:
    """Sending again under an id finds the first outcome for as long as ids are kept."""
    chosen, made = await node.append(id="order"), await node.append()
    await node.finish(chosen)
    await node.finish(made)
    assert await purge(node, ids=SENT, keep=0) == 1
    assert want(Existing, await node.settle(Append(message(id="order")))).outcome == DONE
    assert await purge(node) == 1
    assert (await node.append(id="order")).mail.number == 3


async def test_purge_keeps_dead_letters(node: Node) -> None:
    """A dead letter stays until somebody has looked at it."""
    first = await node.append()
    await node.finish(first, Outcome("dead", error='{"text":"no"}'))
    assert await purge(node, keep=0) == 0
    assert want(Outcome, await node.outcome(first)).status == "dead"


async def test_purge_leaves_open_turns(node: Node) -> None:
    """What a running turn has done, and what it waits for, is never removed."""
    outer, delayed = await node.append("a"), await node.append("c", due=LATER)
    records = [
        Record("s#1", "step", "s", SENT, status="completed", position=1, result="1", finished=SENT),
        Record("t#1", "tell", "t", SENT, status="completed"),
    ]
    await node.commit(segment(outer, records=records, turn=TurnRecord(2)))
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    before = to_builtins(await node.look(outer.place.actor))
    assert await purge(node, keep=0) == 0
    assert to_builtins(await node.look(outer.place.actor)) == before
    assert (await node.find(delayed.mail.id)).outcome is None
    await node.finish(inner, Outcome("succeeded", '"yes"'))
    assert await purge(node, keep=0) == 1
    (completion,) = await node.store.completed(outer.mail.seq)
    assert completion.outcome == Outcome("succeeded", '"yes"')


async def test_mail_after_a_purge(node: Node) -> None:
    """A mailbox goes on at its number though nothing of it is left."""
    first = await node.append()
    await node.finish(first)
    await purge(node)
    second = await node.append()
    assert (second.mail.number, second.place.epoch) == (2, first.place.epoch)
    await node.finish(second)


async def test_spawn_after_a_purge(node: Node) -> None:
    """The state outlives the messages that made it."""
    await node.settle(spawn("a"))
    first = await node.append()
    await node.finish(first)
    await purge(node)
    assert want(object, (await node.look(first.place.actor)).snapshot) is not None


# reading --------------------------------------------------------------------------------------------------------------


async def test_load_gives_the_beginning_of_the_mail(node: Node) -> None:
    """A full mailbox is read in portions, from the first message that is not handled."""
    mails = wants(Appended, await node.write(*(Append(message()) for _ in range(9))))
    await node.finish(mails[0])
    loaded = await node.look(mails[0].place.actor, mail=3)
    assert (loaded.cursor, loaded.tail) == (1, 9)
    assert [mail.number for mail in loaded.mail] == [2, 3, 4]


async def test_load_of_many(node: Node) -> None:
    """Actors that start together are read together; those that are not there are not made up."""
    places = [(await node.append(key)).place for key in "abc"]
    loaded = await node.store.load([*(place.actor for place in places), 999], 1)
    assert {one.actor: (str(one.to), one.epoch) for one in loaded} == {
        place.actor: (str(place.to), place.epoch) for place in places
    }
    assert await node.store.load([], 1) == []


async def test_mail(node: Node) -> None:
    """A mailbox is read on from any number, in order."""
    first, *_ = wants(Appended, await node.write(*(Append(message()) for _ in range(9))))
    actor = first.place.actor
    assert [mail.number for mail in await node.store.mail(actor, 4, 3)] == [5, 6, 7]
    assert await node.store.mail(actor, 9, 3) == []


async def test_find(node: Node) -> None:
    """A message's fate can be asked for by its id at any time."""
    await node.append(id="before")
    first = await node.append(id="order", handler="take")
    found = await node.find("order")
    assert found == Found(first.mail.seq, till("a"), "take", 2, None, 0, "ready", executing=False)
    assert await node.store.find("nothing") is None


async def test_find_tells_that_it_has_begun(node: Node) -> None:
    """Whether a message has begun can be told from one that waits."""
    first = await node.append(id="order")
    await node.commit(sleeps(first, LATER))
    assert (await node.find("order")).executing


async def test_completed_gives_replies_alone(node: Node) -> None:
    """A turn is told what others completed for it, not its own steps."""
    outer = await node.append("a")
    step = Record("s#1", "step", "s", SENT, status="completed", result="1", finished=SENT)
    await node.commit(segment(outer, records=[step]))
    (inner,) = (await node.commit(asks(outer, message("b")))).appended
    assert await node.store.completed(outer.mail.seq) == []
    await node.finish(inner)
    expected = [Completion(outer.place.actor, outer.mail.seq, "ask#1", DONE)]
    assert await node.store.completed(outer.mail.seq) == expected


async def test_next_due(node: Node) -> None:
    """The earliest timer of all is known, so that it fires in time."""
    assert await node.store.next_due() is None
    await node.append("a", due=LATER + 5)
    sleeper = await node.append("b")
    await node.commit(sleeps(sleeper, LATER + 3))
    assert await node.store.next_due() == LATER + 5
    assert await node.release(sleeper, waiting=True)
    assert await node.store.next_due() == LATER + 3


async def test_grown(node: Node) -> None:
    """A mailbox that has grown is noticed, and comes with what was not known of it."""
    first, second = await node.append("a"), await node.append("b")
    known = [(first.place.actor, 1), (second.place.actor, 1)]
    assert await node.store.grown(known, 10) == []
    more = [await node.append("b") for _ in range(3)]
    await node.append("a", due=LATER)
    ids = [appended.mail.id for appended in more]
    for after, limit, expected in ((1, 10, ids), (1, 2, ids[:2]), (3, 10, ids[2:])):
        (grown,) = await node.store.grown([(second.place.actor, after)], limit)
        assert (grown.actor, grown.tail, [mail.id for mail in grown.mail]) == (second.place.actor, 4, expected)
    assert await node.store.grown([], 10) == []


async def test_open_asks(node: Node) -> None:
    """Who waits for whom can be followed from any actor on, through all whose reply may never come."""
    first, second = await node.append("a"), await node.append("b")
    await node.commit(asks(first, message("b")))
    (third,) = (await node.commit(asks(second, message("c")))).appended
    await node.commit(asks(third, message("a")))
    apart = await node.append("x")
    await node.commit(asks(apart, message("y")))
    found = await node.store.open_asks(first.place.actor)
    edges = {(str(one.caller), str(one.callee)) for one in found}
    assert edges == {("Till/a", "Till/b"), ("Till/b", "Till/c"), ("Till/c", "Till/a")}
    assert OpenAsk(till("a"), till("b"), first.mail.seq, "ask#1", SENT) in found


async def test_open_receipts(node: Node) -> None:
    """Who waits for a receipt's result without a deadline waits as whoever asks does."""
    first, second = await node.append("a"), await node.append("b")
    awaited = await node.append("a")
    for turn, key, due in ((first, "receipt#1", None), (first, "receipt#2", LATER), (second, "receipt#1", None)):
        record = Record(key, "receipt", "receipt", SENT, due=due)
        of = awaited if turn is second else second
        await node.commit(segment(turn, records=[record], watches=[Watch(key, of.mail.id)]))
    assert sorted(
        (str(one.caller), str(one.callee), one.key) for one in await node.store.open_asks(first.place.actor)
    ) == [
        ("Till/a", "Till/b", "receipt#1"),
        ("Till/b", "Till/a", "receipt#1"),
    ]


async def test_open_asks_end(node: Node) -> None:
    """An ask with a deadline, one that was answered, and a plain message make nobody wait for ever."""
    first = await node.append("a")
    await node.commit(asks(first, message("b"), due=LATER))
    (answered,) = (await node.commit(asks(first, message("c"), "ask#2"))).appended
    await node.commit(segment(first, sends=[Send(message("d"))]))
    await node.finish(answered)
    assert await node.store.open_asks(first.place.actor) == []


async def test_unknown_kinds(node: Node) -> None:
    """Mail that nobody here can run is noticed, not forgotten."""
    node.foreign |= {"Safe", "Door"}
    for key in "ab":
        await node.append(key, kind="Safe")
    await node.append("a", kind="Door")
    await node.append("a")
    assert sorted(await node.store.unknown_kinds(("Till",))) == [("Door", 1), ("Safe", 2)]
    assert await node.store.unknown_kinds(("Till", "Safe", "Door")) == []


async def test_checkpoint(node: Node) -> None:
    """Housekeeping disturbs nothing."""
    await node.write(*(Append(message()) for _ in range(5_000)))
    await node.store.checkpoint()
    assert (await node.append()).mail.number == 5_001


async def test_alone(node: Node) -> None:
    """A node alone with its data finds nobody dead, and no peers."""
    await node.append()
    assert await node.store.peers() == []
    assert await node.store.dead_nodes() == []
