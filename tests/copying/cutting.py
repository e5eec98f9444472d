"""`perdure copy` and `perdure backup`, killed at a chosen point: `python -m tests.copying.cutting POINT command...`."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

from perdure.console.cli import main
from perdure.storage.copying import backup, postgres_end
from perdure.storage.copying.partial import Partial
from perdure.storage.copying.sqlite_end import SQLiteDestination
from perdure.storage.copying.tables import Row, Table

POINTS = ("half-filled", "filled", "completed", "unsynced")
BACKUP_POINTS = ("half-copied", "copied", "unsynced")


def _die(*_: object, **__: object) -> Any:  # noqa: ANN401  # it does not return
    os.kill(os.getpid(), signal.SIGKILL)


def _half(rows: Iterable[Row]) -> Iterable[Row]:
    yield from itertools.islice(rows, 5_000)
    _die()


def _cut(kind: type[Any], point: str) -> None:
    """Have a destination die."""
    fill, complete = kind.fill, kind.complete

    def half_fill(self: object, table: Table, rows: Iterable[Row]) -> None:
        fill(self, table, _half(rows) if table.name == "message" else rows)

    def complete_and_die(self: object, numbers: object) -> None:
        complete(self, numbers)
        _die()

    match point:
        case "half-filled":
            kind.fill = half_fill
        case "filled":
            kind.complete = _die
        case "completed":
            kind.complete = complete_and_die
        case _:
            kind.publish = _die


def _cut_backup(point: str) -> None:
    synced = os.fdatasync
    if point == "half-copied":
        backup._BYTES_A_SYNC = 1 << 20  # noqa: SLF001  # so that there are several

        def sync(descriptor: int) -> None:
            synced(descriptor)
            _die()

        os.fdatasync = sync
    elif point == "copied":
        backup._verify = _die  # noqa: SLF001  # between the two
    else:
        Partial.publish = _die


if __name__ == "__main__":
    point, *command = sys.argv[1:]
    if command[0] == "backup":
        _cut_backup(point)
    else:
        for kind in (SQLiteDestination, postgres_end.PostgresDestination):
            _cut(kind, point)
    main(command)
