"""Both ends of a copy: where a system is read from, and where it is put."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from perdure.storage.copying.tables import Numbers, Row, Table


class Source(Protocol):
    """A database that is read, every table as it was at one moment.

    Attributes:
        name: Where it lies, for people.
        running: The nodes that run on it. There are none unless it was asked for nevertheless.
    """

    name: str
    running: frozenset[str]

    def rows(self, table: Table) -> Generator[Row]:
        """A table's rows, in any order, never all at once in memory."""
        ...

    def numbers(self) -> Numbers:
        """The highest numbers it ever gave."""
        ...


class Destination(Protocol):
    """A database with nothing in it, which nobody else can open before it is whole.

    Attributes:
        name: Where it lies, for people.
        holds_nul: Whether its texts may have NUL characters.
    """

    name: str
    holds_nul: bool

    def fill(self, table: Table, rows: Iterable[Row]) -> None:
        """Put down a table."""
        ...

    def complete(self, numbers: Numbers) -> None:
        """All tables are there: give no number again that was given before."""
        ...

    def rows(self, table: Table) -> Generator[Row]:
        """What was put down, read again."""
        ...

    def publish(self) -> None:
        """Have it be there, whole and durable. Without this, nothing is."""
        ...


@frozen
class Process:
    """A process that runs a system."""

    node: str
    pid: int
    host: str
    version: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} (perdure {self.version}, node {self.node})"


def listed(processes: Sequence[Process]) -> str:
    """Processes in a sentence."""
    return ", ".join(map(str, processes))
