"""What every store must do, as tests that the author of a store runs over it.

In a test module of your own, import everything and say, in a fixture, where your store keeps its data:

    from perdure.testing.conformance import *
    from perdure.testing.conformance import Place

    class MyPlace: ...                      # see `Place`

    @pytest.fixture
    def place(tmp_path) -> Place:
        return MyPlace(tmp_path / "data")

    $ pytest test_my_store.py

The fixture is yours, so it may be parametrised, start a server, and clean up after each test. Nothing needs to be
configured: the tests carry anyio's mark and run on asyncio. A store whose data ends with it (`Place.shared` is False)
skips what needs two stores. A test that cannot hold for a store is taken out where all can see it, by a test of the
same name below the import, with the reason.

The functions lie in one module a topic, and are gathered here with asserts that pytest explains.
"""

from collections.abc import Callable
from importlib import import_module

import pytest

TOPICS = (
    "messages",
    "asks",
    "turns",
    "ownership",
    "deaths",
    "leaving",
    "offers",
    "neighbours",
    "wakes",
    "queries",
    "limits",
    "orders",
    "letters",
    "history",
)
"""The modules that the tests are in."""

# Before they are imported: pytest explains the asserts of plugins and of what it collects, not of what those import.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in (*TOPICS, "nodes")))

from perdure.testing.conformance.fixtures import anyio_backend, dying, living, node, shared  # noqa: E402  # after the line above
from perdure.testing.conformance.nodes import Node  # noqa: E402  # after the line above
from perdure.testing.conformance.places import Place  # noqa: E402  # after the line above


def _gathered() -> dict[str, Callable[..., object]]:
    tests: dict[str, Callable[..., object]] = {}
    for topic in TOPICS:
        for name, test in vars(import_module(f"{__name__}.{topic}")).items():
            if not name.startswith("test_"):
                continue
            if name in tests:
                raise ImportError(f"{name} is in {topic} and in {tests[name].__module__}: one would hide the other")
            tests[name] = pytest.mark.anyio(test)
    return tests


_TESTS = _gathered()
globals().update(_TESTS)

__all__ = [  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  # the names are read off the modules
    "Node",
    "Place",
    "anyio_backend",
    "dying",
    "living",
    "node",
    "shared",
    *_TESTS,
]
