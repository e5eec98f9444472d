"""Decisions about failures: data in, decision out. Nothing here waits, writes or knows an actor.

Two budgets are never confused: the attempts of a message (or of a step), which failures spend, and the deaths of the
process while it was executing, which are blamed on a message only where it may be the cause.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

from perdure.clock import Seconds, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attrs import Attribute


def _not_negative(_: object, attribute: Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must be 0 or more seconds, not {value!r}")


def _at_least_one(_: object, attribute: Attribute[Any], value: float) -> None:
    if not value >= 1:
        raise ValueError(f"{attribute.name} must be at least 1, not {value!r}")


@frozen(init=False)
class Backoff:
    """How long to wait before the next attempt: `first` seconds, then `factor` times more each time, up to `most`.

    Attributes:
        first: Seconds before the second attempt.
        most: Seconds that no wait exceeds.
        factor: Growth from one wait to the next.
        jitter: Part of a wait, 0 to 1, by which it is made longer or shorter at random, so that many failures of one
            cause do not return at one moment.
    """

    first: float = field(validator=_not_negative)
    most: float = field(validator=_not_negative)
    factor: float = field(validator=_at_least_one)
    jitter: float = field(validator=_not_negative)

    def __init__(self, first: Seconds = 0.1, most: Seconds = 30, *, factor: float = 2, jitter: float = 0.1) -> None:
        self.__attrs_init__(seconds(first), seconds(most), factor, jitter)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # attrs makes it

    def delay(self, failures: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures (1 or more)."""
        # Past 64 doublings a float would overflow; every real limit is reached long before.
        wait = min(self.first * self.factor ** min(failures - 1, 64), self.most)
        return wait * (1 + self.jitter * (2 * draw() - 1))


@frozen(init=False)
class Retry:
    """Which failures are tried again, how often and when.

    Attributes:
        attempts: How often it is begun at most, the first time included.
        backoff: The waits between attempts.
        on: Exceptions that are tried again.
        unless: Exceptions among those that are not.
    """

    attempts: int = field(validator=_at_least_one)
    backoff: Backoff
    on: tuple[type[Exception], ...]
    unless: tuple[type[Exception], ...]

    def __init__(
        self,
        attempts: int = 5,
        *,
        backoff: Backoff | None = None,
        on: tuple[type[Exception], ...] = (Exception,),
        unless: tuple[type[Exception], ...] = (),
    ) -> None:
        self.__attrs_init__(attempts, backoff or Backoff(), on, unless)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # attrs makes it


@frozen
class TryAgain:
    """The next attempt, after so many seconds."""

    delay: float


@frozen
class GiveUp:
    """No more attempts."""


Decision: TypeAlias = TryAgain | GiveUp


def after_failure(
    retry: Retry, failures: int, error: BaseException, draw: Callable[[], float] = random.random
) -> Decision:
    """What follows the `failures`-th failure of a message or step."""
    if failures >= retry.attempts or not isinstance(error, retry.on) or isinstance(error, retry.unless):
        return GiveUp()
    return TryAgain(retry.backoff.delay(failures, draw))


@frozen
class BlameRule:
    """Which messages may execute at once after deaths of the process.

    A message that was executing when its process died, without completing anything since it began, takes one blame. The
    more blame, the fewer blamed messages execute beside it, so that its last try is alone and an innocent is cleared.

    Attributes:
        deaths: Blames after which a message becomes a dead letter.
    """

    deaths: int = field(default=5, validator=_at_least_one)

    def room(self, blame: int) -> int:
        """How many blamed messages may execute at once, one with this blame included."""
        return int(8 ** min(max(0, self.deaths - 1 - blame), 10))

    def admits(self, blame: int, executing: Sequence[int]) -> bool:
        """Whether a message with this blame may begin beside these."""
        return len(executing) + 1 <= min(map(self.room, (blame, *executing)))
