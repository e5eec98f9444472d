"""What goes on in the background: history is bounded, large states and repeated work are spoken of."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import Collection
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, DeadLetterError, Limits, Retry, handler, query, step
from perdure.storage.committer import Committer
from perdure.storage.history_writes import Purge, Purged
from perdure.storage.records import Loaded
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Settled, Write
from perdure.warning_types import DuplicateWorkWarning, LargeStateWarning
from tests.unit.crashing import crashing, host_of
from tests.unit.observing import until

gate: asyncio.Event | None = None


@step
async def wait_at_the_gate() -> int:
    """A step that ends when the test lets it."""
    assert gate is not None
    await gate.wait()
    return 1


class Keeper(Actor, kind="background.keeper", retry=Retry(1)):
    total: int = 0
    text: str = ""

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        return self.total

    @handler
    async def hold(self, n: int) -> int:
        self.total += n * await wait_at_the_gate()
        return self.total

    @handler
    async def fill(self, size: int) -> None:
        self.text = "x" * size

    @handler
    async def fail(self) -> None:
        msg = "no"
        raise ValueError(msg)

    @query
    async def value(self) -> int:
        return self.total


async def test_history_is_bounded(tmp_path: Path) -> None:
    """Handled messages go after their retention; chosen ids stay longer, dead letters for ever, open work always."""
    global gate  # noqa: PLW0603  # the step waits for it
    gate = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Keeper, "k")
        plain = await ref.add.tell(1)
        chosen = await ref.add.options(id="chosen").tell(1)
        dead = await ref.fail.tell()
        with pytest.raises(DeadLetterError):
            await dead.result()
        await chosen.result()
        held = await system.get(Keeper, "other").hold.tell(5)
        host = host_of(system)
        now = host.timestamp()
        removed = await host.committer.write(Purge(history=now + 1, ids=now - 1, keep=1000))
        assert isinstance(removed, Purged)
        assert removed.removed == 1
        assert await host.store.find(plain.id) is None
        assert await ref.add.options(id="chosen")(1) == 2
        assert await dead.status() == "dead"
        removed = await host.committer.write(Purge(history=now + 1, ids=now + 1, keep=1000))
        assert isinstance(removed, Purged)
        assert removed.removed == 1
        gate.set()
        assert await held.result() == 5
        assert await ref.value() == 2


async def test_processes_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    """A service that is deployed a thousand times, or looked after by hand, does not grow by it."""
    for _ in range(3):
        async with ActorSystem(tmp_path / "a.db") as system:
            host = host_of(system)
            await host.committer.write(Purge(history=host.timestamp() + 1, ids=0, keep=1000))
            with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
                assert connection.execute("SELECT count(*) FROM node").fetchone() == (1,)


async def test_retention_keeps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages come, more are removed than come meanwhile, so that no file grows without end."""
    monkeypatch.setattr("perdure.system._PURGE_SECONDS", 0.01)
    monkeypatch.setattr("perdure.supervision.nodes._RECENT_SECONDS", 0)
    purges: list[tuple[int, Purge]] = []
    write = Committer.write

    async def noting(committer: Committer, one: Write, *, first: bool = False) -> Settled:
        if isinstance(one, Purge):
            purges.append((committer.writes, one))
        return await write(committer, one, first=first)

    monkeypatch.setattr(Committer, "write", noting)
    async with ActorSystem(tmp_path / "a.db", limits=Limits(history=10)) as system:
        for _ in range(5):
            await asyncio.gather(*(system.get(Keeper, f"k{n}").add.tell(1) for n in range(3_000)))
    followed = [(now - before, purge.limit) for (before, _), (now, purge) in pairwise(purges) if purge.limit > 1_000]
    assert followed
    assert all(limit > writes // 2 for writes, limit in followed)


async def test_retention_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to clean up."""
    monkeypatch.setattr("perdure.system._PURGE_SECONDS", 0.05)
    monkeypatch.setattr("perdure.supervision.nodes._RECENT_SECONDS", 0)
    async with ActorSystem(tmp_path / "a.db", limits=Limits(retention=0.01)) as system:
        receipt = await system.get(Keeper, "k").add.tell(1)

        async def removed() -> bool:
            return await host_of(system).store.find(receipt.id) is None

        await until(removed)
        assert await system.get(Keeper, "k").value() == 1


async def test_retention_leaves_what_is_recent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is to be kept, a process that lost the answer to a commit finds it, and sends nothing twice."""
    monkeypatch.setattr("perdure.system._PURGE_SECONDS", 0.01)
    purges = 0
    write = Committer.write

    async def counting(committer: Committer, one: Write, *, first: bool = False) -> Settled:
        nonlocal purges
        settled = await write(committer, one, first=first)
        purges += isinstance(one, Purge)
        return settled

    monkeypatch.setattr(Committer, "write", counting)
    async with ActorSystem(tmp_path / "a.db", limits=Limits(retention=0, results=0, history=1)) as system:
        ids = ["one", "two", "three"]
        for id_ in ids:
            await system.get(Keeper, "k").add.options(id=id_)(1)
        purges = 0
        await until(lambda: purges >= 3)
        assert [id_ for id_ in ids if await host_of(system).store.find(id_)] == ids


async def _hold_again(path: Path, opened: asyncio.Event) -> int:
    async with ActorSystem(path) as system:
        receipt = await system.get(Keeper, "k").hold.tell(5)
        opened.set()
        return await receipt.result(timeout=20)


async def test_repeated_work_is_spoken_of(tmp_path: Path) -> None:
    """A program that is started again and sends its work again without an id hears that both will be done."""
    global gate  # noqa: PLW0603  # the step waits for it
    gate = asyncio.Event()
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Keeper, "k").hold.tell(5)
    with pytest.warns(DuplicateWorkWarning, match=r"\.options\(id="):
        assert await _hold_again(tmp_path / "a.db", gate) == 10


class Slow(SQLiteStore):
    """A store whose loads are told only after the next message was accepted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.accepted = asyncio.Event()

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """Read first, answer later."""
        found = await super().load(actors, mail)
        await self.accepted.wait()
        return found


async def test_repeated_work_is_spoken_of_while_the_actor_loads(tmp_path: Path) -> None:
    """It is heard as well when the message comes while its actor is still on its way into memory."""
    global gate  # noqa: PLW0603  # the step waits for it
    gate = asyncio.Event()
    async with crashing(tmp_path / "a.db") as system:
        await system.get(Keeper, "k").hold.tell(5)
    gate.set()
    store = Slow(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        receipt = await system.get(Keeper, "k").hold.tell(5)
        store.accepted.set()
        with pytest.warns(DuplicateWorkWarning, match=r"\.options\(id="):
            assert await receipt.result(timeout=20) == 10


async def test_the_same_message_from_two_processes_is_no_repetition(tmp_path: Path) -> None:
    """Two that run beside each other may say the same; and a warning that is an error ends nothing of the system."""
    global gate  # noqa: PLW0603  # the step waits for it
    gate = asyncio.Event()
    async with ActorSystem(tmp_path / "a.db") as one:
        first = await one.get(Keeper, "k").hold.tell(1)
        async with ActorSystem(tmp_path / "a.db") as two:
            second = await two.get(Keeper, "k").hold.tell(1)
            await first.status()
            third = await one.get(Keeper, "k").hold.tell(1)
            gate.set()
            assert [await receipt.result(timeout=20) for receipt in (first, second, third)] == [1, 2, 3]


async def test_large_state_is_spoken_of(tmp_path: Path) -> None:
    """State that has grown large is named, with its largest field."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.warns(LargeStateWarning, match="most of it in 'text'"):
            await system.get(Keeper, "k").fill(300_000)


async def test_large_state_that_is_an_error_fails_no_turn(tmp_path: Path) -> None:
    """The turn went well; who made an error of the warning hears of it from the event loop."""
    async with ActorSystem(tmp_path / "a.db") as system:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        with warnings.catch_warnings():
            warnings.simplefilter("error", LargeStateWarning)
            assert await system.get(Keeper, "k").fill(300_000) is None
            assert await system.get(Keeper, "k").add(1) == 1
        assert [type(complaint) for complaint in complaints] == [LargeStateWarning] * 2
