"""Backups and copies, as views: what was copied, how much of it, and whether it came out the same."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen

from perdure.storage.copying import backup
from perdure.storage.copying import copy as copies

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from perdure.storage.copying.copy import Copied


@frozen
class TableCount:
    """A table and its rows."""

    name: str
    rows: int


@frozen
class Backup:
    """What `perdure backup` made."""

    database: str
    path: str
    bytes: int
    seconds: float
    tables: tuple[TableCount, ...]


@frozen
class TableCompared:
    """A table at both ends. `digest` is of what was read, with its actors released."""

    name: str
    rows: int
    rows_there: int
    digest: str
    equal: bool


@frozen
class Copy:
    """What `perdure copy` did, or compared."""

    database: str
    destination: str
    seconds: float
    equal: bool
    tables: tuple[TableCompared, ...]


def back_up(target: str, destination: Path, *, replaces: bool) -> Backup:
    """See `storage.copying.backup.back_up`."""
    began = time.monotonic()
    with _undone_by_sigterm():
        made = backup.back_up(target, destination, replaces=replaces)
    counts = tuple(TableCount(name, rows) for name, rows in made.counts)
    return Backup(made.source, str(made.path), made.size, time.monotonic() - began, counts)


def copy(source: str, destination: str) -> Copy:
    """See `storage.copying.copy.copy`."""
    began = time.monotonic()
    with _undone_by_sigterm():
        return _view(copies.copy(source, destination), began)


def verify(source: str, destination: str) -> Copy:
    """See `storage.copying.copy.verify`."""
    began = time.monotonic()
    return _view(copies.verify(source, destination), began)


@contextmanager
def _undone_by_sigterm() -> Generator[None]:
    """Have SIGTERM remove what is half made, as Ctrl-C does: a full disk needs its room, not the next backup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _view(copied: Copied, began: float) -> Copy:
    tables = tuple(
        TableCompared(one.name, one.source.rows, one.destination.rows, one.source.digest, one.equal)
        for one in copied.tables
    )
    return Copy(copied.source, copied.destination, time.monotonic() - began, copied.equal, tables)
