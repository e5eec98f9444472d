"""What nodes on PostgreSQL tell each other, and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure.storage.hints import REMEMBERED, Heard, News
from perdure.storage.postgres_open import place
from perdure.storage.postgres_wake import Notices
from tests.unit.observing import until

PATIENCE = 20.0


async def never() -> int:
    """The version of a database in which nothing happens."""
    return 0


@asynccontextmanager
async def pair(target: str) -> AsyncGenerator[tuple[Notices, Notices]]:
    """Two nodes that know and hear each other, and have nothing to hear."""
    one, two = (Notices(place(target), name) for name in ("1", "2"))
    try:
        for notices, other in ((one, two), (two, one)):
            notices.listen()
            notices.meet([other._node])  # noqa: SLF001  # the name that it was given
            while not await notices.wait(0.05, never, 0):  # it has not begun to listen yet
                other.announce()
        for notices in (one, two):
            while await notices.wait(0.2, never, 0):
                pass
        yield one, two
    finally:
        await asyncio.gather(one.close(), two.close())


async def test_hints_say_where_to_look(postgres: str) -> None:
    """What came for a few actors costs a look at those, however many of them, and one word covers everything."""
    async with pair(postgres) as (one, two):
        one.tell(News(actors={"2": {3, 4}, "somebody else": {5}}))
        assert await two.wait(PATIENCE, never, 0) == Heard(actors=frozenset({3, 4}))
        one.tell(News({"2"}, {"2": {7}}))
        assert await two.wait(PATIENCE, never, 0) == Heard(anything=True)
        one.tell(News(actors={"2": set(range(2_000))}))
        assert await two.wait(PATIENCE, never, 0) == Heard(anything=True)
        one.tell(News(actors={"2": set(range(900))}))
        actors: frozenset[int] = frozenset()
        while len(actors) < 900:  # in several notifications
            heard = await two.wait(PATIENCE, never, 0)
            assert heard
            assert not heard.anything
            actors |= heard.actors
        assert actors == set(range(900))


async def test_ends_are_told_once_to_who_waits(postgres: str) -> None:
    """Ends that nobody waits for wake nobody; those that came before it was said are told then."""
    async with pair(postgres) as (one, two):
        one.tell(News(ended=[4]))
        two.await_ends([4, 5, 6])
        assert await two.wait(PATIENCE, never, 0) == Heard(ended=frozenset({4}))
        one.tell(News(ended=[5, 8]))
        assert await two.wait(PATIENCE, never, 0) == Heard(ended=frozenset({5}))
        one.tell(News(ended=[5]))
        assert not await two.wait(0.2, never, 0)
        last = 4 * REMEMBERED
        for start in range(0, last, REMEMBERED):  # what a third one may end
            two.await_ends(range(100 + start, 100 + start + REMEMBERED))
        two.await_ends([last + 100])
        await until(lambda: last + 100 in one._awaited)  # noqa: SLF001  # what it has heard shows nowhere else
        one.tell(News(ended=[last + 100]))
        assert await two.wait(PATIENCE, never, 0) == Heard(ended=frozenset({last + 100}))
