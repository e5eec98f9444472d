"""Which store a target names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perdure.errors import TargetError
from perdure.storage.sqlite import SQLiteStore

if TYPE_CHECKING:
    from perdure.storage.store import Store


def store_of(target: str | os.PathLike[str] | Store, *, client: bool = False) -> Store:
    """The store that a target names: a path, `:memory:`, `sqlite:///…`, `postgresql://…`; a store is itself.

    A client's leaves turns that are parked as they are, and has few connections.

    Raises:
        TargetError: What PostgreSQL needs is not installed, or the URL is none.
    """
    if not isinstance(target, str | os.PathLike):
        return target
    name = os.fspath(target)
    if not name.startswith(("postgresql://", "postgres://")):
        return SQLiteStore(target, resumes=not client)
    try:
        from perdure.storage.postgres import READERS, PostgresStore  # noqa: PLC0415  # an extra; SQLite needs nothing of it
    except ImportError as error:
        raise TargetError(f"PostgreSQL needs {error.name}. Install it: pip install 'perdure[postgres]'") from None
    return PostgresStore(name, resumes=not client, readers=1 if client else READERS)
