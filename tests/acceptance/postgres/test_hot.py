"""What steps leave behind on PostgreSQL: a row's new version beside the old one, and no index touched."""

from __future__ import annotations

import psycopg

from perdure import Actor, ActorSystem, handler, step
from perdure.storage.postgres_open import place
from tests.unit.observing import until

STEPS = 20
_UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'journal'"


@step
async def next_number(n: int) -> int:
    """The least of a step."""
    return n + 1


class Walker(Actor, kind="hot.walker"):
    @handler
    async def walk(self, steps: int) -> int:
        n = 0
        while n < steps:
            n = await next_number(n)
        return n


async def test_the_end_of_a_step_changes_no_index(postgres: str) -> None:
    """A journal that is written for years needs no more of vacuum than its length: plain steps leave it nothing."""
    async with ActorSystem(postgres) as system:
        assert await system.get(Walker, "w").walk(STEPS) == STEPS
    # What a session has counted is told when it ends, a little later.
    with psycopg.connect(place(postgres).conninfo, autocommit=True) as server:

        def updates() -> tuple[int, int]:
            row = server.execute(_UPDATES, [place(postgres).schema]).fetchone()
            return row if row is not None else (0, 0)

        await until(lambda: updates()[0] >= STEPS, 30)
        assert updates() == (STEPS, STEPS)
