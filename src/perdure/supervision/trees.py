"""The supervision trees that one node has in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.storage.records import Member
    from perdure.storage.store import Store


async def trees(store: Store, here: Callable[[int], bool], supervises: Callable[[Member], bool]) -> list[Member]:
    """Who is here: each before those it supervises, siblings in start order."""
    found: list[Member] = []
    stack = [one for one in await store.tops() if here(one.actor)]
    while stack:
        one = stack.pop()
        found.append(one)
        if supervises(one):
            stack.extend(child for child in reversed(await store.children(one.actor)) if here(child.actor))
    return found
