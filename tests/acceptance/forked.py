"""Processes that begin at once: forks of one that has imported perdure and the tests' programs, and does nothing else.

An interpreter that starts and imports all of it takes half a second of a processor, a fork some milliseconds; where
thousands are killed, that is most of their time. A forked process is as real as any: it has a pid of its own, and the
kernel kills it. What it is a copy of has no loop and no thread.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.acceptance.children import PATIENCE_SECONDS, ROOT

_PROGRAMS = ("tests.acceptance.many.holder", "tests.acceptance.torture.workload", "tests.acceptance.tree.program")
_LATER = ("perdure.storage.postgres", "perdure.storage.sqlite", "anyio._backends._asyncio")
"""What is imported only when it is needed, otherwise."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([*_PROGRAMS, *_LATER])


class Forked:
    """A process that runs a function of a module of the tests.

    Args:
        program: What it runs; its module is best one of those that are imported beforehand.
        args: What the program is called with.
        errors: The file that its standard error is added to.

    Attributes:
        pid: The number of the process.
        status: Its exit status once it was waited for, negative if a signal ended it.
    """

    def __init__(self, program: Callable[..., None], *args: object, errors: Path) -> None:
        theirs, self._input = _FORKS.Pipe(duplex=False)
        self._output, ours = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_run, args=(program, args, errors, theirs, ours))
        with _importable():
            self._process.start()
        theirs.close()
        ours.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.status: int | None = None

    def __repr__(self) -> str:
        return f"<Forked: process {self.pid}>"

    def read(self) -> bytes:
        """What it says next on its standard output; nothing if it ends before it says anything."""
        return os.read(self._output.fileno(), 1_000)

    def close_input(self) -> None:
        """End its standard input."""
        self._input.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. It has not been waited for."""
        os.kill(self.pid, number)

    def ends_within(self, seconds: float) -> bool:
        """Whether it ends in that time."""
        if self.status is None:
            self._process.join(seconds)
            self.status = self._process.exitcode
        return self.status is not None

    def kill(self) -> None:
        """Kill it, and wait until it is gone. Safe to call twice."""
        self._process.kill()
        assert self.ends_within(PATIENCE_SECONDS), f"{self}: killed, and still there"
        self._input.close()
        self._output.close()


@contextmanager
def _importable() -> Generator[None]:
    """The process that forks is started with the first; it finds the tests only as any interpreter does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(
    program: Callable[..., None], args: tuple[object, ...], errors: Path, theirs: Connection, ours: Connection
) -> None:
    with errors.open("ab") as said:
        for stream, number in ((theirs, 0), (ours, 1), (said, 2)):
            os.dup2(stream.fileno(), number)
    theirs.close()
    ours.close()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    program(*args)
    gc.collect()  # what is wrong with tasks is said when they are collected, and a fork ends without that


def _end_with_parent() -> None:
    """Whoever killed the tests has nothing left of them either."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
