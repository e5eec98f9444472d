"""Queries between nodes: rows that reach whoever has the actor, come back answered, and leave nothing."""

from __future__ import annotations

from perdure.errors import ActorFailed, ActorStopped
from perdure.storage.history_writes import Purge
from perdure.storage.query_writes import Answer, Heard, Inquire
from perdure.storage.records import Answered, NodeRecord, OpenQuery
from perdure.storage.writes import Append, Appended, Bury, Order, Placed
from perdure.testing.conformance.nodes import LATER, SENT, Node, message, on, segment, till, want
from perdure.testing.conformance.places import Place
from perdure.testing.conformance.wakes import PATIENCE, quiet

KINDS = ("Till",)


def inquire(id_: str = "q1", key: str = "a", *, deadline: float = LATER) -> Inquire:
    """A query that needs no answer before the tests are over."""
    return Inquire(id_, till(key), "coins", "{}", deadline)


def answer(one: OpenQuery, of: Appended, result: str = "5") -> Answer:
    """An answer under the epoch that the actor's message came with."""
    return Answer(one.id, one.asker, of.place.actor, want(int, of.place.epoch), result)


async def asked(node: Node) -> list[OpenQuery]:
    """What a node may answer."""
    return await node.store.open_queries(KINDS, 10)


async def unowned(node: Node, *, parked: bool = False) -> Appended:
    """An actor that nobody has: it has handled its mail, or its turn is parked."""
    first = await node.append()
    if parked:
        await node.commit(segment(first, status="parked", reason="so"))
    else:
        await node.finish(first)
    assert await node.release(first)
    return first


async def test_an_actor_that_is_here_is_not_asked_through_the_database(node: Node) -> None:
    """Whoever has the actor answers from memory, and nothing is stored for it."""
    first = await node.append()
    place = want(Placed, await node.settle(inquire()))
    assert (place.actor, place.epoch) == (first.place.actor, first.place.epoch)
    assert await asked(node) == []


async def test_an_actor_that_nobody_has_becomes_the_askers(node: Node) -> None:
    """A query to an actor at rest costs one commit, which brings it to whoever asks."""
    first = await unowned(node)
    place = want(Placed, await node.settle(inquire()))
    assert place.epoch == want(int, first.place.epoch) + 1
    assert await asked(node) == []


async def test_an_actor_that_was_never_begun_stays_so(node: Node) -> None:
    """Asking after an actor makes none."""
    assert await node.settle(inquire()) is False
    assert await node.store.member(till("a")) is None


async def test_an_actor_of_the_same_batch_is_known(node: Node) -> None:
    """A query right behind an actor's first message finds it."""
    node.foreign.add("Till")
    _, travels = await node.write(Append(message()), inquire())
    assert travels is True


async def test_a_parked_actor_is_left_alone(node: Node) -> None:
    """Whoever asks after a parked turn does not begin it again; its snapshot answers."""
    first = await unowned(node, parked=True)
    place = want(Placed, await node.settle(inquire()))
    assert (place.actor, place.epoch) == (first.place.actor, None)
    assert await asked(node) == []


async def test_actors_that_do_not_run_are_said_to(node: Node) -> None:
    """Nobody waits for an answer that cannot come."""
    first = await node.append("a")
    second = await node.append("b")
    await node.settle(Order(SENT, fail=[first.place.actor], reason="it broke"))
    assert isinstance(await node.settle(inquire()), ActorFailed)
    await node.finish(second, stop=True)
    assert isinstance(await node.settle(inquire("q2", "b")), ActorStopped)


async def test_a_query_reaches_whoever_has_the_actor_and_comes_back(shared: Place) -> None:
    """A query is asked in one process, answered in the other, and heard: then nothing of it is left."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        assert await two.settle(inquire()) is True
        assert await asked(two) == []
        (open_,) = await asked(one)
        assert open_ == OpenQuery("q1", till("a"), "coins", "{}", two.id)
        assert await two.store.answered() == []
        assert await one.settle(answer(open_, first)) is True
        assert await asked(one) == []
        assert await two.store.answered() == [Answered("q1", "5", None)]
        assert await one.store.answered() == []
        assert await two.settle(Heard(("q1",))) == 1
        assert await two.store.answered() == []


async def test_a_failure_comes_back_too(shared: Place) -> None:
    """Why there is no answer arrives as it was written, letter by letter."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await two.settle(inquire())
        (open_,) = await asked(one)
        write = Answer(open_.id, open_.asker, first.place.actor, want(int, first.place.epoch), error='{"a": 1 }')
        assert await one.settle(write) is True
        assert await two.store.answered() == [Answered("q1", None, '{"a": 1 }')]


async def test_asked_again_it_is_the_same(shared: Place) -> None:
    """Whoever asks again, for a hint may be lost, is answered once."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        assert [await two.settle(inquire()) for _ in range(2)] == [True, True]
        (open_,) = await asked(one)
        await one.settle(answer(open_, first))
        assert await two.settle(inquire()) is True
        assert await asked(one) == []
        assert await one.settle(answer(open_, first, "6")) is False
        assert await two.store.answered() == [Answered("q1", "5", None)]


async def test_a_zombie_answers_nobody(shared: Place) -> None:
    """What a process computes for an actor that is another's by now is told to nobody."""
    async with on(shared) as one, on(shared) as two, on(shared) as three:
        first = await one.append()
        await three.settle(inquire())
        (open_,) = await asked(one)
        await one.finish(first)
        await one.release(first)
        place = await two.claim("a")
        assert await one.settle(answer(open_, first)) is False
        first.place = place
        assert await asked(two) == [open_]
        assert await two.settle(answer(open_, first)) is True


async def test_nobody_answers_what_is_not_awaited(shared: Place) -> None:
    """A query whose asker gave up is gone, whoever is working on its answer."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await two.settle(inquire())
        (open_,) = await asked(one)
        assert await one.settle(Heard(("q1",))) == 0, "only whoever asked takes it back"
        assert await two.settle(Heard(("q1",))) == 1
        assert await one.settle(answer(open_, first)) is False


async def test_an_actor_that_nobody_has_is_offered_to_who_runs_it(shared: Place) -> None:
    """A process that runs no actor asks whoever runs the kind, and those who do not are not bothered."""
    async with on(shared) as one, on(shared) as two:
        two.foreign.add("Till")
        await unowned(one)
        assert await two.settle(inquire()) is True
        assert [open_.id for open_ in await asked(one)] == ["q1"]
        assert await one.store.open_queries(("Other",), 10) == []


async def test_the_oldest_come_first_and_no_more_than_wanted(shared: Place) -> None:
    """Many queries are answered in portions, and none waits for ever."""
    async with on(shared) as one, on(shared) as two:
        await one.append()
        await two.write(*(inquire(f"q{n}", deadline=LATER - n) for n in range(5)))
        assert [open_.id for open_ in await one.store.open_queries(KINDS, 3)] == ["q4", "q3", "q2"]


async def test_what_the_dead_asked_is_swept(shared: Place) -> None:
    """A process that leaves, or dies and is buried, leaves no query behind."""
    async with on(shared) as one:
        await one.append()
        async with on(shared) as two:
            await two.settle(inquire())
            assert len(await asked(one)) == 1
        assert await asked(one) == []
        async with on(shared) as three, on(shared) as four:
            await three.settle(inquire())
            await four.settle(Bury(three.id, 5, SENT))
            assert await asked(one) == []
            await three.store.rejoin(NodeRecord("again", 1, "here", "3.11", "0", SENT))
            await three.settle(inquire(deadline=SENT))
            await one.settle(Purge(LATER, LATER, 0))
            assert await asked(one) == []


async def test_questions_and_answers_wake(shared: Place) -> None:
    """A query takes as long as it takes to answer, not until somebody looks."""
    async with on(shared) as one, on(shared) as two:
        first = await one.append()
        await quiet(one, two)
        await two.settle(inquire())
        assert await one.store.wait(PATIENCE)
        (open_,) = await asked(one)
        await quiet(one, two)
        await one.settle(answer(open_, first))
        assert await two.store.wait(PATIENCE)


async def test_a_query_for_anybody_wakes_all(shared: Place) -> None:
    """What its asker cannot answer is taken up by whoever can."""
    async with on(shared) as one, on(shared) as two:
        two.foreign.add("Till")
        await unowned(one)
        await quiet(one, two)
        await two.settle(inquire())
        assert await one.store.wait(PATIENCE)


async def test_delayed_mail_of_who_runs_nothing_wakes_those_with_a_clock(shared: Place) -> None:
    """A process that fires no timer may send for later all the same."""
    async with on(shared) as one, on(shared) as two:
        two.foreign.add("Till")
        await quiet(one, two)
        await two.append(due=LATER)
        assert await one.store.wait(PATIENCE)
        assert await one.store.next_due() == LATER


async def test_who_has_an_actor_and_who_could(shared: Place) -> None:
    """Whoever waits in vain can be told why: processes that run no actor do not count."""
    async with on(shared) as one:
        client = shared.store()
        await client.open(NodeRecord("client", 1, "here", "3.11", "0", SENT, runs=False), lambda _: False)
        try:
            nobody = await client.whereabouts(till("a"))
            assert (nobody.owner, nobody.runnable, nobody.runners) == (None, False, (one.id,))
            first = await one.append()
            assert (await client.whereabouts(till("a"))).owner == one.id
            await one.commit(segment(first, status="ready"))
            await one.finish(first)
            await one.release(first)
            one.foreign.add("Till")
            await one.append()
            assert (await client.whereabouts(till("a"))).runnable
        finally:
            await client.close()
