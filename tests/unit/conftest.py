"""What the tests of the read model and of the command share: a database on either store, and a reader of it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from perdure.console.inspect import Inspector
from tests.unit.inspected import NOW, STORES, Rows, target_of


@pytest.fixture(params=STORES)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Rows]:
    """A database to write into."""
    rows = Rows(target_of(request, tmp_path))
    yield rows
    rows.connection.close()


@pytest.fixture
def inspector(rows: Rows) -> Inspector:
    """A reader of that database."""
    return Inspector(rows.target, clock=lambda: NOW)
