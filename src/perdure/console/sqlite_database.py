"""A SQLite file, read and never written: each read is one short transaction on a connection of its own.

A file that some process has open, or that a killed process left, has a `-wal` beside it and is read `mode=ro`: SQLite
then sees every commit, takes no lock that stops a writer, and neither checkpoints nor deletes. A file that was closed
properly has none. Read `mode=ro`, SQLite would create a `-wal` and a `-shm` beside it and leave them there, so such a
file is read `immutable`, and read again should anybody have opened it meanwhile.

The file itself is only ever opened by SQLite: closing any other descriptor of it would drop the locks of a system
running in this process.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote

from perdure.console.database import (
    ForeignDatabaseError,
    NoDatabaseError,
    NotADatabaseError,
    SlowReadError,
    UnreadableError,
    positional,
)
from perdure.console.locks import lock_is_held
from perdure.errors import SchemaTooNewError, TargetError
from perdure.storage.sqlite_connection import SQLiteConnection
from perdure.storage.sqlite_open import APPLICATION_ID, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.console.database import Moment
    from perdure.storage.sql.connection import Parameter

R = TypeVar("R")

SCHEMA = 4
"""The newest schema this read model knows (`PRAGMA user_version`)."""

READ_SECONDS = 1.0
"""A reader that stays longer keeps the WAL from being emptied."""

_ATTEMPTS = 3
_BUSY_SECONDS = 5.0
_STEPS_BETWEEN_CHECKS = 10_000


class _Changed(Exception):
    """Somebody opened the file while it was read as one that nobody has open."""


class SQLiteMoment:
    """See `Moment`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = SQLiteConnection(connection)
        self._path = path

    def __repr__(self) -> str:
        return f"<SQLiteMoment of {self._path}>"

    def fetch(self, sql: str, **parameters: Parameter) -> list[Any]:
        """See `Moment.fetch`."""
        text, values = positional(sql, parameters)
        return self._connection.fetch(text, *values)

    def now(self) -> float:
        """By this machine's clock, as for all processes on the file."""
        return time.time()

    def live(self, nodes: Collection[str]) -> dict[str, bool | None]:
        """As the kernel's locks on their files say."""
        return {node: lock_is_held(self._path, node) for node in nodes}


class SQLiteDatabase:
    """See `Database`."""

    def __init__(self, target: str) -> None:
        self.path = database_file(target)
        self.name = self.target = str(self.path)

    def __repr__(self) -> str:
        return f"<SQLiteDatabase {self.path}>"

    def read(self, query: Callable[[Moment], R]) -> R:
        """See `Database.read`."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(query)
            except (_Changed, SlowReadError) as error:
                if isinstance(error, SlowReadError) and attempt == _ATTEMPTS:
                    raise
        raise UnreadableError(f"{self.path}: was opened and closed by others at every attempt to read it. Try again.")

    def _attempt(self, query: Callable[[Moment], R]) -> R:
        before = self._fingerprint()
        at_rest = not (self._beside("-wal").exists() or self._beside("-journal").exists())
        try:
            with closing(self._connect(at_rest=at_rest)) as connection:
                result = _transact(connection, query, self.path)
        except (sqlite3.Error, TargetError) as error:
            if at_rest and self._moved_since(before):
                raise _Changed from error
            if isinstance(error, sqlite3.Error):
                self._explain(error)
            raise
        if at_rest and self._moved_since(before):
            raise _Changed
        return result

    def _fingerprint(self) -> tuple[int, int, int, int]:
        """The file's identity and age; raises where it is no file that could be a database."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NoDatabaseError(f"{self.path}: there is no such file. {_remedy(self.path)}") from None
        except OSError as error:
            raise UnreadableError(f"{self.path}: {error.strerror}. Name a file that this process can read.") from error
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise NoDatabaseError(f"{self.path}: is {what}. {_remedy(self.path)}")
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _moved_since(self, before: tuple[int, int, int, int]) -> bool:
        return self._beside("-wal").exists() or self._beside("-journal").exists() or self._fingerprint() != before

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _connect(self, *, at_rest: bool) -> sqlite3.Connection:
        mode = "mode=ro&immutable=1" if at_rest else "mode=ro"
        uri = f"file:{quote(os.fsencode(self.path))}?{mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        connection.text_factory = _lenient
        return connection

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        code = (error.sqlite_errorcode & 0xFF) if hasattr(error, "sqlite_errorcode") else None
        if code == sqlite3.SQLITE_NOTADB:
            raise NotADatabaseError(f"{self.path}: is not a SQLite database. {_remedy(self.path)}") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise NotADatabaseError(f"{self.path}: is damaged ({error}). Restore a backup.") from error
        if code == sqlite3.SQLITE_INTERRUPT:
            raise SlowReadError(
                f"{self.path}: the read took longer than {READ_SECONDS:g} s and was given up, so that writers are not "
                "held back. Ask for less, with --limit or --kind."
            ) from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise UnreadableError(f"{self.path}: another process keeps it locked ({error}). Try again.") from error
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
            raise UnreadableError(f"{self.path}: {self._obstacle(error)}") from error
        raise UnreadableError(f"{self.path}: {error}. Check its disk.") from error

    def _obstacle(self, error: sqlite3.Error) -> str:
        if not os.access(self.path, os.R_OK):
            return "is not readable for this user. Run as the user that owns it."
        folder = self.path.parent
        writable = os.access(folder, os.W_OK)
        return (
            f"has unmerged commits in {self.path.name}-wal, and SQLite cannot make or map {self.path.name}-shm to read "
            f"them ({error}{'' if writable else f'; {folder} is read-only for this user'}). Run as the user that owns "
            f"the database, or copy {self.path.name} and {self.path.name}-wal together to a folder you can write to."
        )


def database_file(target: str) -> Path:
    """The file that a target names, as `ActorSystem(target)` would find it."""
    name = target.removeprefix("sqlite:///") if target.startswith("sqlite:") else target
    if name == ":memory:" or target in {"sqlite://", "sqlite:///"}:
        raise NoDatabaseError(f"{target}: lives in its process alone and cannot be read from outside. Use a file.")
    if not name or "://" in name or "\0" in name:
        raise NoDatabaseError(
            f"{shown(target)}: not a database that can be read from here. Name a file, or postgresql://…."
        )
    return Path(os.path.realpath(os.path.expanduser(name)))  # noqa: PTH111  # as the store finds it


def _transact(connection: sqlite3.Connection, query: Callable[[Moment], R], path: Path) -> R:
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA trusted_schema = 0")
    connection.execute("BEGIN")
    _check(connection, path)
    deadline = time.monotonic() + READ_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
    try:
        return query(SQLiteMoment(connection, path))
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:  # at some errors of a disk, SQLite has ended it already
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        if application == 0 and tables == 0:
            raise ForeignDatabaseError(f"{path}: is empty: no ActorSystem has opened it yet. {_remedy(path)}")
        raise ForeignDatabaseError(
            f"{path}: belongs to another application (application_id {application:#x}, {tables} tables). "
            f"{_remedy(path)}"
        )
    if version > SCHEMA:
        raise SchemaTooNewError(
            f"{path}: was written by a newer perdure (schema {version}; this one knows {SCHEMA}). Upgrade perdure."
        )
    if version < SCHEMA:
        raise ForeignDatabaseError(
            f"{path}: has the older schema {version} (this perdure reads {SCHEMA}). Open it once with ActorSystem."
        )


def _remedy(path: Path) -> str:
    """Which file to name instead, where one is likely."""
    try:
        found = sorted(file.name for file in path.parent.glob("*.db") if file.is_file() and file != path)
    except OSError:
        found = []
    near = f" ({path.parent} has {', '.join(found[:3])}{', …' if found[3:] else ''})" if found else ""
    return f"Name the file that your program gives to ActorSystem{near}."


def _lenient(text: bytes) -> str:
    """Text as stored; a viewer rather shows a replacement character than nothing."""
    return text.decode(errors="replace")
