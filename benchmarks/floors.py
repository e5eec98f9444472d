"""Floors: the least that is possible around the raw limit's statements where an event loop must not wait for a disk.

- *Hops*: the raw limit's two transactions of one message, each one function in the database's thread, awaited in the
  event loop one after the other. It goes there and back by perdure's own hop, the shortest way to a thread of aiosqlite
  that is known. A lone ask cannot be faster than this.
- *Bare*: an asyncio mailbox with none of perdure's promises. Senders are tasks, each of which awaits one message before
  it sends the next; arguments are encoded once; what came meanwhile goes down in one of the raw limit's batches; a
  handler is called for each; and what changed goes down in another.
"""

from __future__ import annotations

import asyncio
import os
from itertools import count
from typing import TYPE_CHECKING

import msgspec
from attrs import define

from benchmarks.raw import ACTORS, ARGS, INSERT, TEXT, UPDATE, commit, opened
from benchmarks.sample import Sample, Stopwatch
from perdure.storage.sqlite_thread import ThreadConnection, hop, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HOPS, BARE = "hops", "bare"


class Floor:
    """A database with its thread."""

    def __init__(self, connection: ThreadConnection) -> None:
        self._connection = connection
        self._prefix = os.urandom(10).hex()
        self._numbers = count(1)

    @classmethod
    async def of(cls, folder: Path) -> Floor:
        """A floor to measure in a folder."""
        return cls(await start(ThreadConnection(lambda: opened(folder))))

    async def close(self) -> None:
        """Close the database."""
        await self._connection.close()

    async def insert(self, messages: list[Sent]) -> None:
        """Commit messages."""
        rows = [(sent.number, f"{self._prefix}-{sent.number:x}", sent.actor, sent.args) for sent in messages]
        await hop(self._connection, commit, self._connection.raw, INSERT, rows)

    async def update(self, messages: list[Sent], totals: list[int]) -> None:
        """Commit what their actors are after them."""
        rows = [(sent.number, f'{{"total":{totals[sent.actor]}}}', sent.actor) for sent in messages]
        await hop(self._connection, commit, self._connection.raw, UPDATE, rows)

    def message(self, args: str) -> Sent:
        """The next one."""
        number = next(self._numbers)
        return Sent(number, number % ACTORS, args)


@define(eq=False)
class Sent:
    """A message under way.

    Attributes:
        number: Of all messages.
        actor: To whom.
        args: What it carries, encoded.
        future: Set when it is durable, if anybody waits.
    """

    number: int
    actor: int
    args: str
    future: asyncio.Future[None] | None = None


async def hops(floor: Floor, width: int, seconds: float) -> Sample:
    """Messages one by one."""
    del width
    watch = Stopwatch()
    totals = [0] * ACTORS
    done = 0
    while watch.seconds < seconds:
        messages = [floor.message(ARGS)]
        await floor.insert(messages)
        await floor.update(messages, totals)
        done += 1
    return watch.sample(done, 2 * done)


class BareMailbox:
    """The mailbox without promises, for as long as it is measured."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._queue: list[Sent] = []
        self._came = asyncio.Event()
        self._totals = [0] * ACTORS
        self.transactions = 0

    async def send(self, watch: Stopwatch, seconds: float) -> int:
        """One sender; how much it sent."""
        loop, sent = asyncio.get_running_loop(), 0
        while watch.seconds < seconds:
            message = self._floor.message(msgspec.json.encode({"n": 1, "text": TEXT}).decode())
            message.future = loop.create_future()
            self._queue.append(message)
            self._came.set()
            await message.future
            sent += 1
        return sent

    async def serve(self) -> None:
        """Commit, handle, commit, while there is anything."""
        while await self._came.wait():
            self._came.clear()
            batch, self._queue = self._queue, []
            if not batch:
                return
            await self._floor.insert(batch)
            for message in batch:
                if message.future is not None:
                    message.future.set_result(None)
                await self._handle(message.actor, 1, TEXT)
            await self._floor.update(batch, self._totals)
            self.transactions += 2

    async def _handle(self, actor: int, n: int, text: str) -> None:
        del text
        self._totals[actor] += n

    def close(self) -> None:
        """Have `serve` return when nothing is left."""
        self._came.set()


async def bare(floor: Floor, width: int, seconds: float) -> Sample:
    """Messages of so many senders; over when what the last one changed is durable."""
    mailbox = BareMailbox(floor)
    serving = asyncio.create_task(mailbox.serve())
    watch = Stopwatch()
    sent = sum(await asyncio.gather(*(mailbox.send(watch, seconds) for _ in range(width))))
    accepted = watch.seconds
    mailbox.close()
    await serving
    return watch.sample(sent, mailbox.transactions, accepted_seconds=accepted)


FLOORS: dict[str, Callable[[Floor, int, float], Awaitable[Sample]]] = {HOPS: hops, BARE: bare}
