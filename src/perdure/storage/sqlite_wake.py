"""Wake-ups: how a node that committed something tells the nodes it is for, and how one is told that another died.

    A: COMMIT ──► whose business is it? ──► its socket ─┐
                                                        └──► B: wakes, asks `changed()`, looks
    A dies    ──► the kernel hangs up ──────────────────┘

Every node listens on a UNIX stream socket beside the database, and keeps a connection (a *line*) to every other one.
It is written to without waiting: where it is full, the other has not read, and is told already. Why so, and not

- by watching the WAL: inotify fires at every page written, before the commit, for everybody and for one's own, and is
  not in the standard library; macOS does not see SQLite's writes at all (fswatch #150, notify #613). Tools that
  watch WALs have woken themselves by their own reads;
- by asking `PRAGMA data_version` every millisecond (honker): a third of a percent of a processor in C, many times that
  in Python through a thread, for ever, in every process. It is what is left where there are no sockets, slower and
  slower while nothing happens;
- by FIFOs: who copies or reads all files beside the database would hang in one, and a write to one whose reader died is
  a SIGPIPE, which kills programs that gave that signal its default back;
- by datagrams: nobody is told when the other dies. By abstract sockets or UDP: they have no permissions, belong to a
  network namespace, so that containers with a common volume do not meet, and ports would have to be stored;
- by a thread for each peer that blocks on its lock, for its death: it can be neither stopped nor forked safely, for a
  child's copy of its descriptor would hold the dead one's lock.

Sockets in the file system have the file's permissions (0600, before anybody can connect), work across containers of
one kernel, and are a path of at most 108 bytes: where the database's is longer, Linux reaches it through /proc/self/fd.
What is read from a line is a row of 8-byte numbers. 0 is a hint to look at everything. Of any other the first byte says
what the rest is: an actor to look at, a message that ended, or one whose end the peer waits for, who is told of it on
the same line. All may be made up without harm, by who has the database in his hands anyway.

Everything here happens in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import sys
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import define, field

from perdure.storage.hints import ANYBODY, MANY, REMEMBERED, SLOWEST_SECONDS, Ear, Lately, remember

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Generator
    from pathlib import Path

    from perdure.storage.hints import Heard, News

_LOG = logging.getLogger("perdure.storage")
_HINT = b"\0" * 8
_ACTOR, _END, _WAIT = (kind << 56 for kind in (1, 2, 3))
_NUMBER = (1 << 56) - 1
_PATH_BYTES = 103  # of macOS; Linux has 107
_BACKLOG = 128
_READ_BYTES = 1 << 16
# The kernel closes a dead process's files one after the other: its lock may be free a moment after its socket hung up.
_LOOK_AFTER_HANGUP_SECONDS = (0.002, 0.01, 0.05, 0.25, 1.0)

_open: weakref.WeakSet[Wakes] = weakref.WeakSet()


def _forget_in_child() -> None:
    for wakes in list(_open):
        wakes.forget()


os.register_at_fork(after_in_child=_forget_in_child)


@define(eq=False)
class Line:
    """A connection with another node, whoever made it.

    Attributes:
        rest: The beginning of a number that has not arrived whole.
        awaits: Messages whose end the other one waits for, here or elsewhere.
        told: Messages that the other one was told this node waits for.
        full: Whether something was lost because the other one does not read; he is told to look when he does.
    """

    socket: socket.socket
    rest: bytes = b""
    full: bool = False
    awaits: dict[int, None] = field(factory=dict[int, None])
    told: dict[int, None] = field(factory=dict[int, None])

    def send(self, numbers: bytes) -> bool:
        """Write without waiting; whether the line is good. What a full one does not take is lost, and it says so."""
        try:
            return self.socket.send(numbers) == len(numbers)
        except BlockingIOError:
            self.full = True
            return True
        except OSError:
            return False

    def receive(self) -> list[int] | None:
        """What has arrived; nothing once the other one has hung up."""
        try:
            found = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not found:
            return None
        found = self.rest + found
        whole = len(found) - len(found) % 8
        self.rest = found[whole:]
        return [number for (number,) in struct.iter_unpack(">Q", found[:whole])]


class Wakes:
    """The wake-ups of one node.

    Args:
        path: Where the socket of a node lies.
        node: This one's id.
    """

    def __init__(self, path: Callable[[str], Path], node: str) -> None:
        self._path = path
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._ear = Ear()
        self._listener: socket.socket | None = None
        self._peers: frozenset[str] = frozenset()
        self._lines: dict[str, Line] = {}
        self._calls: set[Line] = set()
        self._polls = False
        self._lately = Lately()
        _open.add(self)

    def __repr__(self) -> str:
        return f"<Wakes of {self._node}, {len(self._lines)} of {len(self._peers)} peers in reach>"

    @property
    def alone(self) -> bool:
        """Whether no other node is known, nor knows this one."""
        return not (self._peers or self._calls)

    # being woken ------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Have others wake this node. Where that cannot be, `wait` looks for itself."""
        try:
            self._listener = _listening(self._path(self._node))
            self._loop.add_reader(self._listener, self._accept, self._listener)
        except (OSError, NotImplementedError) as error:
            self._stop_listening(error)

    def _stop_listening(self, error: Exception) -> None:
        if self._listener is not None:
            with suppress(NotImplementedError):
                self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self._path(self._node).unlink(missing_ok=True)
        _LOG.warning(
            "%s: no socket for wake-ups (%s). This process polls the database, every %g s when nothing happens.",
            self._path(self._node), error, SLOWEST_SECONDS,
        )  # fmt: skip

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, say: the listener would stay readable, and the loop would spin.
                self._stop_listening(error)
                return
            call = Line(accepted)
            self._calls.add(call)
            self._attend(call)
            self._ear.wake()  # who calls has entered the database

    def _attend(self, line: Line) -> None:
        line.socket.setblocking(False)
        self._loop.add_reader(line.socket, self._read, line)

    def _read(self, line: Line) -> None:
        numbers = line.receive()
        if numbers is None:
            self._hang_up(line)
            for seconds in _LOOK_AFTER_HANGUP_SECONDS:
                self._loop.call_later(seconds, self._ear.wake)
            return
        said: dict[int, list[int]] = {}
        for number in numbers:
            said.setdefault(number & ~_NUMBER, []).append(number & _NUMBER)
        actors, ended, waits = (said.pop(kind, []) for kind in (_ACTOR, _END, _WAIT))
        if said:
            self._ear.wake()
        if actors or ended:
            self._ear.point(actors, ended)
        over = [message for message in waits if message in self._lately]
        if over:
            self._send(line, _packed(_END, over))
        remember(line.awaits, dict.fromkeys(message for message in waits if message not in self._lately))

    def _hang_up(self, line: Line) -> None:
        self._loop.remove_reader(line.socket)
        self._loop.remove_writer(line.socket)
        line.socket.close()
        self._calls.discard(line)
        for node in [node for node, found in self._lines.items() if found is line]:
            del self._lines[node]

    async def wait(self, seconds: float, version: Callable[[], Awaitable[int]], seen: int) -> Heard:
        """Wait until woken, or so long; what it was told.

        While another node is out of reach, which then may not reach this one either, it asks the database.
        """
        return await self._ear.wait(seconds, self._polling, version, seen)

    def _polling(self) -> bool:
        polls = not (self._lines.keys() >= self._peers and (self._listener or not self._peers))
        if polls and not self._polls and self._listener is not None:
            _LOG.info(
                "%s: not every other process on this database can be woken; it is polled meanwhile",
                self._path(self._node),
            )
        self._polls = self._polls or polls
        return polls

    # waking others ----------------------------------------------------------------------------------------------------

    def meet(self, peers: Collection[str]) -> None:
        """Know the other nodes that live: connect to new ones, and hang up on those that are gone."""
        self._peers = frozenset(peers) - {self._node}
        for node in self._lines.keys() - self._peers:
            self._hang_up(self._lines[node])
        for node in self._peers - self._lines.keys():
            try:
                line = Line(_connected(self._path(node)))
                self._attend(line)
            except (OSError, NotImplementedError):
                continue  # not yet, not any more, or not to be reached: `wait` polls
            self._lines[node] = line

    def tell(self, news: News) -> None:
        """Wake the nodes that a commit concerns, and those that wait for the messages that it ended."""
        if news.ended:
            self._lately.note(news.ended)
        if self.alone:
            return
        lines = self._lines
        if news.nodes or news.actors:
            self._ear.stir()
            everything = lines.keys() if ANYBODY in news.nodes else lines.keys() & news.nodes
            for node in list(everything):
                self._send(lines[node], _HINT)
            for node in lines.keys() & (news.actors.keys() - everything):
                self._send(lines[node], _packed(_ACTOR, news.actors[node]))
        for call in list(self._calls) if news.ended else ():
            if ended := call.awaits.keys() & news.ended:
                for message in ended:
                    del call.awaits[message]
                self._send(call, _packed(_END, ended))

    def await_ends(self, messages: Collection[int]) -> None:
        """Ask the others to wake this node when one of these messages ends, or has just ended."""
        self._ear.stir()
        for line in list(self._lines.values()):
            fresh = [message for message in messages if message not in line.told][:REMEMBERED]
            if fresh:
                remember(line.told, dict.fromkeys(fresh))
                self._send(line, struct.pack(f">{len(fresh)}Q", *(_WAIT | message for message in fresh)))

    def _send(self, line: Line, numbers: bytes) -> None:
        if not line.send(numbers):
            self._hang_up(line)
            self._ear.wake()
        elif line.full:
            self._loop.add_writer(line.socket, self._send_lost, line)

    def _send_lost(self, line: Line) -> None:
        """There is room again where there was none for some hints: have the other one look at everything."""
        self._loop.remove_writer(line.socket)
        line.full = False
        self._send(line, _HINT)

    # ending -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Hang up on everybody, and take the socket away."""
        for line in [*self._lines.values(), *self._calls]:
            self._hang_up(line)
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self._path(self._node).unlink(missing_ok=True)
        self._peers = frozenset()
        _open.discard(self)

    def forget(self) -> None:
        """Close the descriptors and nothing else: what a forked child does with its copies.

        The loop is not told, for its selector is the parent's, too.
        """
        for line in [*self._lines.values(), *self._calls]:
            line.socket.close()
        if self._listener is not None:
            self._listener.close()
        self._lines, self._calls, self._listener = {}, set(), None


def _packed(kind: int, numbers: Collection[int]) -> bytes:
    if len(numbers) > MANY:
        return _HINT
    return struct.pack(f">{len(numbers)}Q", *(kind | number for number in numbers))


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        with _address(path) as address:
            listener.bind(address)
        try:
            path.chmod(0o600)
            listener.listen(_BACKLOG)  # who connects before this is refused, so nobody does with other permissions
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except BaseException:
        listener.close()
        raise
    return listener


def _connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.setblocking(False)
        with _address(path) as address:
            line.connect(address)
    except BaseException:
        line.close()
        raise
    return line


@contextmanager
def _address(path: Path) -> Generator[str]:
    """What a socket's path is called: a socket's address has room for 104 bytes, or 108."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    if sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
