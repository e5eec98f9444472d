"""How a system is run and stopped: calls that every type checker accepts. Checked, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from perdure import Actor, ActorSystem, Limits


async def running(system: ActorSystem) -> None:
    assert_type(await system.drain(), None)
    await system.drain(3)
    await system.drain(timeout=timedelta(seconds=3))
    assert_type(await system.serve(), None)
    ActorSystem("a.db", limits=Limits(drain=timedelta(minutes=1)))


class Render(Actor, needs={"gpu"}):
    frames: int = 0


class Film(Actor, needs=["gpu", "disk"]):
    frames: int = 0


def placed() -> list[ActorSystem]:
    return [ActorSystem("a.db", tags={"gpu"}), ActorSystem("a.db", tags=("gpu", "disk")), ActorSystem("a.db", tags=[])]
