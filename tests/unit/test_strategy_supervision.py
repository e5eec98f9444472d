"""Who restarts, who ends and who is asked next, when an actor ended: as tables and as properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.storage.records import Restart, Restarted
from perdure.supervision.strategy import (
    AutoShutdown,
    Backoff,
    Directive,
    Exit,
    OneForAll,
    OneForOne,
    RestForOne,
    Rung,
    Strategy,
    Tally,
    Verdict,
    judge,
    restarts,
    within_period,
)

EXITS: tuple[Exit, ...] = get_args(Exit)
STRATEGIES = (OneForOne, OneForAll, RestForOne)

times = st.floats(0, 1_000)
exits = st.sampled_from(EXITS)
lives: st.SearchStrategy[Restart] = st.sampled_from(("permanent", "transient", "temporary"))
shutdowns: st.SearchStrategy[AutoShutdown] = st.sampled_from(("never", "any_significant", "all_significant"))


def middle() -> float:
    """A draw that leaves a wait as it is."""
    return 0.5


def strategy(max_restarts: int = 3, within: float = 60, backoff: Backoff | None = None) -> OneForOne:
    """A strategy that waits for nothing, unless told."""
    return OneForOne(max_restarts=max_restarts, within=within, backoff=backoff or Backoff(0))


def counted(*ats: float, child: int = 1, message: int | None = None) -> tuple[Restarted, ...]:
    """Restarts as a supervisor has counted them."""
    return tuple(Restarted(number, child, message, at) for number, at in enumerate(ats, 1))


ROOT = Rung(9, None, strategy(), "transient")
"""The way up ends here: an actor under the system's root."""


def child(**fields: Any) -> Rung:  # noqa: ANN401  # whatever a rung has
    """An actor under supervisor 9."""
    known: dict[str, Any] = {"strategy": strategy(), **fields}
    return Rung(1, 9, **known)


def ending(rung: Rung, how: Exit, directive: Directive = "restart") -> Verdict:
    """What is done about the child of a rung that ended so."""
    return judge((rung, ROOT), how, None, 100.0, lambda _: directive, middle)


# when a child is restarted --------------------------------------------------------------------------------------------

RESTARTS: list[tuple[Restart, Exit, bool]] = [
    ("permanent", "normal", True),
    ("permanent", "shutdown", True),
    ("permanent", "failure", True),
    ("transient", "normal", False),
    ("transient", "shutdown", False),
    ("transient", "failure", True),
    ("temporary", "normal", False),
    ("temporary", "shutdown", False),
    ("temporary", "failure", False),
]


@pytest.mark.parametrize(("life", "how", "again"), RESTARTS)
def test_when_a_child_is_restarted(life: Restart, how: Exit, *, again: bool) -> None:
    """Permanent children always run again, transient ones after a failure, temporary ones never."""
    assert restarts(life, how) is again
    assert (ending(child(restart=life), how).action == "restart") is again


ENDINGS: list[tuple[Restart, Exit, Directive, str]] = [
    ("transient", "normal", "restart", "leave"),
    ("temporary", "normal", "restart", "leave"),
    ("transient", "shutdown", "restart", "end"),
    ("temporary", "failure", "restart", "end"),
    ("permanent", "failure", "stop", "stop"),
    ("transient", "failure", "stop", "stop"),
    ("temporary", "failure", "stop", "end"),
    ("permanent", "failure", "resume", "resume"),
    ("temporary", "failure", "resume", "resume"),
]


@pytest.mark.parametrize(("life", "how", "directive", "action"), ENDINGS)
def test_what_becomes_of_a_child_that_is_not_restarted(
    life: Restart, how: Exit, directive: Directive, action: str
) -> None:
    """Mail is kept for a child that its supervisor stopped, and given up for one that never comes back."""
    verdict = ending(child(restart=life), how, directive)
    assert (verdict.action, verdict.at, verdict.tallies) == (action, 0, ())


@given(exits, st.lists(times, max_size=5), shutdowns, st.booleans())
def test_temporary_children_never_restart(
    how: Exit,
    ats: list[float],
    auto_shutdown: AutoShutdown,
    significant: bool,  # noqa: FBT001  # hypothesis passes by position
) -> None:
    """A child that was to run once runs once, and costs its supervisor no restart."""
    rung = child(
        restart="temporary", auto_shutdown=auto_shutdown, significant=significant, restarts=counted(*sorted(ats))
    )
    verdict = ending(rung, how)
    assert (verdict.action, verdict.at) != ("restart", 0)
    assert not [tally for tally in verdict.tallies if tally.rung.child == 1]


@given(exits)
def test_resume_is_only_for_failures_of_the_child_itself(how: Exit) -> None:
    """`resume` keeps an instance; where none is left, because a supervisor gave up, it means a restart."""
    exhausted = child(strategy=strategy(0))
    assert ending(child(), how, "resume").action == ("resume" if how == "failure" else "restart")
    asked: list[int] = []

    def decide(at: int) -> Directive:
        asked.append(at)
        return "restart" if at == 0 else "resume"

    verdict = judge((exhausted, ROOT), "failure", None, 0, decide)
    assert (verdict.action, verdict.at, asked) == ("restart", 1, [0, 1])


# intensity ------------------------------------------------------------------------------------------------------------

INTENSITY: list[tuple[int, float, tuple[float, ...], str]] = [
    (0, 60, (), "fail"),
    (1, 60, (), "restart"),
    (1, 60, (99,), "fail"),
    (3, 60, (98, 99), "restart"),
    (3, 60, (97, 98, 99), "fail"),
    (3, 60, (39.9, 98, 99), "restart"),
    (3, 60, (40, 98, 99), "fail"),
    (3, 0, (97, 98, 99), "restart"),
    (1, 0, (100,), "fail"),
    (3, 60, (1, 2, 3, 4, 5), "restart"),
]


@pytest.mark.parametrize(("most", "within", "ats", "action"), INTENSITY)
def test_intensity(most: int, within: float, ats: tuple[float, ...], action: str) -> None:
    """So many restarts within the period that slides along, and one more is too many."""
    rung = Rung(1, None, strategy(most, within), restarts=counted(*ats))
    verdict = judge((rung,), "failure", None, 100.0)
    assert verdict.action == action
    (tally,) = verdict.tallies
    assert (tally.add, tally.at, tally.since) == (True, 100.0, 100.0 - within)


def put_down(restarted: list[Restarted], tally: Tally) -> None:
    """Count as the store does."""
    restarted[:] = [one for one in restarted if one.at >= tally.since]
    if tally.add:
        restarted.append(Restarted(len(restarted) + 1, tally.rung.child, tally.message, tally.at))


@given(
    st.integers(0, 4),
    st.floats(0, 50),
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(1, 4), st.floats(0, 30)), max_size=40),
)
def test_intensity_is_never_exceeded(most: int, within: float, ends: list[tuple[int, int | None, float]]) -> None:
    """Whatever fails, and whenever: a supervisor restarts as often as it was allowed to, not less, and never more."""
    now = 0.0
    known: list[Restarted] = []
    charged: list[tuple[float, int, int | None]] = []
    for one, message, step in ends:
        now += step
        rung = Rung(one, 9, strategy(most, within), restarts=tuple(known))
        verdict = judge((rung, ROOT), "failure", message, now)
        recent = [charge for charge in charged if now - within <= charge[0]]
        if message is None or (one, message) not in [charge[1:] for charge in recent]:
            charged.append((now, one, message))
            recent.append(charged[-1])
        if (verdict.action, verdict.at) == ("restart", 0):
            assert len(recent) <= most
            put_down(known, verdict.tallies[0])
        else:
            assert len(recent) > most
            assert verdict.at == 1
            known, charged = [], []


@given(st.integers(1, 5), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_retries_of_one_message_count_once(most: int, steps: list[float]) -> None:
    """A poisonous message becomes a dead letter by its attempts, before it can stop a tree by its restarts."""
    now, known, added = 0.0, list[Restarted](), 0
    for step in steps:
        now += step
        verdict = judge((child(strategy=strategy(most), restarts=tuple(known)), ROOT), "failure", 7, now)
        assert verdict.action == "restart"
        added += verdict.tallies[0].add
        put_down(known, verdict.tallies[0])
    assert added == 1


OTHERS: list[tuple[int, int | None, bool]] = [(1, 7, False), (1, 8, True), (2, 7, True), (1, None, True)]


@pytest.mark.parametrize(("number", "message", "added"), OTHERS)
def test_what_counts_as_the_same_failure(number: int, message: int | None, *, added: bool) -> None:
    """Only the same child's same message is known; two failures that no message is to blame for are two."""
    rung = Rung(number, 9, strategy(), restarts=(*counted(99.0, message=7), *counted(99.0)))
    (tally,) = judge((rung, ROOT), "failure", message, 100.0).tallies
    assert tally.add is added


@given(st.lists(times, max_size=20), times, times)
def test_within_period(ats: list[float], within: float, now: float) -> None:
    """What is older than the period counts no more, and what is on its edge does."""
    valid = within_period(strategy(3, within), counted(*ats), now)
    assert [one.at for one in valid] == [at for at in ats if at >= now - within]


@pytest.mark.parametrize(("earlier", "delay"), [(0, 1), (1, 2), (2, 4), (3, 5)])
def test_backoff_grows_with_the_restarts_within_the_period(earlier: int, delay: float) -> None:
    """A child that fails again and again is begun again less and less often."""
    rung = child(strategy=strategy(9, 60, Backoff(1, 5)), restarts=counted(*[99.0] * earlier))
    assert judge((rung, ROOT), "failure", None, 100.0, draw=middle).delay == delay


@pytest.mark.parametrize(
    "wrong", [{"max_restarts": -1}, {"max_restarts": 1.5}, {"within": -1}, {"within": float("nan")}]
)
def test_wrong_strategies(wrong: dict[str, Any]) -> None:
    """An intensity that cannot be is refused where it is written, by name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OneForOne(**wrong)


# the group ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(), min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_group(siblings: list[int], at: int) -> None:
    """Who restarts with a child: nobody, everybody, or those started after it; each in start order."""
    failed = siblings[at % len(siblings)]
    groups = {made: list(made().group(siblings, failed)) for made in STRATEGIES}
    assert groups == {OneForOne: [failed], OneForAll: siblings, RestForOne: siblings[at % len(siblings) :]}


# the way up -----------------------------------------------------------------------------------------------------------


def ladder(*mosts: int, top: Strategy | None = None) -> tuple[Rung, ...]:
    """Child 0 under supervisor 1 under supervisor 2 and so on, under the root; each allows so many restarts."""
    rungs = [Rung(at, at + 1, strategy(most)) for at, most in enumerate(mosts)]
    return (*rungs, Rung(len(mosts), None, top or strategy(), "permanent"))


@given(st.lists(st.integers(0, 1), max_size=6), exits)
def test_escalation_goes_up_rung_by_rung(mosts: list[int], how: Exit) -> None:
    """Each supervisor that cannot help hands on to the next: the lowest one that can restarts its child."""
    rungs = ladder(*mosts)
    lowest = mosts.index(1) if 1 in mosts else len(mosts)
    verdict = judge(rungs, how, 7, 100.0)
    assert (verdict.action, verdict.at) == ("restart", lowest)
    assert [tally.rung for tally in verdict.tallies] == list(rungs[: lowest + 1])
    assert [tally.message for tally in verdict.tallies] == [7, *[None] * lowest]
    # a supervisor that gives up ends as told; under the system's root that is a failure, which somebody sees
    assert verdict.cause == (how if lowest == 0 else "failure" if lowest == len(mosts) else "shutdown")


def test_past_the_root() -> None:
    """An actor under the system's root fails alone; past the root of the application's tree the system ends."""
    assert judge(ladder(0, 0, top=strategy(0)), "failure", None, 0).action == "fail"
    top = Rung(1, None, strategy(), top=True)
    verdict = judge((Rung(0, 1, strategy(0)), top), "failure", None, 0)
    assert (verdict.action, verdict.at, len(verdict.tallies)) == ("beyond", 1, 1)


@given(st.integers(0, 4))
def test_escalate_counts_nothing_on_the_way(height: int) -> None:
    """`escalate` fails the supervisor in its child's place: what it counted itself stays as it was."""
    rungs = ladder(*[3] * height)

    def decide(at: int) -> Directive:
        return "escalate" if at < height else "restart"

    verdict = judge(rungs, "failure", 7, 100.0, decide)
    assert (verdict.action, verdict.at) == ("restart", height)
    assert [(tally.rung, tally.message) for tally in verdict.tallies] == [(rungs[-1], 7 if height == 0 else None)]


def test_escalate_past_the_root_restarts_there() -> None:
    """There is nobody above the root to ask."""
    assert judge(ladder(), "failure", None, 0, lambda _: "escalate").action == "restart"


@pytest.mark.parametrize(("life", "action"), [("permanent", "restart"), ("transient", "end"), ("temporary", "end")])
def test_a_supervisor_that_gave_up_ended_with_shutdown(life: Restart, action: str) -> None:
    """As in OTP: a supervisor ends `shutdown` past its intensity, and a transient one stays ended."""
    middle_rung = Rung(1, 2, strategy(), life)
    verdict = judge((Rung(0, 1, strategy(0)), middle_rung, Rung(2, None, strategy())), "failure", 7, 0)
    assert (verdict.action, verdict.at, verdict.cause) == (action, 1, "shutdown")


def test_a_transient_supervisor_that_escalates_is_restarted() -> None:
    """`escalate` is a failure of the supervisor, not its shutdown, so a transient one runs again."""
    rungs = (Rung(0, 1, strategy()), Rung(1, 2, strategy(), "transient"), Rung(2, None, strategy()))
    verdict = judge(rungs, "failure", 7, 0, lambda at: "escalate" if at == 0 else "restart")
    assert (verdict.action, verdict.at, verdict.cause) == ("restart", 1, "failure")


def test_a_way_that_ends_nowhere() -> None:
    """A tree without a root is a fault that is named, not a restart that never comes."""
    with pytest.raises(ValueError, match="root"):
        judge((child(strategy=strategy(0)),), "failure", None, 0)


# significant children -------------------------------------------------------------------------------------------------


@given(lives, exits, shutdowns, st.integers(0, 2), st.booleans())
def test_auto_shutdown(life: Restart, how: Exit, auto: AutoShutdown, others: int, significant: bool) -> None:  # noqa: FBT001  # hypothesis passes by position
    """A supervisor ends with its significant children, and only where they end by themselves and for good."""
    rung = child(restart=life, auto_shutdown=auto, others=others, significant=significant)
    verdict = ending(rung, how)
    wanted = auto == "any_significant" or (auto == "all_significant" and others == 0)
    ends = significant and wanted and not restarts(life, how)
    assert verdict.at == (1 if ends else 0)
    if ends:
        assert (verdict.action, verdict.cause, verdict.tallies) == ("end", "shutdown", ())


def test_auto_shutdown_goes_on_upwards() -> None:
    """A significant supervisor that ends with its significant child ends the one above as well."""
    significant: dict[str, Any] = {"restart": "transient", "significant": True, "auto_shutdown": "any_significant"}
    rungs = (Rung(0, 1, strategy(), **significant), Rung(1, 2, strategy(), **significant), Rung(2, 3, strategy()))
    verdict = judge((*rungs, Rung(3, None, strategy())), "normal", None, 0)
    assert (verdict.action, verdict.at) == ("restart", 2)


def test_under_the_system_root_nothing_shuts_down() -> None:
    """The system's root goes on whatever ends under it."""
    rung = Rung(1, None, strategy(), "transient", significant=True, auto_shutdown="any_significant")
    assert judge((rung,), "normal", None, 0).action == "leave"


DECIDED: list[tuple[Exit, list[int]]] = [("failure", [0]), ("normal", []), ("shutdown", [])]


@pytest.mark.parametrize(("how", "asked"), DECIDED)
def test_decide_is_asked_of_failures_only(how: Exit, asked: list[int]) -> None:
    """Application code judges failures; an orderly end is the strategy's alone."""
    seen: list[int] = []

    def decide(at: int) -> Directive:
        seen.append(at)
        return "restart"

    asking: Callable[[int], Directive] = decide
    judge((child(), ROOT), how, None, 0, asking)
    assert seen == asked
