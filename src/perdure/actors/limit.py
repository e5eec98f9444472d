"""`Limit`: how many turns or steps of a name there may be across the deployment."""

from __future__ import annotations

import math
from numbers import Real
from typing import final

from perdure.actors.names import check_name
from perdure.clock import Seconds, seconds
from perdure.errors import KeyFormatError, LimitError
from perdure.storage.limit_writes import Allowance

_declared: dict[str, Limit] = {}
"""The limits of this process's steps and kinds."""
_MOST = 1_000_000_000


@final
class Limit:
    """A limit on steps or on turns, by name, that holds across all processes on one database.

    Everything with a limit of the same name counts together. Give it to a step (``@step(limit=…)``) or to a kind
    (``class LlmCaller(Actor, limit=…)``), whose turns then are limited.

    Args:
        name: Durable: 1 to 255 bytes.
        concurrent: How many at once.
        rate: How many may begin within any `per` seconds, by the database's clock.
        per: Seconds, or a `timedelta`.

    Raises:
        LimitError: It limits nothing, or a number makes no sense.
    """

    __slots__ = ("allowance", "name")

    def __init__(self, name: str, *, concurrent: int | None = None, rate: int | None = None, per: Seconds = 60) -> None:
        try:
            self.name = check_name(name, "the name of a limit")
        except KeyFormatError as error:
            raise LimitError(str(error)) from error
        if concurrent is None and rate is None:
            raise LimitError(f"Limit('{name}') limits nothing. Give it concurrent=, or rate= and per=, or all of them.")
        self.allowance = Allowance(
            _count(name, "concurrent", concurrent), _count(name, "rate", rate), _positive(name, per)
        )

    def __repr__(self) -> str:
        return f"Limit({self.name!r}, {self.allowance})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Limit):
            return NotImplemented
        return (self.name, self.allowance) == (other.name, other.allowance)

    def __hash__(self) -> int:
        return hash((self.name, self.allowance))


def _count(name: str, what: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise LimitError(f"Limit('{name}', {what}={value!r}): must be a whole number from 1 to {_MOST:,}.")
    return int(value)


def _positive(name: str, per: object) -> float:
    valid = not isinstance(per, bool) and (isinstance(per, Real) or hasattr(per, "total_seconds"))
    length = seconds(per) if valid else math.nan  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # looked at before
    if not (math.isfinite(length) and length > 0):
        raise LimitError(f"Limit('{name}', per={per!r}): must be more than 0 seconds, and finite.")
    return length


def declare(limit: object, whose: str) -> Limit | None:
    """The limit of a step or a kind; raises `LimitError` if this process has another one of its name."""
    if limit is None:
        return None
    if not isinstance(limit, Limit):
        raise LimitError(f"{whose}: limit={limit!r} is no Limit. Write limit=Limit('name', concurrent=8).")
    first = _declared.setdefault(limit.name, limit)
    if first != limit:
        raise LimitError(
            f"{whose} has {limit!r}, and this process has {first!r} already. Define it once, and use that for all."
        )
    return first
