"""aiosqlite's connections: each in a thread of its own, and a whole piece of work in one hop to it.

    await hop(…) ──► the thread's queue ──► work ──► landed ──► the loop wakes ──► whoever waits goes on, in that pass

With a future, the loop would be woken through a socket, call what sets the future, and resume the task a pass later:
half of the way back. So a `Hop` is what a task waits for, by the protocol that asyncio has for the futures of others,
and resumes it itself; and on Linux the loop is woken by an eventfd.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import aiosqlite

from perdure.errors import TargetError
from perdure.loops import elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context
    from queue import SimpleQueue

P = ParamSpec("P")
R = TypeVar("R")

_JOIN_SECONDS = 5.0


class ThreadConnection(aiosqlite.Connection):
    """A connection whose thread hands back what it has done by `Hop`s; made and used in one event loop.

    Args:
        connector: Opens the connection, in the thread.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, 64)
        # A process must be able to end although somebody forgot to close its system.
        self._thread.daemon = True
        # Private, because aiosqlite's public calls are one hop a statement.
        self._work = cast("SimpleQueue[tuple[None, Callable[[], None]]]", self._tx)  # pyright: ignore[reportUnknownMemberType]  # half of its types are missing
        self._loop = asyncio.get_running_loop()
        self._landed: deque[Hop[Any]] = deque()
        self._bell: int | None = None
        self._silence: Callable[[], object] = bool

    def __repr__(self) -> str:
        return f"<ThreadConnection {'open' if self.is_open else 'closed'}, {len(self._landed)} hops landed>"

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return self._running and self._connection is not None

    @property
    def raw(self) -> sqlite3.Connection:
        """SQLite's own connection, for work in the thread. Raises `ValueError` where it is closed."""
        if self._connection is None:
            raise ValueError("Connection closed")
        return self._connection

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, but no longer."""
        self._thread.join(seconds)

    def listen(self) -> None:
        """Have the thread wake the loop by an eventfd, which costs both half of what `call_soon_threadsafe` does."""
        try:
            bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except (AttributeError, OSError):  # no Linux, or out of descriptors
            return
        # Where nobody closes this connection, or whoever did was cancelled, it is closed once no hop can ring it: its
        # number may be another file's by then. Not as a process ends, which may be a fork that has closed everything.
        self._silence = silence = weakref.finalize(self, os.close, bell)
        silence.atexit = False
        try:
            self._loop.add_reader(bell, self._answer, bell)
        except NotImplementedError:
            self._silence()
        else:
            self._bell = bell

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it can wake this loop: its own."""
        return loop is self._loop

    def put(self, hop: Hop[Any]) -> None:
        """Have a piece of work done."""
        self._work.put_nowait((None, hop.run))

    def land(self, hop: Hop[Any]) -> None:
        """In the thread: tell the loop of a piece of work that is done."""
        self._landed.append(hop)
        if self._bell is None:
            self._loop.call_soon_threadsafe(self._resume)
        else:
            os.eventfd_write(self._bell, 1)

    def _answer(self, bell: int) -> None:
        os.eventfd_read(bell)
        self._resume()

    def _resume(self) -> None:
        # Those that land meanwhile have rung again, and are for the next pass: others want to run in between.
        for _ in range(len(self._landed)):
            try:
                self._landed.popleft().resume()
            except BaseException:
                # KeyboardInterrupt, say: the others are to go on all the same
                self._loop.call_soon(self._resume)
                raise

    async def close(self) -> None:
        """End the thread; raises what SQLite says to closing."""
        try:
            await super().close()
        except sqlite3.Error:
            self._hang_up()
            raise
        self._hang_up()

    def _hang_up(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            self._loop.remove_reader(bell)
            self._silence()


class Hop(Generic[R]):
    """A piece of work in a connection's thread, as the one task sees it that awaits it.

    It begins when it is awaited. If that task is cancelled, it goes on without it; the work does not stop.
    """

    __slots__ = (
        "_args", "_asyncio_future_blocking", "_connection", "_context", "_cut", "_error", "_loop", "_result",
        "_wake", "_work",
    )  # fmt: skip

    def __init__(self, connection: ThreadConnection, work: Callable[..., R], args: tuple[object, ...]) -> None:
        self._asyncio_future_blocking = False  # what has this is like a future to asyncio
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._args = args
        self._result: R | None = None
        self._error: BaseException | None = None
        self._cut: asyncio.CancelledError | None = None
        self._wake: Callable[[Hop[R]], object] | None = None
        self._context: Context | None = None

    def __repr__(self) -> str:
        return f"<Hop of {self._work!r}{'' if self._wake is None else ', under way'}>"

    def run(self) -> None:
        """In the thread: do the work, then tell the loop, which needs the interpreter from there on."""
        try:
            self._result = self._work(*self._args)
        except BaseException as error:  # noqa: BLE001  # whoever waits raises it
            self._error = error
        self._args = ()
        self._connection.land(self)

    def resume(self) -> None:
        """In the loop: go on with the task, in this pass."""
        wake, self._wake = self._wake, None
        if wake is not None and self._context is not None:
            self._context.run(wake, self)

    def __await__(self) -> Generator[Hop[R], None, R]:
        """Wait until it is done; what the work gave. Raises what that raised."""
        self._asyncio_future_blocking = True
        yield self
        return self.result()

    # what tasks ask of a future ---------------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Where the task runs."""
        return self._loop

    def add_done_callback(self, wake: Callable[[Hop[R]], object], *, context: Context) -> None:
        """Begin, and have the task called when it is done.

        It begins here, which is the last that a task does before it waits: a thread that wakes while the loop still has
        the interpreter sleeps again, and is woken twice.
        """
        self._wake, self._context = wake, context
        self._connection.put(self)

    def cancel(self, msg: object = None) -> bool:
        """Have the task go on without it, if it still waits."""
        wake, self._wake = self._wake, None
        if wake is None:
            return False
        self._cut = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._loop.call_soon(wake, self, context=self._context)
        return True

    def result(self) -> R:
        """What the work gave. Raises what that raised."""
        error, self._error = self._cut or self._error, None
        if error is None:
            return cast("R", self._result)
        try:
            raise error
        finally:
            del error  # it has this frame in its traceback


async def start(connection: ThreadConnection) -> ThreadConnection:
    """Open a connection. Raises `TargetError`."""
    try:
        _ = await connection
    except BaseException as error:
        # aiosqlite tells its thread to end and does not wait for it
        await asyncio.to_thread(connection.join, _JOIN_SECONDS)
        if isinstance(error, sqlite3.Error):
            raise TargetError(f"the database cannot be opened: {error}.") from error
        raise
    connection.listen()
    return connection


def hop(connection: ThreadConnection, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Hop[R]:
    """Run a whole piece of work in a connection's thread.

    Raises:
        ValueError: It is closed.
        SystemClosedError: It was opened in another event loop, which alone can be woken.
    """
    if not connection.is_open:
        raise ValueError("Connection closed")
    made = Hop(connection, partial(work, **kwargs) if kwargs else work, args)
    if not connection.serves(made.get_loop()):
        raise elsewhere()
    return made
