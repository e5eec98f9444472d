"""A database as the read model needs it: read and never written, one consistent view at a time.

SQL is written once, in what SQLite and PostgreSQL have in common (see `storage.sql.connection`), with names for its
parameters:

    moment.fetch("SELECT id FROM actor WHERE kind = :kind", kind="Researcher")
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from perdure.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from perdure.storage.sql.connection import Parameter

R = TypeVar("R")

_NAME = re.compile(r"(?<!:):([a-z_]+)")


class NoDatabaseError(TargetError):
    """The target names no file, or something that is no file."""


class NotADatabaseError(TargetError):
    """The file is not a SQLite database, or a damaged one."""


class ForeignDatabaseError(TargetError):
    """The database is another application's, or of an older perdure, or no system has opened it yet."""


class UnreadableError(TargetError):
    """This process may not read the database as it is, or cannot reach it, or not now."""


class SlowReadError(TargetError):
    """A read took longer than a reader may stay."""


class Moment(Protocol):
    """A database as it was at one moment."""

    def fetch(self, sql: str, **parameters: Parameter) -> list[Any]:
        """All rows of a query; parameters that it does not name are ignored."""
        ...

    def now(self) -> float:
        """The time by the database's clock, as `time.time` gives it."""
        ...

    def live(self, nodes: Collection[str]) -> dict[str, bool | None]:
        """Whether the processes of nodes are there now; none where that cannot be found out."""
        ...


class Database(Protocol):
    """A database of perdure, of a live system or a dead one.

    Attributes:
        name: Where it lies, for people: no user and no password.
        target: What `ActorSystem` is given for it.
    """

    name: str
    target: str

    def read(self, query: Callable[[Moment], R]) -> R:
        """What `query` makes of one consistent view. It may be called more than once.

        Raises:
            TargetError: There is no database, it is not perdure's, of a newer perdure, or cannot be read.
        """
        ...


def positional(sql: str, parameters: dict[str, Parameter]) -> tuple[str, list[Parameter]]:
    """A query with numbers for its parameters, and their values in this order."""
    text, names = _numbered(sql)
    return text, [_known(parameters[name]) for name in names]


@lru_cache(maxsize=200)
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    names = tuple(dict.fromkeys(_NAME.findall(sql)))
    return _NAME.sub(lambda name: f"?{names.index(name[1]) + 1}", sql), names


def known_text(text: str) -> str:
    """A name as a database can hold it: bytes that are no text, as a shell may pass them, are in none."""
    return text.encode(errors="surrogatepass").decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _known(value: Parameter) -> Parameter:
    return known_text(value) if isinstance(value, str) else value
