"""The store on PostgreSQL: many nodes, one database.

One connection writes, in a thread of its own; a whole transaction is one hop to it. Others read. A transaction locks
the actors it is about in the order of their ids, then settles its batch as on SQLite.

A connection may be lost at any moment, in the middle of COMMIT too. Every transaction of a node holds a lock of that
node's, so whoever connects next waits until the server has ended the one before; then a row that only it wrote tells
what became of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg
from msgspec.structs import replace

from perdure.errors import NodeBuried, OutcomeUnknownError, PerdureError, StorageError
from perdure.storage.hints import ANYBODY, News
from perdure.storage.postgres_clock import ServerClock
from perdure.storage.postgres_link import OUTAGE_SECONDS, Link, away, said
from perdure.storage.postgres_open import place, prepare, refuse
from perdure.storage.postgres_wake import Notices
from perdure.storage.sql import nodes
from perdure.storage.sql.batch import Transaction
from perdure.storage.sql.cache import Cache
from perdure.storage.sql.connection import Again, Connection, Value
from perdure.storage.sql.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

    from perdure.storage.hints import Heard
    from perdure.storage.records import NodeRecord, Peer
    from perdure.storage.writes import Settled, Write

R = TypeVar("R")

_LOG = logging.getLogger("perdure.storage")
READERS = 4
"""How many connections read at once, where the system is no client."""
_PAUSE_SECONDS = 0.2
_TRANSIENT = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


class PostgresStore(Reading):
    """A `Store` in a schema of a PostgreSQL database, 14 or newer.

    Args:
        target: A URL as libpq knows it, with `?schema=` for the schema (`perdure` by default), and `?pooler=true` if a
            transaction-mode pooler (PgBouncer) stands between.
        resumes: Whether turns that are parked are tried again when it opens.
        readers: How many connections read at once. Besides, one writes, one listens, and one sends hints.
    """

    requires_signed = True  # others may write to this database

    def __init__(self, target: str, *, resumes: bool = True, readers: int = READERS) -> None:
        self._place = place(target)
        self._clock = ServerClock(self._place.name, time.time, time.monotonic)
        super().__init__(readers, self._clock.now)
        self._resumes = resumes
        self._reader_count = readers
        self._runs: Callable[[str], bool] = bool
        self._cache = Cache()
        self._writer: Link | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._readers: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._reading: ThreadPoolExecutor | None = None
        self._batch = 0
        self._evidence: tuple[str, Value, Value] = ("", None, None)
        self._settled: list[Settled] = []
        self._notices: Notices | None = None
        self._news = News()
        self._doubt: tuple[str, Value, Value] | None = None
        """The evidence of a transaction of which nobody knows whether it was committed."""
        self._committed = self._begun = 0
        self._seen = (0, 0)
        """How many transactions this node at most, and everybody, had committed when somebody last looked."""

    def __repr__(self) -> str:
        return f"<PostgresStore {self.location} {'open' if self._writer else 'closed'}>"

    @property
    def location(self) -> str:
        """The database and the schema, without user and password."""
        return self._place.name

    # opening and closing ----------------------------------------------------------------------------------------------

    async def open(self, node: NodeRecord, runs: Callable[[str], bool]) -> None:
        """Connect, migrate, and enter the node."""
        self._node, self._runs, self._pid = node, runs, os.getpid()
        self._cache = Cache()
        self._thread = ThreadPoolExecutor(1, "perdure-postgres")
        self._reading = ThreadPoolExecutor(self._reader_count, "perdure-postgres-read")
        for _ in range(self._reader_count):
            self._readers.put(Link(self._place, node.id))
        self._writer = Link(self._place, node.id)
        self._notices = Notices(self._place, node.id)
        opening = asyncio.ensure_future(self._hop(self._open))
        try:
            await asyncio.shield(opening)
            await self._meet()
        except BaseException:
            await asyncio.wait([opening])
            opening.exception()  # what stopped the caller is what is told
            await self._disconnect()
            raise

    async def _meet(self) -> None:
        """Hear the other nodes, and be known to them."""
        notices = self._need(self._notices)
        notices.listen()
        await self._others()
        notices.announce()

    def _open(self) -> None:
        try:
            prepare(self._need(self._writer).raw, self._place)
            self._enter()
        except psycopg.Error as error:
            raise refuse(error, self.location) from error

    def _enter(self) -> None:
        with self._need(self._writer).transaction(self.me) as connection:
            by_machine = not self._clock.known
            self._clock.compare(connection.clock)
            node = self._need(self._node)
            if by_machine:
                node = self._node = replace(node, started=node.started + self._clock.ahead)
            nodes.enter(connection, node, resumes=self._resumes)

    def _enter_again(self) -> None:
        """Enter, whatever has become of the connection meanwhile."""
        writer, end = self._need(self._writer), time.monotonic() + OUTAGE_SECONDS
        self._doubt = None  # whoever buried this node has freed what it had
        while True:
            try:
                return self._enter()
            except psycopg.Error as error:
                if not away(error) or time.monotonic() > end:
                    raise StorageError(f"{self.location}: {said(error)}. The node was not entered.") from error
                writer.connect_again(error, end)

    async def rejoin(self, node: NodeRecord) -> None:
        """See `Store.rejoin`."""
        self._node = node
        await self._hop(self._enter_again)
        notices, self._notices = self._notices, Notices(self._place, node.id)
        if notices is not None:
            await notices.close()
        await self._meet()

    async def close(self) -> None:
        """Leave the deployment and close every connection."""
        if self._writer is not None and os.getpid() == self._pid:
            with suppress(psycopg.Error, PerdureError):
                await self._hop(self._leave)
                if self._notices is not None:
                    self._notices.tell(News({ANYBODY}))
        await self._disconnect()

    def _leave(self) -> None:
        with self._need(self._writer).transaction(self.me) as connection:
            nodes.leave(connection, self.me, self._clock.now())

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        notices, self._notices = self._notices, None
        if os.getpid() != self._pid:
            return  # the connections are the other process's, and to end them would end its own
        threads = [thread for thread in (self._thread, self._reading) if thread is not None]
        self._thread = self._reading = None
        try:
            if notices is not None:
                await notices.close()
        finally:
            await asyncio.to_thread(self._end, threads, writer)  # whoever waits for it may be cancelled

    def _end(self, threads: list[ThreadPoolExecutor], writer: Link | None) -> None:
        for thread in threads:
            thread.shutdown()  # what runs has a deadline
        if writer is not None:
            writer.close()
        while not self._readers.empty():
            self._readers.get().close()

    async def _hop(self, work: Callable[[], R]) -> R:
        """Run a whole piece of work in the writing connection's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._need(self._thread), work)

    # writing ----------------------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction; see `Store.write`."""
        self._news = News()
        settled = await self._hop(partial(self._write, batch))
        if self._notices is not None:
            self._notices.tell(self._news)
        return settled

    def _write(self, batch: Sequence[Write]) -> list[Settled]:
        """Try until it is committed, or refused for good, or the database has been away for too long."""
        self._batch += 1
        writer = self._need(self._writer)
        end, lost = time.monotonic() + writer.patience, False
        also: set[int] = set()
        thorough = False
        while True:
            try:
                self._settle_doubt()
                return self._transact(batch, also, thorough=thorough)
            except Again as again:
                also.update(again.actors)
                error: Exception = again
            except psycopg.errors.UniqueViolation as found:
                # An id or an address was taken, beside this transaction or before: look closely, and refuse that one.
                error, thorough = found, True
                self._cache.ids.clear()
            except _TRANSIENT as found:
                error = found
            except psycopg.Error as found:
                error = found
                if not lost:  # a silent connection may have taken all of the time
                    lost, end = True, time.monotonic() + writer.patience
                settled = self._after(found, end)
                if settled is not None:
                    return settled
            if time.monotonic() > end:
                raise self._refused(error) from error

    def _refused(self, error: Exception) -> StorageError:
        return StorageError(f"{self.location}: {said(error)}. Nothing of this batch was written.")

    def _after(self, error: psycopg.Error, end: float) -> list[Settled] | None:
        """After an error of the connection: what was committed all the same; none if the batch is to be tried again.

        Raises:
            StorageError: It is the server's answer, and would be the same again.
        """
        writer = self._need(self._writer)
        if not away(error):
            raise self._refused(error) from error
        settled, self._doubt = self._settled, self._evidence if writer.committing else self._doubt
        if not writer.committing:
            writer.connect_again(error, end)
        elif self._was_committed(error, end):
            _LOG.warning("%s: batch %d was committed although its connection was lost", self.location, self._batch)
            return settled
        return None

    def _was_committed(self, error: psycopg.Error, end: float) -> bool:
        """Wait until the server has ended the transaction before, and look for a row that only it wrote.

        Raises:
            OutcomeUnknownError: It cannot be looked up in time.
        """
        (sql, *values), writer = self._evidence, self._need(self._writer)
        while True:
            try:
                writer.connect_again(error, end)
                with writer.transaction(self.me) as connection:
                    committed = bool(connection.fetch(sql, *values))
            except psycopg.Error as found:
                if not away(found) or time.monotonic() > end:
                    raise self._unknown(found) from found
                error = found
            except StorageError as found:
                raise self._unknown(found) from found
            else:
                self._doubt = None
                return committed

    def _unknown(self, error: Exception) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self.location}: the server went away in the middle of a commit, and whether that took effect cannot be "
            f"looked up ({said(error)}). See to the server; what was sent from outside, send again under an id of its "
            "own, options(id=…), so that it is handled once."
        )

    def _settle_doubt(self) -> None:
        """If a transaction was committed that its writers believe to have failed, free all that this node has."""
        if self._doubt is None:
            return
        (sql, *values), writer = self._doubt, self._need(self._writer)
        try:
            with writer.transaction(self.me) as connection:
                if connection.fetch(sql, *values):
                    nodes.disown(connection, self.me)
        finally:
            writer.committing = False  # it may be done twice
        self._doubt = None

    def _transact(self, batch: Sequence[Write], also: set[int], *, thorough: bool) -> list[Settled]:
        self._settled = []
        with self._counted(), self._need(self._writer).transaction(self.me) as connection:
            status = connection.send("SELECT status FROM node WHERE id = ?", self.me)
            transaction = Transaction(connection, self._cache, self.me, self._runs, thorough=thorough)
            self._settled.extend(transaction.run(batch, self._clock.now(), also))
            if nodes.is_buried(status.fetchall()):
                raise NodeBuried(self.me)
            if transaction.evidence is None:
                self._evidence = ("SELECT 1 FROM node WHERE batch = ? AND id = ?", self._batch, self.me)
                connection.send("UPDATE node SET batch = ? WHERE id = ?", self._batch, self.me)
            else:
                self._evidence = transaction.evidence
            self._news = transaction.news
        connection.check()
        return self._settled

    @contextmanager
    def _counted(self) -> Generator[None]:
        """Count a transaction: as one that may be committed while it runs, as one that was when it has been."""
        self._begun = self._committed + 1
        try:
            yield
            self._committed += 1
        finally:
            self._begun = self._committed

    async def checkpoint(self) -> None:
        """PostgreSQL keeps its own house."""

    # reading ----------------------------------------------------------------------------------------------------------

    async def _transact_reads(self, work: Callable[[Connection], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._need(self._reading), self._in_one, work)

    def _in_one(self, work: Callable[[Connection], None]) -> None:
        """Read in one transaction, again if the connection is lost."""
        end, pause = 0.0, 0.0  # one lost connection need not cost a pause
        link = self._readers.get()  # there are as many as threads
        try:
            while True:
                try:
                    with link.transaction(None) as connection:
                        return work(connection)
                except psycopg.Error as error:
                    end = end or time.monotonic() + OUTAGE_SECONDS
                    if time.monotonic() > end or not away(error):
                        raise StorageError(f"{self.location}: {said(error)}.") from error
                    link.close()
                    time.sleep(pause)
                    pause = _PAUSE_SECONDS
        finally:
            self._readers.put(link)

    async def changed(self) -> bool:
        """See `Store.changed`; other applications' transactions count, too, for that is all the server tells."""
        notices = self._need(self._notices)
        heard, notices.heard = notices.heard, False
        own, newest = self._committed, await self._version()
        (seen_own, seen), self._seen = self._seen, (self._begun, newest)
        return heard or newest - seen > own - seen_own

    async def _version(self) -> int:
        """How many transactions that write have ended: those below the newest, without those that run still."""
        sql = "SELECT pg_snapshot_xmax(now)::text::bigint - (SELECT count(*) FROM pg_snapshot_xip(now)) \
               FROM pg_current_snapshot() AS now"
        ((ended,),) = await self._read(lambda connection: connection.fetch(sql))
        return int(ended)

    async def wait(self, seconds: float) -> Heard:
        """See `Store.wait`."""
        return await self._need(self._notices).wait(seconds, self._version, self._seen[1])

    def await_ends(self, messages: Collection[int]) -> None:
        """See `Store.await_ends`."""
        if self._notices is not None:
            self._notices.await_ends(messages)

    async def _others(self) -> list[str]:
        """The other nodes that have not left, who from now on are woken."""
        others = [peer.id for peer in await self.peers()]
        if self._notices is not None:
            self._notices.meet(others)
        return others

    async def peers(self) -> list[Peer]:
        """See `Store.peers`; every node asks for them all the time, and then the server's clock is read as well."""
        return await self._read(self._peers)

    def _peers(self, connection: Connection) -> list[Peer]:
        self._clock.compare(connection.clock)
        return nodes.peers(connection, self.me)

    async def dead_nodes(self) -> list[str]:
        """Nothing outside the database tells; but the living ones are known from now on."""
        await self._others()
        return []

    async def buried(self, node: str) -> None:
        """A node leaves nothing outside the database."""
