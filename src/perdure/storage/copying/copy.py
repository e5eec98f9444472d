"""Moving a whole system to another database, verified.

    source at rest ──► every table, row by row ──► destination, seen by nobody ──► read again ──► published
                       nobody owns, nothing executes                               digests equal

A copy that is cut, at any moment, leaves nothing that could be taken for a whole one: a SQLite file has its name only
once it is complete, a PostgreSQL schema is filled by one transaction.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, closing
from typing import TYPE_CHECKING

from attrs import frozen

from perdure.errors import CannotCopyError, CopyDiffersError, TargetError
from perdure.storage.copying import sqlite_end
from perdure.storage.copying.digest import Content, Digest, content
from perdure.storage.copying.tables import release, tables
from perdure.storage.sqlite_open import database_path
from perdure.storage.targets import is_postgres, not_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import ModuleType

    from perdure.storage.copying.ends import Destination, Source
    from perdure.storage.copying.tables import Row, Table


@frozen
class Compared:
    """A table at both ends."""

    name: str
    source: Content
    destination: Content

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows."""
        return self.source == self.destination


@frozen
class Copied:
    """What was copied, or compared."""

    source: str
    destination: str
    tables: tuple[Compared, ...]

    @property
    def equal(self) -> bool:
        """Whether every table is."""
        return all(table.equal for table in self.tables)


def copy(source: str, destination: str) -> Copied:
    """Copy a system that nobody runs to where there is none yet.

    Raises:
        InUseError: It runs.
        NotEmptyError: There is something at the destination.
        CannotCopyError: PostgreSQL cannot hold one of its texts.
        CopyDiffersError: What was written is not what was read.
    """
    _check_apart(source, destination, there=False)
    with ExitStack() as stack:
        given = stack.enter_context(_reading(source))
        return move(given, stack.enter_context(_filling(destination)))


def verify(source: str, destination: str) -> Copied:
    """Compare a system with its copy, as long as neither has run since."""
    _check_apart(source, destination, there=True)
    with _reading(source) as given, _reading(destination) as copied:
        found = tuple(
            Compared(table.name, content(_released(table, given, given.rows(table))), content(copied.rows(table)))
            for table in tables()
        )
        return Copied(given.name, copied.name, found)


def move(source: Source, destination: Destination) -> Copied:
    """Copy everything from an open source to an open destination, read it again, and publish it."""
    given: dict[str, Content] = {}
    for table in tables():
        digest = Digest()
        with closing(source.rows(table)) as read:
            rows = digest.over(_released(table, source, read))
            destination.fill(table, rows if destination.holds_nul else _without_nul(table, rows))
        given[table.name] = digest.content
    destination.complete(source.numbers())
    found = tuple(Compared(table.name, given[table.name], content(destination.rows(table))) for table in tables())
    copied = Copied(source.name, destination.name, found)
    if not copied.equal:
        names = ", ".join(table.name for table in found if not table.equal)
        raise CopyDiffersError(
            f"{destination.name}: {names} came out other than in {source.name}. Nothing was left there; this is a bug, "
            "or a failing disk."
        )
    destination.publish()
    return copied


def _released(table: Table, source: Source, rows: Iterable[Row]) -> Iterable[Row]:
    change = release(table, source.running)
    return rows if change is None else map(change, rows)


def _without_nul(table: Table, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        for column, value in zip(table.columns, row, strict=True):
            if isinstance(value, str) and "\0" in value:
                key = ", ".join(f"{name} = {one!r}" for name, one in zip(table.columns[: table.key], row, strict=False))
                raise CannotCopyError(
                    f"{table.name}.{column} where {key}: has a NUL character, which PostgreSQL's texts cannot have. "
                    "Nothing was copied. Change that text with the sqlite3 shell, or stay on SQLite."
                )
        yield row


def _check_apart(source: str, destination: str, *, there: bool) -> None:
    for target in (source, destination):
        if not target:
            raise TargetError("an empty target. Name two databases.")
    if is_postgres(source) == is_postgres(destination):
        one, other = _identity(source, there=True), _identity(destination, there=there)
        if one == other:
            raise TargetError(f"{one}: source and destination are the same database. Name another destination.")


def _identity(target: str, *, there: bool) -> str | Path | None:
    if is_postgres(target):
        return str(postgres_end().place(target).name)
    return sqlite_end.existing(target) if there else database_path(target)  # what is only read need not be writable


def _reading(target: str) -> AbstractContextManager[Source]:
    return postgres_end().reading(target, running=False) if is_postgres(target) else sqlite_end.reading(target)


def _filling(target: str) -> AbstractContextManager[Destination]:
    return postgres_end().filling(target) if is_postgres(target) else sqlite_end.filling(target)


def postgres_end() -> ModuleType:
    """The other end, which needs an extra. Raises `TargetError` where it is not installed."""
    try:
        from perdure.storage.copying import postgres_end as end  # noqa: PLC0415  # an extra; SQLite needs nothing of it
    except ImportError as error:
        raise not_installed(error) from None
    return end
