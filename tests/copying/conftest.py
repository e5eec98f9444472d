"""Places to copy from and to, of both kinds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from tests.copying.server import running

Kind: TypeAlias = Literal["sqlite", "postgres"]
NewTarget: TypeAlias = Callable[[Kind], str]


@pytest.fixture(scope="session")
def server() -> Generator[str]:
    """The URL of a PostgreSQL database."""
    with running() as url:
        yield url


@pytest.fixture
def new_target(tmp_path: Path, request: pytest.FixtureRequest) -> NewTarget:
    """Name a database that is not there yet."""

    def name(kind: Kind) -> str:
        unique = f"t{secrets.token_hex(4)}"
        if kind == "sqlite":
            return str(tmp_path / f"{unique}.db")
        return f"{request.getfixturevalue('server')}?schema={unique}"

    return name
