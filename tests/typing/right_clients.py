"""Clients and queries as every type checker accepts them. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from perdure import (
    Actor,
    ActorSystem,
    ClientError,
    Encrypted,
    Limits,
    QueryError,
    QueryTimeout,
    Receipt,
    handler,
    query,
)


class Shelf(Actor):
    """Has a handler and a query."""

    books: list[str] = []

    @handler
    async def put(self, book: str) -> int:
        self.books.append(book)
        return len(self.books)

    @query
    async def titles(self, prefix: str = "") -> list[str]:
        return [book for book in self.books if book.startswith(prefix)]


async def clients(path: Path) -> None:
    """A client is a system, whose references and replies have their types."""
    client = ActorSystem.client(path, limits=Limits(query=5), seal=Encrypted([b"k" * 32]))
    assert_type(client, ActorSystem)
    async with client as system:
        shelf = system.get(Shelf, "a")
        assert_type(shelf, Shelf)
        assert_type(await shelf.put("Emma"), int)
        assert_type(await shelf.put.tell("Emma"), Receipt[int])
        assert_type(await shelf.titles("E"), list[str])
        assert_type(await system.spawn(Shelf, "b", books=["Emma"]), Shelf)


def refused() -> bool:
    """What goes wrong has its fields."""
    try:
        ActorSystem.client("postgresql://host/database")
    except (ClientError, QueryTimeout):
        return False
    except QueryError as error:
        assert_type(error.error_type, str)
        return error.caused_by(ValueError)
    return True
