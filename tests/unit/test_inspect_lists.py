"""The read model's lists, and names that are not there: what comes first, page by page, and what is suggested."""

from __future__ import annotations

import pytest

from perdure.console import inspect
from perdure.console.inspect import Inspector
from perdure.console.names import UnknownActor, UnknownMessage
from tests.unit.inspected import NOW, Rows, failure

# lists ----------------------------------------------------------------------------------------------------------------


def test_actors_with_mail_come_first(rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs attention is not on the last page."""
    monkeypatch.setattr(inspect, "_PAGE", 2)
    for key in ("a", "b", "c", "d", "e"):
        rows.actor(key=key)
    rows.message(rows.actor("Zebra", "z"))
    rows.actor("Yak", "y", status="parked")
    everything = inspector.overview(limit=None)
    keys = [str(actor.address) for actor in everything.actors]
    assert keys == ["Yak/y", "Zebra/z", *(f"Researcher/{key}" for key in "abcde")]
    assert (everything.total, everything.busy, everything.more) == (7, 1, False)
    some = inspector.overview(limit=3)
    assert [str(actor.address) for actor in some.actors] == keys[:3]
    assert some.more
    assert inspector.overview(kind="Yak").total == 1


def test_dead_letters_come_newest_first(rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """What broke just now is on the first line."""
    monkeypatch.setattr(inspect, "_PAGE", 2)
    actor = rows.actor()
    for number in range(5):
        rows.outcome(rows.message(actor, f"d{number}"), "dead", error=failure())
    letters = inspector.dead(limit=None)
    assert [message.id for message in letters.messages] == ["d4", "d3", "d2", "d1", "d0"]
    assert (letters.total, inspector.dead(limit=2).more) == (5, True)


def test_what_died_last_comes_first_whatever_its_number(
    rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet process has old numbers left, and its failures of today are not on the last page."""
    monkeypatch.setattr(inspect, "_PAGE", 1)
    actor = rows.actor()
    for id_, finished in (("today", NOW), ("old", NOW - 90), ("older", NOW - 90.5), ("yesterday", NOW - 80)):
        seq = rows.message(actor, id_)
        rows.insert("outcome", message=seq, status="dead", finished=finished, error=failure())
    assert [message.id for message in inspector.dead(limit=None).messages] == ["today", "yesterday", "old", "older"]


@pytest.mark.parametrize(("limit", "shown"), [(2**63, 3), (0, 0), (-(2**63) - 1, 0)])
def test_a_limit_that_no_database_takes(rows: Rows, inspector: Inspector, limit: int, shown: int) -> None:
    """More than there is gives all, and less than nothing gives nothing."""
    actor = rows.actor("Researcher", "a")
    for number in range(3):
        seq = rows.message(actor, f"m{number}")
        rows.outcome(seq, "dead", error=failure())
        rows.record(rows.message(rows.actor("Researcher", f"b{number}"), f"n{number}"), "read#1", name="read")
    assert len(inspector.actor("Researcher/a", limit=limit).messages) == shown
    assert len(inspector.dead(limit=limit).messages) == shown
    assert len(inspector.overview(limit=limit).actors) == shown + (shown > 0)
    assert len(inspector.message("n0", limit=limit).steps) == (shown > 0)
    assert inspector.tree(limit=limit).others == 4


# names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("Researcher/r2", ("Researcher/r1",)),
        ("Reseacher/r1", ("Researcher/r1",)),
        ("Critic/r1", ("Researcher/r1",)),
        ("r1", ("Researcher/r1",)),
        ("Researcher", ("Researcher/r1",)),
        ("Researcher/' OR 1=1 --", ()),
    ],
)
def test_an_unknown_actor_suggests_known_ones(
    rows: Rows, inspector: Inspector, asked: str, near: tuple[str, ...]
) -> None:
    """A slip of the finger costs one more key press, not a search."""
    rows.actor()
    with pytest.raises(UnknownActor, match="perdure ps") as caught:
        inspector.actor(asked)
    assert caught.value.near == near


def test_a_key_may_hold_slashes(rows: Rows, inspector: Inspector) -> None:
    """Keys that are paths can be typed as they are."""
    rows.actor(key="a/b/c")
    assert str(inspector.actor("Researcher/a/b/c").actor.address) == "Researcher/a/b/c"


def test_an_unknown_message_suggests_known_ones(rows: Rows, inspector: Inspector) -> None:
    """An id that was copied in part is completed, and an actor's name is told apart from an id."""
    rows.message(rows.actor(), "r1/why-is-the-sky-blue")
    with pytest.raises(UnknownMessage) as caught:
        inspector.message("r1/why")
    assert caught.value.near == ("r1/why-is-the-sky-blue",)
    with pytest.raises(UnknownMessage, match="perdure show Researcher/r1"):
        inspector.message("Researcher/r1")


def test_a_name_that_is_no_text_is_a_name_that_is_not_there(rows: Rows, inspector: Inspector) -> None:
    """Whatever bytes a shell passes, the answer is a sentence, and no traceback."""
    rows.actor()
    for odd in ("\udcff", "a\0b"):
        with pytest.raises(UnknownActor):
            inspector.actor(f"Researcher/{odd}")
        with pytest.raises(UnknownMessage):
            inspector.message(odd)
        assert inspector.dead(error=odd).total == inspector.overview(kind=odd).total == 0
