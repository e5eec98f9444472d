"""Fixtures for pytest.

In the `conftest.py` at the top of your tests:

    pytest_plugins = ["perdure.testing.plugin"]

and in a test:

    async def test_orders(postgres: str) -> None:
        async with ActorSystem(postgres) as system: ...

| variable | what it says |
|---|---|
| `PERDURE_TEST_POSTGRES` | a server that runs already, as a URL with a database; then none is started |
| `PERDURE_TEST_POSTGRES_VERSION` | the version to start; 18 if it is not set |

With it, a handler that does something outside of a step is named (`EffectWarning`).

The package that brings the server being absent is an error, and never a skip.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from perdure.actors.effects import watch_effects
from perdure.testing.postgres import PostgresServer, fresh_schema

SERVER = "PERDURE_TEST_POSTGRES"
VERSION = "PERDURE_TEST_POSTGRES_VERSION"


def pytest_configure() -> None:
    """Have handlers that do something outside of a step warned of: see `EffectWarning`."""
    watch_effects()


def pytest_report_header() -> str:
    """What the tests that need a server run on."""
    return f"postgres: the server of {SERVER}" if SERVER in os.environ else f"postgres: {_version()}, started if needed"


def _version() -> int:
    return int(os.environ.get(VERSION) or 18)


@pytest.fixture(scope="session")
def postgres_dsn() -> Generator[str]:
    """A running server: one for each process that runs tests, so that none is disturbed by what others do to theirs."""
    given = os.environ.get(SERVER)
    if given:
        yield given
        return
    with PostgresServer(_version()) as server:
        yield server.dsn


@pytest.fixture
def postgres(postgres_dsn: str) -> Generator[str]:
    """An empty schema, for this test alone."""
    with fresh_schema(postgres_dsn) as target:
        yield target
