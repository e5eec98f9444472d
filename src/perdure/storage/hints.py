"""What the wake-ups of both databases have in common: whom they are for, and how one waits for them.

A hint says "look now" and nothing else: whoever is woken looks into the database, which alone is believed. A hint that
is lost costs the time until the next look. Where hints cannot come, the database is asked whether anything has
happened: often after something has, and less and less while nothing does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANYBODY = "*"
"""Stands for every other node, where it is not known who can do something about it."""

SLOWEST_SECONDS = 0.25
"""How long a database is left in peace that has to be asked."""
_FASTEST_SECONDS = 0.005


class Ear:
    """Waits to be woken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._active = self._loop.time()

    def __repr__(self) -> str:
        return f"<Ear{', woken' if self._woken.is_set() else ''}>"

    def wake(self) -> None:
        """Somebody has said that there is something to look at."""
        self._woken.set()

    def stir(self) -> None:
        """Something goes on with others, and more may follow: where the database is asked, it is asked often."""
        self._active = self._loop.time()

    async def wait(
        self, seconds: float, polls: Callable[[], bool], version: Callable[[], Awaitable[int]], seen: int
    ) -> bool:
        """Wait until woken, or so long; whether it was woken.

        While it `polls`, it asks now and then whether the database's version is another than was seen.
        """
        end = self._loop.time() + seconds
        while not self._woken.is_set():
            now = self._loop.time()
            asks = polls()
            pause = min(max((now - self._active) / 10, _FASTEST_SECONDS), SLOWEST_SECONDS) if asks else seconds
            if now >= end:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, end - now)):
                    await self._woken.wait()
                break
            if asks and await version() != seen:
                self.stir()
                return True
        self._woken.clear()
        return True
