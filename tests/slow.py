"""A disk that is slow now and then, and a loop that stands still: what a busy machine does seldom, in every run.

`PERDURE_TEST_SLOW=0.2 pytest -n 8 tests/unit tests/supervision` has transactions wait for up to so many seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from perdure.storage.postgres import PostgresStore
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Settled, Write

_PARTS = (0.0, 0.0, 0.2, 0.5, 1.0)
"""Of those seconds: most transactions are quick, or nothing would overtake anything."""
_STANDS = 0.01
"""The part of the loop's passes before which it stands still."""


def slow_down(seconds: float) -> None:
    """Have every store of this process be slow, and every loop."""
    locked, write = SQLiteStore._locked, PostgresStore.write  # noqa: SLF001  # every hop to the disk comes through it
    passes: Any = getattr(asyncio.BaseEventLoop, "_run_once")  # noqa: B009  # its stub does not tell of it

    def slowly(self: SQLiteStore, work: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever it takes
        time.sleep(random.choice(_PARTS) * seconds)
        return locked(self, work, *args, **kwargs)

    async def slowly_there_and_back(self: PostgresStore, batch: Sequence[Write]) -> list[Settled]:
        await asyncio.sleep(random.choice(_PARTS) * seconds)
        settled = await write(self, batch)
        await asyncio.sleep(random.choice(_PARTS) * seconds)
        return settled

    def late(self: asyncio.BaseEventLoop) -> None:
        if random.random() < _STANDS:
            time.sleep(random.uniform(0, seconds))
        passes(self)

    for place, name, work in (
        (SQLiteStore, "_locked", slowly),
        (PostgresStore, "write", slowly_there_and_back),
        (asyncio.BaseEventLoop, "_run_once", late),
    ):
        setattr(place, name, work)
