"""A pooler between perdure and a PostgreSQL server, in transaction mode as PgBouncer has it: one of the tests' own.

    client ──► Pooler ──► session 1      each transaction of a client goes to the session that has rested for longest,
    client ──►        ──► session 2      so hardly ever to the one before

What a session keeps from one transaction to the next is not the client's, and using it is noted (`misuse`).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg
from attrs import define

SESSIONS = 4
_STARTUP = {196608, 196610}
_SETTINGS = (
    "server_version", "server_encoding", "client_encoding", "DateStyle", "integer_datetimes",
    "standard_conforming_strings", "TimeZone",
)  # fmt: skip
_OF_SESSIONS = re.compile(rb"\0(LISTEN|UNLISTEN|SET (?!LOCAL)|PREPARE|DISCARD)|pg_(try_)?advisory_lock\(")


@define(eq=False)
class Session:
    """A connection to the server: psycopg has made it, and speaks on it no more."""

    made: psycopg.Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    unanswered: int = 0

    async def end(self) -> None:
        """Close it."""
        self.writer.close()
        await asyncio.to_thread(self.made.close)


@define(eq=False)
class Client:
    """A connection to the pooler, and the session that it has been lent."""

    writer: asyncio.StreamWriter
    session: Session | None = None
    answers: asyncio.Task[None] | None = None


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


class Pooler:
    """Stands before a server, in an event loop and a thread of its own.

    Args:
        dsn: The server, as a URL.

    Attributes:
        misuse: What clients have sent that does not go with a transaction.
        transactions: How many it has passed on.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._free: asyncio.Queue[Session] = asyncio.Queue()
        self.misuse: list[bytes] = []
        self.transactions = 0
        self.target = ""

    async def run(self, ready: threading.Event, ended: threading.Event) -> None:
        """Serve until it is to end."""
        for _ in range(SESSIONS):
            await self._free.put(await self._connect())
        async with await asyncio.start_server(self._accepted, "127.0.0.1", 0) as listener:
            address, port = urlsplit(self._dsn), listener.sockets[0].getsockname()[1]
            self.target = urlunsplit(address._replace(netloc=f"somebody@127.0.0.1:{port}"))
            ready.set()
            await asyncio.to_thread(ended.wait)
        while not self._free.empty():
            await self._free.get_nowait().end()

    async def _connect(self) -> Session:
        made = await asyncio.to_thread(lambda: psycopg.connect(self._dsn, autocommit=True, application_name="pooler"))
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(made.fileno())))
        return Session(made, reader, writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        with suppress(asyncio.IncompleteReadError, OSError):
            await self._greet(reader, writer)
            while (message := await _read(reader))[:1] != b"X":
                if client.session is None:
                    client.session = await self._free.get()
                    client.answers = asyncio.create_task(self._answer(client, client.session))
                    self.transactions += 1
                self._pass(message, client.session)
        session, client.session = client.session, None
        writer.close()
        if session is not None:  # the client has gone in the middle of it
            await session.end()
            self._free.put_nowait(await self._connect())

    def _pass(self, message: bytes, session: Session) -> None:
        session.unanswered += message[:1] in {b"Q", b"S"}
        named = message[:1] == b"P" and message[5:6] != b"\0"
        if named or (message[:1] in {b"P", b"Q"} and _OF_SESSIONS.search(b"\0" + message[5:])):
            self.misuse.append(message)
        session.writer.write(message)

    async def _answer(self, client: Client, session: Session) -> None:
        """Pass the answers on, until the server is idle."""
        with suppress(asyncio.IncompleteReadError, OSError):
            while client.session is session:
                message = await _read(session.reader)
                if message[:1] == b"Z":
                    session.unanswered -= 1
                    if session.unanswered == 0 and message[5:] == b"I" and client.session is session:
                        client.session = None
                        self._free.put_nowait(session)
                client.writer.write(message)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            if int.from_bytes(body[:4]) in _STARTUP:
                break
            writer.write(b"N")
        session = await self._free.get()
        settings = {name: session.made.info.parameter_status(name) or "" for name in _SETTINGS}
        self._free.put_nowait(session)
        writer.write(_message(b"R", bytes(4)))
        for name, value in settings.items():
            writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(_message(b"K", bytes(8)) + _message(b"Z", b"I"))


@contextmanager
def pooled(dsn: str) -> Generator[Pooler]:
    """A pooler before a server."""
    pooler, ready, ended = Pooler(dsn), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(pooler.run(ready, ended)), name="pooler")
    thread.start()
    try:
        assert ready.wait(60)
        yield pooler
    finally:
        ended.set()
        thread.join(60)
