"""SIGTERM and SIGINT for a program that drains: told to the event loop, and heard even where that is stuck.

    first ──► the loop is told ──► it drains      third ─────────────────► the process ends, at once
    second ─► the loop is told ──► it hurries     not over in its time ──► the process ends, from a thread

The handlers are Python's own (`signal.signal`) and not the loop's, whose callbacks wait until the loop comes round: a
handler that blocks it would make the process deaf to everything but SIGKILL. They raise nothing, for an exception would
come up in whatever code happened to run.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType

HANG_SECONDS = 10.0
"""How long after the time it was given a program may take to end."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_SECONDS = 0.1
"""Within it, the same signal again is the same: a terminal sends Ctrl-C to a whole group, and wrappers pass it on."""
_HURRY = 2
_ENOUGH = 3

_installed: list[Signals] = []


class Signals:
    """Handles both signals from `with` to its end, then as before. In another thread than the main one, none comes.

    Within another one it is that one, so that a program that has its own from its beginning to its end keeps it.

    Attributes:
        patience: Seconds from the first signal until the drain has to be over.
        hurried: Whether a second one cut it short.
    """

    def __init__(self) -> None:
        self.patience = math.inf
        self.hurried = False
        self.count = 0
        self.number: int = signal.SIGTERM
        self._depth = 0
        self._last = -math.inf
        self._ends_at = math.inf
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came: asyncio.Event | None = None
        self._pipe = (-1, -1)
        self._guard: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Signals: {self.count} came>"

    @classmethod
    def current(cls) -> Signals:
        """The ones that are handled now; new ones if there are none."""
        return _installed[-1] if _installed else cls()

    @property
    def name(self) -> str:
        """The last one's name."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """What shells report of a process that the last one ended."""
        return 128 + self.number

    def __enter__(self) -> Self:
        self._depth += 1
        if self._guard is not None or threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._guard = threading.Thread(target=self._watch, name="perdure-signals", daemon=True)
        self._guard.start()
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        _installed.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._guard is None or self._depth:
            return
        _installed.remove(self)
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:  # or somebody else has put his own there
                signal.signal(number, before if before is not None else signal.SIG_DFL)
        os.write(self._pipe[1], b"q")
        self._guard.join()
        for end in self._pipe:
            os.close(end)
        self._guard = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if number == self.number and now - self._last < _SAME_SECONDS:
            return
        self._last, self.number = now, number
        self.count += 1
        if self.count >= _ENOUGH:
            os._exit(self.exit_code)
        self._ends_at = now + HANG_SECONDS + (self.patience if self.count < _HURRY else 0.0)
        os.write(self._pipe[1], b"s")
        if self._loop is None:
            sys.exit(self.exit_code)  # nothing runs yet that would have to be given up
        self._loop.call_soon_threadsafe(self._tell)

    def attach(self) -> None:
        """Have the running loop told from now on; before, a signal ends the program."""
        self._loop, self._came = asyncio.get_running_loop(), asyncio.Event()
        self._tell()

    def _tell(self) -> None:
        if self.count and self._came is not None:
            self._came.set()

    async def wait(self, count: int) -> None:
        """Wait until so many have come."""
        if self._came is None:
            raise RuntimeError("the signals are attached to no loop")
        while self.count < count:
            self._came.clear()
            await self._came.wait()

    def _watch(self) -> None:
        """End the process when it does not end in its time, whatever its event loop does. Runs in a thread."""
        while True:
            left = None if self._ends_at == math.inf else max(0.0, self._ends_at - time.monotonic())
            readable, _, _ = select.select([self._pipe[0]], [], [], left)
            if readable:
                if os.read(self._pipe[0], 1) == b"q":
                    return
            elif time.monotonic() >= self._ends_at:
                sys.stderr.write(f"perdure: the process did not end in time after {self.name}; it is ended here:\n")
                faulthandler.dump_traceback(all_threads=True)
                os._exit(self.exit_code)
