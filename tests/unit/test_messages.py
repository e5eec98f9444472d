"""Sending, asking, answering: what a user does in the first hour."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import (
    Actor,
    ActorExists,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    Backoff,
    DeadLetterError,
    DeadlockError,
    IdReusedError,
    MailboxFull,
    MessageExpired,
    NotSpawnedError,
    Receipt,
    Ref,
    Rejected,
    Retry,
    handler,
    query,
)
from perdure.errors import ArgumentsError, NotAMessageError, ReadOnlyError, StateError
from tests.supervision.hands import Hands

gate: asyncio.Event


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global gate  # noqa: PLW0603  # handlers wait for it
    gate = asyncio.Event()


class SoldOut(Rejected):
    """A reason that callers tell apart."""


class Counter(Actor, kind="messages.counter"):
    total: int = 0
    notes: list[str] = []
    peer: Ref[Counter] | None = None
    job: Receipt[int] | None = None

    @handler
    async def add(self, n: int, *, note: str = "") -> int:
        self.total += n
        if note:
            self.notes.append(note)
        return self.total

    @handler
    async def refuse(self) -> None:
        self.total = 99
        self.notes.append("refused")
        raise SoldOut("all gone")

    @handler(retry=Retry(2, backoff=Backoff(0.001)))
    async def crash(self) -> None:
        self.total = 99
        self.notes.append("crashed")
        msg = "boom"
        raise ValueError(msg)

    @handler
    async def slow(self) -> str:
        await gate.wait()
        return "slow"

    @handler
    async def via(self, other: Ref[Counter], n: int) -> int:
        self.peer = other
        self.job = await other.add.tell(100)
        return await other.add(n)

    @handler
    async def through(self) -> int:
        assert self.peer is not None
        assert self.job is not None
        return await self.job.result() + await self.peer.add(1)

    @handler
    async def refused_by(self, other: Ref[Counter]) -> None:
        await other.refuse()

    @handler
    async def ask_me(self) -> int:
        return await self.ref.add(1)

    @handler
    async def back(self, other: Ref[Counter]) -> int:
        return await other.via(self.ref, 1)

    @handler
    async def end(self) -> str:
        await self.stop()
        return "ended"

    @query
    async def value(self) -> int:
        return self.total

    @query
    async def all_notes(self) -> list[str]:
        return self.notes

    @query
    async def cheat(self) -> None:
        self.total = 5


class Needy(Actor, kind="messages.needy"):
    goal: str
    done: bool = False

    @handler
    async def work(self) -> str:
        return self.goal


async def test_ask_and_tell(tmp_path: Path) -> None:
    """A user gets the reply, now or through the receipt."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        assert await ref.add(3, note="first") == 3
        receipt = await ref.add.tell(4)
        assert await receipt.result(timeout=20) == 7
        assert await receipt.status() == "succeeded"
        assert await ref.value() == 7
        assert await ref.all_notes() == ["first"]


async def test_memory_database() -> None:
    """Tests of users run without a file."""
    async with ActorSystem(":memory:") as system:
        assert await system.get(Counter, "c").add(3) == 3


async def test_rejection_undoes_state(tmp_path: Path) -> None:
    """A handler that says no leaves nothing behind, and its reason arrives as itself."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        await ref.add(1)
        with pytest.raises(SoldOut, match="all gone"):
            await ref.refuse()
        assert await ref.value() == 1
        assert await ref.all_notes() == []
        with pytest.raises(SoldOut):
            await system.get(Counter, "other").refused_by(ref)


async def test_first_message_rejected(tmp_path: Path) -> None:
    """The state before the first message is the class's defaults, and a rejection goes back to them."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        with pytest.raises(SoldOut):
            await ref.refuse()
        assert (await ref.value(), await ref.all_notes()) == (0, [])
        assert await ref.add(1) == 1


async def test_crash_becomes_dead_letter_and_actor_goes_on(tmp_path: Path) -> None:
    """A message that always fails is kept aside; the actor handles the next one with its state intact."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        await ref.add(1)
        receipt = await ref.crash.tell()
        after = await ref.add.tell(1)
        with pytest.raises(DeadLetterError, match="boom"):
            await receipt.result()
        assert await after.result() == 2
        assert await ref.all_notes() == []
        assert await receipt.status() == "dead"


async def test_between_actors(tmp_path: Path) -> None:
    """References and receipts travel in messages and live in state, across a restart."""
    async with ActorSystem(tmp_path / "a.db") as system:
        a, b = system.get(Counter, "a"), system.get(Counter, "b")
        assert await a.via(b, 1) == 101
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Counter, "a").through() == 202


async def test_same_id_same_outcome(tmp_path: Path) -> None:
    """A message sent twice under one id is handled once."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        assert await ref.add.options(id="once")(3) == 3
        assert await ref.add.options(id="once")(3) == 3
        one, two = await asyncio.gather(ref.add.options(id="x")(1), ref.add.options(id="x")(1))
        assert one == two == 4
        assert await ref.add.options(id="spelled")(0, note="a") == await ref.add.options(id="spelled")(note="a", n=0)
        with pytest.raises(IdReusedError, match="other arguments"):
            await ref.add.options(id="once")(4)
        with pytest.raises(IdReusedError, match="another receiver"):
            await system.get(Counter, "d").add.options(id="once")(3)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(Counter, "c").add.options(id="once")(3) == 3
        assert await system.receipt("once", Counter.add).result() == 3
        assert await system.get(Counter, "c").value() == 4


async def test_deadlocks_are_named(tmp_path: Path) -> None:
    """An ask that can never be answered fails at once and names the path."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(DeadlockError, match=r"messages\.counter/a -> messages\.counter/a"):
            await system.get(Counter, "a").ask_me()
        a, b = system.get(Counter, "a"), system.get(Counter, "b")
        with pytest.raises(DeadlockError, match=r"a -> messages\.counter/b -> messages\.counter/a"):
            await a.back(b)


async def test_deadline_of_an_ask(tmp_path: Path) -> None:
    """A caller that stops waiting can rejoin its message."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        with pytest.raises(AskTimeout) as caught:
            await ref.slow.options(timeout=0.02)()
        gate.set()
        assert await caught.value.receipt.result() == "slow"


async def test_latest_start(tmp_path: Path) -> None:
    """A message that could not start in time ends expired, and the mailbox goes on."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        await ref.slow.tell()
        late = await ref.add.options(timeout=0.05).tell(5)
        await asyncio.sleep(0.1)  # longer than it may wait
        gate.set()
        with pytest.raises(MessageExpired):
            await late.result()
        assert await ref.add(1) == 1


async def test_delay(tmp_path: Path) -> None:
    """A delayed message waits for its time, and others pass it."""
    clock = Hands()
    async with ActorSystem(tmp_path / "a.db", clock=clock) as system:
        ref = system.get(Counter, "c")
        late = await ref.add.options(delay=20).tell(10)
        at = await ref.add.options(at=clock.now() + timedelta(seconds=10)).tell(100)
        assert await late.status() == "pending"
        assert await ref.add(1) == 1
        for due, total in ((at, 101), (late, 111)):
            clock.move(10)
            system.due_changed()
            assert await due.result(timeout=20) == total


async def test_delay_outlives_a_restart(tmp_path: Path) -> None:
    """A delayed message falls due in whatever process is there."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Counter, "c").add.options(id="late", delay=0.3).tell(10)
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.receipt("late", Counter.add).result(timeout=20) == 10


async def test_spawn(tmp_path: Path) -> None:
    """An actor with required state exists once spawned; spawning again alike is quiet."""
    async with ActorSystem(tmp_path / "a.db") as system:
        with pytest.raises(NotSpawnedError):
            await system.get(Needy, "n").work()
        ref = await system.spawn(Needy, "n", goal="moon")
        assert await ref.work() == "moon"
        await system.spawn(Needy, "n", goal="moon")
        with pytest.raises(ActorExists):
            await system.spawn(Needy, "n", goal="mars")
        made = await system.spawn(Needy, goal="somewhere")
        assert await made.work() == "somewhere"
        with pytest.raises(StateError, match="Did you mean 'goal'"):
            await system.spawn(Needy, "m", gaol="x")  # pyright: ignore[reportCallIssue]  # the mistake under test


async def test_stop(tmp_path: Path) -> None:
    """What is left in the mailbox of an actor that ends is kept as dead letters; new messages are refused."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        slow = await ref.slow.tell()
        end = await ref.end.tell()
        rest = await ref.add.tell(1)
        gate.set()
        assert await slow.result() == "slow"
        assert await end.result() == "ended"
        with pytest.raises(DeadLetterError, match="has stopped"):
            await rest.result(timeout=20)
        with pytest.raises(ActorStopped):
            await ref.add(1)


async def test_mailbox_limit(tmp_path: Path) -> None:
    """A sender is told when its receiver cannot keep up; nothing is written."""

    class Small(Actor, kind="messages.small", mailbox_limit=3):
        @handler
        async def wait(self) -> None:
            await gate.wait()

    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Small, "s")
        receipts = [await ref.wait.tell() for _ in range(3)]
        with pytest.raises(MailboxFull, match="holds 3"):
            await ref.wait.tell()
        gate.set()
        await receipts[0].result()
        await ref.wait.tell()


async def test_misuse_is_explained(tmp_path: Path) -> None:
    """Newcomers' mistakes say what to do instead."""
    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Counter, "c")
        with pytest.raises(NotAMessageError, match="'total' is state of Counter"):
            _ = ref.total
        with pytest.raises(NotAMessageError, match="Did you mean 'value'"):
            _ = ref.valu
        with pytest.raises(NotAMessageError):
            ref.total = 3
        with pytest.raises(ReadOnlyError, match="query"):
            await ref.cheat()
        with pytest.raises(ArgumentsError, match="Nothing was sent"):
            await ref.add()  # pyright: ignore[reportCallIssue]  # the mistake under test
        with pytest.raises(ArgumentsError):
            await ref.add(1, 2)  # pyright: ignore[reportCallIssue]  # the mistake under test


async def test_order_from_one_sender(tmp_path: Path) -> None:
    """Messages of one sender to one receiver are handled in the order they were sent."""

    class Log(Actor, kind="messages.log"):
        seen: list[int] = []

        @handler
        async def put(self, n: int) -> None:
            self.seen.append(n)

        @query
        async def all(self) -> list[int]:
            return self.seen

    async with ActorSystem(tmp_path / "a.db") as system:
        ref = system.get(Log, "l")
        receipts = await asyncio.gather(*(ref.put.tell(n) for n in range(3000)))
        await receipts[-1].result(timeout=20)
        assert await ref.all() == list(range(3000))
