"""The tables of `otp.py` and the tests of this folder are about the same things."""

from __future__ import annotations

import re
from pathlib import Path

from tests.supervision import otp

TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def written() -> list[str]:
    """The tests of the folder's other files."""
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    return [name for path in files for name in TEST.findall(path.read_text("utf-8"))]


def tabled() -> set[str]:
    """The tests that the tables name."""
    return {test for *_, test in otp.ROWS} | {test for *_, tests in otp.DIFFERENCES for test in tests}


def test_every_row_has_its_test() -> None:
    """A behaviour that the table promises is one that a test holds."""
    assert tabled() - set(written()) == set()
    assert all(tests for *_, tests in otp.DIFFERENCES)


def test_every_test_is_in_a_row() -> None:
    """Whoever reads the table has read everything that is tested here."""
    assert set(written()) - tabled() == set()


def test_names_are_unique() -> None:
    """A row's test is one test."""
    assert len(written()) == len(set(written()))
    assert len({(where, what) for where, what, _ in otp.ROWS}) == len(otp.ROWS)
