"""A SQLite file as an end of a copy.

A source must be at rest. The writer lock is held while it is read, so nobody can open it meanwhile: the system would go
on in both places. It is opened for reading only; one that was closed properly has no `-wal` and is opened as immutable,
so that none is left beside it.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from perdure.errors import InUseError, StorageError, TargetError, WriterLockTimeout
from perdure.storage.copying.ends import Process, listed
from perdure.storage.copying.partial import Partial
from perdure.storage.copying.tables import Numbers, newest
from perdure.storage.sqlite_connection import TAIL
from perdure.storage.sqlite_filing import file_copied
from perdure.storage.sqlite_open import APPLICATION_ID, database_path, prepare, refuse, shown
from perdure.storage.writer_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from perdure.storage.copying.tables import Row, Table

BUSY_SECONDS = 5.0
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class SQLiteSource:
    """See `Source`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.name = str(path)
        self.running: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<SQLiteSource {self.name}>"

    def rows(self, table: Table) -> Generator[Row]:
        """See `Source.rows`. An actor that has an owner is given its real tail: nobody has it at the other end."""
        columns = table.listed.replace('"tail"', TAIL) if table.name == "actor" else table.listed
        with driver_errors(self.name):
            yield from self._connection.execute(f"SELECT {columns} FROM {table.name}")  # noqa: S608  # names of the schema

    def numbers(self) -> Numbers:
        """See `Source.numbers`."""
        return numbers(self._connection)


class SQLiteDestination:
    """See `Destination`."""

    holds_nul = True

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self.name = str(partial.final)
        self._connection = sqlite3.connect(partial.path, isolation_level=None)
        with driver_errors(self.name):
            prepare(self._connection, self.name)
            # Nobody relies on it yet: it is synced as a whole, or thrown away.
            for setting in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF"):
                self._connection.execute(f"PRAGMA {setting}").fetchall()
            self._connection.execute("BEGIN")

    def __repr__(self) -> str:
        return f"<SQLiteDestination {self.name}>"

    def fill(self, table: Table, rows: Iterable[Row]) -> None:
        """See `Destination.fill`."""
        places = ", ".join("?" * len(table.columns))
        sql = f"INSERT INTO {table.name} ({table.listed}) VALUES ({places})"  # noqa: S608  # names of the schema
        with driver_errors(self.name):
            self._connection.executemany(sql, rows)

    def complete(self, numbers: Numbers) -> None:
        """See `Destination.complete`. Actors and failures are counted on from the highest that there is."""
        with driver_errors(self.name):
            file_copied(self._connection)
            self._connection.execute("UPDATE removed SET seq = ?", (numbers.message,))
            self._connection.execute("COMMIT")
            self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
            self._connection.close()
            self._connection = opened(self._partial.path, immutable=True)

    def rows(self, table: Table) -> Generator[Row]:
        """See `Destination.rows`."""
        return SQLiteSource(self._connection, self._partial.final).rows(table)

    def publish(self) -> None:
        """See `Destination.publish`."""
        self.close()
        self._partial.publish()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


@contextmanager
def reading(target: str) -> Generator[SQLiteSource]:
    """Read a database at rest. Raises `InUseError` while a system runs on it."""
    path = existing(target)
    with ExitStack() as stack:
        if os.access(path.parent, os.W_OK):  # where nobody can write, nobody can open it
            stack.enter_context(held(path, f"{path}: somebody writes to it. Stop what runs on it first."))
        connection = stack.enter_context(closing(opened(path)))
        with driver_errors(str(path)):
            check(connection, path)
            found = living(connection, path)
        if found:
            raise InUseError(
                f"{path}: {listed(found)} runs on it, and would go on there after the copy, so that there are two of "
                "the system. Stop it first; `perdure backup` copies a running one."
            )
        yield SQLiteSource(connection, path)


@contextmanager
def filling(target: str) -> Generator[SQLiteDestination]:
    """Make a database that is not there yet."""
    path = database_path(target)
    if path is None:
        raise TargetError(f"{target}: would be gone when the copy ends. Name a file.")
    with held(path, f"{path}: somebody opens it. Name another place."), Partial(path) as partial:
        destination = SQLiteDestination(partial)
        try:
            yield destination
        finally:
            destination.close()


@contextmanager
def held(path: Path, otherwise: str) -> Generator[None]:
    """Hold a database's writer lock."""
    lock = FileLock(path.with_name(f"{path.name}-lock"))
    try:
        try:
            lock.acquire(BUSY_SECONDS)
        except WriterLockTimeout as error:
            raise InUseError(otherwise) from error
        yield
    finally:
        lock.close()


@contextmanager
def driver_errors(name: str, written: str | None = None) -> Generator[None]:
    """Have the driver's errors be ours. `written` is what is written, if it is not what the name says."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            where = written or name
            raise StorageError(f"{where}: its disk is full. Make room there, or name another place.") from error
        raise StorageError(f"{name}: {error}. Check its disk, and the file with PRAGMA integrity_check.") from error


def existing(target: str) -> Path:
    """The file that a target names. Raises `TargetError` where there is none."""
    name = target.removeprefix("sqlite:///") if target.startswith("sqlite:") else target
    if not name or name == ":memory:" or "://" in name or "\0" in name:
        raise TargetError(f"{shown(target)}: names no SQLite file. Give a path, 'sqlite:///path', or 'postgresql://…'.")
    path = Path(os.path.realpath(os.path.expanduser(name)))  # noqa: PTH111  # as the store finds it
    if not path.is_file():
        raise TargetError(f"{path}: there is no such file. Name the file that your program gives to ActorSystem.")
    return path


def opened(path: Path, *, immutable: bool | None = None) -> sqlite3.Connection:
    """A connection that only reads; as immutable, unless said, if no commit lies outside the file itself."""
    if immutable is None:
        immutable = is_closed(path)
    uri = f"file:{quote(os.fsencode(path))}?mode=ro{'&immutable=1' if immutable else ''}"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        connection.execute("PRAGMA trusted_schema = 0")
        connection.execute("BEGIN")
    except sqlite3.Error as error:
        refuse(error, str(path))
    return connection


def is_closed(path: Path) -> bool:
    """Whether everything that was committed is in the file itself."""
    return not any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `TargetError` if it is not a database of perdure, of this version."""
    try:
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    except sqlite3.Error as error:
        refuse(error, str(path))
    if application != APPLICATION_ID:
        raise TargetError(f"{path}: is no database of perdure (application_id {application:#x}). Name another file.")
    if version != newest("sqlite"):
        remedy = "Upgrade perdure." if version > newest("sqlite") else "Open it once with ActorSystem."
        raise TargetError(f"{path}: has schema {version}, and this perdure has {newest('sqlite')}. {remedy}")


def living(connection: sqlite3.Connection, path: Path) -> list[Process]:
    """The processes that run on a database: those whose kernel lock is held."""
    found = connection.execute("SELECT id, pid, host, version FROM node WHERE status = 'live'").fetchall()
    return [Process(*row) for row in found if _is_there(path, row[0])]


def _is_there(path: Path, node: str) -> bool:
    beside = path.with_name(f"{path.name}-node-{node}")
    if not (_ID.fullmatch(node) and beside.exists()):
        return False
    lock = FileLock(beside)
    try:
        return not lock.try_acquire()
    finally:
        lock.close()


def numbers(connection: sqlite3.Connection) -> Numbers:
    """See `Source.numbers`."""
    sql = "SELECT (SELECT coalesce(max(id), 0) FROM actor), \
           max((SELECT coalesce(max(seq), 0) FROM message), (SELECT max(seq) FROM removed)), \
           (SELECT coalesce(max(seq), 0) FROM failure)"
    return Numbers(*connection.execute(sql).fetchone())
