"""The store on SQLite, in this process, through aiosqlite.

One connection writes, another reads beside it. A whole transaction is one hop to the writing connection's thread. The
writer lock (`writer_lock.py`) is held around opening, every write transaction, every checkpoint and closing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from perdure.errors import DatabaseReplacedError, OutcomeUnknownError, PerdureError, StorageError
from perdure.storage.hints import ANYBODY, Heard, News
from perdure.storage.sql import nodes
from perdure.storage.sql.batch import Transaction
from perdure.storage.sql.cache import Cache
from perdure.storage.sql.reading import Reading
from perdure.storage.sqlite_checkpoints import BUSY_SECONDS, Checkpoints
from perdure.storage.sqlite_connection import SQLiteConnection
from perdure.storage.sqlite_filing import Filing
from perdure.storage.sqlite_open import create_private, database_path, prepare, refuse
from perdure.storage.sqlite_presence import Presence
from perdure.storage.sqlite_thread import ThreadConnection, hop, start
from perdure.storage.writer_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from perdure.storage.records import NodeRecord
    from perdure.storage.sql.connection import Connection, Value
    from perdure.storage.writes import Settled, Write

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger("perdure.storage")
_LOCK_DEADLINE_SECONDS = 60.0


class SQLiteStore(Reading):
    """A `Store` in one SQLite file, or in memory; unless it `resumes`, turns that are parked stay so when it opens."""

    requires_signed = False

    def __init__(self, target: str | os.PathLike[str], *, resumes: bool = True) -> None:
        super().__init__(readers=1)
        self._resumes = resumes
        self._target = os.fspath(target)
        self._path: Path | None = None
        self._name = ""
        self._inode: tuple[int, int] | None = None
        self._writer: ThreadConnection | None = None
        self._writing: SQLiteConnection | None = None
        self._reader: ThreadConnection | None = None
        self._lock: FileLock | None = None
        self._presence: Presence | None = None
        self._runs: Callable[[str], bool] = bool
        self._cache = Cache()
        self._batch = 0
        self._evidence: tuple[str, Value, Value] = ("SELECT 1 WHERE ? IS ?", 0, None)
        self._doubt: tuple[str, Value, Value] | None = None
        """The evidence of a transaction of which nobody knows whether it was committed."""
        self._committing = self._lost = False
        """Whether the transaction before failed in its COMMIT; whether the file could not be opened again since."""
        self._checkpoints = Checkpoints()
        self._filing = Filing()
        self._seen_version = -1
        self._news = News()

    def __repr__(self) -> str:
        return f"<SQLiteStore {self.location} {'open' if self._writer else 'closed'}>"

    @property
    def location(self) -> str:
        """The database's path, or `:memory:`."""
        return str(self._path or self._target)

    # opening and closing ----------------------------------------------------------------------------------------------

    async def open(self, node: NodeRecord, runs: Callable[[str], bool]) -> None:
        """Open or create the file, migrate it, and enter the node."""
        self._path = database_path(self._target)
        self._name = str(self._path)
        self._node, self._runs, self._pid = node, runs, os.getpid()
        self._cache = Cache()
        if self._path is not None:
            self._lock = FileLock(self._path.with_name(f"{self._path.name}-lock"))
            self._presence = Presence(self._path, node.id)
        opening = asyncio.ensure_future(self._open())
        try:
            await asyncio.shield(opening)
        except BaseException:
            # A cancelled caller does not stop the connection's thread, which holds the lock: let it end first.
            await asyncio.wait([opening])
            opening.exception()  # what stopped the caller is what is told
            await self._disconnect()
            raise

    async def _open(self) -> None:
        self._writer = await self._connect()
        if self._presence is not None:
            self._presence.wakes.listen()  # before anybody can know that this node is there
        await hop(self._writer, self._locked, self._enter)
        self._reader = self._writer if self._path is None else await self._connect_reader()
        await self._others()

    async def _connect(self) -> ThreadConnection:
        return await start(ThreadConnection(lambda: self._locked(self._open_writer)))

    async def _connect_reader(self) -> ThreadConnection:
        uri = f"file:{quote(str(self._path))}?mode=ro"
        return await start(ThreadConnection(lambda: sqlite3.connect(uri, uri=True, isolation_level=None)))

    def _open_writer(self) -> sqlite3.Connection:
        if self._path is not None:
            create_private(self._path)
        try:
            connection = sqlite3.connect(
                self._path or ":memory:",
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
                timeout=BUSY_SECONDS,
            )
        except sqlite3.Error as error:
            refuse(error, self.location)
        try:
            prepare(connection, self.location)
        except BaseException:
            connection.close()
            raise
        if self._path is not None:
            status = self._path.stat()
            self._inode = (status.st_dev, status.st_ino)
        self._writing = SQLiteConnection(connection)
        return connection

    def _enter(self) -> None:
        node = self._need(self._node)
        if self._presence is not None:
            self._presence.prove()
        self._in_transaction(nodes.enter, node, resumes=self._resumes)

    async def rejoin(self, node: NodeRecord) -> None:
        """See `Store.rejoin`."""
        self._node = node
        if self._presence is not None and self._path is not None:
            self._presence.leave()
            self._presence = Presence(self._path, node.id)
            self._presence.wakes.listen()
        await hop(self._need(self._writer), self._locked, self._enter)
        await self._others()

    async def close(self) -> None:
        """Leave the deployment and close both connections."""
        if self._writer is not None and os.getpid() == self._pid:
            with suppress(sqlite3.Error, ValueError):
                await hop(self._writer, self._locked, self._leave)
                if self._presence is not None:
                    self._presence.wakes.tell(News({ANYBODY}))  # they need not wait for the rest of it
        await self._disconnect()

    def _leave(self) -> None:
        self._in_transaction(nodes.leave, self.me, time.time())

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if reader is not None and reader is not writer:
            await reader.close()
        if writer is not None:
            # Closing the last connection checkpoints, which is writing: under the lock.
            with suppress(sqlite3.Error):
                await hop(writer, self._locked, writer.raw.close)
            await writer.close()
        if self._presence is not None and os.getpid() == self._pid:
            self._presence.leave()
        self._presence = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _raw(self) -> sqlite3.Connection:
        return self._need(self._writer).raw

    # writing ----------------------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction; see `Store.write`."""
        if self._lost:
            await self._go_on()
        writer = self._need(self._writer)
        self._batch += 1
        settled: list[Settled] = []
        self._news = News()
        try:
            await hop(writer, self._locked, self._transact, batch, settled)
        except sqlite3.Error as error:
            self._cache.clear()
            if not await self._was_committed(error):
                raise self._explain(error) from error
            _LOG.warning("%s: batch %d was committed although SQLite reported: %s", self.location, self._batch, error)
        if self._presence is not None:
            self._presence.wakes.tell(self._news)
        return settled

    def _locked(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._lock is None:
            return work(*args, **kwargs)
        self._lock.acquire(_LOCK_DEADLINE_SECONDS)
        try:
            return work(*args, **kwargs)
        finally:
            self._lock.release()

    def _in_transaction(
        self, work: Callable[Concatenate[SQLiteConnection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        connection, self._committing = self._need(self._writing), False
        connection.raw.execute("BEGIN IMMEDIATE")
        try:
            work(connection, *args, **kwargs)
            self._committing = True
            connection.raw.execute("COMMIT")
        except BaseException:
            self._cache.clear()
            if connection.raw.in_transaction and not self._committing:  # a failing disk has it taken back already
                connection.raw.execute("ROLLBACK")
            raise

    def _transact(self, batch: Sequence[Write], settled: list[Settled]) -> None:
        me = self.me
        self._evidence = ("SELECT 1 FROM node WHERE batch = ? AND id = ?", self._batch, me)
        try:
            self._in_transaction(self._settle, me, batch, settled, thorough=False)
        except sqlite3.IntegrityError:
            # A generated id was taken, which is not looked for at every message: find out whose, and refuse that one.
            settled.clear()
            self._in_transaction(self._settle, me, batch, settled, thorough=True)
        self._checkpoints.wrote(len(batch))
        self._filing.wrote(len(batch))
        self._check_inode()

    def _settle(
        self, connection: SQLiteConnection, me: str, batch: Sequence[Write], settled: list[Settled], *, thorough: bool
    ) -> None:
        transaction = Transaction(connection, self._cache, me, self._runs, thorough=thorough)
        settled.extend(transaction.run(batch, time.time()))
        if transaction.evidence is None:
            connection.execute("UPDATE node SET batch = ? WHERE id = ?", self._batch, me)
        else:
            self._evidence = transaction.evidence
        self._news = transaction.news

    def _check_inode(self) -> None:
        """Refuse to acknowledge what went to a file that nobody can open any more."""
        if self._path is None:
            return
        try:
            status = os.stat(self._name)  # noqa: PTH116  # a pathlib path costs ten times the call, at every commit
            found = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            found = None
        if found != self._inode:
            raise DatabaseReplacedError(
                f"{self._path}: was {'replaced' if found else 'removed'} while in use. "
                "Stop, restore the file, start again."
            )

    async def _was_committed(self, error: sqlite3.Error) -> bool:
        """After an error: open the file anew, and look whether the batch is there.

        Raises:
            OutcomeUnknownError: It may be, and the file cannot be opened.
        """
        committing = self._committing
        try:
            await self._open_again()
            return bool(await hop(self._need(self._writer), self._find, self._evidence))
        except DatabaseReplacedError:
            raise
        except (sqlite3.Error, PerdureError) as found:
            self._lost = True
            if not committing:
                raise self._explain(error) from error
            self._doubt = self._evidence
            raise OutcomeUnknownError(
                f"{self.location}: a commit failed ({error}), and whether it took effect is not known ({found}). "
                "See to its disk; what was sent from outside, send again under an id of its own, options(id=…), so "
                "that it is handled once."
            ) from error

    def _find(self, evidence: tuple[str, Value, Value]) -> list[object]:
        sql, *values = evidence
        return self._raw.execute(sql, values).fetchall()

    async def _open_again(self) -> None:
        writer = self._writer
        if self._path is None and writer is not None:  # closed, it would be gone
            await hop(writer, self._raw.rollback)
            return
        self._lost, self._writer = True, None
        if writer is not None:
            with suppress(sqlite3.Error):
                await writer.close()
        self._check_inode()  # or another file would be made in its place
        self._writer = await self._connect()
        self._lost = False

    async def _go_on(self) -> None:
        """After the file could not be opened: open it, and free what this node has if it was written after all."""
        try:
            await self._open_again()
            await hop(self._need(self._writer), self._locked, self._settle_doubt)
        except sqlite3.Error as error:
            self._lost = True
            raise self._explain(error) from error

    def _settle_doubt(self) -> None:
        """If a transaction was committed that its writers believe to have failed, free all that this node has."""
        if self._doubt is not None:
            self._in_transaction(self._disown, self._doubt)
        self._doubt = None

    def _disown(self, connection: SQLiteConnection, doubt: tuple[str, Value, Value]) -> None:
        if self._find(doubt):
            nodes.disown(connection, self.me)

    def _explain(self, error: sqlite3.Error) -> StorageError:
        text = str(error)
        remedy = "Free space on its disk." if "full" in text else "Check its disk; nothing of this batch was written."
        return StorageError(f"{self.location}: {text}. {remedy}")

    async def checkpoint(self) -> None:
        """Move the log into the database, and file messages for people, if either is due."""
        if (self._checkpoints.due or self._filing.due) and self._path is not None and not self._lost:
            with suppress(sqlite3.OperationalError):
                await hop(self._need(self._writer), self._locked, self._look_after)

    def _look_after(self) -> None:
        if self._filing.due:
            self._file()
        if self._checkpoints.due:
            self._checkpoints.move(self._raw)

    def _file(self) -> None:
        try:
            self._in_transaction(self._filing.file)
        except sqlite3.Error as error:  # another time, then: nothing rests on it
            _LOG.error("%s: messages were not filed for people, and will be: %s", self.location, error)
            if self._raw.in_transaction:  # nor need it be known what came of its COMMIT
                self._raw.execute("ROLLBACK")

    # reading ----------------------------------------------------------------------------------------------------------

    async def _transact_reads(self, work: Callable[[Connection], None]) -> None:
        reader = self._need(self._reader if self._path is not None else self._writer)

        def in_one() -> None:
            connection = reader.raw
            connection.execute("BEGIN")
            try:
                work(SQLiteConnection(connection))
            finally:
                connection.execute("COMMIT")

        try:
            await hop(reader, in_one)
        except sqlite3.Error as error:
            raise StorageError(f"{self.location}: {error}. Check its disk.") from error

    async def changed(self) -> bool:
        """See `Store.changed`."""
        before, self._seen_version = self._seen_version, await self._version()
        return before != self._seen_version

    async def _version(self) -> int:
        """Another number whenever another connection has committed; the writing one does not count its own commits."""
        if self._path is None:
            return 0
        if self._lost:
            raise StorageError(f"{self.location}: could not be opened again after an error. Check its disk.")
        try:
            return await hop(
                self._need(self._writer), lambda: int(self._raw.execute("PRAGMA data_version").fetchone()[0])
            )
        except sqlite3.Error as error:
            raise StorageError(f"{self.location}: {error}. Check its disk.") from error

    async def wait(self, seconds: float) -> Heard:
        """See `Store.wait`."""
        if self._presence is None:
            await asyncio.sleep(seconds)
            return Heard()
        return await self._presence.wakes.wait(seconds, self._version, self._seen_version)

    def await_ends(self, messages: Collection[int]) -> None:
        """See `Store.await_ends`."""
        if self._presence is not None:
            self._presence.wakes.await_ends(messages)

    async def _others(self) -> list[str]:
        """The other nodes that have not left, who from now on are woken; without any, a commit does nothing for it."""
        others = [peer.id for peer in await self.peers()]
        if self._presence is not None:
            self._presence.meet(others)
        return others

    async def dead_nodes(self) -> list[str]:
        """Nodes that have not left, whose kernel lock is free: their process is gone."""
        presence = self._presence
        return [] if presence is None else [node for node in await self._others() if presence.is_gone(node)]

    async def buried(self, node: str) -> None:
        """Remove what a buried node left beside the database."""
        self._need(self._presence).bury(node)
        await self._others()
