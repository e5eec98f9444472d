"""Reads, gathered as writes are: what is asked in one pass of the loop is one transaction, in one hop to its thread.

    read, read, read ──► the pass is over ──► one transaction ──► each is told
    read, read       ──► all connections are busy ──► one more transaction, when one of them is free

Beside its answer a read costs a hop, and on PostgreSQL a transaction's round trips: more than most answers. A node that
looks at what others have done asks ten things at once, and each actor that got mail from elsewhere asks for its own.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from perdure.errors import PerdureError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from perdure.storage.sql.connection import Connection

R = TypeVar("R")


class _Read(NamedTuple):
    query: Callable[[Connection], Callable[[], Any]]
    future: asyncio.Future[Any]


class Reads:
    """The reads of one store.

    Args:
        transact: Runs work in the thread of a connection that is free, in a transaction that sees one state of the
            database; again from its beginning if the connection is lost. Raises `StorageError`.
        at_once: How many of them may be under way.
    """

    def __init__(self, transact: Callable[[Callable[[Connection], None]], Awaitable[None]], at_once: int) -> None:
        self._transact = transact
        self._at_once = at_once
        self._waiting: list[_Read] = []
        self._begins = False
        self._under_way: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Reads: {len(self._waiting)} waiting, {len(self._under_way)} transactions under way>"

    async def read(self, query: Callable[[Connection], R]) -> R:
        """What a query gives. Raises `StorageError`, or what the query raises."""
        return await self.ask(lambda connection: partial(query, connection))

    async def ask(self, query: Callable[[Connection], Callable[[], R]]) -> R:
        """The same for one that is sent ahead, with those of others, and then called for what it gives."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append(_Read(query, future))
        self._begin_soon(loop)
        return await future

    def _begin_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and not self._begins and len(self._under_way) < self._at_once:
            self._begins = True
            loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begins = False
        group = [one for one in self._waiting if not one.future.done()]  # who was cancelled asks no more
        self._waiting = []
        if group:
            task = loop.create_task(self._run(group), name="perdure-reads")
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin_soon(task.get_loop())

    async def _run(self, group: list[_Read]) -> None:
        found: list[Any] = []

        def work(connection: Connection) -> None:
            found.clear()
            sent = [one.query(connection) for one in group]
            for answer in sent:
                try:
                    found.append(answer())
                except PerdureError as error:  # its own; an error of the database is everybody's
                    found.append(error)

        try:
            await self._transact(work)
        except BaseException as error:
            for one in group:
                _refuse(one.future, error)
            if not isinstance(error, Exception):
                raise
            return
        for one, answer in zip(group, found, strict=True):
            if isinstance(answer, PerdureError):
                _refuse(one.future, answer)
            elif not one.future.done():
                one.future.set_result(answer)


def _refuse(future: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    elif not future.done():
        future.set_exception(error)
