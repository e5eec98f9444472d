"""A system with a seal: everything it stores is sealed, it goes on after a crash, and what others wrote is refused."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from perdure import (
    ActivationError,
    Actor,
    ActorExists,
    ActorSystem,
    DeadLetterError,
    Encrypted,
    IdReusedError,
    Limits,
    Rejected,
    Retry,
    Signed,
    StorageError,
    TamperedError,
    Terminated,
    UnknownKeyError,
    UnsignedError,
    handler,
    now,
    query,
    sleep,
    step,
    uuid4,
    watch,
)
from perdure.console.cli import main
from perdure.console.inspect import Inspector
from perdure.storage.seal import Seal
from perdure.storage.sqlite import SQLiteStore
from tests.unit.crashing import crashing
from tests.unit.observing import until

KEY, OTHER = b"k" * 32, b"j" * 32
SECRET = "hunter2"
STRICT: list[Seal] = [Signed([KEY], everything=True), Encrypted([KEY])]
SEALS: list[Seal] = [*STRICT, Signed([KEY])]
LIMITS = Limits(attempts=1)

ran: list[str] = []


class Document:
    """Of no closed type: stored with cloudpickle."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[type[Document], tuple[str]]:
        return Document, (self.text,)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return ran.append, ("bomb",)


@step
async def upper(text: str) -> str:
    """Noted, so that a test sees how often it ran."""
    ran.append(text)
    return text.upper()


@step(retry=Retry(attempts=1))
async def failing(text: str) -> str:
    """Always."""
    raise ValueError(text)


class Desk(Actor, kind="seal.desk"):
    words: list[str] = []
    ended: str = ""

    @handler
    async def put(self, word: str) -> list[str]:
        """Keep a word, with everything that a journal can hold."""
        now()
        uuid4()
        self.words = [*self.words, await upper(word)]
        return self.words

    @handler
    async def waits(self, word: str) -> str:
        """Do a step, and wait long."""
        done = await upper(word)
        await sleep(3600 if word == "long" else 1.5)  # longer than it takes to crash in the middle of it
        return done

    @handler
    async def asks(self, other: str, word: str) -> list[str]:
        """Have another desk do it, and look at it."""
        there = self.system.get(Desk, other)
        await there.put(word)
        return await there.look()

    @handler
    async def refuses(self, word: str) -> None:
        """Say no."""
        raise Rejected(word)

    @handler
    async def fails(self, word: str) -> str:
        """Fail in a step."""
        return await failing(word)

    @handler
    async def ends(self) -> None:
        """Stop."""
        await self.stop()

    @handler
    async def told(self, notice: Terminated) -> None:
        """Be told of an end."""
        self.ended = notice.reason

    @query
    async def look(self) -> list[str]:
        """The words."""
        return self.words


@step
async def scanned(text: str) -> Document:
    """Give what is stored with cloudpickle."""
    ran.append(text)
    return Document(text)


class Library(Actor, kind="seal.library"):
    shelf: object = None

    @handler
    async def keep(self, document: Document) -> Document:
        """Give it back."""
        return document


class Scanner(Actor, kind="seal.scanner"):
    @handler
    async def scan(self, text: str) -> str:
        """Do a step."""
        return (await scanned(text)).text


class Needy(Actor, kind="seal.needy"):
    word: str

    @handler
    async def say(self) -> str:
        """What it was spawned with."""
        return self.word


def _rows(path: Path) -> Iterable[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):
                yield table, repr(row)


def _change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql, values).rowcount > 0


def _one(path: Path, sql: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute(sql).fetchone()[0])


async def _work(path: Path, seal: Seal | None) -> None:
    """Everything that is stored, with a secret in it."""
    async with ActorSystem(path, seal=seal, limits=LIMITS) as system:
        desk = system.get(Desk, "a")
        assert await desk.put.options(id="first")(SECRET) == [SECRET.upper()]
        assert await desk.put.options(id="first")(SECRET) == [SECRET.upper()]
        assert await desk.asks("b", SECRET) == [SECRET.upper()]
        with pytest.raises(Rejected, match=SECRET):
            await desk.refuses(SECRET)
        with pytest.raises(DeadLetterError, match=SECRET):
            await desk.fails(SECRET)
        needy = await system.spawn(Needy, "n", word=SECRET)
        assert await needy.say() == SECRET
        assert await desk.look() == [SECRET.upper()]


async def test_nothing_of_what_is_said_is_readable(tmp_path: Path) -> None:
    """Whoever gets hold of the file, or a backup, reads no argument, result, state, step or error."""
    path = tmp_path / "a.db"
    await _work(path, Encrypted([KEY]))
    found = [(table, row) for table, row in _rows(path) if SECRET in row.lower()]
    assert not found


@pytest.mark.parametrize("seal", STRICT, ids=repr)
async def test_everything_that_is_said_is_sealed(tmp_path: Path, seal: Seal) -> None:
    """No column was forgotten that an actor reads."""
    path = tmp_path / "a.db"
    await _work(path, seal)
    with closing(sqlite3.connect(path)) as connection:
        for table, column in (("message", "args"), ("outcome", "result"), ("outcome", "changes"),
                              ("snapshot", "state"), ("journal", "result")):  # fmt: skip
            texts = [text for (text,) in connection.execute(f"SELECT {column} FROM {table}") if text is not None]
            assert texts
            assert [text for text in texts if not text.startswith(('{"$signed"', '{"$encrypted"'))] == []


@pytest.mark.parametrize("seal", SEALS, ids=repr)
async def test_a_killed_system_goes_on(tmp_path: Path, seal: Seal) -> None:
    """A step that was done is not done again: its result is opened from the journal, also after a rotation."""
    path = tmp_path / "a.db"
    ran.clear()
    async with crashing(path, seal=seal) as system:
        await system.get(Desk, "a").put("one")
        await system.get(Desk, "a").waits.options(id="w").tell("two")
        await until(lambda: _steps(path))
    both = [OTHER, KEY]
    rotated = Encrypted(both) if isinstance(seal, Encrypted) else Signed(both, everything=seal is not SEALS[2])
    async with ActorSystem(path, seal=rotated) as system:
        assert await system.receipt("w", Desk.waits).result(timeout=20) == "TWO"
        assert await system.get(Desk, "a").put("three") == ["ONE", "THREE"]
    assert ran == ["one", "two", "three"]


def _steps(path: Path) -> bool:
    return _one(path, "SELECT count(*) FROM journal WHERE kind = 'sleep'") != "0"


def _make_due(path: Path) -> None:
    """The time of what was delayed comes, after whoever sent it has closed."""
    _change(path, "UPDATE message SET due = 1 WHERE number IS NULL")


def _parked(path: Path) -> int:
    return Inspector(path).overview().parked


@pytest.mark.parametrize("seal", STRICT, ids=repr)
@pytest.mark.parametrize("wrong", [None, Encrypted([OTHER])], ids=["none", "others"])
async def test_wrong_keys_cost_nothing(tmp_path: Path, seal: Seal, wrong: Seal | None) -> None:
    """Opened without its keys, a database keeps its state, its mail and its attempts, and says which key it wants."""
    path = tmp_path / "a.db"
    async with ActorSystem(path, seal=seal) as system:
        await system.get(Desk, "a").put("one")
        await system.get(Desk, "b").waits.options(id="w").tell("long")
        await until(lambda: _steps(path))
        await system.get(Desk, "a").put.options(id="later", delay=3600).tell("two")
    _make_due(path)
    async with ActorSystem(path, seal=wrong) as system:
        await until(lambda: _parked(path) == 1)  # the other one sleeps, and is not looked at before it is due
        with pytest.raises((UnknownKeyError, ActivationError), match="sealed under the key"):
            await system.get(Desk, "a").look()
    overview = Inspector(path).overview()
    assert [actor.reason for actor in overview.actors if "sealed under the key" in (actor.reason or "")]
    async with ActorSystem(path, seal=seal) as system:
        assert await system.receipt("later", Desk.put).result(timeout=20) == ["ONE", "TWO"]
    assert Inspector(path).message("later").message.attempts == 0


@pytest.mark.parametrize("seal", STRICT, ids=repr)
async def test_rows_that_were_swapped_are_refused(tmp_path: Path, seal: Seal) -> None:
    """A result or state that was moved to another row reaches nobody."""
    path = tmp_path / "a.db"
    async with ActorSystem(path, seal=seal) as system:
        for key in "ab":
            await system.get(Desk, key).put.options(id=key)(key)
    _change(path, "UPDATE outcome SET result = (SELECT result FROM outcome WHERE message = 3 - seq) FROM message "
                  "WHERE seq = outcome.message AND id = 'a'")  # fmt: skip
    _change(path, "UPDATE snapshot SET state = (SELECT state FROM snapshot WHERE actor = 1) WHERE actor = 2")
    async with ActorSystem(path, seal=seal) as system:
        with pytest.raises(TamperedError, match="the result of message 'a'"):
            await system.receipt("a", Desk.put).result(timeout=20)
        with pytest.raises(ActivationError, match=r"the state of seal\.desk/b"):
            await system.get(Desk, "b").look()
        assert await system.get(Desk, "a").look() == ["A"]


@pytest.mark.parametrize("seal", STRICT, ids=repr)
async def test_a_step_does_not_run_again_because_its_result_was_touched(tmp_path: Path, seal: Seal) -> None:
    """A turn whose journal does not open waits for a person; no step of it is done twice, and no attempt is spent."""
    path = tmp_path / "a.db"
    ran.clear()
    async with crashing(path, seal=seal) as system:
        await system.get(Desk, "a").waits.options(id="w").tell("one")
        await until(lambda: _steps(path))
    stored = _one(path, "SELECT result FROM journal WHERE kind = 'step'")
    _change(path, "UPDATE journal SET result = '\"TWO\"' WHERE kind = 'step'")
    async with ActorSystem(path, seal=seal):
        await until(lambda: _parked(path) == 1)
    assert "in the journal of message 'w'" in (Inspector(path).overview().actors[0].reason or "")
    _change(path, "UPDATE journal SET result = ? WHERE kind = 'step'", stored)
    async with ActorSystem(path, seal=seal) as system:
        assert await system.receipt("w", Desk.waits).result(timeout=20) == "ONE"
    assert ran == ["one"]
    assert Inspector(path).message("w").message.attempts == 0


async def test_a_message_cannot_be_sent_to_somebody_else(tmp_path: Path) -> None:
    """A message that was moved to another actor parks there, and shows why."""
    path = tmp_path / "a.db"
    seal = Signed([KEY], everything=True)
    async with ActorSystem(path, seal=seal) as system:
        await system.get(Desk, "b").put("b")
        await system.get(Desk, "a").put.options(id="moved", delay=3600).tell("a")
    _make_due(path)
    _change(path, "UPDATE message SET actor = 1 WHERE id = 'moved'")
    async with ActorSystem(path, seal=seal):
        await until(lambda: _parked(path) == 1)
    (actor,) = [it for it in Inspector(path).overview().actors if it.status == "parked"]
    assert "the arguments of message 'moved' to seal.desk/b.put" in (actor.reason or "")


async def test_no_pickle_of_others_runs(tmp_path: Path) -> None:
    """Whoever can write to the file still cannot run a program in ours: not by a message, nor by a result."""
    path = tmp_path / "a.db"
    pickled = json.dumps(
        {"$cloudpickle": base64.b64encode(__import__("cloudpickle").dumps(Bomb())).decode(), "python": "3.11"}
    )
    async with ActorSystem(path, seal=Signed([KEY])) as system:
        kept = await system.get(Library, "l").keep.options(id="done")(Document("a"))
        assert kept.text == "a"
        await system.get(Library, "l").keep.options(id="next", delay=3600).tell(Document("b"))
    _make_due(path)
    ran.clear()
    _change(path, "UPDATE message SET args = ? WHERE id = 'next'", f'{{"document":{pickled}}}')
    _change(path, "UPDATE outcome SET result = ?", pickled)
    async with ActorSystem(path, seal=Signed([KEY])) as system:
        with pytest.raises(TamperedError, match="not sealed"):
            await system.receipt("done", Library.keep).result(timeout=20)
        await until(lambda: _parked(path) == 1)
    assert ran == []


@pytest.mark.parametrize("seal", STRICT, ids=repr)
async def test_equal_work_is_still_the_same_work(tmp_path: Path, seal: Seal) -> None:
    """Ids and spawns are compared as without a seal, and after a rotation nothing that was right is refused."""
    path = tmp_path / "a.db"
    async with ActorSystem(path, seal=seal) as system:
        await system.get(Desk, "a").put.options(id="first")("one")
        await system.spawn(Needy, "n", word="x")
        await system.spawn(Needy, "n", word="x")
        with pytest.raises(IdReusedError):
            await system.get(Desk, "a").put.options(id="first")("two")
        with pytest.raises(ActorExists):
            await system.spawn(Needy, "n", word="y")
    async with ActorSystem(path, seal=Encrypted([OTHER, KEY])) as system:
        assert await system.get(Desk, "a").put.options(id="first")("one") == ["ONE"]
        assert await (await system.spawn(Needy, "n", word="x")).say() == "x"


@pytest.mark.parametrize("seal", STRICT, ids=repr)
async def test_a_watcher_is_told_through_a_seal(tmp_path: Path, seal: Seal) -> None:
    """What the store itself writes, that an actor ended, is taken although nobody sealed it."""
    path = tmp_path / "a.db"
    async with ActorSystem(path, seal=seal) as system:
        watcher, watched = system.get(Desk, "a"), system.get(Desk, "b")
        await watcher.put("one")
        await watched.put("two")
        await watch(watched, watcher.told)
        await watched.ends()
        await until(lambda: Inspector(path).actor("seal.desk/a").actor.handled == 2)
    state = Inspector(path, keys=[KEY]).actor("seal.desk/a").state
    assert state is not None
    assert state.fields.value() == {"words": ["ONE"], "ended": "normal"}


class SharedStore(SQLiteStore):
    """Stands for a server's database."""

    requires_signed = True


async def test_a_shared_store_takes_no_unsigned_pickle(tmp_path: Path) -> None:
    """The sender is told, before anything is written, what would be pickled and what to do."""
    path = tmp_path / "a.db"
    async with ActorSystem(SharedStore(path)) as system:
        assert await system.get(Desk, "a").put("one") == ["ONE"]
        with pytest.raises(UnsignedError, match=r"the arguments of Library\.keep.*cloudpickle.*Signed\(keys\)"):
            await system.get(Library, "l").keep(Document("a"))
        ran.clear()
        with pytest.raises(DeadLetterError, match="the result of step 'scanned'"):
            await system.get(Scanner, "m").scan("a")
        assert ran == []
    assert _one(path, "SELECT count(*) FROM message WHERE handler = 'keep'") == "0"
    async with ActorSystem(SharedStore(path), seal=Signed([KEY])) as system:
        assert (await system.get(Library, "l").keep(Document("a"))).text == "a"
    assert issubclass(UnsignedError, StorageError)


async def test_the_console_shows_what_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys a person sees what happened and not what was said; with them, everything."""
    path = tmp_path / "a.db"
    await _work(path, Encrypted([KEY]))
    run = CliRunner()
    commands = ("ps", "show seal.desk/a", "journal first", "dead", "tree", "show seal.desk/a --json")
    monkeypatch.delenv("PERDURE_KEYS", raising=False)
    for command in commands:
        shown = run.invoke(main, ["--db", str(path), *command.split()])
        assert shown.exit_code == 0, shown.output
        assert SECRET not in shown.output.lower()
    assert "put(<encrypted, " in run.invoke(main, ["--db", str(path), "journal", "first"]).output
    monkeypatch.setenv("PERDURE_KEYS", base64.b64encode(KEY).decode())
    shown = run.invoke(main, ["--db", str(path), "journal", "first"])
    assert f'put(word="{SECRET}")' in shown.output
    assert SECRET in run.invoke(main, ["--db", str(path), "dead"]).output
    _change(path, "UPDATE outcome SET result = (SELECT args FROM message WHERE id = 'first') WHERE result IS NOT NULL")
    assert "<tampered, " in run.invoke(main, ["--db", str(path), "journal", "first"]).output
    monkeypatch.setenv("PERDURE_KEYS", "no sense!")
    assert "not base64" in run.invoke(main, ["--db", str(path), "ps"]).output


async def test_the_console_shows_what_is_signed(tmp_path: Path) -> None:
    """Signing hides nothing."""
    path = tmp_path / "a.db"
    await _work(path, Signed([KEY], everything=True))
    message = Inspector(path).message("first").message
    assert message.args.value() == {"word": SECRET}
    assert message.result is not None
    assert message.result.value() == [SECRET.upper()]
