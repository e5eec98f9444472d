"""Opening a PostgreSQL database: refuse what is not ours or not safe, and migrate under a lock.

An application's actors lie in a schema of their own, so that several share a database. Every setting that a promise
rests on is read, or set in every transaction.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from attrs import frozen
from psycopg import sql as composing
from psycopg.conninfo import conninfo_to_dict

from perdure.errors import SchemaTooNewError, TargetError

if TYPE_CHECKING:
    from perdure.storage.postgres_connection import Bounded

MINIMUM_SERVER = 140_000
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
IDLE_MILLISECONDS = "5000"
"""How long a transaction may wait for its client: one that was stopped is not to hold others' rows for a lease."""
_OURS = {"schema", "pooler"}
_ESCAPES = "Write special characters of user and password as %XX."


@frozen
class Place:
    """Where an application's actors lie.

    Attributes:
        conninfo: What libpq is given.
        schema: The schema within the database.
        pooler: Whether a transaction-mode pooler stands between.
        name: What people see: without user and password.
    """

    conninfo: str
    schema: str
    pooler: bool
    name: str


def place(target: str) -> Place:
    """What a target names: `postgresql://user@host/database?schema=perdure&pooler=true`, and any option of libpq.

    Raises:
        TargetError: It is not such a URL.
    """
    try:
        parts = urlsplit(target)
    except ValueError:
        raise TargetError(f"the target is no PostgreSQL URL: its host cannot be told. {_ESCAPES}") from None
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in _OURS}
    schema, pooler = ours.get("schema", "perdure"), ours.get("pooler", "false")
    # libpq takes a plus for a plus
    theirs = urlencode([one for one in options if one[0] not in _OURS], quote_via=quote)
    conninfo = urlunsplit(parts._replace(query=theirs))
    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        # What is quoted may be a part of the password.
        text = re.sub(r'"([^"]*)"', lambda part: part[0] if part[1] in dict(options) else '"…"', str(error).strip())
        raise TargetError(f"the target is no PostgreSQL URL: {text}. {_ESCAPES}") from None
    host, port = known.get("host", "localhost"), known.get("port", 5432)
    name = f"postgresql://{host}:{port}/{known.get('dbname', '')}?schema={schema}"
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise TargetError(
            f"{name}: '{schema}' cannot be the name of its schema. Use lower-case letters, digits and underscores."
        )
    if pooler not in {"true", "false"}:
        raise TargetError(f"{name}: pooler={pooler} is neither true nor false.")
    return Place(conninfo, schema, pooler == "true", name)


def refuse(error: psycopg.Error, name: str) -> TargetError:
    """What a driver's error means for a target."""
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return TargetError(f"{name}: {text}. Grant this user CREATE on the database, or create the schema for it.")
    if isinstance(error, psycopg.OperationalError):
        return TargetError(f"{name}: cannot be reached ({text}). Check that the server runs and the target is right.")
    return TargetError(f"{name}: {text}.")


def prepare(connection: Bounded, where: Place) -> None:
    """Check a new connection's server, and bring the schema up to date. Raises `TargetError`."""
    if connection.info.server_version < MINIMUM_SERVER:
        version = connection.info.server_version // 10_000
        raise TargetError(f"{where.name}: PostgreSQL {version} is too old. Use 14 or newer.")
    settings = "current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding')"
    ((fsync, pages, encoding),) = connection.execute(f"SELECT {settings}").fetchall()
    if "off" in {fsync, pages}:
        raise TargetError(
            f"{where.name}: runs with fsync={fsync} and full_page_writes={pages}, without which nothing is durable. "
            "Switch both on."
        )
    if encoding != "UTF8":
        raise TargetError(f"{where.name}: is encoded in {encoding}. Use a database with encoding UTF8.")
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        raise TargetError(f"{where.name}: is a standby, and takes no writes. Name the primary.")
    _migrate(connection, where)


def _migrations() -> list[str]:
    folder = resources.files("perdure.storage") / "schema" / "postgres"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def _migrate(connection: Bounded, where: Place) -> None:
    migrations = _migrations()
    schema = composing.Identifier(where.schema)
    with connection.transaction():
        # Whoever stops in the middle is not to keep all others from opening.
        connection.execute("SELECT set_config('idle_in_transaction_session_timeout', $1, true)", [IDLE_MILLISECONDS])
        # One at a time, whoever else opens it: the schema may not be there yet, so there is no table to lock.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7064))", [where.schema])
        tables = connection.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
             WHERE nspname = $1 AND relkind IN ('r', 'p', 'v')",
            [where.schema],
        ).fetchall()
        if tables and ("perdure_migration",) not in tables:
            raise TargetError(
                f"{where.name}: the schema '{where.schema}' belongs to another application ({len(tables)} tables). "
                "Name another one with ?schema=…; this one was not touched."
            )
        if not tables:
            connection.execute(composing.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        connection.execute(composing.SQL("SET LOCAL search_path = {}").format(schema))
        connection.execute("CREATE TABLE IF NOT EXISTS perdure_migration (number bigint PRIMARY KEY)")
        ((version,),) = connection.execute("SELECT coalesce(max(number), 0) FROM perdure_migration").fetchall()
        if version > len(migrations):
            raise SchemaTooNewError(
                f"{where.name}: was written by a newer perdure (schema {version}; this one knows {len(migrations)}). "
                "Upgrade perdure."
            )
        for number, script in enumerate(migrations[version:], version + 1):
            connection.execute(script.encode(), prepare=False)
            connection.execute("INSERT INTO perdure_migration VALUES ($1)", [number])
