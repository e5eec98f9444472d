"""Schemas of PostgreSQL that are inspected: live, foreign, out of reach or closed; and that none is ever changed."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql as composing

from perdure.console import postgres_database
from perdure.console.cli import main
from perdure.console.database import ForeignDatabaseError, SlowReadError, UnreadableError
from perdure.console.inspect import Inspector
from perdure.console.operate import Operator
from perdure.console.targets import database_of
from perdure.errors import SchemaTooNewError, TargetError
from tests.unit.inspected import Rows, alive, named


@pytest.fixture
def rows(postgres: str) -> Generator[Rows]:
    """A schema with an actor whose process may live."""
    rows = Rows(postgres)
    rows.message(rows.actor(owner=rows.node()), "m")
    yield rows
    rows.connection.close()


def schema_of(target: str) -> str:
    """The schema that a target names."""
    return dict(parse_qsl(urlsplit(target).query))["schema"]


def with_user(target: str, user: str, password: str) -> str:
    """The same target for somebody else."""
    parts = urlsplit(target)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


def refused(target: str, *command: str) -> str:
    """What a command says that cannot use its database."""
    result = CliRunner().invoke(main, [*(command or ["ps"]), "--db", target])
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(urlsplit(target).password) not in result.stderr
    return result.stderr


# what is refused ------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there(postgres: str) -> None:
    """Whoever typed a wrong port reads so, and no password is on the screen for it."""
    parts = urlsplit(postgres)
    target = urlunsplit(parts._replace(netloc=f"me:geheim@{parts.hostname}:1"))
    assert "cannot be reached" in refused(target)
    with pytest.raises(UnreadableError, match="Check that the server runs"):
        Inspector(target).overview()


def test_a_wrong_password(postgres: str) -> None:
    """A login that fails is told apart from a server that is away."""
    assert "password authentication failed" in refused(with_user(postgres, "postgres", "geheim"))


def test_a_schema_that_no_system_has_opened(postgres: str, rows: Rows) -> None:
    """A slip in a schema's name suggests those there are, and makes none: not by looking, and not by acting."""
    name = f"absent_{secrets.token_hex(4)}"
    target = postgres.replace(schema_of(postgres), name)
    assert schema_of(rows.target) in refused(target)
    for command in (["restart", "Researcher/r1"], ["dead", "retry", "m"], ["dead", "purge", "--all"]):
        assert f"the schema '{name}' holds no system of perdure" in refused(target, *command)
    sql = "SELECT count(*) FROM pg_namespace WHERE nspname = ?"
    assert rows.connection.execute(sql, (name,)).fetchall() == [(0,)]


def test_another_applications_schema(postgres: str) -> None:
    """A shop's tables are not shown as actors."""
    with psycopg.connect(postgres.partition("?")[0], autocommit=True) as connection:
        connection.execute(
            composing.SQL("CREATE TABLE {} (id bigint)").format(composing.Identifier(schema_of(postgres), "actor"))
        )
    with pytest.raises(ForeignDatabaseError, match=r"another application \(1 tables\)"):
        Inspector(postgres).overview()


def test_a_schema_of_another_perdure(rows: Rows) -> None:
    """Unknown columns are not guessed at, and an older schema is not migrated beneath whoever runs on it."""
    rows.connection.execute("INSERT INTO perdure_migration VALUES (99)")
    with pytest.raises(SchemaTooNewError, match="Upgrade perdure"):
        Inspector(rows.target).overview()
    rows.connection.execute("DELETE FROM perdure_migration")
    with pytest.raises(ForeignDatabaseError, match="older schema 0"):
        Inspector(rows.target).overview()


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installed perdure for SQLite learns what to install, and no traceback."""
    for name in [name for name in sys.modules if name.startswith("perdure.") and "postgres" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'perdure[postgres]'" in refused("postgresql://me:geheim@localhost/agents")


@pytest.mark.parametrize(
    "target",
    [
        "postgresql://me:ge%heim@localhost/agents",
        "postgresql://me:ge heim@localhost/agents",
        "postgresql://me:ge[heim@localhost/agents",
        "postgresql://me@localhost/agents?password=ge%00heim&nonsense=1",
        "postgresql://localhost/agents?schema=Heim",
    ],
)
def test_what_is_no_url_of_postgresql(target: str) -> None:
    """A password with special characters is not printed by the very message that it was mistyped."""
    with pytest.raises(TargetError) as caught:
        Inspector(target)
    assert "heim" not in str(caught.value).replace("'Heim' cannot be the name of its schema", "").replace("=Heim", "")


# who may look ---------------------------------------------------------------------------------------------------------


@contextmanager
def somebody(rows: Rows) -> Generator[str]:
    """A user with no rights, and the target for him."""
    name, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(4)
    rows.connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        yield with_user(rows.target, name, password)
    finally:
        rows.connection.execute(f"DROP OWNED BY {name}")
        rows.connection.execute(f"DROP ROLE {name}")


def test_a_user_who_may_only_read(rows: Rows) -> None:
    """Whoever is on call may look, without being able to break anything."""
    with somebody(rows) as target, alive(rows.target, "n1"):
        assert "Grant this user USAGE on the schema" in refused(target)
        schema, name = schema_of(target), urlsplit(target).username
        rows.connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
        assert "and SELECT on its tables" in refused(target, "tree")
        rows.connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}")
        inspector = Inspector(target)
        assert inspector.message("m").message.state == "running"
        assert inspector.overview().nodes[0].live is True
        assert inspector.tree().others == 1
        assert inspector.dead().total == 0


def test_a_look_cannot_write(rows: Rows) -> None:
    """Whatever the read model asks for, the server lets nothing be changed."""
    with pytest.raises(TargetError, match="read-only transaction"):
        database_of(rows.target).read(lambda moment: moment.fetch("DELETE FROM actor RETURNING id"))
    assert Inspector(rows.target).overview().total == 1


def test_a_look_sees_one_moment(rows: Rows) -> None:
    """What is shown together was so at one time, whoever writes meanwhile; and nobody waits for it."""

    def twice() -> Generator[int]:
        ((before,),) = moments[0].fetch("SELECT count(*) FROM actor")
        yield before
        rows.actor(key="other")
        ((after,),) = moments[0].fetch("SELECT count(*) FROM actor")
        yield after

    moments: list[postgres_database.Moment] = []
    assert database_of(rows.target).read(lambda moment: (moments.append(moment), *twice())) == (None, 1, 1)
    assert Inspector(rows.target).overview().total == 2


# who lives ------------------------------------------------------------------------------------------------------------


def test_a_process_is_live_as_long_as_it_is_connected(rows: Rows) -> None:
    """A process that was killed is known by it at once, before a lease is over."""
    inspector = Inspector(rows.target)
    with alive(rows.target, "n1"):
        assert inspector.overview().nodes[0].live is True
        assert inspector.message("m").message.state == "running"
    assert inspector.overview().nodes[0].live is False
    wait = inspector.actor("Researcher/r1").actor.wait
    assert wait is not None
    assert wait.kind == "orphaned"


def test_a_pooler_hides_who_lives(rows: Rows) -> None:
    """Where it cannot be known, it is not said: neither that a process lives, nor that it died."""
    target = f"{rows.target}&pooler=true"
    assert Inspector(target).overview().nodes[0].live is None
    shown = CliRunner().invoke(main, ["show", "Researcher/r1", "--db", target], env={"COLUMNS": "200"})
    assert "cannot be examined from here" in shown.stdout


# a server in trouble --------------------------------------------------------------------------------------------------


def test_a_connection_that_is_lost(rows: Rows) -> None:
    """A server that goes in the middle is named as the cause."""
    with pytest.raises(UnreadableError, match=r"connection was lost.*Try again"):
        database_of(rows.target).read(lambda moment: moment.fetch("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_table_that_somebody_holds_is_not_waited_for(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console does not hang because of a migration, and says after a while that it gave up."""
    monkeypatch.setattr(postgres_database, "READ_SECONDS", 0.3)
    rows.connection.execute("BEGIN")
    rows.connection.execute("LOCK TABLE actor IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(SlowReadError, match=r"longer than 0\.3 s"):
        Inspector(rows.target).overview()
    rows.connection.execute("ROLLBACK")
    assert Inspector(rows.target).overview().total == 1


def test_many_quick_questions_are_given_up_too(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader on a slow line stays no longer than one with a slow question."""
    monkeypatch.setattr(postgres_database, "READ_SECONDS", 0.2)

    def ask(moment: postgres_database.Moment) -> None:
        while True:
            moment.fetch("SELECT 1")

    with pytest.raises(SlowReadError):
        database_of(rows.target).read(ask)


# names ----------------------------------------------------------------------------------------------------------------


def test_nobody_reads_a_password(rows: Rows) -> None:
    """What is copied from a screen into a ticket has no secret in it."""
    password = str(urlsplit(rows.target).password)
    inspector = Inspector(rows.target)
    assert inspector.location == inspector.overview().database == named(rows.target)
    for shown in (repr(inspector), repr(Operator(rows.target)), repr(database_of(rows.target)), inspector.location):
        assert password not in shown


def test_a_page_is_few_questions(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of many actors costs as many trips to a far server as a list of few."""
    asked: list[str] = []
    fetch = postgres_database.PostgresMoment.fetch

    def counted(moment: postgres_database.PostgresMoment, sql: str, **parameters: str | float | None) -> list[object]:
        asked.append(sql)
        return fetch(moment, sql, **parameters)

    monkeypatch.setattr(postgres_database.PostgresMoment, "fetch", counted)
    Inspector(rows.target).overview()
    few = len(asked)
    top = rows.actor("Crew", "main")
    for number in range(20):
        seq = rows.message(rows.child(top, rows.actor(key=f"k{number}", owner="n1", parent=top)))
        rows.record(seq, "ask#1", "ask", "started", target=1)
    asked.clear()
    assert len(Inspector(rows.target).overview().actors) == 22
    assert len(asked) <= few + 1
