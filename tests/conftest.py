"""What every test stands on: asyncio beneath anyio's pytest plugin, and hypothesis without a stopwatch."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.hanging import watched
from tests.slow import slow_down

pytest_plugins = [
    "perdure.testing.plugin",  # a real PostgreSQL server
    "pytester",  # runs the suite for stores as the author of another store does
]

# A shell has jobs in the background ignore SIGINT, and whatever they start: also what a test is to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a property; in CI the examples are the same in every run.
settings.register_profile("perdure", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("perdure"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "perdure")


# Where it is asked for, every run is one on a busy machine.
if SLOW_SECONDS := float(os.environ.get("PERDURE_TEST_SLOW", "0")):
    slow_down(SLOW_SECONDS)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Perdure is for asyncio only, so anyio's plugin does not try trio."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that hangs says where its tasks are."""
    with watched(item.nodeid):
        return (yield)
