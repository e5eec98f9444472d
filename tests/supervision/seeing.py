"""What tests of this folder do and see from outside."""

from __future__ import annotations

import pytest

from perdure import ActorSystem, DeadLetterError, Supervisor
from tests.supervision.family import Worker


async def states(system: ActorSystem, supervisor: type[Supervisor], key: str = "root") -> dict[str, str]:
    """A supervisor's children's states, by key, in start order."""
    return {one.actor.key: one.state for one in await system.get(supervisor, key).which_children()}


async def is_in(system: ActorSystem, supervisor: type[Supervisor], key: str, child: str, state: str) -> bool:
    """Whether a child is in a state; `forgotten` where it is none."""
    return (await states(system, supervisor, key)).get(child, "forgotten") == state


async def crash(worker: Worker) -> None:
    """Have it fail once, its message a dead letter."""
    with pytest.raises(DeadLetterError):
        await worker.crash()
