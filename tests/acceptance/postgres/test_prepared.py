"""Statements that are prepared once and used for as long as a connection lasts, whatever fails in between."""

from __future__ import annotations

import psycopg
import pytest

from perdure.storage.postgres_connection import PostgresConnection
from perdure.storage.postgres_link import Link
from perdure.storage.postgres_open import place

TWICE = "SELECT 2 * ?"


def send_behind_an_error(connection: PostgresConnection) -> None:
    """Have a statement prepared, now that it was sent often, where the server skips it."""
    failing = connection.send("SELECT 1 / 0")
    connection.send(TWICE, 4)
    failing.fetchall()


def test_a_failed_transaction_leaves_no_statement_that_the_server_does_not_know(postgres: str) -> None:
    """A node that once met another's write in the wrong moment can go on writing."""
    link = Link(place(postgres), "me")
    try:
        # The driver forgets what it has prepared when it sees a rollback, if it has not seen the same one before.
        with pytest.raises(psycopg.errors.DivisionByZero), link.transaction(None) as connection:
            connection.fetch("SELECT 1 / 0")
        for n in range(3):
            with link.transaction(None) as connection:
                assert connection.fetch(TWICE, n) == [(2 * n,)]
        with pytest.raises(psycopg.errors.DivisionByZero), link.transaction(None) as connection:
            send_behind_an_error(connection)
        with link.transaction(None) as connection:
            assert connection.fetch(TWICE, 5) == [(10,)]
    finally:
        link.close()
