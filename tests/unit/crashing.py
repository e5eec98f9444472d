"""A crash without a process: everything of a system is dropped where it stands, nothing is released or flushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from perdure import ActorSystem
from perdure.storage.sqlite import SQLiteStore


async def crash(system: ActorSystem) -> None:
    """End a system as SIGKILL would: what is committed stays, its node has not left, its lock is free."""
    host, committer, store = system._host, system._committer, system._store
    assert host is not None
    assert committer is not None
    assert isinstance(store, SQLiteStore)
    host.closing = True
    tasks: list[asyncio.Task[Any] | None] = [*system._tasks, *host._tasks, committer._task]
    for activation in host.activations.values():
        if activation.turn is not None:
            activation.turn.stopped = asyncio.CancelledError("crash")  # pyright: ignore[reportAttributeAccessIssue]  # no orderly stop
        activation.gone = True
        tasks.append(activation.worker)
    for task in tasks:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
    await store._disconnect()
    system._host = system._committer = None


@asynccontextmanager
async def crashing(target: Any, **options: Any) -> AsyncGenerator[ActorSystem]:
    """A system that ends in a crash instead of closing."""
    system = ActorSystem(target, **options)
    await system.__aenter__()
    try:
        yield system
    finally:
        await crash(system)
