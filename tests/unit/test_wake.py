"""Wake-ups on SQLite: what is sent to whom, and what is done where a socket cannot be."""

# ruff: noqa: SLF001 - who is connected with whom is nobody's business but theirs

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, handler
from perdure.errors import StorageError
from perdure.storage.hints import REMEMBERED, Heard, Lately, News
from perdure.storage.records import Grown
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.sqlite_presence import Presence
from perdure.storage.sqlite_wake import Line, Wakes
from perdure.testing.conformance.nodes import started
from tests.unit.observing import files_in, until

HINT = b"\0" * 8


class Sums(Actor, kind="wake.sums"):
    total: int = 0

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total


def lose(_: Line, numbers: bytes) -> bool:
    """Send nothing, and notice nothing."""
    return bool(numbers)


async def never() -> int:
    """The version of a database in which nothing happens."""
    return 0


@asynccontextmanager
async def pair(folder: Path) -> AsyncGenerator[tuple[Wakes, Wakes]]:
    """Two nodes that know each other, and have nothing to hear."""
    one, two = (Wakes(lambda node: folder / f"a.db-wake-{node}", name) for name in "12")
    for wakes in (one, two):
        wakes.listen()
    for wakes, other in ((one, "2"), (two, "1")):
        wakes.meet([other])
    for wakes in (one, two):
        assert await wakes.wait(10, never, 0)
    yield one, two
    one.close()
    two.close()


@asynccontextmanager
async def systems(folder: Path) -> AsyncGenerator[tuple[ActorSystem, ActorSystem]]:
    """Two systems on one file; the first has the actor `a`."""
    async with ActorSystem(folder / "a.db") as first, ActorSystem(folder / "a.db") as second:
        await first.get(Sums, "a").add(1)
        yield first, second


def wakes_of(system: ActorSystem) -> Wakes:
    """The wake-ups of an open system."""
    store = system._store
    assert isinstance(store, SQLiteStore)
    assert store._presence is not None
    return store._presence.wakes


# what is sent ---------------------------------------------------------------------------------------------------------


async def test_only_whom_it_concerns(tmp_path: Path) -> None:
    """A commit wakes the node it is for, and no other."""
    async with pair(tmp_path) as (one, two):
        one.tell(News({"somebody else"}, ended=[7]))
        assert not await two.wait(0.05, never, 0)
        one.tell(News({"2"}))
        assert await two.wait(10, never, 0)
        assert not await one.wait(0, never, 0)


async def test_hints_say_where_to_look(tmp_path: Path) -> None:
    """What came for a few actors costs a look at those, and one word for everything covers all that was said before."""
    async with pair(tmp_path) as (one, two):
        one.tell(News(actors={"2": {3, 4}, "somebody else": {5}}))
        one.tell(News(actors={"2": {4, 6}}))
        assert await two.wait(10, never, 0) == Heard(actors=frozenset({3, 4, 6}))
        one.tell(News({"2"}, {"2": {7}}))
        assert await two.wait(10, never, 0) == Heard(anything=True)
        one.tell(News(actors={"2": set(range(1, 2_000))}))
        assert await two.wait(10, never, 0) == Heard(anything=True)


async def test_what_a_full_line_does_not_take_is_looked_for(tmp_path: Path) -> None:
    """A process that stood still while much was said to it looks at everything when it goes on."""
    async with pair(tmp_path) as (one, two):
        for actor in range(200_000):
            one.tell(News(actors={"2": {actor}}))
        assert any(line.full for line in one._lines.values())
        said: set[int] = set()
        while not (heard := await two.wait(10, never, 0)).anything:
            assert heard
            said |= heard.actors
        assert len(said) < 200_000
        await until(lambda: not any(line.full for line in one._lines.values()))


async def test_a_message_costs_no_look_at_the_other_actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a process has in memory, mail from another one costs a read of those it is for."""
    looks: list[int] = []
    grown = SQLiteStore.grown

    async def counted(self: SQLiteStore, known: Collection[tuple[int, int]], limit: int) -> list[Grown]:
        looks.append(len(known))
        return await grown(self, known, limit)

    async with systems(tmp_path) as (first, second):
        await asyncio.gather(*(first.get(Sums, f"b{n}").add(1) for n in range(300)))
        monkeypatch.setattr(SQLiteStore, "grown", counted)
        for n in range(30):
            assert await second.get(Sums, "a").add(1) == n + 2
    assert looks.count(1) >= 20
    assert sum(known > 1 for known in looks) < looks.count(1)  # there is one a second, whatever is said


async def test_many_hints_are_one_wake_up(tmp_path: Path) -> None:
    """However much another process commits, it is looked at once; what nobody reads never holds a commit up."""
    async with pair(tmp_path) as (one, two):
        for _ in range(100_000):
            one.tell(News({"2"}))
        assert await two.wait(10, never, 0)
        while await two.wait(0.05, never, 0):
            pass
        one.tell(News({"2"}))
        assert await two.wait(10, never, 0)


async def test_an_awaited_end_is_told_once(tmp_path: Path) -> None:
    """Ends that nobody waits for wake nobody."""
    async with pair(tmp_path) as (one, two):
        two.await_ends([5, 6])
        two.await_ends([5, 6, 7])
        await until(lambda: {*next(iter(one._calls)).awaits} == {5, 6, 7})
        one.tell(News(ended=[4]))
        assert not await two.wait(0.05, never, 0)
        one.tell(News(ended=[5, 6]))
        assert await two.wait(10, never, 0)
        one.tell(News(ended=[5, 6]))
        assert not await two.wait(0.05, never, 0)


async def test_ends_elsewhere_are_forgotten_in_time(tmp_path: Path) -> None:
    """What others await and a third process ends leaves room for what ends here."""
    async with pair(tmp_path) as (one, two):
        for start in range(0, 4 * REMEMBERED, 1_000):
            two.await_ends(range(start, start + 1_000))
            await asyncio.sleep(0)
        last = 4 * REMEMBERED - 1
        await until(lambda: last in next(iter(one._calls)).awaits)
        assert len(next(iter(one._calls)).awaits) <= 2 * REMEMBERED
        one.tell(News(ended=[last]))
        assert await two.wait(10, never, 0) == Heard(ended=frozenset({last}))


async def test_a_stranger_can_only_wake(tmp_path: Path) -> None:
    """Whatever arrives on a socket, it is a reason to look and nothing more, and costs little memory."""
    async with pair(tmp_path) as (one, _):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(tmp_path / "a.db-wake-1"))
            assert await one.wait(10, never, 0)
            for _ in range(50):
                stranger.sendall(os.urandom(4_001))
                await asyncio.sleep(0)
            stranger.sendall(HINT * 2)
            assert await one.wait(10, never, 0)
            assert all(len(call.awaits) <= 2 * REMEMBERED for call in one._calls)
        await until(lambda: len(one._calls) == 1)
        one.tell(News({"2"}, ended=[1]))


async def test_sends_at_most_once_a_peer_and_nothing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is alone with the database never speaks to anybody; with company it is a word a transaction."""
    sent: list[bytes] = []

    def send(line: Line, numbers: bytes) -> bool:
        sent.append(numbers)
        line.socket.send(numbers)
        return True

    monkeypatch.setattr(Line, "send", send)
    async with ActorSystem(tmp_path / "a.db") as first:
        for n in range(20):
            await first.get(Sums, f"a{n % 3}").add(n)
        assert not sent
        assert wakes_of(first).alone
        async with ActorSystem(tmp_path / "a.db") as second:
            await until(lambda: not wakes_of(first).alone)
            for n in range(20):
                await first.get(Sums, f"a{n % 3}").add(n)
            assert not sent  # nothing of this concerns the other one
            await asyncio.gather(*(second.get(Sums, f"a{n % 3}").add.tell(n) for n in range(100)))
            assert HINT not in sent  # it says which actors
            assert 1 <= len(sent) <= 10
        await until(lambda: wakes_of(first).alone)
        sent.clear()
        await first.get(Sums, "a0").add(1)
        assert not sent


# where there is no socket ---------------------------------------------------------------------------------------------


def very_deep(folder: Path) -> Path:
    """A directory whose path has no room in a socket's address."""
    deep = folder / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    return deep


async def test_paths_longer_than_a_sockets_address(tmp_path: Path) -> None:
    """However deep the database lies, the processes on it wake each other."""
    async with systems(very_deep(tmp_path)) as (first, second):
        assert await second.get(Sums, "a").add(1) == 2
        for system in (first, second):
            assert wakes_of(system)._listener is not None
            assert wakes_of(system)._lines


async def test_without_sockets_the_database_is_polled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no socket can be, everything arrives all the same, and the log says once why it takes a little longer."""
    folder = tmp_path / "f"
    folder.mkdir()
    name = "n" * 150  # with the name alone, the address is too long
    with caplog.at_level(logging.WARNING, "perdure.storage"):
        async with ActorSystem(folder / name) as first, ActorSystem(folder / name) as second:
            await first.get(Sums, "a").add(1)
            for n in range(5):
                assert await second.get(Sums, "a").add(1) == n + 2
    said = [record for record in caplog.records if "polls" in record.getMessage()]
    assert len(said) == 2  # two systems
    assert files_in(folder) == [name, f"{name}-lock"]


async def test_one_that_cannot_be_reached_is_found_by_polling(tmp_path: Path) -> None:
    """A process of an older perdure, or across a border that sockets do not cross, is served all the same."""
    async with systems(tmp_path) as (first, second):
        for system in (first, second):
            store = system._store
            assert isinstance(store, SQLiteStore)
            wakes = wakes_of(system)
            for line in [*wakes._lines.values(), *wakes._calls]:
                wakes._hang_up(line)
        for name in files_in(tmp_path):
            if "-wake-" in name:
                (tmp_path / name).unlink()
        for n in range(5):
            assert await second.get(Sums, "a").add(1) == n + 2


async def test_lost_hints_cost_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a single wake-up that arrives, every message and every reply does."""
    monkeypatch.setattr(Line, "send", lose)
    async with systems(tmp_path) as (_, second):
        sums = second.get(Sums, "a")
        receipts = [await sums.add.tell(1) for _ in range(20)]
        assert [await receipt.result(timeout=20) for receipt in receipts] == list(range(2, 22))
        assert await sums.add(1) == 22


async def test_out_of_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can open no socket any more stops to listen, rather than to spin, and polls."""

    def accept(_: socket.socket) -> None:
        raise OSError(24, "too many open files")

    async with ActorSystem(tmp_path / "a.db") as first:
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with ActorSystem(tmp_path / "a.db") as second:
            await until(lambda: wakes_of(first)._listener is None)
            await first.get(Sums, "a").add(1)
            assert await second.get(Sums, "a").add(1) == 2


# files ----------------------------------------------------------------------------------------------------------------


async def test_socket_is_private(tmp_path: Path) -> None:
    """Nobody else can wake a process, whatever the umask lets through."""
    before = os.umask(0)
    try:
        wakes = Wakes(lambda node: tmp_path / node, "1")
        wakes.listen()
        status = (tmp_path / "1").stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        wakes.close()
    finally:
        os.umask(before)


async def test_close_removes_its_own(tmp_path: Path) -> None:
    """A system that was closed leaves its database and nothing else that grows."""
    async with systems(tmp_path):
        assert len([name for name in files_in(tmp_path) if "-wake-" in name]) == 2
    assert files_in(tmp_path) == ["a.db", "a.db-lock"]


async def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    """A file or a link under the socket's name is somebody else's: neither removed nor written to."""
    path = tmp_path / "1"
    for link in (False, True):
        if link:
            path.symlink_to(tmp_path / "target")
        else:
            path.write_text("mine")
        wakes = Wakes(lambda node: tmp_path / node, "1")
        wakes.listen()
        assert wakes._listener is None
        wakes.close()
        assert path.is_symlink() or path.read_text() == "mine"
        assert not (tmp_path / "target").exists()
        path.unlink()


@pytest.mark.parametrize("node", ["../x", "a/b", "", "x" * 65, ".", "a\0b"])
async def test_ids_become_no_paths(tmp_path: Path, node: str) -> None:
    """Whoever can write into the database cannot have files elsewhere opened or removed by it."""
    presence = Presence(tmp_path / "a.db", "1")
    presence.meet([node])
    assert not presence.wakes._peers
    assert not presence.is_gone(node)
    with pytest.raises(StorageError, match="no node's id"):
        presence.bury(node)
    presence.leave()


async def test_a_process_hears_of_others_changes_and_not_of_its_own(tmp_path: Path) -> None:
    """On SQLite that is exact, so nobody looks for nothing."""
    one, two = [await started(SQLiteStore(tmp_path / "a.db")) for _ in range(2)]
    await one.append()
    await one.store.changed()
    await one.append()
    assert not await one.store.changed()
    await two.append()
    assert await one.store.changed()
    assert not await one.store.changed()
    await one.store.close()
    await two.store.close()


def test_what_ended_lately_is_known_and_the_rest_forgotten() -> None:
    """However often it is asked, and though nobody asks: the last messages are known, and memory is bounded."""
    lately, starts = Lately(), range(0, 5 * REMEMBERED, 700)
    for start in starts:
        lately.note(range(start, start + 700))
        if start % 2_100 == 0:
            assert start + 699 in lately
    last = starts[-1] + 699
    assert last in lately
    assert last - REMEMBERED + 701 in lately
    assert 0 not in lately
    for message in range(3 * REMEMBERED):
        lately.note([last + 1 + message])
    noted = int(repr(lately).split()[1])
    assert noted <= 3 * REMEMBERED + 700
    assert last + 3 * REMEMBERED in lately
