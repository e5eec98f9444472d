"""A database of an older release is brought up to date when it is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Child, Supervisor, handler
from perdure.errors import TargetError
from perdure.storage.sqlite_open import APPLICATION_ID, prepare


class Counter(Actor, kind="migration.counter"):
    total: int = 0

    @handler
    async def add(self, n: int) -> int:
        """Count."""
        self.total += n
        return self.total


def _first_release(path: Path) -> None:
    """A database as the first schema has it: one actor with state, a message handled and one that waits."""
    schema = (resources.files("perdure.storage") / "schema" / "sqlite" / "0001.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema)
        connection.executescript(
            f"""
            PRAGMA journal_mode = wal;
            INSERT INTO actor (id, kind, key, tail, cursor, created) VALUES (1, 'migration.counter', 'c', 2, 1, 0);
            INSERT INTO snapshot (actor, version, codec, state) VALUES (1, 1, 'json', '{{"total":5}}');
            INSERT INTO message (seq, id, actor, number, handler, args, codec, chosen, sent)
                VALUES (1, 'first', 1, 1, 'add', '{{"n":5}}', 'json', 1, 0),
                       (2, 'second', 1, 2, 'add', '{{"n":2}}', 'json', 1, 0);
            INSERT INTO outcome (message, status, result, changes, started, finished)
                VALUES (1, 'succeeded', '5', '{{"total":5}}', 1, 2);
            INSERT INTO journal VALUES (1, 'k', 'step', 'n', x'ab', 'completed', 2, 1, '5', NULL, NULL, 3, 4, 5);
            INSERT INTO journal VALUES (1, 'l', 'ask', 'm', NULL, 'started', 1, NULL, NULL, NULL, 2, 6, 7, NULL);
            PRAGMA application_id = {APPLICATION_ID};
            PRAGMA user_version = 1;
            """
        )


async def test_what_an_older_release_left_goes_on(tmp_path: Path) -> None:
    """An upgrade loses no mail and no state, and what is new works on the old database."""
    _first_release(tmp_path / "a.db")
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("second", Counter.add).result(timeout=20) == 7
        pool = system.get(Supervisor, "pool")
        child = await pool.start_child(Child(Counter, "new"))
        assert await child.add(1) == 1
        assert [one.state for one in await pool.which_children()] == ["running"]


async def test_history_of_an_older_release(tmp_path: Path) -> None:
    """An upgrade leaves outcomes and journals as they were, and an open record is still completed by what it awaits."""
    _first_release(tmp_path / "a.db")
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("second", Counter.add).result(timeout=20) == 7
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        first = connection.execute("SELECT * FROM outcome WHERE message = 1").fetchall()
        assert first == [(1, "succeeded", "5", None, '{"total":5}', 1.0, 2.0)]
        done, awaited = connection.execute("SELECT * FROM journal ORDER BY key").fetchall()
        assert done == (1, "k", "step", "n", b"\xab", "completed", 2, 1, "5", None, None, 3.0, 4.0, 5.0, None, None)
        assert awaited[:13] == (1, "l", "ask", "m", None, "completed", 1, None, "7", None, 2, 6.0, 7.0)


class FailingDisk(sqlite3.Connection):
    """Plays a disk that fails in the middle of a migration, which SQLite then takes back by itself."""

    def execute(self, sql: str, parameters: tuple[()] = (), /) -> sqlite3.Cursor:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # as far as it is called here
        if "RENAME TO outcome" not in sql:
            return super().execute(sql, parameters)
        super().execute("ROLLBACK")
        msg = "disk I/O error"
        raise sqlite3.OperationalError(msg)


async def test_a_disk_that_fails_in_the_middle(tmp_path: Path) -> None:
    """What is wrong is told, and not what came of it; the database is as it was, and its mail is handled later."""
    path = tmp_path / "a.db"
    _first_release(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None, factory=FailingDisk)) as connection,
        pytest.raises(TargetError, match="disk I/O error"),
    ):
        prepare(connection, str(path))
    async with ActorSystem(path) as system:
        assert await system.receipt("second", Counter.add).result(timeout=20) == 7


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Whoever has no room for an upgrade is told so, and has lost nothing."""
    path = tmp_path / "a.db"
    _first_release(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
        with pytest.raises(TargetError, match=r"disk is full, and nothing was changed\. Free space"):
            prepare(connection, str(path))
    async with ActorSystem(path) as system:
        assert await system.receipt("second", Counter.add).result(timeout=20) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        "UPDATE outcome SET status = 'lost'",
        "UPDATE journal SET status = 'begun'",
        "UPDATE journal SET kind = 'dance'",
    ],
)
async def test_words_that_no_release_knows(tmp_path: Path, wrong: str) -> None:
    """A status that means nothing is refused by the database itself, whoever writes it."""
    _first_release(tmp_path / "a.db")
    async with ActorSystem(tmp_path / "a.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(wrong)
