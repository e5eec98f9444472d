"""A promise broken on purpose is found: a checker that could not fail would show nothing."""

import pytest

from tests.acceptance.torture.harness import Options, torture

_KILLS = 300  # it ends with the first that shows something; a busy machine handles little between two


@pytest.mark.parametrize(
    ("way", "promises"),
    [
        ("ack-before-commit", {"P1", "P2", "P7"}),
        ("begin-before-durable", {"P7"}),
        ("commit-twice", {"P5"}),
        ("drop-sends", {"P1", "P5", "P7"}),
        ("forget-journal", {"P6"}),
        ("fresh-step-id", {"P6"}),
        ("reverse-sends", {"P3"}),
    ],
)
def test_a_promise_broken_on_purpose_is_found(way: str, promises: set[str]) -> None:
    """Users may believe the other runs, because this one is not believed."""
    report = torture(Options(7, _KILLS, sabotage=way))
    found = {violation.promise for violation in report.violations}
    assert found & promises, f"{way} went unnoticed, or was taken for something else: {report}"
