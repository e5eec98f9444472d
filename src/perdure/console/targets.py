"""Which database a target names, for those who read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perdure.console.sqlite_database import SQLiteDatabase
from perdure.storage.targets import is_postgres, not_installed

if TYPE_CHECKING:
    from perdure.console.database import Database


def database_of(target: str | os.PathLike[str]) -> Database:
    """The database that a target names, as `ActorSystem(target)` would find it. Nothing is read yet.

    Raises:
        TargetError: It names none, or what PostgreSQL needs is not installed.
    """
    name = os.fspath(target)
    if not is_postgres(name):
        return SQLiteDatabase(name)
    try:
        from perdure.console.postgres_database import PostgresDatabase  # noqa: PLC0415  # an extra; SQLite needs nothing of it
    except ImportError as error:
        raise not_installed(error) from None
    return PostgresDatabase(name)
