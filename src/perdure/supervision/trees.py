"""The supervision trees: who supervises, and whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.storage.records import Member
    from perdure.storage.store import Store


async def trees(
    store: Store, supervises: Callable[[Member], bool], wanted: Callable[[Member], bool] = lambda _: True
) -> list[Member]:
    """All who are wanted, with a supervisor that is: each before those it supervises, siblings in start order.

    Args:
        store: Where to read.
        supervises: Whose children to read.
        wanted: Whom to take; with one that is not, all below it are left out.
    """
    found: list[Member] = []
    stack = [one for one in await store.tops() if wanted(one)]
    while stack:
        one = stack.pop()
        found.append(one)
        if supervises(one):
            stack.extend(child for child in reversed(await store.children(one.actor)) if wanted(child))
    return found
