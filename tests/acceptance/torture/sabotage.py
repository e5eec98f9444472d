"""Promises broken on purpose, in the child, so that the checker can be seen to notice.

Each function changes this process and nothing else; perdure itself has no switch for any of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from perdure.actors.turn import Turn
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Append, Committed, Segment
from tests.acceptance.torture import actors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from perdure.storage.records import Loaded
    from perdure.storage.writes import Settled, Write

_LATE_SECONDS = 0.05
_SLOW_SECONDS = 0.02  # long enough for some of the kills to come between; a fast disk leaves no time for one


class _LateConnection(sqlite3.Connection):
    """A connection whose transactions last longer than it says."""

    begun = 0.0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # noqa: ANN401  # passed on as it is
        if sql.startswith("BEGIN"):
            if self.in_transaction:
                return self.cursor()
            self.begun = time.monotonic()
        if sql == "COMMIT" and time.monotonic() - self.begun < _LATE_SECONDS:
            return self.cursor()
        return super().execute(sql, *args)


def ack_before_commit(run: int) -> None:
    """Acknowledge what is not on disk yet: COMMIT comes up to 50 ms after it was reported."""
    del run
    connect = sqlite3.connect

    def late(*args: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401  # passed on as it is
        return connect(*args, **{**options, "factory": _LateConnection})

    async def shared(self: Any) -> Any:  # noqa: ANN401  # what is not committed is seen on one connection only
        return self._writer

    sqlite3.connect = late
    SQLiteStore._connect_reader = shared  # noqa: SLF001  # the reader must see what is not committed


def forget_journal(run: int) -> None:
    """Load every turn without the steps it had completed."""
    del run
    load = SQLiteStore.load

    async def forgetful(self: SQLiteStore, actors: Collection[int], mail: int) -> list[Loaded]:
        loaded = await load(self, actors, mail)
        for each in loaded:
            each.records = [record for record in each.records if record.kind != "step"]
        return loaded

    SQLiteStore.load = forgetful


def fresh_step_id(run: int) -> None:
    """Give an interrupted step another id when it runs again."""
    honest = actors.identity
    actors.identity = lambda: f"{honest()}@{run}"


def begin_before_durable(run: int) -> None:
    """Begin steps and asks while what they depend on is still being committed, which takes 20 ms."""
    del run
    write = SQLiteStore.write

    async def hasty(self: Turn) -> Committed:
        self.seat.commit(self.take())
        return Committed()

    async def slow(self: SQLiteStore, batch: Sequence[Write]) -> list[Settled]:
        await asyncio.sleep(_SLOW_SECONDS)
        return await write(self, batch)

    Turn.durable = hasty
    SQLiteStore.write = slow


def _rewriting(change: Callable[[Sequence[Write]], list[Write]]) -> None:
    write = SQLiteStore.write

    async def rewritten(self: SQLiteStore, batch: Sequence[Write]) -> list[Settled]:
        changed = change(batch)
        return (await write(self, changed))[: len(batch)]

    SQLiteStore.write = rewritten


def commit_twice(run: int) -> None:
    """Write every message from outside two times."""

    def twice(batch: Sequence[Write]) -> list[Write]:
        again = [
            Append(replace(write.envelope, id=f"{write.envelope.id}-{run}-{time.monotonic_ns()}"))
            for write in batch
            if isinstance(write, Append)
        ]
        return [*batch, *again]

    _rewriting(twice)


def drop_sends(run: int) -> None:
    """Lose what a turn tells, when it tells more than one thing."""
    del run

    def dropping(batch: Sequence[Write]) -> list[Write]:
        for write in batch:
            if isinstance(write, Segment) and len(write.sends) > 1:
                write.sends = [send for send in write.sends if send.key is not None] or write.sends[:1]
        return list(batch)

    _rewriting(dropping)


def reverse_sends(run: int) -> None:
    """Let a segment's messages leave in the wrong order."""
    del run

    def reversing(batch: Sequence[Write]) -> list[Write]:
        for write in batch:
            if isinstance(write, Segment):
                write.sends = write.sends[::-1]
        return list(batch)

    _rewriting(reversing)


WAYS: dict[str, Callable[[int], None]] = {
    "ack-before-commit": ack_before_commit,
    "begin-before-durable": begin_before_durable,
    "commit-twice": commit_twice,
    "drop-sends": drop_sends,
    "forget-journal": forget_journal,
    "fresh-step-id": fresh_step_id,
    "reverse-sends": reverse_sends,
}
