"""A `Limit` is checked where it is written."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from perdure import Actor, Limit, LimitError, step
from perdure.clock import Seconds


async def _free() -> int:
    return 1


@pytest.mark.parametrize("given", [
    {}, {"concurrent": 0}, {"concurrent": -1}, {"concurrent": True}, {"concurrent": 1.5}, {"concurrent": "5"},
    {"rate": 0}, {"rate": math.nan}, {"rate": 5, "per": 0}, {"rate": 5, "per": math.inf}, {"rate": 5, "per": math.nan},
    {"rate": 5, "per": True}, {"rate": 5, "per": "60"}, {"concurrent": 10**30},
])  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    """A mistake in a limit is found where it is written."""
    with pytest.raises(LimitError, match="Limit\\('llm'"):
        Limit("llm", **given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


@pytest.mark.parametrize("name", ["", "e\u0301", "a\nb", "x" * 256, 5])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """A limit's name is durable, like a key."""
    with pytest.raises(LimitError):
        Limit(name, concurrent=1)


@pytest.mark.parametrize("per", [90, 90.0, timedelta(seconds=90)])
def test_a_period_is_seconds_or_a_timedelta(per: Seconds) -> None:
    """As everywhere."""
    assert Limit("a", rate=1, per=per) == Limit("a", rate=1, per=90)
    assert repr(Limit("a", rate=1, per=per)) == "Limit('a', rate=1, per=90)"


def test_two_limits_of_one_name_in_one_process() -> None:
    """Two places that disagree are found before anything runs."""
    step(_free, limit=Limit("unit.twice", concurrent=1))
    step(_free, limit=Limit("unit.twice", concurrent=1))
    with pytest.raises(LimitError, match="already"):
        type("Twice", (Actor,), {"__module__": __name__}, limit=Limit("unit.twice", concurrent=2))

    with pytest.raises(LimitError, match="is no Limit"):
        step(_free, limit=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  # wrong on purpose
