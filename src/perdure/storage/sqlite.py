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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast
from urllib.parse import quote

import aiosqlite

from perdure.errors import DatabaseReplacedError, PerdureError, StorageError, SystemClosedError, TargetError
from perdure.storage import sqlite_family, sqlite_leaving, sqlite_read
from perdure.storage.sqlite_batch import Transaction
from perdure.storage.sqlite_gather import Cache
from perdure.storage.sqlite_open import create_private, database_path, prepare, refuse
from perdure.storage.writer_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Generator, Sequence

    from perdure.storage import records
    from perdure.storage.records import Address, Completion, Found, Level, Loaded, Mail, Member, NodeRecord, OpenAsk
    from perdure.storage.sqlite_rows import Value
    from perdure.storage.writes import Settled, Write

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger("perdure.storage")
_LOCK_DEADLINE_SECONDS = 60.0
_JOIN_SECONDS = 5.0
_CHECKPOINT_PAGES = 1_000
_RESTART_PAGES = 16_000
_WRITES_A_TRANSACTION = 8


class SQLiteStore:
    """A `Store` in one SQLite file, or in memory; unless it `resumes`, turns that are parked stay so when it opens."""

    def __init__(self, target: str | os.PathLike[str], *, resumes: bool = True) -> None:
        self._resumes = resumes
        self._target = os.fspath(target)
        self._path: Path | None = None
        self._name = ""
        self._inode: tuple[int, int] | None = None
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._lock: FileLock | None = None
        self._alive: FileLock | None = None
        self._node: NodeRecord | None = None
        self._runs: Callable[[str], bool] = bool
        self._cache = Cache()
        self._batch = 0
        self._evidence: tuple[str, Value, Value] = ("SELECT 1 WHERE ? IS ?", 0, None)
        self._written = 0
        self._checkpoint_at = 4_096
        self._seen_version = -1
        self._pid = os.getpid()

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
            self._lock = FileLock(self._side_file("lock"))
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
        await _hop(self._writer, self._locked, self._enter)
        self._reader = self._writer if self._path is None else await self._connect_reader()

    def _side_file(self, suffix: str) -> Path:
        if self._path is None:
            raise SystemClosedError("an in-memory database has no side files")
        return self._path.with_name(f"{self._path.name}-{suffix}")

    async def _connect(self) -> aiosqlite.Connection:
        def connector() -> sqlite3.Connection:
            return self._locked(self._open_writer)

        return await _start(aiosqlite.Connection(connector, 64))

    async def _connect_reader(self) -> aiosqlite.Connection:
        uri = f"file:{quote(str(self._path))}?mode=ro"
        return await _start(aiosqlite.connect(uri, uri=True, isolation_level=None))

    def _open_writer(self) -> sqlite3.Connection:
        if self._path is not None:
            create_private(self._path)
        try:
            connection = sqlite3.connect(
                self._path or ":memory:",
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
                timeout=10,
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
        return connection

    def _enter(self) -> None:
        node = self._need(self._node)
        if self._path is not None:
            self._alive = FileLock(self._side_file(f"node-{node.id}"))
            if not self._alive.try_acquire():
                raise StorageError(f"{self._alive!r}: a fresh node id is taken. Start again.")
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO node (id, pid, host, python, version, started) VALUES (?, ?, ?, ?, ?, ?)",
                (node.id, node.pid, node.host, node.python, node.version, node.started),
            )
            if self._resumes:
                # The code may have been mended: a parked turn is tried again, and parks again if not.
                connection.execute("UPDATE actor SET status = 'ready', reason = NULL WHERE status = 'parked'")

    async def close(self) -> None:
        """Leave the deployment and close both connections."""
        if self._writer is not None and os.getpid() == self._pid:
            with suppress(sqlite3.Error, ValueError):
                await _hop(self._writer, self._locked, self._leave)
        await self._disconnect()

    def _leave(self) -> None:
        with self._transaction() as connection:
            sqlite_leaving.depart(connection, self._need(self._node).id)

    async def _disconnect(self) -> None:
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if reader is not None and reader is not writer:
            await reader.close()
        if writer is not None:
            # Closing the last connection checkpoints, which is writing: under the lock.
            with suppress(sqlite3.Error):
                await _hop(writer, self._locked, writer._conn.close)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # no public way into the thread
            await writer.close()
        if self._alive is not None:
            self._alive.close()
            self._side_file(f"node-{self._need(self._node).id}").unlink(missing_ok=True)
            self._alive = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _raw(self) -> sqlite3.Connection:
        return self._need(self._writer)._conn  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # a whole transaction in one hop

    def _need(self, part: R | None) -> R:
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

    # writing ----------------------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction; see `Store.write`."""
        writer = self._need(self._writer)
        self._batch += 1
        settled: list[Settled] = []
        try:
            await _hop(writer, self._locked, self._transact, batch, settled)
        except sqlite3.Error as error:
            self._cache.clear()
            if not await self._was_committed():
                raise self._explain(error) from error
            _LOG.warning("%s: batch %d was committed although SQLite reported: %s", self.location, self._batch, error)
        return settled

    def _locked(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._lock is None:
            return work(*args, **kwargs)
        self._lock.acquire(_LOCK_DEADLINE_SECONDS)
        try:
            return work(*args, **kwargs)
        finally:
            self._lock.release()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        connection = self._raw
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _transact(self, batch: Sequence[Write], settled: list[Settled]) -> None:
        me = self._need(self._node).id
        self._evidence = ("SELECT 1 FROM node WHERE batch = ? AND id = ?", self._batch, me)
        try:
            self._settle(me, batch, settled, thorough=False)
        except sqlite3.IntegrityError:
            # A generated id was taken, which is not looked for at every message: find out whose, and refuse that one.
            self._cache.clear()
            settled.clear()
            self._settle(me, batch, settled, thorough=True)
        self._written += len(batch) + _WRITES_A_TRANSACTION
        self._check_inode()

    def _settle(self, me: str, batch: Sequence[Write], settled: list[Settled], *, thorough: bool) -> None:
        try:
            with self._transaction() as connection:
                transaction = Transaction(connection, self._cache, me, self._runs, thorough=thorough)
                settled.extend(transaction.run(batch, time.time()))
                if transaction.evidence is None:
                    connection.execute("UPDATE node SET batch = ? WHERE id = ?", (self._batch, me))
                else:
                    self._evidence = transaction.evidence
        except BaseException:
            self._cache.clear()
            raise

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

    async def _was_committed(self) -> bool:
        """After an error whose effect is unknown: reopen, and look the batch up."""
        writer = self._need(self._writer)
        with suppress(sqlite3.Error):
            await writer.close()
        self._writer = None
        try:
            self._writer = await self._connect()
            sql, *values = self._evidence
            rows = await _hop(self._writer, lambda: self._raw.execute(sql, values).fetchall())
        except (sqlite3.Error, PerdureError) as error:
            raise StorageError(
                f"{self.location}: cannot be reopened after an I/O error ({error}). Start again."
            ) from error
        return bool(rows)

    def _explain(self, error: sqlite3.Error) -> StorageError:
        text = str(error)
        remedy = "Free space on its disk." if "full" in text else "Check its disk; nothing of this batch was written."
        return StorageError(f"{self.location}: {text}. {remedy}")

    async def checkpoint(self) -> None:
        """Move the WAL into the database about every thousand pages.

        SQLite keeps a WAL at its size and overwrites it from the start, so its size does not tell; what was written
        since the last checkpoint does, measured against what that checkpoint found.
        """
        if self._written < self._checkpoint_at or self._path is None:
            return
        with suppress(sqlite3.OperationalError):
            await _hop(self._need(self._writer), self._locked, self._checkpoint)

    def _checkpoint(self) -> None:
        _, frames, moved = self._raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames > 0:
            self._checkpoint_at = min(max(self._checkpoint_at * _CHECKPOINT_PAGES // frames, 256), 65_536)
        if frames - moved > _RESTART_PAGES:
            # Readers have held it up for long: wait for them, so that the WAL begins at its start again.
            self._raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self._written = 0

    # reading ----------------------------------------------------------------------------------------------------------

    async def _read(self, query: Callable[[sqlite3.Connection], R]) -> R:
        reader = self._need(self._reader if self._path is not None else self._writer)
        try:
            return await _hop(reader, lambda: query(reader._conn))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # one hop a read
        except sqlite3.Error as error:
            raise StorageError(f"{self.location}: {error}. Check its disk.") from error

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """See `Store.load`."""
        return await self._read(lambda connection: sqlite_read.load(connection, actors, mail))

    async def mail(self, actor: int, after: int, limit: int) -> list[Mail]:
        """See `Store.mail`."""
        return await self._read(lambda connection: sqlite_read.mail(connection, actor, after, limit))

    async def past(self, message: int) -> records.Past:
        """See `Store.past`."""
        return await self._read(lambda connection: sqlite_read.past(connection, message))

    async def find(self, id: str) -> Found | None:
        """See `Store.find`."""
        return await self._read(lambda connection: sqlite_read.find(connection, id))

    async def completed(self, message: int) -> list[Completion]:
        """See `Store.completed`."""
        return await self._read(lambda connection: sqlite_read.completed(connection, message))

    async def next_due(self) -> float | None:
        """See `Store.next_due`."""
        return await self._read(sqlite_read.next_due)

    async def changed(self) -> bool:
        """See `Store.changed`. The writing connection does not count its own commits."""
        if self._path is None:
            return False
        rows = await _hop(self._need(self._writer), lambda: self._raw.execute("PRAGMA data_version").fetchall())
        before, self._seen_version = self._seen_version, int(rows[0][0])
        return before != self._seen_version

    async def behind(self, known: Collection[tuple[int, int]]) -> list[int]:
        """See `Store.behind`."""
        return await self._read(lambda connection: sqlite_read.behind(connection, known))

    async def open_asks(self, actor: int) -> list[OpenAsk]:
        """See `Store.open_asks`."""
        return await self._read(lambda connection: sqlite_read.open_asks(connection, actor))

    async def lineage(self, actor: int) -> list[Level]:
        """See `Store.lineage`."""
        return await self._read(lambda connection: sqlite_family.lineage(connection, actor))

    async def children(self, supervisor: int) -> list[Member]:
        """See `Store.children`."""
        return await self._read(lambda connection: sqlite_family.children(connection, supervisor))

    async def member(self, actor: Address) -> Member | None:
        """See `Store.member`."""
        return await self._read(lambda connection: sqlite_family.member(connection, actor))

    async def restarting(self) -> list[Member]:
        """See `Store.restarting`."""
        me = self._need(self._node).id
        return await self._read(lambda connection: sqlite_family.restarting(connection, me))

    async def tops(self) -> list[Member]:
        """See `Store.tops`."""
        return await self._read(sqlite_family.tops)

    async def unwanted(self) -> list[Member]:
        """See `Store.unwanted`."""
        me = self._need(self._node).id
        return await self._read(lambda connection: sqlite_family.unwanted(connection, me))

    async def elsewhere(self, actors: Collection[int]) -> list[int]:
        """See `Store.elsewhere`."""
        me = self._need(self._node).id
        return await self._read(lambda connection: sqlite_read.elsewhere(connection, me, actors))

    async def unknown_kinds(self, kinds: Collection[str]) -> list[tuple[str, int]]:
        """See `Store.unknown_kinds`."""
        return await self._read(lambda connection: sqlite_read.unknown_kinds(connection, kinds))

    async def dead_nodes(self) -> list[str]:
        """Nodes that have not left, whose kernel lock is free: their process is gone."""
        if self._path is None:
            return []
        me = self._need(self._node).id
        nodes = await self._read(
            lambda c: c.execute("SELECT id FROM node WHERE status = 'live' AND id <> ?", (me,)).fetchall()
        )
        return [node for (node,) in nodes if self._is_free(node)]

    def _is_free(self, node: str) -> bool:
        path = self._side_file(f"node-{node}")
        if not path.exists():
            return True
        lock = FileLock(path)
        try:
            return lock.try_acquire()
        finally:
            lock.close()

    async def departed(self) -> list[str]:
        """See `Store.departed`."""
        return await self._read(sqlite_leaving.departed)

    async def buried(self, node: str) -> None:
        """Remove what a buried node left beside the database."""
        self._side_file(f"node-{node}").unlink(missing_ok=True)


async def _start(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    # A process must be able to end although somebody forgot to close its system.
    connection._thread.daemon = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # aiosqlite offers no way
    try:
        return await connection
    except BaseException as error:
        # aiosqlite tells its thread to end and does not wait for it
        await asyncio.to_thread(connection._thread.join, _JOIN_SECONDS)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # aiosqlite offers no way
        if isinstance(error, sqlite3.Error):
            raise TargetError(f"the database cannot be opened: {error}.") from error
        raise


async def _hop(connection: aiosqlite.Connection, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a whole piece of work in a connection's thread."""
    # Private, because aiosqlite's public calls are one hop a statement.
    execute = cast("Callable[..., Awaitable[R]]", connection._execute)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]  # it has no types
    return await execute(work, *args, **kwargs)
