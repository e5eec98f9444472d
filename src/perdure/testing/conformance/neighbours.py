"""What every store does that outlives a process or serves several: reopening, neighbours, cut callers."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import to_builtins

from perdure.errors import FencedError
from perdure.storage.history_writes import Purge
from perdure.storage.records import Outcome, Record, Snapshot, TurnRecord
from perdure.storage.writes import Append, Appended, Claim, Claimed, Existing, Release
from perdure.testing.conformance.nodes import DONE, SENT, Node, asks, ended, message, on, segment, spawn, started, want
from perdure.testing.conformance.places import Place

# reopening ------------------------------------------------------------------------------------------------------------


async def test_everything_outlives_the_store(shared: Place) -> None:
    """State, mail, history and what a turn has done are there after a restart."""
    async with on(shared) as node:
        await node.settle(spawn("a"))
        first, second = await node.append("a", id="order"), await node.append("a")
        await node.finish(first)
        step = Record("s#1", "step", "s", SENT, status="completed", result="1", position=1, finished=SENT)
        await node.commit(segment(second, records=[step], turn=TurnRecord(2)))
        before = await node.look(first.place.actor)
    async with on(shared) as node:
        after = await node.look(first.place.actor)
        assert {**to_builtins(after), "epoch": 0} == {**to_builtins(before), "epoch": 0}
        assert want(Snapshot, after.snapshot).state == '{"coins":5}'
        assert want(Existing, await node.settle(Append(message(id="order")))).outcome == DONE


async def test_numbers_go_on_after_a_restart(shared: Place) -> None:
    """Mailboxes, messages and actors are counted on where they were, never anew."""
    async with on(shared) as node:
        first = await node.append("a")
    async with on(shared) as node:
        second, other = await node.append("a"), await node.append("b")
    assert second.mail.number == 2
    assert first.mail.seq < second.mail.seq < other.mail.seq
    assert other.place.actor != first.place.actor


async def test_nothing_comes_back_after_a_purge(shared: Place) -> None:
    """What was removed is not found again by a message that comes later."""
    async with on(shared) as node:
        first = await node.append()
        await node.commit(segment(first, records=[Record("s#1", "step", "s", SENT)], turn=TurnRecord(3)))
        await node.finish(first)
        await node.settle(Purge(SENT * 4, SENT * 4, 0))
    async with on(shared) as node:
        second = await node.append()
        loaded = await node.look(second.place.actor)
        assert (second.mail.number, loaded.records, loaded.turn) == (2, [], None)
        assert await node.outcome(second) is None


async def test_closing_gives_actors_up(shared: Place) -> None:
    """A process that leaves leaves its actors to the others, and can write nothing after."""
    first = await started(shared.store())
    mail = await first.append()
    await first.store.close()
    async with on(shared) as node:
        assert await node.store.dead_nodes() == []
        (place,) = want(Claimed, await node.settle(Claim(("Till",)))).actors
        assert want(int, place.epoch) > want(int, mail.place.epoch)
        want(FencedError, await node.settle(ended(mail)))


async def test_store_opens_again(shared: Place) -> None:
    """One store may be closed and opened again, and knows nothing that has become untrue."""
    store = shared.store()
    first = await started(store)
    mail = await first.append()
    await store.close()
    async with on(shared) as between:
        place = await between.claim("a")
        await between.commit(ended(Appended(place, mail.mail)))
        await between.append()
    again = await started(store)
    assert (await again.append()).mail.number == 3
    await store.close()


async def test_parked_turns_are_tried_at_the_next_start(shared: Place) -> None:
    """Mended code goes on where the old one could not, without an operator."""
    async with on(shared) as node:
        first = await node.append()
        await node.commit(segment(first, status="parked", reason="the code changed"))
    async with on(shared) as node:
        loaded = await node.look(first.place.actor)
        assert loaded.status == "ready"
        assert len(want(Claimed, await node.settle(Claim(("Till",)))).actors) == 1


# neighbours -----------------------------------------------------------------------------------------------------------


async def test_neighbours_append_to_one_mailbox(shared: Place) -> None:
    """Processes that send to one actor share its numbers; none is lost, none is given twice."""
    async with on(shared) as one, on(shared) as two:
        numbers: list[int] = []
        for _ in range(10):
            numbers += [(await one.append()).mail.number, (await two.append()).mail.number]
        assert numbers == list(range(1, 21))
        one_mail, two_mail = [await node.store.mail((await node.claim("a")).actor, 0, 100) for node in (one, two)]
        assert [mail.id for mail in one_mail] == [mail.id for mail in two_mail]
        assert len(one_mail) == 20


async def test_neighbours_at_once(shared: Place) -> None:
    """Processes that write at the same moment take turns."""
    async with on(shared) as one, on(shared) as two:

        async def send(node: Node) -> list[int]:
            return [(await node.append()).mail.number for _ in range(25)]

        numbers = await asyncio.gather(send(one), send(two))
        assert sorted(numbers[0] + numbers[1]) == list(range(1, 51))


async def test_owner_is_one(shared: Place) -> None:
    """An actor runs in one process; mail from another is found there."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await two.store.changed()
        await one.store.changed()
        second = await two.append()
        assert second.place.epoch is None
        assert await one.store.changed()
        assert [grown.actor for grown in await one.store.grown([(first.place.actor, 1)], 10)] == [first.place.actor]
        assert want(Claimed, await two.settle(Claim(("Till",)))).actors == ()
        assert (await two.claim("a")).epoch is None
        await one.finish(first)
        await one.finish(Appended(first.place, second.mail))


async def test_ownership_moves(shared: Place) -> None:
    """An actor that another process took over is fenced where it was, though that store knew it well."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await one.finish(first)
        assert await one.release(first)
        second = await two.append()
        assert want(int, second.place.epoch) > want(int, first.place.epoch)
        want(FencedError, await one.settle(segment(first, turn=TurnRecord(1))))
        assert (await one.append()).place.epoch is None
        await two.commit(ended(second))
        assert (await one.look(first.place.actor)).cursor == 2


async def test_caches_do_not_go_stale(shared: Place) -> None:
    """What one process changes, the next write of another takes into account, whatever it is."""
    async with on(shared) as one, on(shared) as two:
        mail = await one.append("a", id="order")
        assert want(Existing, await two.settle(Append(message(id="order")))).outcome is None
        await one.finish(mail, Outcome("succeeded", "7"))
        again = want(Existing, await two.settle(Append(message(id="order"))))
        assert again.outcome == Outcome("succeeded", "7")
        await two.settle(spawn("b"))
        assert (await one.append("b", must_exist=True)).place.to.key == "b"
        await one.settle(Purge(SENT * 4, SENT * 4, 0))
        assert (await two.append("a", id="order")).mail.number == 2
        assert (await one.append("a")).mail.number == 3


async def test_waiting_across_neighbours(shared: Place) -> None:
    """A reply finds its caller in whichever process either runs."""
    async with on(shared) as one, on(shared) as two:
        callee = await two.append("b")
        outer = await one.append("a")
        (inner,) = (await one.commit(asks(outer, message("b")))).appended
        assert inner.place.epoch is None
        await two.finish(callee)
        done = await two.commit(ended(Appended(callee.place, inner.mail)))
        assert [one.message for one in done.completions] == [outer.mail.seq]
        assert [one.key for one in await one.store.completed(outer.mail.seq)] == ["ask#1"]
        await one.finish(outer)


async def test_waker_gets_the_sleeper(shared: Place) -> None:
    """A turn that left memory in one process may go on in another."""
    async with on(shared) as one, on(shared) as two:
        outer = await one.append("a")
        (inner,) = (await one.commit(asks(outer, message("b")))).appended
        assert await one.release(outer, waiting=True)
        await one.settle(Release(inner.place.actor, want(int, inner.place.epoch)))
        callee = Appended((await one.claim("b")), inner.mail)
        one.foreign.add("Till")
        done = await one.commit(ended(callee))
        assert all(place.epoch is None for place in done.woken)
        (place,) = want(Claimed, await two.settle(Claim(("Till",)))).actors
        assert place.actor == outer.place.actor
        assert [mail.id for mail in (await two.look(place.actor)).mail] == [outer.mail.id]


# cut callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
async def test_cancelled_write_is_whole(shared: Place, passes: int) -> None:
    """A caller that is cancelled at any moment leaves a whole transaction or none, and a store that goes on."""
    async with on(shared) as node:
        for turn in range(5):
            batch = [Append(message(key, id=f"{turn}/{key}")) for key in "abcdefgh"]
            writing = asyncio.ensure_future(node.store.write(batch))
            for _ in range(passes):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            await node.append("z")
            there = [await node.store.find(append.envelope.id) is not None for append in batch]
            assert len(set(there)) == 1
        assert (await node.append("z")).mail.number == 6
    async with on(shared) as node:
        assert (await node.append("z")).mail.number == 7
