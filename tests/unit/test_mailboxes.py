"""Mailboxes on SQLite: small, whatever is kept; and what is kept is found by those who look at an actor."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from anyio import create_task_group

from perdure import Actor, ActorSystem, handler
from perdure.console.inspect import Inspector
from perdure.console.operate import Operator
from perdure.errors import DeadLetterError
from perdure.storage.copying.copy import copy
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.sqlite_connection import SQLiteConnection
from perdure.storage.sqlite_filing import Filing
from perdure.storage.sqlite_open import prepare
from perdure.storage.sqlite_thread import hop
from tests.mailbox import misplaced
from tests.unit.crashing import sqlite_of


class Box(Actor, kind="mailboxes.box"):
    total: int = 0

    @handler
    async def add(self, number: int) -> int:
        """Count."""
        self.total += number
        return self.total

    @handler
    async def fail(self) -> None:
        """Become a dead letter."""
        raise LookupError

    @handler
    async def send(self, to: str) -> None:
        """Tell another."""
        await self.system.get(Box, to).add.tell(1)

    @handler
    async def end(self) -> None:
        """Stop."""
        await self.stop()


def _write(path: Path, actors: int, messages: int) -> None:
    """A system at rest with so many handled messages of each actor."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, str(path))
        connection.execute("BEGIN")
        sql = "INSERT INTO actor (id, kind, key, created, tail) VALUES (?1, 'mailboxes.box', 'b' || ?1, 0, ?2)"
        connection.executemany(sql, ((actor, messages) for actor in range(1, actors + 1)))
        sql = "INSERT INTO message (seq, id, actor, number, handler, args, codec, chosen, sent) \
               VALUES (?1, 'm' || ?1, ?2, ?3, 'add', '{}', 'json', 0, 1.5)"
        connection.executemany(sql, _messages(actors, messages))
        connection.execute("INSERT INTO outcome (message, status, finished) SELECT seq, 'succeeded', 2.5 FROM message")
        connection.execute("UPDATE actor SET cursor = tail")
        connection.execute("COMMIT")


def _file_all(connection: sqlite3.Connection) -> None:
    filing = Filing()
    while filing.due:
        filing.file(SQLiteConnection(connection))


def _messages(actors: int, each: int) -> Iterator[tuple[int, int, int]]:
    seq = 0
    for number in range(1, each + 1):
        for actor in range(1, actors + 1):
            seq += 1
            yield seq, actor, number


async def _pages_of_a_burst(path: Path, actors: int) -> int:
    """How many pages the log has after a message to each actor."""
    async with ActorSystem(path) as system:
        boxes = [system.get(Box, f"b{number}") for number in range(1, actors + 1)]
        async with create_task_group() as group:
            for box in boxes:
                group.start_soon(box.add, 1)
        store = sqlite_of(system)
        while store._filing.due:  # noqa: SLF001  # what is there is filed first
            await store.checkpoint()
        await _log(store, "TRUNCATE")
        async with create_task_group() as group:
            for box in boxes:
                group.start_soon(box.add, 1)
        return await _log(store, "PASSIVE")


async def _log(store: SQLiteStore, checkpoint: str) -> int:
    """How many pages the log had before this checkpoint."""
    writer = store._writer  # noqa: SLF001  # the connection whose log it is
    assert writer is not None

    def move() -> int:
        busy, pages, _ = writer.raw.execute(f"PRAGMA wal_checkpoint({checkpoint})").fetchone()
        assert not busy
        return int(pages)

    return await hop(writer, store._locked, move)  # noqa: SLF001  # in its thread, between its transactions


async def test_a_message_costs_no_more_under_a_long_history(tmp_path: Path) -> None:
    """Whoever keeps a history pays for it with room on the disk, and not with every message."""
    _write(tmp_path / "young.db", 200, 1)
    _write(tmp_path / "old.db", 200, 300)
    young, old = await _pages_of_a_burst(tmp_path / "young.db", 200), await _pages_of_a_burst(tmp_path / "old.db", 200)
    assert young > 0
    assert old < young + 50, f"{old} pages instead of {young} for 200 messages"


async def test_a_mailbox_has_what_is_not_handled(tmp_path: Path) -> None:
    """Whatever becomes of a message, it is in its mailbox as long as it is to be handled, and no longer."""
    path = tmp_path / "a.db"
    async with ActorSystem(path) as system:
        one, ended = system.get(Box, "one"), system.get(Box, "ended")
        dead = await one.fail.options(id="dead").tell()
        with pytest.raises(DeadLetterError):
            await dead.result(timeout=20)
        delayed = await one.add.options(delay=0.05).tell(1)
        await one.add.options(delay=3600).tell(1)
        late = await ended.add.options(delay=2).tell(1)  # falls due when nobody takes it any more
        await ended.end()
        await one.send("ended")  # a turn's message that nobody can take
        await delayed.result(timeout=20)
        with pytest.raises(DeadLetterError):
            await late.result(timeout=20)
        assert not (await Operator(path).retry("dead")).refused
        with pytest.raises(DeadLetterError):
            await system.receipt("dead", Box.fail).result(timeout=20)
        with closing(sqlite3.connect(path)) as connection:
            assert not misplaced(connection)
            assert connection.execute("SELECT count(*) FROM mailbox").fetchone() == (0,)
        assert (await Operator(path).purge("dead")).removed == 1
        with closing(sqlite3.connect(path)) as connection:
            assert not misplaced(connection)


def _newest(connection: sqlite3.Connection, actor: int, limit: int) -> list[str]:
    sql = "SELECT id FROM message WHERE actor = ? AND number IS NOT NULL ORDER BY number DESC LIMIT ?"
    return [id_ for (id_,) in connection.execute(sql, (actor, limit))]


def _shown(path: Path, actor: int, limit: int) -> list[str]:
    found = Inspector(path).actor(f"mailboxes.box/b{actor}", limit=limit)
    return [one.id for one in reversed(found.messages) if one.number is not None]


@pytest.mark.parametrize("seed", range(5))
def test_people_find_the_newest_messages(tmp_path: Path, seed: int) -> None:
    """Filed or not, sent again, delayed for long, or with gaps where retention was: always the newest are shown."""
    path, chance = tmp_path / "a.db", random.Random(seed)
    _write(path, 7, 3_000)  # 21,000 messages: five full blocks
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        store, filing = SQLiteConnection(connection), Filing()
        for _ in range(6):
            for _ in range(50):
                _change(connection, chance)
            filing.file(store)
            assert not misplaced(connection)
            for actor in range(1, 8):
                for limit in (1, 10, 200):
                    assert _shown(path, actor, limit) == _newest(connection, actor, limit), (actor, limit)
        assert connection.execute("SELECT max(block) FROM filed").fetchone() == (4,)


def _change(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Some of what befalls messages that are kept."""
    seq, actor = chance.randrange(1, 21_001), chance.randrange(1, 8)
    again = "UPDATE message SET number = (SELECT tail + 1 FROM actor WHERE id = message.actor) WHERE seq = ?"
    change = chance.choice(("again", "delayed", "gone", "many gone"))
    if change == "gone":
        connection.execute("DELETE FROM message WHERE seq = ?", (seq,))
    elif change == "many gone":
        connection.execute("DELETE FROM message WHERE seq BETWEEN ? AND ? AND actor = ?", (seq, seq + 300, actor))
    elif change == "again":
        if connection.execute(again, (seq,)).rowcount:
            _advance(connection, seq)
    else:
        values = (f"d{chance.random()}", actor)
        connection.execute(
            "INSERT INTO message (id, actor, handler, args, codec, chosen, sent) \
             VALUES (?, ?, 'add', '{}', 'json', 0, 1)",
            values,
        )
        ((seq,),) = connection.execute("SELECT seq FROM message WHERE id = ?", values[:1]).fetchall()
        if chance.random() < 0.5:
            connection.execute(again, (seq,))
            _advance(connection, seq)


def _advance(connection: sqlite3.Connection, seq: int) -> None:
    sql = "UPDATE actor SET tail = tail + 1, cursor = cursor + 1 WHERE id = (SELECT actor FROM message WHERE seq = ?)"
    connection.execute(sql, (seq,))


def _counted(connection: sqlite3.Connection) -> list[int]:
    """What grows by one with every hundred steps that SQLite goes."""
    steps: list[int] = []

    def count() -> int:
        steps.append(100)
        return 0

    connection.set_progress_handler(count, 100)
    return steps


def test_what_is_filed_is_found_without_being_looked_through(tmp_path: Path) -> None:
    """Whoever looks at an actor does not wait for a search through all that is kept."""
    path = tmp_path / "a.db"
    _write(path, 7, 3_000)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _file_all(connection)
        steps = _counted(connection)
        sql = "SELECT seq FROM message WHERE seq IN newest(?1, ?2)"
        assert len(SQLiteConnection(connection).fetch(sql, 3, 10)) == 10
        assert len(steps) * 100 < 21_000


def test_what_an_older_release_left_is_filed_by_the_upgrade(tmp_path: Path) -> None:
    """Whoever looks at an actor after an upgrade, or at a copy, need not wait until much more was written."""
    path = tmp_path / "a.db"
    _write(path, 7, 3_000)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _as_before(connection)
        prepare(connection, str(path))
        assert not misplaced(connection)
        assert connection.execute("SELECT max(block) FROM filed").fetchone() == (4,)
    copy(str(path), str(tmp_path / "copy.db"))
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert not misplaced(connection)
        assert connection.execute("SELECT max(block) FROM filed").fetchone() == (4,)


def _as_before(connection: sqlite3.Connection) -> None:
    """Take the fourth schema back."""
    for table in ("mailbox", "filed", "unfiled"):
        connection.execute(f"DROP TABLE {table}")
    for trigger in ("posted", "handled", "renumbered", "unposted"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute("CREATE UNIQUE INDEX mailbox ON message (actor, number) WHERE number IS NOT NULL")
    connection.execute("PRAGMA user_version = 3")


def test_a_gap_of_blocks_does_not_stop_the_filing(tmp_path: Path) -> None:
    """After all messages of some blocks are gone, what follows them is filed nevertheless."""
    path = tmp_path / "a.db"
    _write(path, 7, 3_000)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM message WHERE seq < 3 * 4096")
        _file_all(connection)
        assert connection.execute("SELECT DISTINCT block FROM filed").fetchall() == [(3,), (4,)]
        assert not misplaced(connection)


def test_what_is_not_due_is_looked_through_once(tmp_path: Path) -> None:
    """Whoever schedules very much does not wait, every few thousand messages, for a search through all of it."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, str(path))
        connection.execute(
            "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 5 * 4096) \
             INSERT INTO message (id, actor, handler, args, codec, chosen, sent, due) \
             SELECT 'd' || value, 1, 'add', '{}', 'json', 0, 1, 9e9 FROM n"
        )
        _file_all(connection)
        steps = _counted(connection)
        _file_all(connection)
        assert len(steps) * 100 < 4_096
        connection.execute("UPDATE message SET number = 1 WHERE id = 'd7'")
        assert SQLiteConnection(connection).fetch("SELECT seq FROM message WHERE seq IN newest(?1, ?2)", 1, 9) == [(7,)]
        assert len(steps) * 100 < 4_096
        assert connection.execute("SELECT block, message FROM filed").fetchall() == [(0, 7)]


async def test_messages_are_filed_as_they_come(tmp_path: Path) -> None:
    """A process that runs for long leaves no more than the last few thousand messages to be looked through."""
    path = tmp_path / "a.db"
    async with ActorSystem(path) as system:
        box = system.get(Box, "box")
        for _ in range(10):
            async with create_task_group() as group:
                for _ in range(1_000):
                    group.start_soon(box.add.tell, 1)
            await box.add(0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(block) FROM filed").fetchone() == (1,)
        assert not misplaced(connection)


async def test_filing_that_fails_costs_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for people: where the disk fails while something is filed, messages are handled, and it is filed later."""
    failed = 0

    def failing(filing: Filing, connection: SQLiteConnection) -> None:
        del filing
        nonlocal failed
        connection.execute("UPDATE actor SET reason = 'half written'")
        failed += 1
        raise sqlite3.OperationalError

    path = tmp_path / "a.db"
    with monkeypatch.context() as patch:
        patch.setattr(Filing, "file", failing)
        async with ActorSystem(path) as system:
            box = system.get(Box, "box")
            async with create_task_group() as group:
                for _ in range(5_000):
                    group.start_soon(box.add.tell, 1)
            assert await box.add(0) == 5_000
    assert failed
    async with ActorSystem(path) as system:
        store = sqlite_of(system)
        assert await system.get(Box, "box").add(0) == 5_000
        await store.checkpoint()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT max(block) FROM filed").fetchone() == (0,)
            assert connection.execute("SELECT reason FROM actor").fetchall() == [(None,)]
