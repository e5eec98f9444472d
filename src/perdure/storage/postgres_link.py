"""One connection to PostgreSQL, that is made again when it is lost, and its transactions.

Everything that a transaction needs is set in it, since a pooler may give the next one another connection.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from perdure.errors import StorageError
from perdure.storage.postgres_connection import Bounded, PostgresConnection, adapters
from perdure.storage.postgres_open import IDLE_MILLISECONDS

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from perdure.storage.postgres_open import Place

_LOG = logging.getLogger("perdure.storage")
CALL_SECONDS = 30.0
"""How long any transaction may take, whatever the server and the network do."""
OUTAGE_SECONDS = 30.0
"""How long something is tried again while the server cannot be reached."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 0.5  # nodes that are back first judge those that are not
CONNECT_SECONDS = 10

_SETTINGS = """
SELECT set_config('search_path', ?, true), set_config('synchronous_commit', 'on', true),
       set_config('idle_in_transaction_session_timeout', ?, true), set_config('statement_timeout', ?, true)
"""
PEER_MILLISECONDS = 5_000
"""How long either side's kernel waits for the other's: a connection that a router forgot is to cost no lease."""
_CLIENT_IS_GONE = """
SELECT set_config('tcp_user_timeout', $1, false), set_config('tcp_keepalives_idle', '3', false),
       set_config('tcp_keepalives_interval', '1', false), set_config('tcp_keepalives_count', '3', false)
"""
_LOOK_FOR_CLIENT = "SET client_connection_check_interval = 1000"
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND application_name = current_setting('application_name')
"""


class _Context:
    """How values travel on every connection."""

    adapters = adapters()
    connection = None


class Link:
    """A connection, and how it is made. For one thread at a time."""

    def __init__(self, where: Place, name: str) -> None:
        self._where = where
        self._name = name
        self._raw: Bounded | None = None
        self._backend = 0
        self.committing = False
        """Whether the transaction before was lost in the middle of COMMIT."""
        self._given_up = False
        self._rollbacks = 0

    def __repr__(self) -> str:
        return f"<Link to {self._where.name}>"

    @property
    def patience(self) -> float:
        """For how many seconds something is tried again; once that was in vain, each is tried once, until one works."""
        return 0.0 if self._given_up else OUTAGE_SECONDS

    @property
    def raw(self) -> Bounded:
        """The connection; made, if there is none. Raises `psycopg.Error`."""
        if self._raw is None or self._raw.closed:
            self._raw = Bounded.connect(
                self._where.conninfo,
                autocommit=True,
                prepare_threshold=None if self._where.pooler else 3,
                context=_Context(),
                cursor_factory=psycopg.RawCursor[Any],
                connect_timeout=CONNECT_SECONDS,
                application_name=f"perdure {self._name}",
                keepalives_idle=3,
                keepalives_interval=1,
                keepalives_count=3,
                tcp_user_timeout=PEER_MILLISECONDS,
            )
            self._raw.deadline = time.monotonic() + CALL_SECONDS
            self._backend = self._raw.info.backend_pid
            self._have_it_end(self._raw)
        return self._raw

    def _have_it_end(self, raw: Bounded) -> None:
        """Have the server end it when this machine is lost, or this process ends while it waits for others' rows.

        Its own settings give a lost machine two hours, or a quarter of one in which it sends; and meanwhile what that
        connection has locked is anybody's to wait for.
        """
        if self._where.pooler:
            return  # it is the pooler's
        raw.execute(_CLIENT_IS_GONE, [str(PEER_MILLISECONDS)])
        with suppress(psycopg.errors.InvalidParameterValue):  # not every system that a server runs on can tell
            raw.execute(_LOOK_FOR_CLIENT)

    def close(self) -> None:
        """End the connection."""
        if self._raw is not None:
            with suppress(psycopg.Error):
                self._raw.close()
            self._raw = None

    def interrupt(self) -> None:
        """Have another thread's wait on it end; the connection is lost by that."""
        raw = self._raw
        if raw is not None:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    def connect_again(self, cause: psycopg.Error, end: float) -> None:
        """Make a lost connection again; raises `StorageError` if none can be made until `end` (`time.monotonic`)."""
        _LOG.warning("%s: the connection was lost (%s); connecting again", self._where.name, said(cause))
        pause, before = _FIRST_PAUSE_SECONDS, self._backend
        while True:
            self.close()
            try:
                self._end_on_the_server(self.raw, before)
            except psycopg.Error as error:
                if time.monotonic() > end:
                    self._given_up = True
                    raise StorageError(
                        f"{self._where.name}: cannot be reached ({said(error)}). See to the server."
                    ) from error
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                return

    def _end_on_the_server(self, raw: Bounded, before: int) -> None:
        """Have the server end a connection that it may think is there still: what that holds is waited for."""
        if before and before != self._backend and not self._where.pooler:
            with suppress(psycopg.errors.InsufficientPrivilege):
                raw.execute(_TERMINATE, [before])

    def _pipelined(self, raw: Bounded) -> AbstractContextManager[psycopg.Pipeline | None]:
        # some poolers stand still when they are sent a pipeline
        return nullcontext() if self._where.pooler else raw.pipeline()

    @contextmanager
    def transaction(self, lock: str | None) -> Generator[PostgresConnection]:
        """A transaction, committed at its end, or nothing of it; one that only reads, without a name to lock.

        Whoever gets the lock knows that no other transaction under that name is under way.
        """
        self.committing = False
        raw = self.raw
        raw.deadline = time.monotonic() + CALL_SECONDS
        try:
            with self._pipelined(raw) as pipeline:
                connection = PostgresConnection(raw, pipeline)
                connection.send("BEGIN" if lock else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.send(_SETTINGS, self._where.schema, IDLE_MILLISECONDS, str(int(CALL_SECONDS * 1_000)))
                if lock:
                    connection.lock(lock)
                yield connection
                self.committing = lock is not None
                commit = connection.send("COMMIT")
        except BaseException:
            self._roll_back(raw)
            raise
        self._given_up = False
        if commit.statusmessage != "COMMIT":  # a failed transaction is rolled back without an error
            raise StorageError(f"{self._where.name}: COMMIT was answered {commit.statusmessage}. Nothing was written.")

    def _roll_back(self, raw: Bounded) -> None:
        with suppress(psycopg.Error):
            if raw.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                # The server skips what follows an error in a pipeline, and so never hears of what was prepared there.
                # The driver forgets all that it has prepared when it sees a rollback, unless it saw the same before.
                self._rollbacks += 1
                raw.execute(f"ROLLBACK -- {self._rollbacks}".encode())
        if raw.info.transaction_status != TransactionStatus.IDLE:
            raw.close()


def said(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()).rstrip(".")


def away(error: psycopg.Error) -> bool:
    """Whether an error says that the server is not there, or not yet, or goes, or is another's standby by now."""
    state = error.sqlstate
    if state is None:  # the driver's own
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(("08", "57P")) or state in {"25P03", "25006"}
