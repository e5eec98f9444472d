"""What the wake-ups of both databases have in common: whom they are for, what they say, how one waits for them.

    a commit ──► `News`: which nodes it concerns, and what of it ──► hints ──► `Ear` ──► `Heard` ──► a look

A hint says where to look, and is not believed: whoever is woken looks into the database. "Look at these actors" and
"these messages have ended" cost one narrow read, however much a node has in memory; "look" stands for everything else,
and for what a narrower hint would not be worth. A hint that is lost costs the time until the next look. Where hints
cannot come, the database is asked whether anything has happened: often after something has, and less and less while
nothing does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

T = TypeVar("T")

ANYBODY = "*"
"""Stands for every other node, where it is not known who can do something about it."""

SLOWEST_SECONDS = 0.25
"""How long a database is left in peace that has to be asked."""
_FASTEST_SECONDS = 0.005
REMEMBERED = 10_000
MANY = 1_000
"""Past so many actors and ends for a node at once, it may as well look at everything."""


@frozen
class News:
    """What a commit is to others.

    Attributes:
        nodes: Those that are to look at everything.
        actors: What came for actors, a message or a reply: the actors by the nodes that have them.
        ended: Messages that ended, which somebody may wait for.
    """

    nodes: set[str] = field(factory=set[str])
    actors: dict[str, set[int]] = field(factory=dict[str, set[int]])
    ended: Collection[int] = ()


@frozen
class Heard:
    """What a node was told; false if nothing.

    Attributes:
        anything: Whether it is to look at everything, and not only at the rest of this.
        actors: Those of its actors that something came for.
        ended: Messages that ended, of those that it waits for.
    """

    anything: bool = False
    actors: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return self.anything or bool(self.actors or self.ended)


def remember(memory: dict[int, T], numbers: dict[int, T]) -> None:
    """Put numbers into a memory that forgets the oldest: what was forgotten is found by looking."""
    memory.update(numbers)
    if len(memory) > 2 * REMEMBERED:
        for number in list(memory)[:-REMEMBERED]:
            del memory[number]


class Lately:
    """The messages that ended lately, `REMEMBERED` of them or somewhat more.

    Every commit notes what it ended, and hardly anybody asks: what is noted is put in order when somebody does.
    """

    def __init__(self) -> None:
        self._noted: deque[tuple[int, ...]] = deque()
        self._count = 0
        self._known: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<Lately: {self._count + len(self._known)} messages>"

    def note(self, ended: Collection[int]) -> None:
        """These have ended now."""
        self._noted.append(tuple(ended))
        self._count += len(ended)
        while self._count - len(self._noted[0]) >= REMEMBERED:
            self._count -= len(self._noted.popleft())

    def __contains__(self, message: int) -> bool:
        for ended in self._noted:
            remember(self._known, dict.fromkeys(ended))
        self._noted.clear()
        self._count = 0
        return message in self._known


class Ear:
    """Waits to be woken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._active = self._loop.time()
        self._anything = False
        self._actors: set[int] = set()
        self._ended: set[int] = set()

    def __repr__(self) -> str:
        return f"<Ear{', woken' if self._woken.is_set() else ''}>"

    def wake(self) -> None:
        """Somebody has said that there is something to look at."""
        self._anything = True
        self._woken.set()

    def point(self, actors: Collection[int] = (), ended: Collection[int] = ()) -> None:
        """Somebody has said where to look."""
        if len(self._actors) + len(self._ended) > REMEMBERED:
            self.wake()  # nobody has looked for long
        else:
            self._actors.update(actors)
            self._ended.update(ended)
            self._woken.set()

    def stir(self) -> None:
        """Something goes on with others, and more may follow: where the database is asked, it is asked often."""
        self._active = self._loop.time()

    async def wait(
        self, seconds: float, polls: Callable[[], bool], version: Callable[[], Awaitable[int]], seen: int
    ) -> Heard:
        """Wait until woken, or so long; what it was told.

        While it `polls`, it asks now and then whether the database's version is another than was seen.
        """
        end = self._loop.time() + seconds
        while not self._woken.is_set():
            now = self._loop.time()
            asks = polls()
            pause = min(max((now - self._active) / 10, _FASTEST_SECONDS), SLOWEST_SECONDS) if asks else seconds
            if now >= end:
                return Heard()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, end - now)):
                    await self._woken.wait()
                break
            if asks and await version() != seen:
                self.stir()
                return Heard(anything=True)
        self._woken.clear()
        heard = Heard(self._anything, frozenset(self._actors), frozenset(self._ended))
        self._anything, self._actors, self._ended = False, set(), set()
        return heard
