"""A connection as settling and reading need it, and the SQL they are written in.

Statements are written once, in what SQLite and PostgreSQL have in common, and a connection puts in what differs:

    ?, ?1                  parameters
    numbers(?) AS x        a table of one column `value`, from a list of integers
    texts(?) AS x          the same from a list of strings
    pairs(?) AS x          a table of two columns `a` and `b` of text, from a JSON array of arrays
    runnable()             whether an actor is one that anybody may claim, as the index of those has it
    tail()                 the last number given in an actor's mailbox
    mailbox() AS x         a table of `actor`, `number` and `message`: all mail that is not handled, and some that is
    newest(?1, ?2)         the newest messages of an actor, handled or not, and how many of them at most
    member(x, name)        a member of a JSON object, as text; none if the text x is none or has no such member
    members(x, name) AS y  a table of one column `value` of text, from a JSON array that is a member of one
    CROSS JOIN … ON        a join that SQLite does in the order it is written
    /* lock */             rows that nobody else may change until this transaction ends; `Again` where somebody is
    /* lock, wait */       the same, waiting for whoever is
    /* lock, skip */       the same, without those that somebody else is changing
    /* lock, limit */      rows of `allowance` that nobody else may change, waiting for whoever is
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perdure.storage.sql.cache import Cache
    from perdure.storage.sql.rows import Statement

Value: TypeAlias = str | bytes | int | float | None
Parameter: TypeAlias = "Value | list[int] | list[str]"


class Again(Exception):  # no error: the transaction begins again
    """A transaction has to begin again, with more of the actors locked from its beginning."""

    def __init__(self, actors: Sequence[int]) -> None:
        super().__init__(f"others are changing some of {len(actors)} actors")
        self.actors = actors


class Connection(Protocol):
    """A connection inside a transaction.

    Attributes:
        shared: Whether others may write while this transaction runs. Rows then are locked before they are relied on.
    """

    shared: bool

    def fetch(self, sql: str, *parameters: Parameter) -> list[Any]:
        """All rows of a query."""
        ...

    def ahead(self, sql: str, *parameters: Parameter) -> Callable[[], list[Any]]:
        """Send a query whose rows are asked for later: others may be sent meanwhile, and all are one round trip."""
        ...

    def execute(self, sql: str, *parameters: Parameter) -> int:
        """Change something; the number of rows changed."""
        ...

    def put(self, statement: Statement, rows: Sequence[Sequence[Value]], *after: Value, exact: bool = False) -> None:
        """Execute a statement over all rows; if `exact`, raises `StorageError` unless it changed as many."""
        ...

    def keep_numbers(self) -> None:
        """Messages are about to be removed; their numbers are not to be given again."""
        ...

    def refresh(self, cache: Cache) -> bool:
        """Have the cache hold nothing but what is still so, and numbers to give.

        Returns whether this node may have been buried since; not where the store looks for that itself.
        """
        ...

    def holds_still(self, node: str) -> bool:
        """Whether another node writes nothing until this transaction ends; false if it is writing."""
        ...

    def clock(self) -> float:
        """The database's time, at this moment, in seconds since the Unix epoch."""
        ...

    def forget(self, cache: Cache) -> None:
        """Have the cache hold no rows, after they were changed by statements."""
        ...
