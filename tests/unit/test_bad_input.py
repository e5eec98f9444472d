"""Whatever comes from outside can be wrong: a typed error names the thing, the cause and the remedy, before a write."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from types import new_class
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

from perdure import Actor, ActorSystem, EncodingError, Limits, Receipt, TargetError, handler, query, sleep
from perdure.actors.names import kinds
from perdure.errors import (
    ActorDefinitionError,
    DatabaseReplacedError,
    KeyFormatError,
    KindError,
    MessageTooLarge,
    SchemaTooNewError,
    StorageError,
    SystemClosedError,
)
from tests.unit.crashing import connection_of
from tests.unit.observing import files_in, until

if TYPE_CHECKING:
    Nowhere: TypeAlias = int  # a name that annotations see and the running program does not


class Plain(Actor, kind="bad.plain"):
    total: int = 0

    @handler
    async def put(self, n: int) -> int:
        self.total += n
        return self.total

    @handler
    async def text(self, value: str) -> int:
        return len(value)

    @handler
    async def anything(self, value: object) -> None:
        return None

    @query
    async def value(self) -> int:
        return self.total


def _messages(system: ActorSystem) -> int:
    return int(connection_of(system).execute("SELECT count(*) FROM message").fetchone()[0])


# keys and ids ---------------------------------------------------------------------------------------------------------

BAD_NAMES = {
    "empty": "",
    "a NUL": "a\0b",
    "a newline": "a\nb",
    "too long": "x" * 256,
    "too long in bytes": "é" * 128,
    "not NFC": "e\u0301",
    "a lone surrogate": "\ud800",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
async def test_bad_keys_and_ids(name: str) -> None:
    """A key or id that two systems could read differently is refused."""
    async with ActorSystem(":memory:") as system:
        with pytest.raises(KeyFormatError):
            system.get(Plain, name)
        with pytest.raises(KeyFormatError):
            system.get(Plain, "k").put.options(id=name)
        with pytest.raises(KeyFormatError):
            system.receipt(name)


@pytest.mark.parametrize(
    "key", ["a/b", "../../etc/passwd", "'; DROP TABLE actor; --", "%s", "<b>", "ключ", "x" * 255, " "]
)
async def test_odd_keys_are_only_keys(tmp_path: Path, key: str) -> None:
    """No id becomes a path, SQL or markup."""
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Plain, key).put.options(id=key)(2) == 2
        assert await system.receipt(key, Plain.put).result() == 2
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]


# values ---------------------------------------------------------------------------------------------------------------


async def test_values_that_cannot_be_stored(tmp_path: Path) -> None:
    """Arguments are checked where they are sent, and nothing is written."""
    async with ActorSystem(tmp_path / "a.db", limits=Limits(message_bytes=1000)) as system:
        ref = system.get(Plain, "p")
        with pytest.raises(EncodingError, match=r"Plain\.put\.n"):
            await ref.put("x")  # pyright: ignore[reportArgumentType]  # the mistake under test
        with pytest.raises(EncodingError):
            await ref.put(True)
        with pytest.raises(EncodingError, match=r"Plain\.anything\.value"):
            await ref.anything(asyncio.get_running_loop())
        with pytest.raises(MessageTooLarge, match="1000 is the limit"):
            await ref.text("x" * 1000)
        with pytest.raises(StorageError, match="no message 'nope'"):
            await system.receipt("nope").result()
        assert _messages(system) == 0


async def test_state_that_does_not_fit_is_parked(tmp_path: Path) -> None:
    """State of another shape is never thrown away: the actor parks with its bytes kept, until the class fits again."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Plain, "p").put(5)
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("""UPDATE snapshot SET state = '{"total":"five"}'""")
    raw.close()
    async with ActorSystem(tmp_path / "a.db") as system:
        receipt: Receipt[int] = await system.get(Plain, "p").put.tell(1)

        async def parked() -> bool:
            return await receipt.status() == "parked"

        await until(parked)
    with sqlite3.connect(tmp_path / "a.db") as raw:
        assert raw.execute("SELECT state FROM snapshot").fetchone() == ('{"total":"five"}',)
        raw.execute("""UPDATE snapshot SET state = '{"total":5}'""")
    raw.close()
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt(receipt.id, Plain.put).result(timeout=20) == 6


async def test_state_migrates(tmp_path: Path) -> None:
    """A class with a new version takes over what the old one stored."""

    class Old(Actor, kind="bad.migrating"):
        name: str = ""

        @handler
        async def set(self, name: str) -> str:
            self.name = name
            return name

    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Old, "m").set("ada")
    del kinds["bad.migrating"]

    class New(Actor, kind="bad.migrating", version=2):
        first: str = ""
        count: int = 7

        @classmethod
        def migrate(cls, old_version: int, fields: dict[str, Any]) -> dict[str, Any]:
            assert old_version == 1
            return {"first": fields["name"].upper()}

        @handler
        async def get(self) -> str:
            return f"{self.first} {self.count}"

    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(New, "m").get() == "ADA 7"


# targets --------------------------------------------------------------------------------------------------------------


def _directory(folder: Path) -> str:
    return str(folder)


def _no_parent(folder: Path) -> str:
    return str(folder / "missing" / "a.db")


def _text_file(folder: Path) -> str:
    (folder / "a.txt").write_text("this is not a database, it only looks long enough to be one\n" * 20)
    return str(folder / "a.txt")


def _others(folder: Path) -> str:
    with sqlite3.connect(folder / "other.db") as raw:
        raw.execute("CREATE TABLE customers (id)")
    raw.close()
    return str(folder / "other.db")


def _hard_link(folder: Path) -> str:
    (folder / "a.db").touch()
    os.link(folder / "a.db", folder / "b.db")
    return str(folder / "b.db")


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


def _nul(_: Path) -> str:
    return "a\0.db"


def _unknown_scheme(_: Path) -> str:
    return "mysql://localhost/db"


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_directory, "is a directory"),
        (_no_parent, "directory does not exist"),
        (_text_file, "not a SQLite database"),
        (_others, "belongs to another application"),
        (_hard_link, "hard links"),
        (_fifo, "not a regular file"),
        (_nul, "NUL"),
        (_unknown_scheme, "not a target"),
    ],
)
async def test_targets_that_are_refused(tmp_path: Path, make: Callable[[Path], str], says: str) -> None:
    """A target that is not ours is refused by name and left as it was."""
    target = make(tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(TargetError, match=says):
        async with ActorSystem(target):
            pass
    assert before.items() <= _contents(tmp_path).items()


async def test_read_only_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file this process may not write is refused by name."""
    async with ActorSystem(tmp_path / "a.db"):
        pass
    allowed = os.access

    def access(path: str | os.PathLike[str], mode: int) -> bool:
        return mode != os.W_OK and allowed(path, mode)

    # root may write everything, so the kernel's answer is played
    monkeypatch.setattr(os, "access", access)
    with pytest.raises(TargetError, match="read-only"):
        async with ActorSystem(tmp_path / "a.db"):
            pass


async def test_newer_schema(tmp_path: Path) -> None:
    """A database of a newer perdure is refused, not half understood."""
    async with ActorSystem(tmp_path / "a.db"):
        pass
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(SchemaTooNewError, match="Upgrade perdure"):
        async with ActorSystem(tmp_path / "a.db"):
            pass


async def test_replaced_database_is_noticed(tmp_path: Path) -> None:
    """What went to a file that nobody can open any more is not acknowledged."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Plain, "p").put(1)
        (tmp_path / "a.db").rename(tmp_path / "moved.db")
        with pytest.raises(DatabaseReplacedError):
            await system.get(Plain, "p").put(1)


def _open_to_others(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.stat().st_mode & 0o077]


async def test_private_file(tmp_path: Path) -> None:
    """A database may hold secrets: only its owner reads it."""
    async with ActorSystem(tmp_path / "a.db"):
        assert "a.db" in files_in(tmp_path)
        assert _open_to_others(tmp_path) == []


async def test_path_with_odd_characters(tmp_path: Path) -> None:
    """A path is a path, whatever SQLite's URIs would make of it."""
    target = tmp_path / "a?mode=ro#x %41.db"
    async with ActorSystem(target) as system:
        assert await system.get(Plain, "p").put(1) == 1
    assert target.name in files_in(tmp_path)


def _in_child(system: ActorSystem, results: Queue[str]) -> None:
    async def use() -> str:
        try:
            await system.get(Plain, "p").put(1)
        except SystemClosedError as error:
            return str(error)
        return "nothing"

    results.put(asyncio.run(use()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_forked_child(tmp_path: Path) -> None:
    """A system copied into a fork refuses to work there, and the parent's goes on."""
    context = multiprocessing.get_context("fork")
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Plain, "p").put(1)
        results: Queue[str] = context.Queue()
        child = context.Process(target=_in_child, args=(system, results))
        child.start()
        assert "fork" in await asyncio.to_thread(results.get, True, 10)
        await asyncio.to_thread(child.join, 10)
        assert child.exitcode == 0
        assert await system.get(Plain, "p").put(1) == 2


# definitions ----------------------------------------------------------------------------------------------------------


def _not_async() -> type[Actor]:
    class NotAsync(Actor):
        @handler  # pyright: ignore[reportArgumentType]  # the mistake under test
        def go(self) -> None: ...

    return NotAsync


def _reserved() -> type[Actor]:
    class Reserved(Actor):
        key: str = ""  # pyright: ignore[reportIncompatibleMethodOverride]  # the mistake under test

    return Reserved


def _private() -> type[Actor]:
    class Private(Actor):
        _hidden: int = 0

    return Private


def _kind_of_another() -> type[Actor]:
    class Thief(Actor, kind="bad.plain"):
        pass

    return Thief


def _kind_of_a_namesake() -> type[Actor]:
    names = {"__module__": "elsewhere", "__qualname__": "Plain"}
    return new_class("Plain", (Actor,), {"kind": "bad.plain"}, lambda body: body.update(names))


@pytest.mark.parametrize(
    ("define", "error", "says"),
    [
        (_not_async, ActorDefinitionError, "not `async def`"),
        (_reserved, ActorDefinitionError, "perdure's own name"),
        (_private, ActorDefinitionError, "cannot begin with '_'"),
        (_kind_of_another, KindError, "bad.plain"),
        (_kind_of_a_namesake, KindError, "bad.plain"),
    ],
)
def test_classes_that_are_refused(define: Callable[[], type[Actor]], error: type[Exception], says: str) -> None:
    """A class that could not be run as meant is refused where it is written."""
    with pytest.raises(error, match=says):
        define()


def test_variadic_handlers_are_refused() -> None:
    """Arguments without a name could not be stored so that later code understands them."""

    class Variadic(Actor):
        @handler
        async def go(self, *args: int) -> None: ...

    with pytest.raises(ActorDefinitionError, match="no name that a stored message could use"):
        _ = Variadic.go.signature


async def test_unresolvable_annotation() -> None:
    """An annotation that no module can resolve is named at first use."""

    class Lost(Actor, kind="bad.lost"):
        @handler
        async def go(self, x: Nowhere) -> None: ...

    async with ActorSystem(":memory:") as system:
        with pytest.raises(ActorDefinitionError, match="Nowhere"):
            await system.get(Lost, "x").go(1)


async def _fill(ref: Plain) -> None:
    for _ in range(200):
        await ref.text.tell("x" * 10_000)


async def test_disk_full(tmp_path: Path) -> None:
    """When the disk is full a tell says so, nothing is half-written, and work goes on once there is room."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Plain, "p")
        await ref.put(1)
        raw = connection_of(system)
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="full"):
            await _fill(ref)
        # the store has opened the file anew, without the limit: the disk has room again
        with anyio.fail_after(30):
            assert await ref.put(1) == 2


async def test_sleep_outside(tmp_path: Path) -> None:
    """The free functions of a turn are plain ones outside."""
    await sleep(0.001)
    assert files_in(tmp_path) == []
