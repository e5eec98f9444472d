"""Decisions about failures: data in, decision out. Nothing here waits, writes or knows an actor.

Two budgets are never confused: the attempts of a message (or of a step), which failures spend, and the deaths of the
process while it was executing, which are blamed on a message only where it may be the cause.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from attrs import field, frozen

from perdure.clock import Seconds, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attrs import Attribute

    from perdure.actors.actor import Actor
    from perdure.storage.records import Restart, Restarted

T = TypeVar("T")


def _not_negative(_: object, attribute: Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must be 0 or more seconds, not {value!r}")


def _whole(_: object, attribute: Attribute[int], value: int) -> None:
    if value < 0 or value != int(value):
        raise ValueError(f"{attribute.name} must be a whole number of 0 or more, not {value!r}")


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


# supervision ----------------------------------------------------------------------------------------------------------

Exit: TypeAlias = Literal["normal", "shutdown", "failure"]
"""How an actor ended: by itself, told so by a supervisor, or by a failure."""

Directive: TypeAlias = Literal["restart", "resume", "stop", "escalate"]
"""What a supervisor's `decide` answers."""

AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]


@frozen
class Failure:
    """What went wrong with a child, as its supervisor's `decide` is told.

    Attributes:
        actor: A reference to it.
        message: The id of the message that failed; none where no message is to blame, as when `started()` raised.
        attempt: Which failure of that message this is, or how often in a row the actor did not start.
        error_type: Qualified name of the exception.
        error: Its text.
        traceback: Its traceback, as text.
        lineage: Names of the exception's classes, and of those of a step's own exception.
    """

    actor: Actor
    message: str | None
    attempt: int
    error_type: str
    error: str
    traceback: str
    lineage: tuple[str, ...] = ()

    def caused_by(self, *types: type[BaseException]) -> bool:
        """Whether the exception, or that of the step it came from, was an instance of one of these types."""
        return any(f"{type_.__module__}.{type_.__qualname__}" in self.lineage for type_ in types)


@frozen
class Ended:
    """What is judged: which actor, and how it ended.

    Attributes:
        message: Sequence number of the message that failed, where one is to blame.
        failure: What the supervisor is told; none where nothing failed.
        error: The failure's exception, as JSON.
        escaped: Keys of the steps whose errors the handler let out, and of what was cancelled as they failed.
        given_up: Whether the message that failed is a dead letter, so that no retry of it starts the actor again.
        alone: Whether the actor can be restarted where it is, without an order, if nobody else is.
    """

    actor: int
    how: Exit
    message: int | None = None
    failure: Failure | None = None
    error: str = ""
    escaped: tuple[str, ...] = ()
    alone: bool = True
    given_up: bool = False


@frozen(init=False)
class Strategy:
    """What a supervisor does about a child that ended, as in Erlang/OTP.

    Attributes:
        max_restarts: Restarts within the period; one more, and the supervisor stops its children and fails itself.
        within: The period, seconds.
        backoff: Waits before a restart, by how many there were within the period.
    """

    max_restarts: int = field(validator=_whole)
    within: float = field(validator=_not_negative)
    backoff: Backoff

    def __init__(self, *, max_restarts: int = 3, within: Seconds = 60, backoff: Backoff | None = None) -> None:
        self.__attrs_init__(max_restarts, seconds(within), backoff or Backoff())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # attrs makes it

    def group(self, siblings: Sequence[T], failed: T) -> Sequence[T]:
        """Which of the siblings (in start order) are stopped, in reverse, and started again with the one that ended."""
        del siblings
        return [failed]


class OneForOne(Strategy):
    """Only the child that ended is restarted."""


class OneForAll(Strategy):
    """All children are restarted with the one that ended."""

    def group(self, siblings: Sequence[T], failed: T) -> Sequence[T]:
        """All of them."""
        del failed
        return siblings


class RestForOne(Strategy):
    """The child that ended is restarted, and those started after it."""

    def group(self, siblings: Sequence[T], failed: T) -> Sequence[T]:
        """It, and the younger ones."""
        return siblings[siblings.index(failed) :]


@frozen
class Rung:
    """One step of the way from an actor up to the root: a child, and the one who supervises it.

    Attributes:
        child: The child's number.
        supervisor: The supervisor's number; none for the system's root, which counts the restarts of each child alone.
        strategy: The supervisor's.
        restart: When the child is restarted.
        significant: Whether its end may end the supervisor.
        auto_shutdown: Whether the supervisor ends with its significant children.
        others: Other significant children that still run.
        restarts: What the supervisor has counted.
        top: Whether the child is the root of the application's own tree, above which nobody restarts anything.
    """

    child: int
    supervisor: int | None
    strategy: Strategy
    restart: Restart = "permanent"
    significant: bool = False
    auto_shutdown: AutoShutdown = "never"
    others: int = 0
    restarts: Sequence[Restarted] = ()
    top: bool = False


@frozen
class Tally:
    """What a decision leaves a supervisor's count at: those before `since` dropped, this restart added or known."""

    rung: Rung
    add: bool
    message: int | None
    at: float
    since: float


@frozen
class Verdict:
    """What is done about an actor that ended.

    Attributes:
        action: `resume`: the child goes on as it is. `restart`: the group of the strategy is stopped and started.
            `stop`: the child is stopped, its mail kept. `end`: it ends, its mail is given up. `leave`: it had ended
            by itself, and stays so. `fail`: it may not go on until someone restarts it. `beyond`: the root of the
            tree ended, and with it the system.
        at: Which rung decided; its child is what the action is about.
        delay: Seconds before a restart.
        tallies: The supervisors whose counts this rests on.
        cause: How that child ended.
    """

    action: Literal["resume", "restart", "stop", "end", "leave", "fail", "beyond"]
    at: int
    delay: float = 0.0
    tallies: tuple[Tally, ...] = ()
    cause: Exit = "failure"


def restarts(restart: Restart, how: Exit) -> bool:
    """Whether a child is restarted: permanent always, transient after a failure, temporary never."""
    return restart == "permanent" or (restart == "transient" and how == "failure")


def within_period(strategy: Strategy, counted: Sequence[Restarted], now: float) -> list[Restarted]:
    """The restarts that still count."""
    return [one for one in counted if one.at >= now - strategy.within]


def judge(
    rungs: Sequence[Rung],
    how: Exit,
    message: int | None,
    now: float,
    decide: Callable[[int], Directive] = lambda _: "restart",
    draw: Callable[[], float] = random.random,
) -> Verdict:
    """What is done about the child on the first rung.

    Args:
        rungs: The way from it up to the root.
        how: How it ended.
        message: The message that failed, if one did. All its retries count once within a period.
        now: Seconds since the epoch.
        decide: What the supervisor of a rung says of the failure, asked only where there was one.
        draw: Where the jitter of the backoff comes from.
    """
    tallies: list[Tally] = []
    for at, rung in enumerate(rungs):
        if rung.top and at == 0 and message is not None:
            return Verdict("resume", at, rung.strategy.backoff.delay(1, draw))  # its own message's, not its tree's
        if rung.top:
            return Verdict("beyond", at, tallies=tuple(tallies), cause=how)
        directive = decide(at) if how == "failure" else "restart"
        if directive == "resume" and at == 0:
            return Verdict("resume", at, rung.strategy.backoff.delay(1, draw))
        if directive == "escalate" and rung.supervisor is not None:
            message = None
            continue
        if directive != "stop" and restarts(rung.restart, how):
            tally, count = _tally(rung, message, now)
            tallies.append(tally)
            if count <= rung.strategy.max_restarts:
                return Verdict("restart", at, rung.strategy.backoff.delay(max(count, 1), draw), tuple(tallies), how)
            if rung.supervisor is None:
                return Verdict("fail", at, tallies=tuple(tallies), cause=how)
            # Too many: its supervisor stops all of its children and itself. Under the system's root that is a failure,
            # which is tried again and then seen; elsewhere it ends as one that was told to, as in OTP.
            under_root = any(above.supervisor is None for above in rungs[at + 1 : at + 2])
            message, how = None, "failure" if under_root else "shutdown"
        elif _shuts_down(rung):
            message, how = None, "shutdown"
        else:
            return Verdict(_ending(rung, at, directive, how), at, tallies=tuple(tallies), cause=how)
    raise ValueError("the way up the tree does not reach the root")


def _ending(rung: Rung, at: int, directive: Directive, how: Exit) -> Literal["stop", "end", "leave"]:
    """What becomes of a child that is not restarted."""
    if directive == "stop" and rung.restart != "temporary":
        return "stop"
    return "leave" if how == "normal" and at == 0 else "end"


def _tally(rung: Rung, message: int | None, now: float) -> tuple[Tally, int]:
    """The count with this restart, and how many there are within the period."""
    valid = within_period(rung.strategy, rung.restarts, now)
    known = message is not None and any(one.child == rung.child and one.message == message for one in valid)
    return Tally(rung, not known, message, now, now - rung.strategy.within), len(valid) + (not known)


def _shuts_down(rung: Rung) -> bool:
    """Whether a supervisor ends because this child did."""
    if not rung.significant or rung.supervisor is None:
        return False
    return rung.auto_shutdown == "any_significant" or (rung.auto_shutdown == "all_significant" and rung.others == 0)
