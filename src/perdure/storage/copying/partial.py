"""A file in the making: nobody sees it under its name before it is whole and on disk.

It lies beside its place under another name, locked by whoever makes it. Made, it is synced and renamed. What a killed
process left is removed by whoever comes next.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from perdure.errors import NotEmptyError, StorageError
from perdure.storage.writer_lock import FileLock

if TYPE_CHECKING:
    from types import TracebackType

_BESIDE = re.compile(r"(.+)-(?:wal|shm|journal|lock|node-.*)")


class Partial:
    """A file that will be at `final`, and replace what is there only if it is to; never, if that is not said."""

    def __init__(self, final: Path, *, replaces: bool | None = None) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.partial-{secrets.token_hex(6)}")
        self._replaces = replaces
        self._lock = FileLock(self.path)

    def __repr__(self) -> str:
        return f"<Partial {self.path}>"

    @property
    def longest(self) -> Path:
        """The longest name of what is made."""
        return self.path.with_name(f"{self.path.name}-journal")

    def __enter__(self) -> Self:
        for left in self.final.parent.glob(f"{self.final.name}.partial-*"):
            lock = FileLock(left)
            with suppress(StorageError):
                if lock.try_acquire():
                    remove(left)
            lock.close()
        self.check()
        if not self._lock.try_acquire():  # which creates it, for its owner alone
            raise StorageError(f"{self.path}: was removed by another process that makes {self.final.name}. Try again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove(self.path)
        self._lock.close()

    def check(self) -> None:
        """Raise if what is at the place may not be replaced."""
        belongs = _BESIDE.fullmatch(self.final.name)
        if belongs and self.final.with_name(belongs[1]).exists():
            raise NotEmptyError(
                f"{self.final}: is a name that belongs to the database {belongs[1]}, and what is there, to whoever "
                "has that open. Name another place."
            )
        for suffix in ("-wal", "-journal"):
            beside = self.final.with_name(self.final.name + suffix)
            if beside.exists():
                raise NotEmptyError(
                    f"{self.final}: has {beside.name} beside it, so it is a database in use, or what a killed process "
                    "left of one, and what is there would be mixed up with a new file. Name another place."
                )
        if self.final.exists() and not self.final.is_file():
            raise NotEmptyError(f"{self.final}: is there already, and is no file. Name another place.")
        if self.final.exists() and not self._replaces:
            otherwise = "." if self._replaces is None else ", or replace it with --force."
            raise NotEmptyError(f"{self.final}: is there already, and was not touched. Name another place{otherwise}")

    def publish(self) -> None:
        """Sync it and give it its name. Every connection to it must be closed."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.check()
        # closed before anybody can open it by its name: closing a database's file drops its process's locks on it
        self._lock.close()
        self.path.rename(self.final)
        folder = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: Path) -> None:
    """Remove a file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
