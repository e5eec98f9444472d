"""Effects outside steps, noticed in tests and where the loop is debugged: Python's audit hook tells of them.

What a handler does itself is done again whenever it is replayed, and nobody would notice before the first crash. Seen
is what Python's own library begins: files that are written, removed or moved, connections, programs. A connection that
a pool had already, or that a library in C opens, is not.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from perdure.actors.scope import current, running_step
from perdure.actors.stacks import is_own_work, stack_of_thread
from perdure.warning_types import EffectWarning

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LONGEST_NAME = 100

_told: dict[str | tuple[str, type[Warning], int], int] = {}
"""What Python remembers of warnings that it gives once for a place."""
_watched: list[bool] = []


def watch_effects() -> None:
    """Warn of effects outside steps, in all systems of this process, from now on: a hook stays for good."""
    if not _watched:
        _watched.append(True)
        sys.addaudithook(_heard)


def _heard(event: str, args: tuple[object, ...]) -> None:
    say = _SAY.get(event)
    if say is None:
        return
    scope = current.get()
    if scope is None or scope.turn.ended or running_step.get() is not None:
        return
    what = say(args)
    if what is None or is_own_work(sys._getframe(1)):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the only way to see who calls
        return
    stack, turn = stack_of_thread(threading.get_ident()), scope.turn
    text = (
        f"{turn.seat.address}: '{turn.mail.handler}' {what} outside a step, at {stack.file}:{stack.line}; it does so "
        "again whenever it is replayed. Do it in a `@step`, which is done once."
    )
    warnings.warn_explicit(text, EffectWarning, stack.file, stack.line, registry=_told)


def _named(verb: str) -> Callable[[tuple[object, ...]], str]:
    return lambda args: f"{verb} {str(args[0])[:_LONGEST_NAME]!r}"


def _opened(args: tuple[object, ...]) -> str | None:
    path, mode, flags = args
    if isinstance(mode, str):
        writes = any(letter in mode for letter in "wax+")
    else:
        writes = isinstance(flags, int) and bool(flags & _WRITES)
    return f"opened {str(path)[:_LONGEST_NAME]!r} for writing" if writes else None


_SAY: dict[str, Callable[[tuple[object, ...]], str | None]] = {
    "open": _opened,
    "os.mkdir": _named("made the folder"),
    "os.remove": _named("removed"),
    "os.rename": _named("moved"),
    "os.rmdir": _named("removed the folder"),
    "os.truncate": _named("cut"),
    "socket.connect": lambda args: f"connected to {str(args[1])[:_LONGEST_NAME]}",
    "subprocess.Popen": _named("started the program"),
}
"""Events of the audit hook that are effects, and what to say of one; of none that changes nothing."""
