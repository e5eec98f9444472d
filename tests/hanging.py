"""Where the tasks of a test are that does not end: pytest's own dump shows threads, which wait in the event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

HANGS_SECONDS = float(os.environ.get("PERDURE_TEST_HANGS", "240"))
"""How long no test takes, but the long ones; their tasks are shown in vain."""


@contextmanager
def watched(name: str) -> Generator[None]:
    """Show the tasks of every loop if this takes too long."""
    timer = threading.Timer(HANGS_SECONDS, _show, [name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _show(name: str) -> None:
    lines = [f"{name} has taken {HANGS_SECONDS:g} s. Its tasks:"]
    lines += [
        f"  {task.get_name()}: {' > '.join(_frames(task.get_coro()))}"
        for task in gc.get_objects()
        if isinstance(task, asyncio.Task) and not task.done()
    ]
    sys.__stderr__.write("\n".join(lines) + "\n") if sys.__stderr__ else None


def _frames(coroutine: Any) -> Generator[str]:  # noqa: ANN401  # whatever is awaited
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
