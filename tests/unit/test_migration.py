"""A database of an older release is brought up to date when it is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

from perdure import Actor, ActorSystem, Child, Supervisor, handler
from perdure.storage.sqlite_open import APPLICATION_ID


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
            INSERT INTO outcome (message, status, result, finished) VALUES (1, 'succeeded', '5', 0);
            PRAGMA application_id = {APPLICATION_ID};
            PRAGMA user_version = 1;
            """
        )


async def test_what_an_older_release_left_goes_on(tmp_path: Path) -> None:
    """An upgrade loses no mail and no state, and what is new works on the old database."""
    _first_release(tmp_path / "a.db")
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("second", Counter.add).result(timeout=5) == 7
        pool = system.get(Supervisor, "pool")
        child = await pool.start_child(Child(Counter, "new"))
        assert await child.add(1) == 1
        assert [one.state for one in await pool.which_children()] == ["running"]
