"""Where code is, for people: the stack of a running thread, or of a task that waits."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from types import FrameType

_PACKAGE = str(Path(__file__).parents[1])
_STANDARD = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_INSTALLED = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))  # often a folder within that
_LIBRARIES = (_PACKAGE, *_STANDARD, *_INSTALLED)
_BEFORE_A_HANDLER = (str(Path(__file__).with_name("attempt.py")), str(Path("asyncio", "events.py")))
_DEBUGGERS = {"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"}


@frozen
class Stack:
    """Where something is.

    Attributes:
        file: The file of the innermost line that is the program's own: neither a library's nor perdure's.
        line: That line's number.
        text: The whole stack as a traceback shows it, from the handler inwards.
    """

    file: str
    line: int
    text: str


def stack_of_thread(thread: int) -> Stack:
    """Where a thread is now."""
    frame = _frame(thread)
    return _stack([] if frame is None else [*traceback.walk_stack(frame)][::-1])


def stack_of_task(task: asyncio.Task[Any]) -> Stack:
    """Where a task waits."""
    return _stack(list(_awaited(task)))


def _frame(thread: int) -> FrameType | None:
    return sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the only way to see another thread


def is_debugged(thread: int) -> bool:
    """Whether a thread stands in a debugger."""
    frame = _frame(thread)
    return frame is not None and any(
        str(each.f_globals.get("__name__")).partition(".")[0] in _DEBUGGERS for each, _ in traceback.walk_stack(frame)
    )


def is_own_work(frame: FrameType | None) -> bool:
    """Whether what runs was called by perdure for itself: no code of the program or of a library asked for it."""
    while frame is not None and _is_standard(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is None or frame.f_code.co_filename.startswith((_PACKAGE, "<frozen importlib"))


def _is_standard(file: str) -> bool:
    return file.startswith(_STANDARD) and not file.startswith(_INSTALLED)


def _awaited(task: asyncio.Task[Any]) -> Iterator[tuple[FrameType, int]]:
    """The frames of a task from its coroutine to what it waits for."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame, frame.f_lineno
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)


def _stack(frames: list[tuple[FrameType, int]]) -> Stack:
    summary = traceback.StackSummary.extract(frames)
    begin = max((at + 1 for at, one in enumerate(summary) if one.filename.endswith(_BEFORE_A_HANDLER)), default=0)
    shown = list(summary[begin:]) or list(summary)
    if not shown:
        return Stack("?", 0, "")
    own = [one for one in shown if not one.filename.startswith(_LIBRARIES)]
    here = (own or shown)[-1]
    text = "Stack (most recent call last):\n" + "".join(traceback.format_list(shown))
    return Stack(here.filename, here.lineno or 0, text)
