"""What the disk itself takes, and what it is."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_WRITES = 100
_PAGE = bytes(4096)


def fdatasync_times(folder: Path) -> list[float]:
    """Seconds that making one appended page durable took, many times over."""
    path = folder / "fdatasync"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    times: list[float] = []
    try:
        for _ in range(_WRITES):
            os.write(descriptor, _PAGE)
            start = time.perf_counter()
            _sync(descriptor)
            times.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return times


def _sync(descriptor: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(descriptor)


def file_system(folder: Path) -> str:
    """Type of the file system a folder lies on, where the kernel tells."""
    best, kind = "", "unknown"
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, type_, *_ = line.split()
            if len(point) >= len(best) and Path(point) in (folder, *folder.parents):
                best, kind = point, type_
    return kind
