"""The whole of perdure under SIGKILL at random instants, judged at each."""

import pytest

from tests.acceptance.torture.harness import Options, torture

_SEEDS = 4
_KILLS = 50  # a seed: 200 in all
_LONG_SEEDS = 100
_LONG_KILLS = 100  # a seed: 10,000 in all


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_no_promise_breaks_under_kill_9(seed: int) -> None:
    """What was promised to users holds whenever their process dies."""
    report = torture(Options(seed, _KILLS))
    assert not report.violations, str(report)
    assert report.kills == _KILLS
    assert report.interrupted, "no step was ever interrupted: the kills came at the wrong times"


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1_000, 1_000 + _LONG_SEEDS))
def test_no_promise_breaks_under_ten_thousand_kills(seed: int) -> None:
    """What two hundred kills do not find, ten thousand may."""
    report = torture(Options(seed, _LONG_KILLS))
    print(report)  # noqa: T201  # `make torture` tells what it showed
    assert not report.violations, str(report)
