"""What follows a failure: waits, attempts and blame, as tables and as properties."""

from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perdure.supervision.strategy import Backoff, BlameRule, GiveUp, Retry, TryAgain, after_failure

seconds = st.floats(0, 1e6)
factors = st.floats(1, 100)
draws = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, 10_000)
blames = st.integers(0, 12)


def middle() -> float:
    """A draw that leaves a wait as it is."""
    return 0.5


# waits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff(), [0.1, 0.2, 0.4, 0.8]),
        (Backoff(1, 5), [1, 2, 4, 5, 5]),
        (Backoff(2, 100, factor=3), [2, 6, 18, 54, 100]),
        (Backoff(7, 7), [7, 7, 7]),
        (Backoff(3, 100, factor=1), [3, 3, 3]),
        (Backoff(0), [0, 0, 0]),
        (Backoff(10, 1), [1, 1]),
        (Backoff(timedelta(milliseconds=250), timedelta(minutes=1)), [0.25, 0.5, 1]),
    ],
)
def test_waits(backoff: Backoff, waits: list[float]) -> None:
    """Each wait is so many times the one before, up to the longest."""
    assert [backoff.delay(number, middle) for number in range(1, len(waits) + 1)] == pytest.approx(waits)


@pytest.mark.parametrize(("draw", "wait"), [(0.0, 7.5), (0.25, 8.75), (0.5, 10), (0.75, 11.25)])
def test_jitter(draw: float, wait: float) -> None:
    """Failures of one cause do not come back at one moment."""
    assert Backoff(10, jitter=0.25).delay(1, lambda: draw) == pytest.approx(wait)


@given(seconds, seconds, factors, failures)
def test_waits_grow_to_the_longest(first: float, most: float, factor: float, number: int) -> None:
    """No wait is shorter than the one before, none longer than was asked, however many failures there were."""
    backoff = Backoff(first, most, factor=factor)
    wait, following = backoff.delay(number, middle), backoff.delay(number + 1, middle)
    assert 0 <= wait <= following <= most


@given(seconds, seconds, st.floats(0, 1), draws, failures)
def test_jitter_is_bounded(first: float, most: float, jitter: float, draw: float, number: int) -> None:
    """Chance makes a wait longer or shorter by its part, and never negative."""
    backoff = Backoff(first, most, jitter=jitter)
    plain, wait = backoff.delay(number, middle), backoff.delay(number, lambda: draw)
    assert plain * (1 - jitter) - 1e-6 <= wait <= plain * (1 + jitter) + 1e-6
    assert wait >= 0


@pytest.mark.parametrize(
    "wrong",
    [{"first": -1}, {"most": -0.1}, {"factor": 0.5}, {"jitter": -0.1}, {"first": float("nan")}, {"most": float("nan")}],
    ids=str,
)
def test_wrong_waits(wrong: dict[str, float]) -> None:
    """A wait that cannot be is refused where it is written, by name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Backoff(**wrong)


# attempts -------------------------------------------------------------------------------------------------------------


class OutOfService(ConnectionError):
    pass


@pytest.mark.parametrize(
    ("retry", "failed", "error", "again"),
    [
        (Retry(3), 1, ValueError(), True),
        (Retry(3), 2, ValueError(), True),
        (Retry(3), 3, ValueError(), False),
        (Retry(3), 4, ValueError(), False),
        (Retry(1), 1, ValueError(), False),
        (Retry(on=(ConnectionError,)), 1, OutOfService(), True),
        (Retry(on=(ConnectionError,)), 1, ValueError(), False),
        (Retry(on=(OutOfService,)), 1, ConnectionError(), False),
        (Retry(on=(KeyError, ValueError)), 1, ValueError(), True),
        (Retry(on=()), 1, ValueError(), False),
        (Retry(unless=(ConnectionError,)), 1, OutOfService(), False),
        (Retry(unless=(ConnectionError,)), 1, ValueError(), True),
        (Retry(on=(ConnectionError,), unless=(OutOfService,)), 1, ConnectionError(), True),
        (Retry(on=(ConnectionError,), unless=(OutOfService,)), 1, OutOfService(), False),
        (Retry(), 1, KeyboardInterrupt(), False),
    ],
)
def test_after_failure(retry: Retry, failed: int, error: BaseException, *, again: bool) -> None:
    """What is tried again is what was asked for, as often as was asked for."""
    assert isinstance(after_failure(retry, failed, error), TryAgain) is again


@given(st.integers(1, 50), seconds, draws)
def test_attempts_are_as_many_as_asked(attempts: int, first: float, draw: float) -> None:
    """A failure that repeats is tried the given number of times in all, with the backoff's waits, then given up."""
    retry = Retry(attempts, backoff=Backoff(first))
    decisions = [after_failure(retry, failed, ValueError(), lambda: draw) for failed in range(1, attempts + 1)]
    waits = [TryAgain(retry.backoff.delay(failed, lambda: draw)) for failed in range(1, attempts)]
    assert decisions == [*waits, GiveUp()]


@pytest.mark.parametrize("attempts", [0, -1])
def test_wrong_attempts(attempts: int) -> None:
    """Work that would never be begun is refused where it is written."""
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts)


# blame ----------------------------------------------------------------------------------------------------------------

ROOMS = {5: [4096, 512, 64, 8, 1, 1, 1], 2: [8, 1, 1], 1: [1, 1]}


@pytest.mark.parametrize(("deaths", "rooms"), ROOMS.items())
def test_room(deaths: int, rooms: list[int]) -> None:
    """The more blame, the fewer at once: eight times fewer with each death, and the last try alone."""
    assert [BlameRule(deaths).room(blame) for blame in range(len(rooms))] == rooms


@given(st.integers(1, 12), blames, st.lists(blames, max_size=20))
def test_admits_no_more_than_the_smallest_room(deaths: int, blame: int, executing: list[int]) -> None:
    """Whoever is let in leaves everybody the room that each needs, itself included."""
    blame_rule = BlameRule(deaths)
    fits = len(executing) < min(blame_rule.room(one) for one in (blame, *executing))
    assert blame_rule.admits(blame, executing) is fits


@given(st.integers(1, 12), blames, st.lists(blames, min_size=1, max_size=20))
def test_last_try_is_alone(deaths: int, blame: int, executing: list[int]) -> None:
    """A message on its last try has nobody beside it whom its death could be blamed on, nor who could cause it."""
    blame_rule = BlameRule(deaths)
    last = deaths - 1
    assert not blame_rule.admits(last, executing)
    assert not blame_rule.admits(blame, [*executing, last])
    assert blame_rule.admits(last, [])


@given(st.integers(1, 12), blames, blames, st.lists(blames, max_size=20), blames)
def test_blame_is_monotone(deaths: int, blame: int, more: int, executing: list[int], other: int) -> None:
    """More blame, or more company, never opens a door that was closed."""
    blame_rule = BlameRule(deaths)
    if not blame_rule.admits(blame, executing):
        assert not blame_rule.admits(blame + more, executing)
        assert not blame_rule.admits(blame, [*executing, other])
        assert not blame_rule.admits(blame, [one + more for one in executing])


@given(st.integers(1, 12), blames)
def test_somebody_may_always_run(deaths: int, blame: int) -> None:
    """No blame keeps a message from its turn for ever."""
    assert BlameRule(deaths).admits(blame, [])


def test_wrong_deaths() -> None:
    """A message is not a dead letter before it was ever run."""
    with pytest.raises(ValueError, match="deaths"):
        BlameRule(0)


@define
class _Crowd:
    rule: BlameRule = field(factory=BlameRule)
    waiting: list[int] = field(factory=list[int])
    executing: list[int] = field(factory=list[int])


class Deaths(RuleBasedStateMachine):
    """Messages that come, run, end, and die together: what the gate lets in keeps the rule at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.crowd = _Crowd()

    @rule(blame=st.integers(1, 4))
    def come(self, blame: int) -> None:
        self.crowd.waiting.append(blame)

    @rule()
    def admit(self) -> None:
        for blame in list(self.crowd.waiting):
            if self.crowd.rule.admits(blame, self.crowd.executing):
                self.crowd.waiting.remove(blame)
                self.crowd.executing.append(blame)

    @precondition(lambda self: self.crowd.executing)
    @rule(place=st.integers(0, 100))
    def end(self, place: int) -> None:
        del self.crowd.executing[place % len(self.crowd.executing)]

    @rule()
    def die(self) -> None:
        again = [blame + 1 for blame in self.crowd.executing if blame + 1 < self.crowd.rule.deaths]
        self.crowd.executing, self.crowd.waiting = [], [*self.crowd.waiting, *again]

    @invariant()
    def all_have_their_room(self) -> None:
        running = self.crowd.executing
        assert all(len(running) <= self.crowd.rule.room(blame) for blame in running)


TestDeaths = Deaths.TestCase
