"""A transaction-mode pooler between perdure and PostgreSQL: `?pooler=true`.

| what it does | what perdure does |
|---|---|
| another session for each transaction | says everything that a transaction needs in it, prepares nothing |
| no notification arrives | asks the database for news |
| a session belongs to somebody else by now | never ends one by its number |
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import ClassVar

import pytest

from perdure import Actor, ActorSystem, handler, step
from perdure.storage.postgres import PostgresStore
from perdure.storage.store import Store
from perdure.testing import conformance
from perdure.testing.conformance import Place, dying, living, node, shared
from tests.acceptance.postgres.pooler import Pooler, pooled

__all__ = ["dying", "living", "node", "shared"]

TOPICS = ("asks", "ownership", "neighbours")
"""What of the suite for stores is run through it."""

globals().update(
    {
        name: test
        for name, test in vars(conformance).items()
        if name.startswith("test_") and test.__module__.rpartition(".")[2] in TOPICS
    }
)


class Pooled:
    name: ClassVar[str] = "postgres-pooler"
    shared: ClassVar[bool] = True
    tells: ClassVar[bool] = False

    def __init__(self, target: str) -> None:
        self._target = target

    def store(self) -> Store:
        return PostgresStore(self._target)

    async def kill(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        await store._disconnect()  # noqa: SLF001  # a death has no public name


@pytest.fixture(scope="module")
def pooler(postgres_dsn: str) -> Generator[Pooler]:
    """One for all of these tests; nobody may have asked it for what belongs to a session."""
    with pooled(postgres_dsn) as found:
        yield found
    assert not found.misuse


@pytest.fixture
def target(pooler: Pooler, postgres: str) -> str:
    """An empty schema behind it."""
    return f"{pooler.target}?{postgres.partition('?')[2]}&pooler=true"


@pytest.fixture
def place(target: str) -> Place:
    """Where the suite's stores keep their data."""
    return Pooled(target)


@step
async def effect(number: int) -> int:
    """The least of one."""
    return number


class Clerk(Actor, kind="pooler.clerk"):
    seen: list[int] = []

    @handler
    async def note(self, number: int) -> list[int]:
        self.seen.append(await effect(number))
        return self.seen

    @handler
    async def send(self, number: int) -> list[int]:
        return await self.system.get(Clerk, "b").note(await effect(number))


@pytest.mark.anyio
async def test_a_day_at_work(target: str, pooler: Pooler) -> None:
    """Two processes that share sessions with each other have what each other sends, without a wake-up."""
    before = pooler.transactions
    async with asyncio.timeout(60), ActorSystem(target) as first, ActorSystem(target) as second:
        assert await second.get(Clerk, "b").note(0) == [0]
        for number in range(1, 6):
            assert await first.get(Clerk, "a").send(number) == list(range(number + 1))
    assert pooler.transactions - before > 20
