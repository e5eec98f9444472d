"""Our own stores do what every store must: the suite that perdure ships, over each of them in turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.testing.conformance import *  # noqa: F403  # the tests, and the fixtures that ours do not replace
from tests.conformance.places import PLACES, Place, Standing
from tests.mailbox import misplaced


def made(request: pytest.FixtureRequest) -> Place:
    """A place over what its fixture gives."""
    type_: type[Standing] = request.param
    return type_(request.getfixturevalue(type_.ground))


@pytest.fixture(autouse=True)
def mailboxes(tmp_path: Path) -> Generator[None]:
    """Whatever a store did to its file, mail that is to be handled is found, and nothing else."""
    yield
    path = tmp_path / "actors.db"
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            assert not misplaced(connection)


@pytest.fixture(params=PLACES, ids=lambda place: place.name)
def place(request: pytest.FixtureRequest) -> Place:
    """Where a store keeps its data."""
    return made(request)


@pytest.fixture(params=[place for place in PLACES if place.shared], ids=lambda place: place.name)
def shared(request: pytest.FixtureRequest) -> Place:
    """A place that outlives its stores, and that several may open."""
    return made(request)
