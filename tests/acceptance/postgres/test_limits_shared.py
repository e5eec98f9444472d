"""A limit on PostgreSQL, where nodes commit beside each other."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from perdure import Actor, ActorSystem, Limit, handler

pytestmark = pytest.mark.anyio

_inside: list[int] = []
_most: list[int] = [0]


class Turner(Actor, kind="postgres.turner", limit=Limit("postgres.turn", concurrent=3)):
    @handler
    async def turn(self, n: int) -> int:
        _inside.append(n)
        _most[0] = max(_most[0], len(_inside))
        await asyncio.sleep(0.02)
        _inside.remove(n)
        return n


async def test_nodes_share_a_limit(postgres: str) -> None:
    """Two processes have no more than one would, and give each other what they do not need."""
    async with ActorSystem(postgres) as one, ActorSystem(postgres) as two:
        with anyio.fail_after(60):
            assert await one.get(Turner, "first").turn(100) == 100
            numbered = [(at, system, n) for at, system in enumerate((one, two)) for n in range(20)]
            asked = [system.get(Turner, f"{at}-{n}").turn(at * 20 + n) for at, system, n in numbered]
            assert await asyncio.gather(*asked) == list(range(40))
            alone = [two.get(Turner, f"alone-{n}").turn(n) for n in range(9)]
            assert await asyncio.gather(*alone) == list(range(9))
    assert _most == [3]
