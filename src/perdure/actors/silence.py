"""Why nobody answers: who has an actor, or why nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.storage.records import Address
    from perdure.storage.store import Store


async def why_silent(store: Store, actor: Address, *, queried: bool = False) -> str:
    """A sentence for whoever waited in vain. An actor that is `queried` is taken up without mail, too."""
    try:
        found = await store.whereabouts(actor)
        dead = set(await store.dead_nodes())
    except PerdureError as error:
        return f"Why cannot be told: {error}"
    runners = [node for node in found.runners if node not in dead]
    if found.owner in runners:
        return f"{actor} is in process {found.owner}, which is there."
    if not runners:
        return f"No process runs kind '{actor.kind}': none that runs actors is there. Start one."
    if found.owner is not None:
        return f"The process that had {actor} is gone, and no other one has taken it up yet."
    if queried or found.runnable:
        return (
            f"No process runs kind '{actor.kind}', it seems: {len(runners)} that run actors are there, and none has "
            f"taken {actor} up. Import its module in one of them."
        )
    return f"{actor} waits. What for: perdure show {actor}"
