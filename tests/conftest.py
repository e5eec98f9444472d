"""What every test stands on: asyncio beneath anyio's pytest plugin, and hypothesis without a stopwatch."""

import os

import pytest
from hypothesis import settings

pytest_plugins = [
    "perdure.testing.plugin",  # a real PostgreSQL server
    "pytester",  # runs the suite for stores as the author of another store does
]

# A busy machine must not fail a property; in CI the examples are the same in every run.
settings.register_profile("perdure", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("perdure"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "perdure")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Perdure is for asyncio only, so anyio's plugin does not try trio."""
    return "asyncio"
