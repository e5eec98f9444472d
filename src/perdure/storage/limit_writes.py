"""What limits across the deployment write, and what they give; see `writes.py` and `sql/limits.py`."""

from __future__ import annotations

from msgspec import Struct


class Allowance(Struct, frozen=True, gc=False):
    """How much a limit lets happen.

    Attributes:
        concurrent: How many turns or steps at once, on all nodes together; none where that is not limited.
        rate: How many may begin within any `per` seconds; none where that is not limited.
    """

    concurrent: int | None
    rate: int | None
    per: float

    def __str__(self) -> str:
        parts = [] if self.concurrent is None else [f"concurrent={self.concurrent}"]
        return ", ".join(parts if self.rate is None else [*parts, f"rate={self.rate}", f"per={self.per:g}"])


class Slot(Struct, frozen=True, gc=False):
    """A node's part of a limit: how many slots it has, and how many it could use."""

    node: str
    has: int
    wants: int


class LimitState(Struct, frozen=True, gc=False):
    """A limit as the database has it, with every node's part."""

    name: str
    allowance: Allowance
    slots: tuple[Slot, ...]


class Want(Struct, frozen=True, gc=False):
    """What this node uses of a limit, and what it could use.

    Attributes:
        allowance: The limit as this node's code defines it.
        uses: Slots that are in use here. It keeps them.
        waits: How many turns and steps wait here.
        starts: How many of these are to begin, which `rate` counts; the others go on after a wait.
        waiting: The messages whose turns or steps wait, the first of them, for people to see.
    """

    name: str
    allowance: Allowance
    uses: int
    waits: int
    starts: int
    waiting: tuple[int, ...] = ()


class Demand(Struct, frozen=True, gc=False):
    """What this node wants of limits, in the order of their names, so that no two nodes wait for each other."""

    wants: tuple[Want, ...]


class Granted(Struct, frozen=True, gc=False):
    """What a node has of a limit from now on.

    Attributes:
        allowance: The limit as it is in force, which is the newest node's.
        has: Its slots, until it is granted others.
        share: How many of them it may keep once they are free, because others want some; none if nobody does.
        starts: How many turns or steps it may begin, soon (`allotment.usable_seconds`).
        again: Seconds after which more may begin, if fewer may than wait.
    """

    name: str
    allowance: Allowance
    has: int
    share: int | None
    starts: int
    again: float | None


class Grants(Struct, frozen=True, gc=False):
    """What became of a `Demand`, in its order."""

    granted: tuple[Granted, ...]
