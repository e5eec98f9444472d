"""What every store in SQL has: a node that it was opened for, and what it reads."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeVar

from perdure.errors import SystemClosedError
from perdure.storage.sql import claims, family, limits, nodes, queries, read
from perdure.storage.sql.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.storage import records
    from perdure.storage.limit_writes import LimitState
    from perdure.storage.records import (
        Address,
        Answered,
        Completion,
        Found,
        Grown,
        Level,
        Loaded,
        Mail,
        Member,
        NodeRecord,
        OpenAsk,
        OpenQuery,
        Peer,
        Whereabouts,
    )
    from perdure.storage.sql.connection import Connection

R = TypeVar("R")


class Reading:
    """The reading half of a store, for the process that opened it.

    Args:
        readers: How many transactions may read at once.
        timestamp: See `Store.timestamp`; the machine's time, where all nodes are on one. Asked four times a message.
    """

    _node: NodeRecord | None = None

    def __init__(self, readers: int, timestamp: Callable[[], float] = time.time) -> None:
        self.timestamp = timestamp
        self._pid = os.getpid()
        self._reads = Reads(self._transact_reads, readers)

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the data lies, for people."""

    @property
    def me(self) -> str:
        """The id of the node that this store was opened for."""
        return self._need(self._node).id

    def _need(self, part: R | None) -> R:
        """A part that is there while the store is open. Raises `SystemClosedError` where it is not, or not usable."""
        if part is None:
            raise SystemClosedError(
                f"{self.location}: the store is not open. Use it inside `async with ActorSystem(...)`."
            )
        if os.getpid() != self._pid:
            raise SystemClosedError(
                f"{self.location}: opened in process {self._pid}, used in its fork {os.getpid()}. "
                "Open a system in each process."
            )
        return part

    @abstractmethod
    async def _transact_reads(self, work: Callable[[Connection], None]) -> None:
        """See `Reads`."""

    async def _read(self, query: Callable[[Connection], R]) -> R:
        return await self._reads.read(query)

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """See `Store.load`."""
        return await self._read(lambda connection: read.load(connection, actors, mail))

    async def mail(self, actor: int, after: int, limit: int) -> list[Mail]:
        """See `Store.mail`."""
        return await self._read(lambda connection: read.mail(connection, actor, after, limit))

    async def past(self, message: int) -> records.Past:
        """See `Store.past`."""
        return await self._read(lambda connection: read.past(connection, message))

    async def find(self, id: str) -> Found | None:
        """See `Store.find`."""
        return next((found for _, found in await self.find_all([id])), None)

    async def find_all(self, ids: Collection[str]) -> list[tuple[str, Found]]:
        """See `Store.find_all`."""
        return await self._reads.ask(lambda connection: read.find_all(connection, ids))

    async def completed(self, *messages: int) -> list[Completion]:
        """See `Store.completed`."""
        return await self._reads.ask(lambda connection: read.completed(connection, messages))

    async def next_due(self) -> float | None:
        """See `Store.next_due`."""
        return await self._read(read.next_due)

    async def grown(self, known: Collection[tuple[int, int]], limit: int) -> list[Grown]:
        """See `Store.grown`."""
        return await self._reads.ask(lambda connection: read.grown(connection, known, limit))

    async def open_asks(self, actor: int) -> list[OpenAsk]:
        """See `Store.open_asks`."""
        return await self._read(lambda connection: read.open_asks(connection, actor))

    async def lineage(self, actor: int) -> list[Level]:
        """See `Store.lineage`."""
        return await self._read(lambda connection: family.lineage(connection, actor))

    async def children(self, supervisor: int) -> list[Member]:
        """See `Store.children`."""
        return await self._read(lambda connection: family.children(connection, supervisor))

    async def member(self, actor: Address) -> Member | None:
        """See `Store.member`."""
        return await self._read(lambda connection: family.member(connection, actor))

    async def restarting(self) -> list[Member]:
        """See `Store.restarting`."""
        return await self._read(lambda connection: family.restarting(connection, self.me))

    async def tops(self) -> list[Member]:
        """See `Store.tops`."""
        return await self._read(family.tops)

    async def unwanted(self) -> list[Member]:
        """See `Store.unwanted`."""
        return await self._read(lambda connection: family.unwanted(connection, self.me))

    async def elsewhere(self, actors: Collection[int]) -> list[int]:
        """See `Store.elsewhere`."""
        return await self._read(lambda connection: read.elsewhere(connection, self.me, actors))

    async def peers(self) -> list[Peer]:
        """See `Store.peers`."""
        return await self._read(lambda connection: nodes.peers(connection, self.me))

    async def departed(self) -> list[str]:
        """See `Store.departed`."""
        return await self._read(nodes.departed)

    async def unburied(self) -> list[str]:
        """See `Store.unburied`."""
        return await self._read(lambda connection: nodes.unburied(connection, self.me))

    async def unknown_kinds(self, kinds: Collection[str]) -> list[tuple[str, int]]:
        """See `Store.unknown_kinds`."""
        return await self._read(lambda connection: read.unknown_kinds(connection, self.me, kinds))

    async def offered(self, node: str | None = None) -> list[int]:
        """See `Store.offered`."""
        return await self._read(lambda connection: claims.offered(connection, node or self.me))

    async def loads(self) -> dict[str, int]:
        """See `Store.loads`."""
        return await self._read(claims.loads)

    async def whereabouts(self, actor: Address) -> Whereabouts:
        """See `Store.whereabouts`."""
        return await self._read(lambda connection: queries.whereabouts(connection, actor))

    async def open_queries(self, kinds: Collection[str], limit: int) -> list[OpenQuery]:
        """See `Store.open_queries`."""
        return await self._read(lambda connection: queries.unanswered(connection, self.me, kinds, limit))

    async def answered(self) -> list[Answered]:
        """See `Store.answered`."""
        return await self._read(lambda connection: queries.answered(connection, self.me))

    async def limits(self, names: Collection[str]) -> list[LimitState]:
        """See `Store.limits`."""
        return await self._read(lambda connection: limits.limits(connection, names))
