"""What is copied, what is refused, and that a copy is right or not there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from perdure import ActorSystem, Encrypted
from perdure.errors import (
    CannotCopyError,
    CopyDiffersError,
    InUseError,
    NotEmptyError,
    SchemaTooNewError,
    TargetError,
)
from perdure.storage.copying import postgres_end, sqlite_end
from perdure.storage.copying.copy import copy, verify
from perdure.storage.copying.digest import content
from perdure.storage.copying.sqlite_end import SQLiteDestination
from perdure.storage.copying.tables import Row, Table, tables
from perdure.storage.writer_lock import FileLock
from tests.copying import town
from tests.copying.conftest import Kind, NewTarget
from tests.copying.town import Worker
from tests.copying.written import holds_nothing, query, write
from tests.unit.crashing import crashing

KINDS: list[Kind] = ["sqlite", "postgres"]
of_each = pytest.mark.parametrize("of", KINDS)
to_each = pytest.mark.parametrize("to", KINDS)


async def small(target: str) -> None:
    """A system with one actor, closed."""
    async with ActorSystem(target) as system:
        await system.get(Worker, "w").note("one")


# what is refused ------------------------------------------------------------------------------------------------------


@of_each
async def test_a_system_that_runs_is_not_copied(of: Kind, new_target: NewTarget) -> None:
    """Whoever moves is told which process to stop first, so that no half of the work is done at the old place."""
    old, new = new_target(of), new_target("sqlite")
    async with ActorSystem(old) as system:
        await system.get(Worker, "w").note("one")
        with pytest.raises(InUseError, match=rf"pid {os.getpid()} on .* Stop it first"):
            await asyncio.to_thread(copy, old, new)
    assert holds_nothing(new)
    assert copy(old, new).equal


@of_each
async def test_nobody_opens_what_is_being_copied(of: Kind, new_target: NewTarget) -> None:
    """A system that starts in the middle of a copy does not go on in the old place unnoticed."""
    old = new_target(of)
    await small(old)
    if of == "sqlite":
        with sqlite_end.reading(old):
            lock = FileLock(Path(f"{old}-lock"))
            assert not lock.try_acquire()
            lock.close()
        return
    enter = "INSERT INTO node (id, pid, host, python, version, started) VALUES ('n', 1, 'h', '3', '0', 0)"
    with postgres_end.reading(old, running=False), pytest.raises(psycopg.errors.LockNotAvailable):
        query(old, f"SET lock_timeout = '50ms'; {enter}")


@to_each
async def test_what_is_there_is_not_overwritten(to: Kind, new_target: NewTarget) -> None:
    """A slip of the hand does not cost another system."""
    old, new = new_target("sqlite"), new_target(to)
    await small(old)
    await small(new)
    before = query(new, "SELECT * FROM message")
    with pytest.raises(NotEmptyError):
        copy(old, new)
    assert query(new, "SELECT * FROM message") == before


async def test_a_schema_that_was_opened_but_is_empty_will_do(new_target: NewTarget) -> None:
    """Whoever tried the new place first needs not make another."""
    old, new = new_target("sqlite"), new_target("postgres")
    await small(old)
    async with ActorSystem(new):
        with pytest.raises(NotEmptyError, match="a system runs on it"):
            await asyncio.to_thread(copy, old, new)
    assert copy(old, new).equal


@of_each
async def test_a_database_is_not_copied_onto_itself(of: Kind, new_target: NewTarget) -> None:
    """One database cannot be both ends."""
    old = new_target(of)
    await small(old)
    with pytest.raises(TargetError, match="the same database"):
        copy(old, f"sqlite:///{old}" if of == "sqlite" else old)


def test_what_is_no_system_is_refused(tmp_path: Path, new_target: NewTarget) -> None:
    """A wrong name is told from a right one before anything is made at the destination."""
    new = new_target("sqlite")
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (a)")
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 100)
    for wrong in (str(foreign), str(tmp_path / "text"), str(tmp_path / "missing.db"), ":memory:", "mysql://x/y", ""):
        with pytest.raises(TargetError):
            copy(wrong, new)
    with pytest.raises(TargetError, match="has no system"):
        copy(new_target("postgres"), new)
    write(tmp_path / "a.db", 1)
    with pytest.raises(TargetError, match="would be gone"):
        copy(str(tmp_path / "a.db"), ":memory:")
    assert holds_nothing(new)


@of_each
async def test_other_schemas_are_refused(of: Kind, new_target: NewTarget) -> None:
    """Rows are not put where they would mean something else."""
    old, new = new_target(of), new_target("sqlite")
    await small(old)
    change = "PRAGMA user_version = 99" if of == "sqlite" else "INSERT INTO perdure_migration VALUES (99)"
    query(old, change)
    with pytest.raises(TargetError, match="Upgrade perdure"):
        copy(old, new)
    assert issubclass(SchemaTooNewError, TargetError)
    assert holds_nothing(new)


# what is copied -------------------------------------------------------------------------------------------------------


async def test_text_that_postgres_cannot_hold_is_named(new_target: NewTarget) -> None:
    """A NUL is neither dropped nor does it leave half a copy; on SQLite it travels as it is."""
    old = new_target("sqlite")
    await small(old)
    query(old, "UPDATE actor SET reason = 'a' || char(0) || 'b'")
    new, other = new_target("postgres"), new_target("sqlite")
    with pytest.raises(CannotCopyError, match=r"actor\.reason where id = 1: has a NUL"):
        copy(old, new)
    assert holds_nothing(new)
    assert copy(old, other).equal
    query(old, "UPDATE actor SET reason = NULL")
    assert copy(old, new).equal


@to_each
async def test_sealed_values_open_at_the_new_place(to: Kind, new_target: NewTarget) -> None:
    """What is encrypted is bound to ids and addresses, which a copy keeps."""
    old, new = new_target("sqlite"), new_target(to)
    seal = Encrypted([b"k" * 32])
    async with ActorSystem(old, seal=seal) as system:
        await system.get(Worker, "w").note.options(id="first")("one")
    copy(old, new)
    async with ActorSystem(new, seal=seal) as system:
        assert await system.receipt("first", Worker.note).result(timeout=20) == ["one"]
        assert await system.get(Worker, "w").note("two") == ["one", "two"]


@to_each
async def test_a_process_that_died_has_left_nothing_behind(to: Kind, new_target: NewTarget) -> None:
    """After a kill nobody has to open the old place once more: actors are free, and what was executing is blamed."""
    old, new = new_target("sqlite"), new_target(to)
    async with crashing(Path(old)) as system:
        await system.get(Worker, "w").note("one")
    query(old, "INSERT INTO turn (message, executing, blame) SELECT 1, owner, 1 FROM actor")
    assert query(old, "SELECT count(*) FROM actor WHERE owner IS NOT NULL") == [(1,)]
    epoch = query(old, "SELECT epoch FROM actor")[0][0]
    copied = copy(old, new)
    assert query(new, "SELECT owner, epoch FROM actor") == [(None, epoch + 1)]
    assert query(new, "SELECT executing, blame, suspect FROM turn") == [(None, 2, 1)]
    assert query(new, "SELECT count(*) FROM node") == [(0,)]
    assert verify(old, new) == copied


@to_each
async def test_mail_of_a_process_that_died_is_handled_at_the_new_place(to: Kind, new_target: NewTarget) -> None:
    """What had come to an actor in memory goes on there, and what comes later gets numbers behind it."""
    old, new = new_target("sqlite"), new_target(to)
    town.forget()
    async with crashing(Path(old)) as system:
        await system.get(Worker, "w").work.options(id="work").tell()  # holds up what is behind it
        for number in range(3):
            await system.get(Worker, "w").note.options(id=f"note/{number}").tell(str(number))
    assert query(old, "SELECT tail < (SELECT max(number) FROM message) FROM actor") == [(1,)], "its row is behind"
    copied = copy(old, new)
    assert verify(old, new) == copied
    assert query(new, "SELECT tail FROM actor") == [(4,)]
    town.gates["step"].set()
    async with ActorSystem(new) as system:
        done = await system.receipt("work", Worker.work).result(timeout=20)
        assert await system.get(Worker, "w").note("later") == [*done, "0", "1", "2", "later"]


async def test_a_postgres_node_that_died_is_waited_for(new_target: NewTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says that a process on another machine is gone but its silence; one whose heart beats is not."""
    old, new = new_target("postgres"), new_target("sqlite")
    await small(old)
    monkeypatch.setattr(postgres_end, "LEASE_SECONDS", 1.2)
    enter = "INSERT INTO node (id, pid, host, python, version, started) VALUES ('ghost', 7, 'afar', '3', '0', 0)"
    query(old, enter)
    copying = asyncio.create_task(asyncio.to_thread(copy, old, new))
    while not copying.done():
        query(old, "UPDATE node SET beats = beats + 1 WHERE id = 'ghost'")
        await asyncio.sleep(0.1)
    with pytest.raises(InUseError, match="pid 7 on afar"):
        await copying
    assert copy(old, new).equal


async def test_a_copy_that_differs_is_not_left_there(new_target: NewTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that did not arrive is found before anybody relies on the copy."""
    old, new = new_target("sqlite"), new_target("sqlite")
    await small(old)
    fill = SQLiteDestination.fill

    def lossy(self: SQLiteDestination, table: Table, rows: Iterable[Row]) -> None:
        every = list(rows)
        fill(self, table, every[1:] if table.name == "message" else every)

    monkeypatch.setattr(SQLiteDestination, "fill", lossy)
    with pytest.raises(CopyDiffersError, match="message came out other"):
        copy(old, new)
    assert not list(Path(new).parent.glob(f"{Path(new).name}*[!k]")), "no part of it is left"


@to_each
async def test_verifying_finds_what_has_changed(to: Kind, new_target: NewTarget) -> None:
    """One letter in one row is a difference."""
    old, new = new_target("sqlite"), new_target(to)
    await small(old)
    copy(old, new)
    query(new, "UPDATE message SET args = replace(args, 'one', 'onE')")
    compared = verify(old, new)
    assert [table.name for table in compared.tables if not table.equal] == ["message"]


def test_a_digest_is_of_rows_in_any_order_and_of_every_value() -> None:
    """Two tables have one digest only if they hold the same rows, whatever order they come in."""
    rows: list[Row] = [(1, "a", None), (2, "", b""), (3, "1", 1.0)]
    whole = content(rows)
    assert content(reversed(rows)) == whole
    changed: list[list[Row]] = [
        rows[1:],
        [*rows, rows[0]],
        [(1, "a", ""), *rows[1:]],
        [(1, "", "a"), *rows[1:]],
        [*rows[:2], (3, 1, 1.0)],
        [*rows[:2], (3, "1", 1)],
    ]
    assert all(content(other) != whole for other in changed)


def test_every_column_was_thought_of() -> None:
    """Whoever adds a column here has asked what it says at another place: a node's id, say, means nothing there."""
    found = {table.name: " ".join(sorted(table.columns)) for table in tables()}
    assert found == {
        "actor": "carrier created cursor epoch id key kind life offered owner parent reason restart_at status tail",
        "allowance": "concurrent defined name per rate",
        "child": "actor cause declared position restart shutdown significant supervisor",
        "failure": "actor at attempt decision error escaped message seq",
        "journal": "attempt digest due error finished key kind message name position result started status target",
        "message": "actor args cause chain chosen codec due expires handler id number sent seq",
        "outcome": "changes error finished message result started status",
        "restart": "at child message number supervisor",
        "snapshot": "actor codec initial state version",
        "starts": "name number slice",
        "turn": "attempts blame error executing message retry_at since suspect",
        "watcher": "actor cause handler parameter watcher",
    }
