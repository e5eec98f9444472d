"""What comes about between an actor's being read and its turn's beginning, and what a lost activation may write."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, Child, Limits, OneForOne, Supervisor, handler, step
from perdure.errors import StorageError
from perdure.storage.records import Completion, Loaded, Mail, OpenAsk
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Buried, Bury, Claim, Segment, Settled, Write
from perdure.testing.conformance.nodes import SENT, started, want
from tests.conformance.places import SQLiteFile
from tests.unit.crashing import host_of
from tests.unit.observing import until

gates: dict[str, asyncio.Event] = {}
events: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    gates.clear()
    events.clear()
    yield
    gates.clear()


class Callee(Actor, kind="moving.callee", needs={"callees"}):
    @handler
    async def answer(self) -> str:
        """Answer, once the test says so."""
        await gates[self.key].wait()
        return self.key


class Caller(Actor, kind="moving.caller", needs={"callers"}):
    @handler
    async def ask(self) -> list[str]:
        """Ask two at once."""
        callees = (self.system.get(Callee, key) for key in ("soon", "late"))
        return await asyncio.gather(*(callee.answer() for callee in callees))


class Ledger(Actor, kind="moving.ledger"):
    entry: int = 0
    seen: int = 0

    @handler
    async def enter(self) -> int:
        """Enter another number, at every try."""
        events.append("enters")
        self.entry = len(events)
        await gates["enter"].wait()
        return self.entry

    @handler
    async def look(self) -> int:
        """Look at it, for as long as the test wants."""
        self.seen += 1
        nth = f"look {sum(event.startswith('look') for event in events)}"
        events.append(nth)
        await gates[nth].wait()
        return self.entry


@step
async def pay() -> None:
    """What is to happen once."""
    events.append("pays")


class Payer(Actor, kind="moving.payer"):
    @handler
    async def pay(self) -> None:
        """Pay."""
        events.append("to pay")
        await pay()

    @handler
    async def rest(self) -> None:
        """Be there to be cancelled."""
        events.append("rests")
        await gates["rest"].wait()


class Dancer(Actor, kind="moving.dancer"):
    @handler
    async def ask(self, other: str) -> str:
        """Wait for another, who waits for this one."""
        events.append(self.key)
        await until(lambda: len(set(events)) == 2)
        return await self.system.get(Dancer, other).be()

    @handler
    async def be(self) -> str:
        """Be there."""
        return self.key


class Brief(Actor, kind="moving.brief", passivate_after=timedelta(milliseconds=1)):
    count: int = 0

    @handler
    async def add(self) -> int:
        """Count, and be gone."""
        self.count += 1
        return self.count


class Standing(SQLiteStore):
    """Stands still after some reads and before some writes, and fails a commit, when the test says so."""

    looks = loaded = refusals = 0
    fails = fails_claim = False

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """See `Store.load`."""
        self.loaded += 1
        loaded = await super().load(actors, mail)
        if "load" in gates:
            events.append("loaded")
            await gates["load"].wait()
        return loaded

    async def mail(self, actor: int, after: int, limit: int) -> list[Mail]:
        """See `Store.mail`."""
        if "to mail" in gates:
            events.append("to read on")
            await gates.pop("to mail").wait()
        found = await super().mail(actor, after, limit)
        if "mail" in gates:
            events.append("read on")
            await gates.pop("mail").wait()
        return found

    async def open_asks(self, actor: int) -> list[OpenAsk]:
        """See `Store.open_asks`."""
        if self.refusals:
            self.refusals -= 1
            raise StorageError("the disk is away")
        return await super().open_asks(actor)

    async def completed(self, *messages: int) -> list[Completion]:
        """See `Store.completed`."""
        self.looks += 1
        return await super().completed(*messages)

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """See `Store.write`."""
        if self.fails and any(isinstance(one, Segment) for one in batch):
            self.fails = False
            raise StorageError("the disk is full")
        if self.fails_claim and any(isinstance(one, Claim) and one.only for one in batch):
            self.fails_claim = False
            raise StorageError("the disk is full")
        if "end" in gates and any(isinstance(one, Segment) and one.end for one in batch):
            await gates.pop("end").wait()
        return await super().write(batch)


async def test_a_reply_that_comes_between_load_and_turn_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look found it, for the turn had not begun; the turn itself looks when it comes to wait."""
    path, store = tmp_path / "a.db", Standing(tmp_path / "a.db")
    gates.update(soon=asyncio.Event(), late=asyncio.Event())
    async with (
        ActorSystem(path, tags={"callees"}) as first,
        ActorSystem(store, tags={"callers"}, limits=Limits(evict_after=0.05)) as second,
    ):
        host = host_of(second)
        receipt = await second.get(Caller, "c").ask.tell()
        await until(lambda: len(host_of(first).activations) == 2)
        await until(lambda: not host.activations)
        host.limits = Limits()
        gates["load"] = asyncio.Event()
        gates["soon"].set()
        await until(lambda: "loaded" in events)
        gates["late"].set()
        await until(lambda: all(each.cursor == 1 and each.idle for each in host_of(first).activations.values()))
        await asyncio.gather(host.look(), host.look())

        async def nothing(*_: object) -> None:
            """Whatever was said is looked at by now, and nobody says anything any more."""

        monkeypatch.setattr(host, "look", nothing)
        monkeypatch.setattr(host, "look_at", nothing)
        gates.pop("load").set()
        assert await receipt.result(timeout=20) == ["soon", "late"]


async def test_an_activation_that_was_lost_writes_nothing(tmp_path: Path) -> None:
    """It was reading on when a commit of its failed; what it computes rests on what was never written."""
    store = Standing(tmp_path / "a.db")
    gates.update({name: asyncio.Event() for name in ("enter", "mail", "look 0", "look 1")})
    async with ActorSystem(store) as system:
        ledger = system.get(Ledger, "l")
        reading = gates["mail"]
        entered = await ledger.enter.tell()
        looked = await ledger.look.tell()
        await until(lambda: "enters" in events)
        store.fails = True
        gates["enter"].set()
        await until(lambda: "read on" in events)
        await until(lambda: "look 0" in events)  # in another activation, which has entered another number
        reading.set()
        gates["look 1"].set()
        await asyncio.sleep(0.2)
        gates["look 0"].set()
        assert await looked.result(timeout=20) == await entered.result(timeout=20)
        assert await ledger.look.options(id="again")() == await entered.result(timeout=20)


async def test_mail_that_another_node_has_handled_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was taken for dead while it read on is told that its actor is elsewhere, and not that mail is lost."""
    monkeypatch.setattr("perdure.actors.mailbox.MAILBOX_IN_MEMORY", 1)
    reading = gates["to mail"] = asyncio.Event()
    gates.update({f"look {nth}": asyncio.Event() for nth in range(4)})
    async with ActorSystem(Standing(tmp_path / "a.db")) as first, ActorSystem(tmp_path / "a.db") as second:
        for _ in range(3):
            await first.get(Ledger, "l").look.tell()
        for nth in range(4):
            gates[f"look {nth}"].set()
        await until(lambda: "to read on" in events)
        buried = await host_of(second).committer.write(Bury(host_of(first).node, 5, SENT))
        assert want(Buried, buried).actors == 1
        assert await second.get(Ledger, "l").look() == 0
        reading.set()
        await until(lambda: not host_of(first).activations)
    assert [event for event in events if event.startswith("look")] == [f"look {nth}" for nth in range(4)]
    assert "bug" not in caplog.text


async def test_a_parked_message_is_not_to_blame(tmp_path: Path) -> None:
    """It was tried with a started-record, for its process had died; that it parks is not what the next one died of."""
    place = SQLiteFile(tmp_path)
    dead, judge = await started(place.store()), await started(place.store())
    await dead.append("p", kind="moving.ledger", id="riddle")
    await place.kill(dead.store)
    async with ActorSystem(tmp_path / "actors.db") as system:

        async def is_parked() -> bool:
            found = await judge.store.find("riddle")
            return found is not None and found.status == "parked"

        await until(is_parked)
        await until(lambda: not host_of(system).activations)
        buried = want(Buried, await judge.settle(Bury(host_of(system).node, 1, SENT)))
        assert (buried.blamed, buried.dead) == ((), ())


async def test_an_actor_is_loaded_anew_only_when_what_it_wrote_is_on_disk(tmp_path: Path) -> None:
    """The turn before the one that was cancelled has ended, and its commit takes long; its step does not run again."""
    gates.update(end=asyncio.Event(), rest=asyncio.Event())
    end = gates["end"]
    async with ActorSystem(Standing(tmp_path / "a.db")) as system:
        payer, activations = system.get(Payer, "p"), host_of(system).activations
        paid = await payer.pay.tell()
        rested = await payer.rest.tell()
        await until(lambda: "rests" in events)
        (lost,) = activations.values()
        assert lost.worker is not None
        lost.worker.cancel()
        await until(lambda: lost.gone)
        await asyncio.sleep(1)
        end.set()
        gates["rest"].set()
        await paid.result(timeout=20)
        await rested.result(timeout=20)
        assert events.count("pays") == 1


async def test_a_cycle_is_found_after_an_outage(tmp_path: Path) -> None:
    """Two wait for each other, and the first look at whom they wait for fails: they are looked at again."""
    store = Standing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        store.refusals = 2
        receipts = [await system.get(Dancer, a).ask.tell(b) for a, b in ("ab", "ba")]
        ends = await asyncio.gather(*(one.result(timeout=20) for one in receipts), return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["DeadlockError", "str"]
        assert store.refusals == 0


async def test_an_actor_that_left_is_not_loaded_again(tmp_path: Path) -> None:
    """Its activation was lost, another came in its place and has left since: nobody has it, and it is nowhere."""
    store = Standing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        brief, host = system.get(Brief, "b"), host_of(system)
        await brief.add()
        await until(lambda: not host.activations)
        store.fails = True
        first = await brief.add.tell()
        await until(lambda: not store.fails and not host.activations)
        await brief.add()
        assert await first.result() == 2
        await until(lambda: not host.activations)
        loads = store.loaded
        await asyncio.sleep(0.7)
        assert store.loaded == loads


class Guild(Supervisor, kind="moving.guild"):
    def children(self) -> Iterator[Child[Actor]]:
        """One."""
        yield Child(Member, "m")


class Member(Actor, kind="moving.member"):
    async def started(self) -> None:
        """Say so."""
        events.append("+m")


class Founder(Actor, kind="moving.founder", supervision=OneForOne()):
    @handler
    async def found(self) -> None:
        """A supervisor with a child of its own."""
        await self.spawn(Child(Guild, "guild"))


async def test_a_spawned_supervisor_begins_after_an_outage(tmp_path: Path) -> None:
    """What was to take it up failed, and nobody has sent it anything."""
    store = Standing(tmp_path / "a.db")
    async with ActorSystem(store) as system:
        store.fails_claim = True
        await system.get(Founder, "f").found()
        await until(lambda: "+m" in events)
        assert not store.fails_claim
