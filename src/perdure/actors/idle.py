"""Whether a turn can go on by itself: what each of its tasks waits for, and which timers its own code has set.

Asked only when a replay is stuck or a turn has waited long, so it may look at every task of the loop; but for
`may_time_out`, which is asked for each result of several tasks, and looks at what is due soon.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.actors.scope import current, running_step
from perdure.actors.timers import Held

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from perdure.actors.segments import Segments

# Where asyncio and anyio wait for tasks that they hold: (end of the file's name, function).
_TASK_WAITS = {
    ("asyncio/taskgroups.py", "__aexit__"),
    ("asyncio/taskgroups.py", "_aexit"),
    ("asyncio/tasks.py", "_wait"),
    ("asyncio/tasks.py", "wait_for"),
    ("asyncio/tasks.py", "_wait_for_one"),
    ("asyncio/tasks.py", "_cancel_and_wait"),  # `wait_for` past its time, until Python 3.12
    ("anyio/_backends/_asyncio.py", "__aexit__"),
}


def waits_in_perdure(
    turn: Segments, waiting: Container[asyncio.Future[Any]], tasks: Iterable[asyncio.Task[Any]] | None = None
) -> bool:
    """Whether every task of a turn waits for perdure, or for other tasks of the turn.

    Whoever waits for a task that has just ended is about to run, and only the next pass of the loop shows it: what
    cannot be taken back needs a second look there.

    Args:
        turn: It.
        waiting: What is waited for in perdure.
        tasks: Its tasks, if they were found already.
    """
    if tasks is None:
        tasks = [task for task in asyncio.all_tasks() if _belongs(task, turn) and not task.done()]
    return all(_is_inside(task, turn, waiting) for task in tasks)


def may_time_out(turn: Segments, until: float, *, unknown: bool) -> bool:
    """Whether a timer that a turn's own code has set is due by then, such as `asyncio.timeout` has.

    Args:
        turn: It.
        until: On the clock of the loop.
        unknown: The answer where the loop does not tell, as uvloop's.
    """
    loop = asyncio.get_running_loop()
    timers: Sequence[asyncio.TimerHandle] | None = getattr(loop, "_scheduled", None)
    if timers is None:
        return unknown
    pending = [0]
    while pending:  # a heap: none below one that is due later
        index = pending.pop()
        if index < len(timers) and timers[index].when() <= until:
            if not timers[index].cancelled() and _setter(timers[index]) is turn:
                return True
            pending += (2 * index + 1, 2 * index + 2)
    return False


def turns_with_timers() -> set[Segments]:
    """Turns whose own code has set a timer that is still to go off; of a loop that does not tell, as uvloop's, none."""
    timers: Iterable[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return {turn for handle in timers if not handle.cancelled() and (turn := _setter(handle)) is not None}


def _setter(handle: asyncio.TimerHandle) -> Segments | None:
    """The turn whose own code has set a timer."""
    context: Context = getattr(handle, "_context")  # noqa: B009  # its stub does not tell of it
    scope = context.get(current)
    if scope is None or context.get(running_step) is not None:
        return None
    callback: Any = getattr(handle, "_callback")  # noqa: B009  # its stub does not tell of that, either
    callback = getattr(callback, "func", callback)
    ours = str(getattr(callback, "__module__", "")).startswith("perdure.")
    return None if ours and not isinstance(getattr(callback, "__self__", None), Held) else scope.turn


def tasks_by_turn() -> dict[Segments, list[asyncio.Task[Any]]]:
    """The tasks of every turn; for whoever looks at many turns, since each look is at every task of the loop."""
    found: dict[Segments, list[asyncio.Task[Any]]] = {}
    for task in asyncio.all_tasks():
        context = context_of(task)
        scope = context.get(current) if context is not None else None
        if scope is not None and not task.done():
            found.setdefault(scope.turn, []).append(task)
    return found


def _is_inside(task: asyncio.Task[Any], turn: Segments, waiting: Container[asyncio.Future[Any]]) -> bool:
    context = context_of(task)
    if context is not None and context.get(running_step) is not None:
        return True  # in a step's body, which is counted as in flight
    waiter: Any = getattr(task, "_fut_waiter", None)
    done: Any = getattr(waiter, "done", None)  # a hop to a thread has none
    if waiter is None or (done is not None and done()):
        return False  # about to run
    if waiter in waiting:
        return True
    children: list[Any] | None = getattr(waiter, "_children", None)
    awaited: list[Any] = [waiter] if isinstance(waiter, asyncio.Task) else children or []
    if awaited:
        tasks: list[asyncio.Task[Any]] = [child for child in awaited if isinstance(child, asyncio.Task)]
        return len(tasks) == len(awaited) and all(_belongs(each, turn) for each in tasks)
    return _innermost(task) in _TASK_WAITS


def _belongs(task: asyncio.Task[Any], turn: Segments) -> bool:
    context = context_of(task)
    scope = context.get(current) if context is not None else None
    return scope is not None and scope.turn is turn


def context_of(task: asyncio.Task[Any]) -> Context | None:
    """The context that a task runs in."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    # 3.11 does not tell; the task holds its context all the same
    return next((held for held in gc.get_referents(task) if isinstance(held, Context)), None)


def _innermost(task: asyncio.Task[Any]) -> tuple[str, str]:
    coroutine: Any = task.get_coro()
    while (inner := getattr(coroutine, "cr_await", None)) is not None and hasattr(inner, "cr_code"):
        coroutine = inner
    code = getattr(coroutine, "cr_code", None)
    if code is None:
        return ("", "")
    name = code.co_filename.replace("\\", "/")
    return next(
        ((end, function) for end, function in _TASK_WAITS if name.endswith(end) and code.co_name == function), ("", "")
    )
