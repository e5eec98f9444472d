"""Who is dead: a node that can be heard of is not buried, one that is gone is, and a buried one begins nothing."""

import pytest

from tests.model.explorer import explore
from tests.model.judgement import ALIVE, LATE_STEP, STOPS, Judgement, Rule

STANDSTILL = STOPS | {"standstill"}
SLOW = STOPS | {"slow"}


@pytest.mark.parametrize("wrong", [STANDSTILL, SLOW], ids=["a standstill", "a slow node"])
def test_every_state_keeps_every_property(wrong: frozenset[str]) -> None:
    """A laptop's sleep, an outage or a slow node costs nobody its actors, and a dead node's are free at last."""
    found = explore(Judgement(wrong))
    assert found.broken is None, str(found)


@pytest.mark.parametrize(
    ("rule", "wrong", "broken"),
    [
        (Rule.OWN_BEATS, STANDSTILL, ALIVE),
        (Rule.WHOLE_LEASE, SLOW, ALIVE),
        (Rule.OWN_CLOCK, SLOW, ALIVE),
        (Rule.COUNTER_CHECKED, STANDSTILL, ALIVE),
        (Rule.HALF_LEASE, STANDSTILL, LATE_STEP),
        (Rule.FROM_SENDING, STANDSTILL, LATE_STEP),
    ],
)
def test_a_rule_left_out_breaks(rule: Rule, wrong: frozenset[str], broken: str) -> None:
    """Nobody can take a rule out because it looks superfluous."""
    found = explore(Judgement(wrong, frozenset(Rule) - {rule}))
    assert found.broken == broken, str(found)
    assert found.trace


@pytest.mark.parametrize("wrong", [{"slow", "standstill"}, {"standstill", "second standstill"}])
def test_what_three_heartbeats_do_not_hold(wrong: set[str]) -> None:
    """It is known where the judgement ends: a node is buried there although it could be heard of."""
    assert explore(Judgement(frozenset(wrong))).broken == ALIVE
