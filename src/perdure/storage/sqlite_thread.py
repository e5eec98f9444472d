"""aiosqlite's connections: each in a thread of its own, and a whole piece of work in one hop to it."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from perdure.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

P = ParamSpec("P")
R = TypeVar("R")

_JOIN_SECONDS = 5.0


async def start(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    """Open a connection. Raises `TargetError`."""
    # A process must be able to end although somebody forgot to close its system.
    connection._thread.daemon = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # aiosqlite offers no way
    try:
        return await connection
    except BaseException as error:
        # aiosqlite tells its thread to end and does not wait for it
        await asyncio.to_thread(connection._thread.join, _JOIN_SECONDS)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # aiosqlite offers no way
        if isinstance(error, sqlite3.Error):
            raise TargetError(f"the database cannot be opened: {error}.") from error
        raise


async def hop(connection: aiosqlite.Connection, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a whole piece of work in a connection's thread."""
    # Private, because aiosqlite's public calls are one hop a statement.
    execute = cast("Callable[..., Awaitable[R]]", connection._execute)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]  # it has no types
    return await execute(work, *args, **kwargs)
