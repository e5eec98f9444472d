"""The suite as the author of another store runs it: in a module of its own, with nothing configured."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.testing import conformance

AUTHORS_MODULE = """
import msgspec
import pytest
from perdure.storage.sqlite import SQLiteStore
from perdure.testing.conformance import *


class Mine(SQLiteStore):
{override}


class InMemory:
    name = "mine"
    shared = False

    def store(self):
        return Mine(":memory:")


@pytest.fixture
def place():
    return InMemory()
"""

HEALTHY = "    pass"

FORGETS_OUTCOMES = """
    async def find(self, id):
        found = await super().find(id)
        return found and msgspec.structs.replace(found, outcome=None)
"""

TURNS_MAIL_AROUND = """
    async def mail(self, actor, after, limit):
        return (await super().mail(actor, after, limit))[::-1]
"""

LOSES_REPLIES = """
    async def completed(self, message):
        return []
"""

TAKES_ANY_EPOCH = """
    async def write(self, batch):
        for write in batch:
            if hasattr(write, "epoch"):
                (held,) = await self.load([write.actor], 1) or [write]
                write.epoch = held.epoch
        return await super().write(batch)
"""


def run_suite(pytester: pytest.Pytester, override: str, *args: str) -> pytest.RunResult:
    """The suite over a store of somebody else's."""
    pytester.makepyfile(test_mine=AUTHORS_MODULE.format(override=override))
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *args)


def test_nothing_needs_to_be_configured(pytester: pytest.Pytester) -> None:
    """An import and a fixture are all it takes; what a store does not claim to do is skipped."""
    names = ["test_numbers_are_dense_per_actor", "test_empty_batch", "test_dead_node_is_found"]
    run_suite(pytester, HEALTHY, "-k", " or ".join(names)).assert_outcomes(passed=2, skipped=1)


@pytest.mark.parametrize(
    ("override", "test"),
    [
        pytest.param(FORGETS_OUTCOMES, "test_stop_with_mail_left", id="forgets outcomes"),
        pytest.param(TURNS_MAIL_AROUND, "test_order_is_kept", id="turns mail around"),
        pytest.param(LOSES_REPLIES, "test_reply_completes_the_ask", id="loses replies"),
        pytest.param(TAKES_ANY_EPOCH, "test_stale_epoch_writes_nothing", id="takes any epoch"),
    ],
)
def test_a_broken_store_is_caught(pytester: pytest.Pytester, override: str, test: str) -> None:
    """A store that loses, reorders or overwrites what was promised does not pass, and the report says with what."""
    result = run_suite(pytester, override, "-k", test)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*{test}*"])
    result.stdout.fnmatch_lines(["E*assert *"])


def test_every_test_is_exported() -> None:
    """A test that was added to a topic is run by everybody."""
    folder = Path(conformance.__file__).parent
    topics = {path.stem for path in folder.glob("*.py") if "def test_" in path.read_text("utf-8")} - {"__init__"}
    assert topics == set(conformance.TOPICS)
    names = [
        name
        for topic in topics
        for name in vars(importlib.import_module(f"{conformance.__name__}.{topic}"))
        if name.startswith("test_")
    ]
    assert sorted(names) == sorted(name for name in conformance.__all__ if name.startswith("test_"))


@pytest.mark.parametrize("module", ["perdure", "perdure.testing"])
def test_programs_do_not_import_it(module: str) -> None:
    """A program in production needs no test runner, nor the driver of a database that it does not use."""
    program = f"import sys, {module}; print(sorted({{'pytest', 'psycopg', 'anyio.pytest_plugin'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=180)
    assert result.stdout == "[]\n"
