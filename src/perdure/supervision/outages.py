"""Work that is begun again where the database was away: it is on disk, and nobody else does it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from perdure.errors import DecodingError, EncodingError, FencedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_LOG = logging.getLogger("perdure.supervision")
_PAUSE_SECONDS = 0.5


async def through_outages(work: Callable[[], Awaitable[T]]) -> T:
    """What work gives, done until the database has not failed it; what would fail again alike is raised."""
    while True:
        try:
            return await work()
        except (FencedError, EncodingError, DecodingError):
            raise
        except StorageError as error:
            _LOG.error("an order waits for the database: %s", error)
            await asyncio.sleep(_PAUSE_SECONDS)
