"""A proxy between perdure and a PostgreSQL server that knows where a message of the protocol begins and ends.

    perdure ──► Proxy ──► server        every message, in either direction, is shown to `fate`, which says what
            ◄──       ◄──               becomes of it: it passes, or its connection is cut there, or falls silent

A cut is a reset (RST) or an end in good order (FIN), before a message or in the middle of it; both sides see it. A
silent connection stays open, and nothing comes through: the kernel acknowledges what is sent, and nobody reads it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import define, field, frozen


@frozen
class Message:
    """One message of the protocol.

    Attributes:
        wire: Its connection.
        to_server: Its direction.
        kind: Its first byte, as the protocol's documentation has it; empty for those before the start.
        raw: All of it.
    """

    wire: Wire
    to_server: bool
    kind: str
    raw: bytes


@frozen
class Cut:
    """The end of a connection.

    Attributes:
        at: Whether nothing of the message comes through, or half of it.
        how: A reset, or an end in good order.
    """

    at: Literal["before", "within"] = "before"
    how: Literal["RST", "FIN"] = "RST"


@frozen
class Silence:
    """Nothing more comes through a connection.

    Attributes:
        directions: To the server (True), from it (False).
    """

    directions: frozenset[bool] = frozenset({True, False})


Fate = Cut | Silence | Literal["passes"]


@define(eq=False)
class End:
    """One side of a connection: where it is read and written."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def cut(self, how: Literal["RST", "FIN"]) -> None:
        """End it. After a FIN what still comes is read, for the kernel would answer it with a reset."""
        with suppress(OSError):
            if how == "RST":
                linger = struct.pack("ii", 1, 0)
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.writer.transport.abort()
            elif self.writer.can_write_eof():
                self.writer.write_eof()


@define(eq=False)
class Wire:
    """A connection through the proxy.

    Attributes:
        number: The how manieth connection it is.
        name: What the client calls itself: `perdure <node>`, and what else that connection is for.
        writes: Whether it has begun a transaction that is not for reading only.
        cut: Whether it was cut.
        silent: The directions in which it fell silent: to the server (True), from it (False).
        statements: The texts of those that were prepared, by their names.
        stirred: Set when it was cut, or speaks again.
    """

    number: int
    client: End
    server: End
    name: str = ""
    writes: bool = False
    cut: bool = False
    silent: set[bool] = field(factory=set[bool])
    statements: dict[bytes, bytes] = field(factory=dict[bytes, bytes])
    stirred: asyncio.Event = field(factory=asyncio.Event)

    def end(self, how: Literal["RST", "FIN"]) -> None:
        """Cut it, both sides."""
        self.cut = True
        self.stirred.set()
        self.client.cut(how)
        self.server.cut(how)

    def note(self, message: Message) -> None:
        """Learn what it is for."""
        if message.kind == "" and b"application_name\0" in message.raw:
            self.name = message.raw.partition(b"application_name\0")[2].partition(b"\0")[0].decode()
        if message.to_server and message.kind == "P":
            name, text, *_ = message.raw[5:].split(b"\0")
            self.statements[name] = text
            self.writes = self.writes or text == b"BEGIN"

    def executes(self, message: Message) -> bytes:
        """The statement that a message binds, whether it was prepared before or not."""
        bound = message.to_server and message.kind == "B"
        return self.statements.get(message.raw[5:].split(b"\0")[1], b"") if bound else b""


def passes(message: Message) -> Fate:
    """The fate of most."""
    del message
    return "passes"


class Proxy:
    """Stands before a server, as long as its context lasts.

    Args:
        target: The server, as a URL.

    Attributes:
        fate: Asked about every message.
        wires: The connections that there are.
        accepted: How many there have been.
        refuses: Whether there are no new ones, as where no server listens.
    """

    def __init__(self, target: str) -> None:
        self._address = urlsplit(target)
        self.fate: Callable[[Message], Fate] = passes
        self.wires: list[Wire] = []
        self.accepted = 0
        self.refuses = False
        self._hears: asyncio.Event = asyncio.Event()
        self._hears.set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for wire in list(self.wires):
            wire.end("RST")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def target(self) -> str:
        """What to open in place of the server."""
        assert self._listener is not None
        port = self._listener.sockets[0].getsockname()[1]
        account = self._address.netloc.rpartition("@")[0]
        options = urlencode([*parse_qsl(self._address.query), ("sslmode", "disable"), ("gssencmode", "disable")])
        return urlunsplit(self._address._replace(netloc=f"{account}@127.0.0.1:{port}", query=options))

    def silence(self) -> None:
        """Have every connection fall silent, and new ones too."""
        self._hears.clear()
        for wire in self.wires:
            wire.silent |= Silence().directions

    def speak(self) -> None:
        """Have everything flow again."""
        self._hears.set()
        for wire in self.wires:
            wire.silent.clear()
            wire.stirred.set()

    def cut_all(self, how: Literal["RST", "FIN"] = "RST") -> None:
        """Cut every connection."""
        for wire in list(self.wires):
            wire.end(how)

    # one connection ---------------------------------------------------------------------------------------------------

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(End(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: End) -> None:
        try:
            await self._hears.wait()
            if self.refuses:
                client.cut("RST")
                return
            self.accepted += 1
            server = End(*await asyncio.open_connection(self._address.hostname, self._address.port))
            await self._carry(Wire(self.accepted, client, server))
        except OSError:
            client.cut("RST")
        finally:
            client.writer.close()

    async def _carry(self, wire: Wire) -> None:
        self.wires.append(wire)
        pumps = [asyncio.create_task(self._pump(wire, to_server=one)) for one in (True, False)]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            self.wires.remove(wire)
            wire.server.writer.close()

    async def _pump(self, wire: Wire, *, to_server: bool) -> None:
        source, sink = (wire.client, wire.server) if to_server else (wire.server, wire.client)
        started = not to_server
        try:
            while True:
                kind = (await source.reader.readexactly(1)).decode("latin-1") if started else ""
                size = await source.reader.readexactly(4)
                raw = kind.encode("latin-1") + size + await source.reader.readexactly(int.from_bytes(size) - 4)
                started = True
                await self._show(Message(wire, to_server, kind, raw), sink)
                await sink.writer.drain()
        except asyncio.IncompleteReadError as rest:
            if not wire.cut:
                sink.writer.write(rest.partial)
            sink.cut("FIN")
        except OSError:
            sink.cut("RST")

    async def _show(self, message: Message, sink: End) -> None:
        wire = message.wire
        if wire.cut:
            return  # what still comes is read, and goes nowhere
        wire.note(message)
        fate = self.fate(message)
        if isinstance(fate, Silence):
            wire.silent |= fate.directions
        while message.to_server in wire.silent and not wire.cut:
            wire.stirred.clear()
            await wire.stirred.wait()
        if wire.cut:
            return
        if isinstance(fate, Cut):
            if fate.at == "within":
                sink.writer.write(message.raw[: len(message.raw) // 2])
            wire.end(fate.how)
        else:
            sink.writer.write(message.raw)
