"""A backup of a system, while it runs.

On SQLite it is the database's pages, by SQLite's own backup, which reads one snapshot from beginning to end. So no
writer waits for it, and no commit makes it begin again: a backup that takes a snapshot at every step never ends beside
a busy writer. As long as it runs, what is written stays in the WAL. Its first opening finds what a crash at that moment
would have left.

On PostgreSQL it is a copy of one snapshot, in a SQLite file, with nobody owning anything. That file runs where it is,
or is copied back.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from perdure.errors import CopyDiffersError, TargetError
from perdure.storage.copying.copy import move, postgres_end
from perdure.storage.copying.partial import Partial
from perdure.storage.copying.sqlite_end import (
    SQLiteDestination,
    check,
    driver_errors,
    existing,
    held,
    is_closed,
    opened,
)
from perdure.storage.copying.tables import tables
from perdure.storage.targets import is_postgres

if TYPE_CHECKING:
    from collections.abc import Generator

_PAGES_A_STEP = 256
_BYTES_A_SYNC = 32 << 20
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+]*:/")  # as a path, which has lost its second slash


@frozen
class BackedUp:
    """A backup, verified.

    Attributes:
        counts: What is in it: tables and their rows.
    """

    source: str
    path: Path
    size: int
    counts: tuple[tuple[str, int], ...]


def back_up(target: str, place: Path, *, replaces: bool = False) -> BackedUp:
    """Back a system up into a file, whether it runs or not.

    Raises:
        NotEmptyError: There is something already, and it is not to be replaced; or it is a database in use.
        TargetError: There is no system, or nobody can write a file there.
        CopyDiffersError: What was written is damaged.
    """
    place = _checked(place)
    if is_postgres(target):
        return _of_postgres(target, place, replaces=replaces)
    path = existing(target)
    if place == path or (place.exists() and place.samefile(path)):
        raise TargetError(f"{place}: is the database itself. Name another place.")
    with Partial(place, replaces=replaces) as partial:
        counts = _copy_pages(path, partial)
        _verify(partial.path, place, counts)
        size = partial.path.stat().st_size
        partial.publish()
    return BackedUp(str(path), place, size, counts)


def _checked(given: Path) -> Path:
    """Where a file can be made. Raises `TargetError`, which quotes no URL: it may have a password."""
    if _URL.match(str(given)):
        raise TargetError("a backup is a file, and no URL. Give its path; `perdure copy` fills a schema of PostgreSQL.")
    place = Path(os.path.realpath(given))
    try:
        if not place.parent.is_dir():
            raise TargetError(f"{place}: its directory does not exist. Create {place.parent} first.")
        Partial(place).longest.exists()
    except OSError as error:
        raise TargetError(f"{place}: {error.strerror}. Name another place.") from error
    if not os.access(place.parent, os.W_OK):
        raise TargetError(f"{place}: {place.parent} is read-only for this process. Give it write access.")
    return place


def _of_postgres(target: str, place: Path, *, replaces: bool) -> BackedUp:
    with Partial(place, replaces=replaces) as partial, postgres_end().reading(target, running=True) as source:
        with closing(SQLiteDestination(partial)) as destination:
            copied = move(source, destination)
        counts = tuple((table.name, table.destination.rows) for table in copied.tables)
        return BackedUp(source.name, place, place.stat().st_size, counts)


def _copy_pages(path: Path, to: Partial) -> tuple[tuple[str, int], ...]:
    """Copy one snapshot, and count what is in it."""
    descriptor = os.open(to.path, os.O_RDWR | os.O_CLOEXEC)
    done = 0

    def sync(_status: int, remaining: int, total: int) -> None:
        # A little at a time: all of it at the end would hold up everybody else who syncs to this disk.
        nonlocal done
        if (total - remaining - done) * page > _BYTES_A_SYNC:
            done = total - remaining
            os.fdatasync(descriptor)

    try:
        with (
            _snapshot(path) as source,
            closing(sqlite3.connect(to.path, isolation_level=None)) as backup,
            driver_errors(str(path), written=str(to.final)),
        ):
            check(source, path)
            ((page,),) = source.execute("PRAGMA page_size").fetchall()
            for setting in ("journal_mode = OFF", "synchronous = OFF"):
                backup.execute(f"PRAGMA {setting}").fetchall()
            source.backup(backup, pages=_PAGES_A_STEP, progress=sync)
            return _counts(source)
    finally:
        os.close(descriptor)


@contextmanager
def _snapshot(path: Path) -> Generator[sqlite3.Connection]:
    """The database as it is at this moment. One that nobody has open stays closed as long as it is read."""
    with ExitStack() as stack:
        if is_closed(path) and os.access(path.parent, os.W_OK):
            stack.enter_context(held(path, f"{path}: is being opened by somebody. Try again."))
            if not is_closed(path):
                stack.close()
        yield stack.enter_context(closing(opened(path)))


def _counts(connection: sqlite3.Connection) -> tuple[tuple[str, int], ...]:
    sql = "SELECT count(*) FROM {}"
    return tuple((table.name, connection.execute(sql.format(table.name)).fetchone()[0]) for table in tables())


def _verify(partial: Path, place: Path, counts: tuple[tuple[str, int], ...]) -> None:
    """Raise unless what was written is whole, and holds as many rows as were there."""
    with closing(opened(partial, immutable=True)) as connection, driver_errors(str(place)):
        check(connection, place)
        found = connection.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            raise CopyDiffersError(
                f"{place}: the backup is damaged ({found[0][0]}), and was thrown away. Check the disk."
            )
        if _counts(connection) != counts:
            raise CopyDiffersError(f"{place}: the backup has other rows than the database, and was thrown away.")
