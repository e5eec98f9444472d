"""Every store in turn: a test that takes `node` or `place` runs over each."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.conformance.node import Node, on
from tests.conformance.places import PLACES, Place


@pytest.fixture(params=PLACES, ids=lambda place: place.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a store keeps its data."""
    made: Place = request.param(tmp_path)
    return made


@pytest.fixture(params=[place for place in PLACES if place.shared], ids=lambda place: place.name)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that outlives its stores, and that several may open."""
    made: Place = request.param(tmp_path)
    return made


@pytest.fixture
async def node(place: Place) -> AsyncGenerator[Node]:
    """One node, alone with its data."""
    async with on(place) as opened:
        yield opened
