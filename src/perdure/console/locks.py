"""Whether a process that opened a SQLite file is still there.

Every node holds a kernel lock on a file of its own beside the database, which is free again as soon as the process
ends. Asking takes a shared lock for an instant, so that two who ask do not see each other.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def lock_is_held(database: Path, node: str) -> bool | None:
    """Whether the process of a node lives; none where its file may not be read."""
    if "/" in node or "\0" in node:
        return None  # no id that perdure makes, so no file of ours
    path = database.with_name(f"{database.name}-node-{node}")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(descriptor)
