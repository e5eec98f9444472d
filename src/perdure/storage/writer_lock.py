"""Kernel locks beside the database: one writer at a time, and proof that a node's process lives.

SQLite 3.7.0 to 3.51.2 (except 3.44.6 and 3.50.7) can corrupt a WAL when two connections write or checkpoint at once,
so perdure's writers exclude each other themselves. `flock`, never fcntl locks: those vanish when any descriptor of the
file is closed. A forked child closes its copies and never unlocks, or it would free its parent's lock.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from perdure.errors import StorageError, WriterLockTimeout

if TYPE_CHECKING:
    from pathlib import Path

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_open_locks):
        lock.forget()


os.register_at_fork(after_in_child=_close_in_child)


class FileLock:
    """An exclusive kernel lock on a side file, free again whenever its process ends, however it ends.

    Not for use by several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own: int | None = None
        self._held: int | None = None
        _open_locks.add(self)

    def __repr__(self) -> str:
        return f"<FileLock {self._path} {'held' if self._held is not None else 'free'}>"

    def acquire(self, deadline_seconds: float) -> None:
        """Take the lock; raise `WriterLockTimeout` when another process keeps it longer than the deadline."""
        if self.try_acquire():
            return
        # Blocking flock shares fairly where polling does not, but cannot be given a deadline: a thread blocks on a
        # descriptor of its own and hands it over, or closes it if nobody waits any more.
        handover: queue.SimpleQueue[int] = queue.SimpleQueue()
        abandoned = threading.Event()
        gate = threading.Lock()

        def block() -> None:
            descriptor = self._open()
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                with gate:
                    if not abandoned.is_set():
                        handover.put(descriptor)
                        return
            os.close(descriptor)

        threading.Thread(target=block, name="perdure-lock", daemon=True).start()
        try:
            self._held = handover.get(timeout=deadline_seconds)
        except queue.Empty:
            with gate:
                abandoned.set()
                if handover.empty():
                    raise WriterLockTimeout(
                        f"{self._path}: another process has held the writer lock for {deadline_seconds:g} s. "
                        "It is stopped or hangs; find it with fuser on that file, continue or end it."
                    ) from None
            self._held = handover.get()

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        if self._own is None:
            self._own = self._open()
        try:
            fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._held = self._own
        return True

    def release(self) -> None:
        """Give the lock back."""
        held, self._held = self._held, None
        if held is None:
            return
        if held == self._own:
            fcntl.flock(held, fcntl.LOCK_UN)
        else:
            os.close(held)

    def close(self) -> None:
        """Give the lock back and close the side file."""
        self.release()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors without unlocking: what a forked child does with its copies."""
        for descriptor in {self._own, self._held}:
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)
        self._own = self._held = None

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(
                f"{self._path}: the lock file beside the database cannot be opened ({error.strerror}). "
                "Give this process write access to the database's directory."
            ) from error
