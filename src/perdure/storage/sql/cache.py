"""Rows that are known from one transaction to the next, and the numbers to give.

Where nobody else writes while a transaction runs, actors' rows are good as long as no other connection has committed,
so a process alone with its database appends without reading. Where others do, only ids and free numbers are kept.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from attrs import define, field

from perdure.storage.records import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.storage.records import ActorStatus, Life, Outcome


@define(eq=False)
class ActorRow:
    """An actor's row as this transaction leaves it."""

    id: int
    kind: str
    key: str
    owner: str | None
    epoch: int
    tail: int
    cursor: int
    status: ActorStatus
    reason: str | None
    created: float
    parent: int | None = None
    life: Life = "running"
    offered: str | None = None
    stored: bool = True
    moved: bool = False
    restated: bool = False
    address: Address = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.address = Address(self.kind, self.key)


@define(eq=False)
class Cache:
    """Rows known to be as they are in the database, and the numbers to give next."""

    by_address: dict[Address, ActorRow] = field(factory=dict[Address, ActorRow])
    by_id: dict[int, ActorRow] = field(factory=dict[int, ActorRow])
    ids: dict[Address, int] = field(factory=dict[Address, int])
    """Where rows are not kept, the ids of actors, which never change."""
    actors: Iterator[int] = field(factory=count)
    seqs: Iterator[int] = field(factory=count)
    numbered: bool = False
    awaited: set[int] | None = None
    """Messages that somebody awaits; none where others may add to them."""
    version: int = -1

    def clear(self) -> None:
        """Know nothing."""
        self.by_address.clear()
        self.by_id.clear()
        self.numbered = False
        self.version = -1

    def put(self, row: ActorRow) -> None:
        """Know a row."""
        self.by_address[row.address] = row
        self.by_id[row.id] = row


@define(eq=False)
class Known:
    """A message id in use."""

    seq: int
    to: Address
    handler: str
    args: str
    codec: str
    outcome: Outcome | None
