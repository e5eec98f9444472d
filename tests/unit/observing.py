"""What tests see from outside: that something has come about, and which files are there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 30) -> None:
    """Let the others work until a condition holds; raises `TimeoutError` if it does not come about."""
    with anyio.fail_after(seconds):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.002)


def files_in(folder: Path) -> list[str]:
    """The names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def this_task() -> asyncio.Task[object]:
    """The task of whoever asks."""
    task = asyncio.current_task()
    assert task is not None
    return task
