"""The database files that users keep for years."""

import sqlite3
from contextlib import closing

from tests.architecture.source import SCHEMA


def test_migrations_are_numbered_without_gaps() -> None:
    """A database of any age can be brought up to date, one migration after the other."""
    numbers = [path.stem.split("_")[0] for path in sorted(SCHEMA.glob("*.sql"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert numbers


def test_every_table_is_strict() -> None:
    """SQLite refuses a value of the wrong type where it is written, instead of returning it for ever."""
    with closing(sqlite3.connect(":memory:")) as database:
        for path in sorted(SCHEMA.glob("*.sql")):
            database.executescript(path.read_text("utf-8"))
        tables = database.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    ours = {name: strict for name, strict in tables if not name.startswith("sqlite_")}
    assert ours
    assert not [name for name, strict in ours.items() if not strict]
