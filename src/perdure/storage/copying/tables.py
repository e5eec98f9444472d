"""What a system consists of: the tables that both kinds of databases have, read from the schema itself.

A migration that adds a table or a column needs nothing here: what is in the schema is copied. Some tables
belong to a place and not to a system: what is about its nodes; `removed`, whose numbers are carried over in each
database's own way; and by what a SQLite file finds its mail, which it makes itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from attrs import frozen

from perdure.storage.sqlite_open import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

Type: TypeAlias = Literal["INTEGER", "REAL", "TEXT", "BLOB"]
Value: TypeAlias = str | bytes | int | float | None
Row: TypeAlias = tuple[Value, ...]

OF_A_PLACE = {"filed", "mailbox", "node", "query", "removed", "slot", "unfiled"}
"""Tables that stay behind."""


@frozen
class Table:
    """A table, as it is copied.

    Attributes:
        columns: Names, in one order for all databases.
        types: What each holds, as SQLite calls it.
        key: How many leading columns of `columns` name a row.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[Type, ...]
    key: int

    @property
    def listed(self) -> str:
        """The columns as SQL lists them."""
        return ", ".join(f'"{column}"' for column in self.columns)

    def place(self, column: str) -> int:
        """Where in a row a column is."""
        return self.columns.index(column)


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """Every table of a system."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection, ":memory:")
        found = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        names = sorted(name for (name,) in found if not name.startswith("sqlite_"))
        return tuple(_table(connection, name) for name in names if name not in OF_A_PLACE)


def _table(connection: sqlite3.Connection, name: str) -> Table:
    # keys first, in their order; generated columns are not in this list
    sql = "SELECT name, type, pk FROM pragma_table_info(?) ORDER BY pk = 0, pk, cid"
    found = connection.execute(sql, (name,)).fetchall()
    types = cast("tuple[Type, ...]", tuple(type_ for _, type_, _ in found))
    return Table(name, tuple(column for column, _, _ in found), types, sum(pk > 0 for _, _, pk in found))


@lru_cache(maxsize=2)
def newest(kind: Literal["sqlite", "postgres"]) -> int:
    """The schema's version that this perdure writes."""
    folder = resources.files("perdure.storage") / "schema" / kind
    return sum(file.name.endswith(".sql") for file in folder.iterdir())


@frozen
class Numbers:
    """The highest numbers that were ever given to actors, messages and failures."""

    actor: int
    message: int
    failure: int


def release(table: Table, running: frozenset[str]) -> Callable[[Row], Row] | None:
    """What becomes of a table's rows when every node leaves: nobody has an actor, nothing is executing.

    A node that is not among those `running` has died without leaving, so what it was executing is blamed for that as at
    its burial. None if the rows stay as they are.
    """
    if table.name == "actor":
        owner, epoch, carrier, offered = map(table.place, ("owner", "epoch", "carrier", "offered"))

        def freed(row: Row) -> Row:
            if row[owner] is None and row[carrier] is None and row[offered] is None:
                return row
            values = list(row)
            if values[owner] is not None:
                values[epoch] = cast("int", values[epoch]) + 1
            values[owner] = values[carrier] = values[offered] = None
            return tuple(values)

        return freed
    if table.name == "turn":
        executing, blame, suspect = (table.place(column) for column in ("executing", "blame", "suspect"))

        def ended(row: Row) -> Row:
            if row[executing] is None:
                return row
            values = list(row)
            if values[executing] not in running:
                values[blame] = cast("int", values[blame]) + 1
                values[suspect] = 1
            values[executing] = None
            return tuple(values)

        return ended
    return None
