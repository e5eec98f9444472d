"""Which store a target names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perdure.errors import TargetError
from perdure.storage.sqlite import SQLiteStore

if TYPE_CHECKING:
    from perdure.storage.store import Store


def is_postgres(target: str) -> bool:
    """Whether a target is a schema of PostgreSQL."""
    return target.startswith(("postgresql://", "postgres://"))


def not_installed(error: ImportError) -> TargetError:
    """What the absence of the extra that PostgreSQL needs means for a target."""
    return TargetError(f"PostgreSQL needs {error.name}. Install it: pip install 'perdure[postgres]'")


def store_of(target: str | os.PathLike[str] | Store, *, client: bool = False) -> Store:
    """The store that a target names: a path, `:memory:`, `sqlite:///…`, `postgresql://…`; a store is itself.

    A client's leaves turns that are parked as they are, and has few connections.

    Raises:
        TargetError: What PostgreSQL needs is not installed, or it is none.
    """
    if not isinstance(target, str | os.PathLike):
        if not hasattr(target, "requires_signed"):
            raise TargetError(
                f"{target!r}: is no target. Give a path, ':memory:', 'sqlite:///path' or 'postgresql://…'."
            )
        return target
    name = os.fspath(target)
    if not is_postgres(name):
        return SQLiteStore(target, resumes=not client)
    try:
        from perdure.storage.postgres import READERS, PostgresStore  # noqa: PLC0415  # an extra; SQLite needs nothing of it
    except ImportError as error:
        raise not_installed(error) from None
    return PostgresStore(name, resumes=not client, readers=1 if client else READERS)
