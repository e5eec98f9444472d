"""The fixtures of the suite. The one they stand on, `place`, is written by whoever runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from perdure.testing.conformance.nodes import Node, on, started
from perdure.testing.conformance.places import Place


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Perdure is for asyncio only, so anyio's plugin does not try trio."""
    return "asyncio"


@pytest.fixture
def shared(place: Place) -> Place:
    """A place that outlives its stores, and that several may open."""
    if not place.shared:
        pytest.skip(f"{place.name}: its data ends with its store")
    return place


@pytest.fixture
async def node(place: Place) -> AsyncGenerator[Node]:
    """One node, alone with its data."""
    async with on(place) as opened:
        yield opened


@pytest.fixture
async def dying(shared: Place) -> AsyncGenerator[Node]:
    """A node that is taken for dead; it may live."""
    node = await started(shared.store())
    yield node
    await node.store.close()


@pytest.fixture
async def living(shared: Place) -> AsyncGenerator[Node]:
    """A node that buries others."""
    async with on(shared) as node:
        yield node
