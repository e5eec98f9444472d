"""Who may write an actor: every state of the model keeps every property, and no rule is in it for nothing."""

import pytest

from tests.model import ownership as properties
from tests.model.acting import ALL, Ownership
from tests.model.explorer import STUCK, explore
from tests.model.ownership import Bounds, Rule

CALM = Bounds(failures=0)
ONE_MESSAGE = Bounds(messages=1, failures=1)
ONE_FAILURE = Bounds(failures=1)
AN_OFFER = Bounds(messages=1, failures=0, queue=1, offers=1, withdrawals=1)
AN_OFFER_FAILS = Bounds(messages=1, failures=1, queue=1, lives=1, offers=1)


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(Bounds(messages=2, failures=1), id="two messages, one failure"),
        pytest.param(Bounds(messages=1, failures=2), id="one message, two failures"),
        pytest.param(Bounds(messages=2, failures=0, queue=3), id="two messages, a longer queue"),
        pytest.param(AN_OFFER, id="an offer, withdrawn or not"),
        pytest.param(AN_OFFER_FAILS, id="an offer, one failure"),
        pytest.param(Bounds(messages=2, failures=0, queue=1, offers=1), id="an offer, two messages"),
        pytest.param(Bounds(messages=2, failures=2), id="two of each", marks=pytest.mark.torture),
        pytest.param(
            Bounds(messages=1, failures=1, offers=1, withdrawals=1), id="one of each", marks=pytest.mark.torture
        ),
        pytest.param(
            Bounds(messages=2, failures=1, queue=1, offers=1),
            id="an offer, two messages, one failure",
            marks=pytest.mark.torture,
        ),
    ],
)
def test_every_state_keeps_every_property(bounds: Bounds) -> None:
    """Whoever dies, stops or is taken for dead, and whenever: no message is lost, done twice, or waits for ever."""
    found = explore(Ownership(bounds=bounds, symmetric=True))
    assert found.broken is None, str(found)


@pytest.mark.parametrize(
    ("rule", "bounds", "broken"),
    [
        (Rule.FENCE_OWNER, CALM, properties.ONE_WRITER),
        (Rule.FENCE_EPOCH, CALM, properties.ONE_WRITER),
        (Rule.CLAIM_RAISES, ONE_MESSAGE, properties.EPOCH_RISES),
        (Rule.RELEASE_REFUSED, ONE_MESSAGE, STUCK),
        (Rule.APPEND_MARKS, ONE_MESSAGE, STUCK),
        (Rule.REPLY_WAKES, ONE_MESSAGE, STUCK),
        (Rule.TAKER_LIVES, ONE_MESSAGE, STUCK),
        (Rule.NEW_IDENTITY, ONE_MESSAGE, STUCK),
        (Rule.REPLY_AFTER, ONE_MESSAGE, properties.NO_EARLY_REPLY),
        (Rule.LOST_NOT_FAILED, ONE_MESSAGE, properties.TRUE_ANSWER),
        (Rule.LOST_NOT_DONE, ONE_MESSAGE, properties.TRUE_ANSWER),
        (Rule.VOIDED, ONE_MESSAGE, STUCK),
        (Rule.FOLLOWS_END, ONE_FAILURE, properties.IN_ORDER),
        (Rule.FOLLOWS_SEGMENT, ONE_FAILURE, properties.RESTS_ON_DURABLE),
        (Rule.STALE_DROPPED, CALM, STUCK),
        (Rule.OFFER_FENCED, AN_OFFER_FAILS, properties.TAKEN_FROM_NOBODY),
        (Rule.OFFER_VOID, AN_OFFER_FAILS, STUCK),
        (Rule.OFFER_MARKS, AN_OFFER, STUCK),
        (Rule.RECEIVER_LIVES, AN_OFFER_FAILS, STUCK),
    ],
)
def test_a_rule_left_out_breaks(rule: Rule, bounds: Bounds, broken: str) -> None:
    """Nobody can take a rule out of a store because it looks superfluous."""
    found = explore(Ownership(ALL - {rule}, bounds))
    assert found.broken == broken, str(found)
    assert found.trace


def test_epochs_that_do_not_rise_leave_an_actor_to_nobody() -> None:
    """That the epoch rises at a claim is there for the mail, and not for the number."""
    found = explore(Ownership(ALL - {Rule.CLAIM_RAISES}, CALM), ignoring=frozenset({properties.EPOCH_RISES}))
    assert found.broken == STUCK, str(found)


@pytest.mark.parametrize(
    ("rule", "bounds", "other", "broken"),
    [
        (Rule.BURY_RAISES, ONE_MESSAGE, Rule.FENCE_OWNER, properties.ONE_WRITER),
        (Rule.EXPECTED_NUMBER, CALM, Rule.FOLLOWS_END, properties.IN_ORDER),
        (Rule.EXPECTED_NUMBER, CALM, Rule.FOLLOWS_SEGMENT, properties.RESTS_ON_DURABLE),
        (Rule.OFFER_CLEARED, AN_OFFER, Rule.TAKE_UNOWNED, properties.TAKEN_FROM_NOBODY),
    ],
)
def test_a_rule_that_another_doubles(rule: Rule, bounds: Bounds, other: Rule, broken: str) -> None:
    """Where two rules hold one thing, the page says so, and it is known which may be changed for speed."""
    for one in (rule, other):
        alone = explore(Ownership(ALL - {one}, bounds, symmetric=True))
        assert alone.broken is None, str(alone)
    both = explore(Ownership(ALL - {rule, other}, bounds))
    assert both.broken == broken, str(both)


@pytest.mark.parametrize("bounds", [CALM, ONE_MESSAGE])
def test_a_release_that_overtakes_its_turn_is_refused(bounds: Bounds) -> None:
    """Nothing rests on the release's place in the queue, as long as it is refused where there is work."""
    found = explore(Ownership(ALL - {Rule.RELEASE_ORDERED}, bounds, symmetric=True))
    assert found.broken is None, str(found)


def test_an_offer_to_a_node_that_is_gone_is_void() -> None:
    """That such an offer is refused saves the actor a way through nobody's hands, and nothing rests on it."""
    found = explore(Ownership(ALL - {Rule.OFFER_TO_LIVE}, AN_OFFER_FAILS, symmetric=True))
    assert found.broken is None, str(found)
