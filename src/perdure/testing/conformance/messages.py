"""What every store does with messages from outside and with actors' beginnings."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins

from perdure.errors import ActorExists, ActorStopped, IdReusedError, MailboxFull, NotSpawnedError, SystemClosedError
from perdure.storage.records import Mail, Outcome, Snapshot
from perdure.storage.writes import Append, Appended, End, Existing, Placed, Send, Settled, Spawn
from perdure.testing.conformance.nodes import (
    DONE,
    LATER,
    SENT,
    Node,
    ended,
    message,
    segment,
    spawn,
    started,
    till,
    want,
    wants,
)
from perdure.testing.conformance.places import Place

# opening and closing --------------------------------------------------------------------------------------------------


async def test_closing_twice(place: Place) -> None:
    """Cleaning up after a failure may close what is closed."""
    node = await started(place.store())
    await node.store.close()
    await node.store.close()


async def test_closed_says_so(place: Place) -> None:
    """Work handed to a closed system is refused with the reason, not lost in silence."""
    node = await started(place.store())
    await node.store.close()
    with pytest.raises(SystemClosedError):
        await node.append()
    with pytest.raises(SystemClosedError):
        await node.store.find("x")


async def test_location_is_for_people(node: Node) -> None:
    """An error names the database it speaks of."""
    assert node.store.location


async def test_empty_batch(node: Node) -> None:
    """Nothing to write is nothing to go wrong."""
    assert await node.write() == []


# appending ------------------------------------------------------------------------------------------------------------


async def test_numbers_are_dense_per_actor(node: Node) -> None:
    """A mailbox has no gaps whatever else is written between its messages."""
    keys = ["a", "b", "a", "c", "a", "b"]
    first = wants(Appended, await node.write(*(Append(message(key)) for key in keys)))
    second = wants(Appended, await node.write(*(Append(message(key)) for key in keys)))
    both = [*first, *second]
    for key, numbers in {"a": range(1, 7), "b": range(1, 5), "c": range(1, 3)}.items():
        assert [one.mail.number for one in both if one.place.to == till(key)] == list(numbers)


async def test_order_is_kept(node: Node) -> None:
    """Messages are handled in the order they were sent."""
    sent: list[str] = []
    for size in (1, 5, 200):
        settled = await node.write(*(Append(message()) for _ in range(size)))
        sent += [one.mail.id for one in wants(Appended, settled)]
    place = await node.claim("a")
    assert [mail.id for mail in await node.store.mail(place.actor, 0, 1_000)] == sent


async def test_seqs_rise(node: Node) -> None:
    """What people see in the order of acceptance is the order of acceptance."""
    settled = wants(Appended, await node.write(*(Append(message(key)) for key in "abcab")))
    seqs = [one.mail.seq for one in settled]
    assert seqs == sorted(set(seqs))


async def test_message_comes_back_whole(node: Node) -> None:
    """A handler gets exactly what the sender said, in any script."""
    text = '{"n":"π \\u0000 \' \\" 𝄞"}'
    appended = await node.append("ключ", args=text, cause=7, chain=("Till/x", "Till/y"), expires=LATER, codec="other")
    mail = appended.mail
    expected = Mail(mail.seq, 1, mail.id, "add", text, "other", SENT, 7, ("Till/x", "Till/y"), LATER)
    assert to_builtins(mail) == to_builtins(expected)
    (stored,) = (await node.look(appended.place.actor)).mail
    assert to_builtins(stored) == to_builtins(expected)


async def test_first_message_is_fresh_and_owned(node: Node) -> None:
    """A new actor starts without reading anything."""
    appended = await node.append()
    assert appended.place.fresh
    assert appended.place.epoch is not None


async def test_later_messages_keep_the_epoch(node: Node) -> None:
    """Mail does not disturb an actor that runs."""
    first = await node.append()
    second = await node.append()
    assert not second.place.fresh
    assert second.place.epoch == first.place.epoch
    assert second.place.actor == first.place.actor


async def test_later_messages_are_loaded(node: Node) -> None:
    """Mail that came after an actor was written last is there when it is read."""
    first = await node.append()
    await node.finish(first)
    later = [await node.append() for _ in range(3)]
    loaded = await node.look(first.place.actor)
    assert (loaded.cursor, loaded.tail) == (1, 4)
    assert [mail.id for mail in loaded.mail] == [one.mail.id for one in later]


async def test_kind_of_others_is_left(node: Node) -> None:
    """Mail for actors that this process cannot run is kept for one that can."""
    node.foreign.add("Till")
    appended = await node.append()
    assert appended.place.epoch is None
    assert (await node.look(appended.place.actor)).tail == 1


async def test_delayed_message_has_no_number(node: Node) -> None:
    """A delayed message holds up nobody."""
    delayed = await node.append(due=LATER)
    assert not delayed.numbered
    assert (await node.append()).mail.number == 1
    assert [mail.number for mail in await node.store.mail(delayed.place.actor, 0, 10)] == [1]
    assert (await node.find(delayed.mail.id)).number is None


# ids ------------------------------------------------------------------------------------------------------------------


async def test_same_id_same_message(node: Node) -> None:
    """Sending again after a lost answer does not do the work again."""
    first = await node.append(id="order")
    again = want(Existing, await node.settle(Append(message(id="order"))))
    assert again == Existing(first.mail.seq, None)
    assert (await node.look(first.place.actor)).tail == 1


async def test_same_id_gets_the_outcome(node: Node) -> None:
    """Who sends again after the work was done gets its result."""
    first = await node.append(id="order")
    await node.finish(first, Outcome("succeeded", '"paid"'))
    again = want(Existing, await node.settle(Append(message(id="order"))))
    assert again.outcome == Outcome("succeeded", '"paid"')


@pytest.mark.parametrize(
    "changed", [{"args": '{"n":2}'}, {"handler": "take"}, {"key": "b"}, {"kind": "Safe"}], ids=lambda it: next(iter(it))
)
async def test_same_id_other_message(node: Node, changed: dict[str, Any]) -> None:
    """One id never stands for two different messages."""
    first = await node.append(id="order")
    want(IdReusedError, await node.settle(Append(message(id="order", **changed))))
    assert (await node.find("order")).seq == first.mail.seq


async def test_pickled_arguments_are_not_compared(node: Node) -> None:
    """Arguments without one encoding do not turn a repeated message into another."""
    await node.append(id="order", codec="cloudpickle@3.11", args="gASV")
    want(Existing, await node.settle(Append(message(id="order", codec="cloudpickle@3.11", args="gASX"))))


async def test_duplicates_in_one_batch(node: Node) -> None:
    """Two senders at the same moment do the work once."""
    batch = [Append(message(id="order")), Append(message(id="order")), Append(message(id="order", args="{}"))]
    first, second, third = await node.write(*batch)
    assert want(Existing, second).seq == want(Appended, first).mail.seq
    want(IdReusedError, third)


async def test_duplicate_beside_the_end(node: Node) -> None:
    """Who sends again in the very commit that ends the message gets its result."""
    first = await node.append(id="order")
    _, again = await node.write(ended(first), Append(message(id="order")))
    assert want(Existing, again).outcome == DONE


async def test_duplicate_before_stop_and_limit(node: Node) -> None:
    """A known id finds its outcome, though its actor would take no new message."""
    first = await node.append(id="order", limit=1)
    want(Existing, await node.settle(Append(message(id="order", limit=1))))
    await node.finish(first, stop=True)
    assert want(Existing, await node.settle(Append(message(id="order")))).outcome == DONE


async def test_taken_id_fails_nobody_else(node: Node) -> None:
    """An id made by a turn that happens to be taken is that turn's trouble alone."""
    await node.append(id="order")
    turn = await node.append("t")
    sends = segment(turn, sends=[Send(message("c", id="order", chosen=False))])
    good, _, more = await node.write(Append(message("b")), sends, Append(message("b")))
    assert [one.mail.number for one in wants(Appended, [good, more])] == [1, 2]
    assert (await node.find("order")).actor == till("a")


# what a message needs -------------------------------------------------------------------------------------------------


async def test_must_exist(node: Node) -> None:
    """An actor that needs its first state is never begun without it."""
    want(NotSpawnedError, await node.settle(Append(message(must_exist=True))))
    await node.settle(spawn("a"))
    want(Appended, await node.settle(Append(message(must_exist=True))))


async def test_must_exist_in_one_batch(node: Node) -> None:
    """A spawn counts for what comes after it, at once."""
    before, _, after = await node.write(Append(message(must_exist=True)), spawn("a"), Append(message(must_exist=True)))
    want(NotSpawnedError, before)
    want(Appended, after)


async def test_mailbox_limit(node: Node) -> None:
    """A mailbox that is full says so, to those who come too late alone."""
    settled = await node.write(*(Append(message(limit=2)) for _ in range(3)), Append(message("b", limit=2)))
    first, *_ = wants(Appended, [settled[0], settled[1], settled[3]])
    want(MailboxFull, settled[2])
    want(MailboxFull, await node.settle(Append(message(limit=2))))
    await node.finish(first)
    assert (await node.append(limit=2)).mail.number == 3


async def test_bad_items_fail_alone(node: Node) -> None:
    """What goes wrong for one sender goes wrong for that one."""
    stopped = await node.append("stopped")
    await node.finish(stopped, stop=True)
    await node.append("full", id="taken")
    bad: list[tuple[Append | Spawn, type[Settled]]] = [
        (Append(message("stopped")), ActorStopped),
        (Append(message("full", limit=1)), MailboxFull),
        (Append(message("nobody", must_exist=True)), NotSpawnedError),
        (Append(message("x", id="taken")), IdReusedError),
        (spawn("full"), ActorExists),
    ]
    batch: list[Append | Spawn] = [Append(message("good"))]
    for write, _ in bad:
        batch += [write, Append(message("good"))]
    settled = await node.write(*batch)
    assert [one.mail.number for one in wants(Appended, settled[::2])] == [1, 2, 3, 4, 5, 6]
    assert [type(one) for one in settled[1::2]] == [error for _, error in bad]
    assert await node.store.find("x") is None


# spawning -------------------------------------------------------------------------------------------------------------


async def test_spawn_keeps_the_state(node: Node) -> None:
    """An actor begins with the state it was given."""
    placed = want(Placed, await node.settle(spawn("a", '{"coins":9}')))
    loaded = await node.look(placed.actor)
    assert loaded.snapshot is not None
    assert to_builtins(loaded.snapshot) == to_builtins(Snapshot(1, "json", '{"coins":9}'))
    assert (loaded.to, loaded.cursor, loaded.tail, loaded.mail) == (till("a"), 0, 0, [])


async def test_spawn_again_is_quiet(node: Node) -> None:
    """A program that starts again may spawn again."""
    first, second = wants(Placed, await node.write(spawn("a"), spawn("a")))
    assert want(Placed, await node.settle(spawn("a"))).actor == first.actor == second.actor


async def test_spawn_with_other_state(node: Node) -> None:
    """A second spawn never passes for the first when it means something else."""
    _, other = await node.write(spawn("a"), spawn("a", '{"coins":6}'))
    want(ActorExists, other)
    want(ActorExists, await node.settle(spawn("a", '{"coins":7}')))
    assert want(Snapshot, (await node.look((await node.claim("a")).actor)).snapshot).state == '{"coins":5}'


async def test_spawn_compares_with_the_first_state(node: Node) -> None:
    """What an actor has become does not make its own spawn a conflict."""
    await node.settle(spawn("a"))
    first = await node.append()
    end = End(1, DONE, SENT, SENT, snapshot=Snapshot(1, "json", '{"coins":100}'))
    await node.commit(segment(first, end=end))
    want(Placed, await node.settle(spawn("a")))
    assert want(Snapshot, (await node.look(first.place.actor)).snapshot).state == '{"coins":100}'


async def test_spawn_after_a_message(node: Node) -> None:
    """An actor that a message began cannot be given a first state any more; without one it is the same actor."""
    first = await node.append()
    want(ActorExists, await node.settle(spawn("a")))
    assert want(Placed, await node.settle(spawn("a", "{}"))).actor == first.place.actor


async def test_message_after_a_spawn_is_not_fresh(node: Node) -> None:
    """A spawned actor's first message finds the state it was spawned with."""
    _, appended = await node.write(spawn("a"), Append(message()))
    assert not want(Appended, appended).place.fresh
    await node.settle(spawn("b"))
    assert not (await node.append("b")).place.fresh
