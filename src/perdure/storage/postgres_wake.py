"""Wake-ups between the nodes of a PostgreSQL database, by NOTIFY.

Every node listens to a channel of its own and to one for all, on a connection of its own.

Hints are sent after the commit and beside the next one, on another connection: PostgreSQL lets one transaction at a
time commit that has notified, in the whole server, so a commit path with NOTIFY in it would stand in a line. Those that
gather while some are on their way go together, each once.

    hint  = node [word…]        from that node: look at everything, or at what the words say
    word  = "a" actor           something came for it
          | "e" message         it has ended
          | "w" message         that node waits for its end

Behind a transaction-mode pooler nothing can be heard; there, the database is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from perdure.storage.hints import ANYBODY, MANY, Ear, Lately, remember
from perdure.storage.postgres_link import Link, said

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from perdure.storage.hints import Heard, News
    from perdure.storage.postgres_open import Place

_LOG = logging.getLogger("perdure.storage")
_LISTEN_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_SOMEBODY = "*"
"""Who may have said something while nobody listened."""
_TOGETHER = 300
"""Words of one notification, which has room for 8,000 bytes."""


class Notices:
    """The wake-ups of one node. All of it but the listening and the sending happens in the event loop's thread."""

    def __init__(self, where: Place, node: str) -> None:
        self._where = where
        self._node = node
        self._prefix = f"perdure_{hashlib.sha256(where.schema.encode()).hexdigest()[:16]}"
        self._loop = asyncio.get_running_loop()
        self._ear = Ear()
        self.heard = False
        """Whether another node has said that it committed something, since somebody last looked."""
        self._peers: frozenset[str] = frozenset()
        self._awaited: dict[int, set[str]] = {}
        self._lately = Lately()
        self._told: dict[int, None] = {}
        self._pending: dict[str, dict[str, None]] = {}
        self._sending: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "perdure-notify")
        self._sender = Link(where, f"{node} hints")
        self._listener = Link(where, f"{node} listens")
        self._ears: threading.Thread | None = None
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Notices of {self._node}, {len(self._peers)} peers>"

    def _channel(self, node: str) -> str:
        return self._prefix if node == ANYBODY else f"{self._prefix}_{node}"

    # being woken ------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Have others wake this node."""
        if not self._where.pooler:
            self._ears = threading.Thread(target=self._listen, name="perdure-listen", daemon=True)
            self._ears.start()

    def _listen(self) -> None:
        try:
            self._listen_until_closed()
        finally:
            self._listener.close()

    def _listen_until_closed(self) -> None:
        missed = False
        while not self._closed.is_set():
            try:
                raw = self._listener.raw
                for node in (ANYBODY, self._node):
                    raw.execute(f'LISTEN "{self._channel(node)}"'.encode())  # hexadecimal, both of it
                if missed:
                    self._hear(_SOMEBODY)
                missed = True
                while not self._closed.is_set():
                    raw.deadline = time.monotonic() + 2 * _LISTEN_SECONDS
                    raw.execute("SELECT 1")  # or a half-open connection would be silent for ever
                    for notice in raw.notifies(timeout=_LISTEN_SECONDS):
                        self._hear(notice.payload)
                        if self._closed.is_set():
                            return
            except (psycopg.Error, OSError) as error:
                self._listener.close()
                if not self._closed.is_set():
                    _LOG.warning("%s: wake-ups are not heard (%s); listening again", self._where.name, said(error))
                    self._closed.wait(_PAUSE_SECONDS)

    def _hear(self, payload: str) -> None:
        with suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._heard, payload)

    def _heard(self, payload: str) -> None:
        node, *words = payload.split()
        if node == self._node:
            return
        numbers: dict[str, list[int]] = {"a": [], "e": [], "w": []}
        for word in words:
            if word[0] in numbers and word[1:].isdecimal():
                numbers[word[0]].append(int(word[1:]))
        actors, ended, waits = numbers.values()
        if not words:
            self._ear.wake()
        elif actors or ended:
            self._ear.point(actors, ended)
        self.heard = self.heard or not waits
        over = [message for message in waits if message in self._lately]
        if over:
            self._send(node, [f"e{message}" for message in over])
        awaited = {message: {node, *self._awaited.get(message, ())} for message in waits if message not in self._lately}
        remember(self._awaited, awaited)

    async def wait(self, seconds: float, version: Callable[[], Awaitable[int]], seen: int) -> Heard:
        """Wait until woken, or so long; what it was told."""
        return await self._ear.wait(seconds, lambda: self._where.pooler and bool(self._peers), version, seen)

    # waking others ----------------------------------------------------------------------------------------------------

    def meet(self, peers: Collection[str]) -> None:
        """Know the other nodes that live."""
        self._peers = frozenset(peers) - {self._node}
        if not self._peers:
            self._awaited.clear()

    def tell(self, news: News) -> None:
        """Wake the nodes that a commit concerns, and those that wait for the messages that it ended."""
        if news.ended:
            self._lately.note(news.ended)
        words: dict[str, list[str]] = {node: [f"a{actor}" for actor in actors] for node, actors in news.actors.items()}
        for message in self._awaited.keys() & news.ended if self._awaited else ():
            for node in self._awaited.pop(message):
                words.setdefault(node, []).append(f"e{message}")
        if not self._peers or not (words or news.nodes):
            return
        self._ear.stir()
        everything = {ANYBODY} if ANYBODY in news.nodes else self._peers & news.nodes
        for node in everything:
            self._send(node)
        for node in () if ANYBODY in everything else words.keys() & self._peers - everything:
            self._send(node, words[node])

    def announce(self) -> None:
        """Have everybody look, whether this node knows of anybody or not."""
        self._send(ANYBODY)

    def await_ends(self, messages: Collection[int]) -> None:
        """Ask the others to wake this node when one of these messages ends, or has just ended."""
        self._ear.stir()
        fresh = [message for message in messages if message not in self._told] if self._peers else []
        remember(self._told, dict.fromkeys(fresh))
        if fresh:
            self._send(ANYBODY, [f"w{message}" for message in fresh])

    def _send(self, node: str, words: Collection[str] = ("",)) -> None:
        """Have a node look where the words say; at everything if there are none."""
        if self._where.pooler:
            return  # nobody would hear it
        self._pending.setdefault(self._channel(node), {}).update(dict.fromkeys(words))
        if self._sending is None and not self._closed.is_set():
            self._sending = self._loop.create_task(self._send_pending(), name="perdure-notify")

    async def _send_pending(self) -> None:
        try:
            while self._pending and not self._closed.is_set():
                pending, self._pending = self._pending, {}
                hints = [(channel, payload) for channel, words in pending.items() for payload in self._payloads(words)]
                await self._loop.run_in_executor(self._thread, self._notify, hints)
        finally:
            self._sending = None

    def _payloads(self, words: Collection[str]) -> list[str]:
        """What is said in one channel: "look" by itself, which says all but what is waited for."""
        waits = [word for word in words if word[:1] == "w"]
        look = "" in words or len(words) - len(waits) > MANY
        left = waits if look else list(words)
        parts = [left[start : start + _TOGETHER] for start in range(0, len(left), _TOGETHER)]
        return [self._node] * look + [" ".join([self._node, *part]) for part in parts]

    def _notify(self, hints: Sequence[tuple[str, str]]) -> None:
        channels, payloads = [channel for channel, _ in hints], [payload for _, payload in hints]
        sql = "SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS hint (channel, payload)"
        try:
            raw = self._sender.raw
            raw.deadline = time.monotonic() + _LISTEN_SECONDS
            raw.execute(sql, [channels, payloads])
        except psycopg.Error as error:
            self._sender.close()
            _LOG.info("%s: %d hints were lost (%s)", self._where.name, len(hints), said(error))

    async def close(self) -> None:
        """Send what is pending, and hear no more. It is seen through if whoever waits for it is cancelled."""
        try:
            if self._sending is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LISTEN_SECONDS):
                        await asyncio.shield(self._sending)
        finally:
            self._closed.set()
            self._listener.interrupt()
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._thread.shutdown()
        self._sender.close()
        if self._ears is not None:
            self._ears.join(2 * _LISTEN_SECONDS)
