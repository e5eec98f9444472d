"""What a node reads at every look finds its rows by an index, however many actors there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.storage.postgres_connection import PostgresConnection
from perdure.storage.postgres_link import Link
from perdure.storage.postgres_open import place, prepare
from perdure.storage.sql import claims, family, queries, rare, read
from perdure.storage.sql.cache import Cache
from perdure.storage.sql.connection import Connection, Parameter
from perdure.storage.sql.gather import Gathering
from perdure.storage.writes import Due

ACTORS = 20_000
FILL = (
    """INSERT INTO actor (id, kind, key, owner, epoch, tail, cursor, created)
       SELECT n, 'Kind', n::text, CASE WHEN n % 2 = 0 THEN 'other' END, 1, 1, 1, 0
       FROM generate_series(1, $1) AS new (n)""",
    """INSERT INTO message (seq, id, actor, number, handler, args, codec, sent, chosen)
       SELECT n, 'm' || n, n, 1, 'handler', '{}', 'json', 0, 0 FROM generate_series(1, $1) AS new (n)""",
    "INSERT INTO outcome (message, status, finished) SELECT n, 'succeeded', 0 FROM generate_series(1, $1) AS new (n)",
    """INSERT INTO journal (message, key, kind, name, started, status, attempt)
       SELECT n, 'step#1', 'step', 'step', 0, 'completed', 1 FROM generate_series(1, $1) AS new (n)""",
)
LARGE = ("actor", "message", "outcome", "journal")
LOOKS: dict[str, Callable[[Connection], object]] = {
    "mail": lambda connection: read.grown(connection, [(1, 0), (2, 0)], 10),
    "replies": lambda connection: read.completed(connection, [1, 2]),
    "outcomes": lambda connection: read.find_all(connection, ["a", "b"]),
    "what anybody may claim": lambda connection: read.unknown_kinds(connection, "me", []),
    "offers": lambda connection: claims.offered(connection, "me"),
    "queries": lambda connection: queries.unanswered(connection, "me", ["Kind"], 10),
    "orders for this node": lambda connection: family.unwanted(connection, "me"),
    "orders for anybody": lambda connection: family.restarting(connection, "me"),
    "timers": read.next_due,
    "what falls due": lambda connection: rare.due(_gathering(connection), Due(1.0)),
    "who awaits a message": lambda connection: _gathering(connection).load_awaited([1, 2]),
}


def _gathering(connection: Connection) -> Gathering:
    return Gathering(connection, Cache(), "me", bool)


class Explaining(PostgresConnection):
    """Has every statement explained before it is made."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.raw, None)
        self.plans: list[str] = []

    def fetch(self, sql: str, *parameters: Parameter) -> list[Any]:
        """All rows of a query, and its plan."""
        return self.ahead(sql, *parameters)()

    def ahead(self, sql: str, *parameters: Parameter) -> Callable[[], list[Any]]:
        """The same, rows and plan."""
        self.plans += [line for (line,) in self.send(f"EXPLAIN {sql}", *parameters).fetchall()]
        return super().ahead(sql, *parameters)


def test_looks_use_indexes(postgres: str) -> None:
    """No table that grows is read from end to end."""
    where = place(postgres)
    link = Link(where, "me")
    try:
        prepare(link.raw, where)
        link.raw.execute("SELECT set_config('search_path', $1, false)", [where.schema])
        for sql in FILL:
            link.raw.execute(sql.encode(), [ACTORS])
        link.raw.execute("ANALYZE")
        for name, look in LOOKS.items():
            connection = Explaining(link)
            look(connection)
            scans = [line for line in connection.plans if any(f"Seq Scan on {table}" in line for table in LARGE)]
            assert connection.plans, name
            assert not scans, "\n".join([name, *connection.plans])
    finally:
        link.close()
