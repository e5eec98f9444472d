"""The actors that are tortured: every way of working, each leaving facts that a checker can hold perdure to.

Every message carries a `tag`, its name in the checker's eyes, unique in a run, and `n`, its place among the messages
that its sender sent in that turn. Every step carries `work`, its name in the same sense.
"""

from __future__ import annotations

import asyncio
import zlib

from attrs import frozen

from perdure import (
    Actor,
    Backoff,
    Receipt,
    Rejected,
    Retry,
    StepError,
    fan_out,
    handler,
    now,
    query,
    random,
    sleep,
    step,
    step_id,
    uuid4,
)
from tests.acceptance.torture.facts import WORLD

QUICK = Retry(attempts=5, backoff=Backoff(first=0.005, most=0.02))
OPENING = 1_000


@frozen
class Done:
    """What a step returns: under which id it ran, and a value that depends on its name alone."""

    sid: str
    value: int


def value_of(work: str) -> int:
    """The value that the step named `work` must return, in every run."""
    return zlib.crc32(work.encode()) % 1_000


def _begin(work: str, base: int, after: list[str], sent: list[str], saw: str) -> str:
    sid = identity()
    WORLD.write("begin", work=work, sid=sid, base=base, after=after, sent=sent, saw=saw)
    return sid


def identity() -> str:
    """The running step's id, as the world outside is told."""
    return step_id()


@step
async def act(work: str, base: int, after: list[str], sent: list[str], saw: str = "") -> Done:
    """An effect outside that takes a moment."""
    sid = _begin(work, base, after, sent, saw)
    await asyncio.sleep(value_of(work) % 8 / 1_000)
    WORLD.write("end", work=work, sid=sid)
    return Done(sid, value_of(work))


@step
def act_in_thread(work: str, base: int, after: list[str], sent: list[str], saw: str = "") -> Done:
    """The same as a plain function."""
    sid = _begin(work, base, after, sent, saw)
    WORLD.write("end", work=work, sid=sid)
    return Done(sid, value_of(work))


@step(retry=Retry(attempts=4, backoff=Backoff(first=0.005, most=0.02)), timeout=30)
async def act_stubbornly(work: str, base: int, after: list[str]) -> Done:
    """An effect that succeeds at its third attempt."""
    sid = _begin(work, base, after, [], "")
    if WORLD.happens(work, 2):
        raise ConnectionError(work)
    WORLD.write("end", work=work, sid=sid)
    return Done(sid, value_of(work))


@step(retry=Retry(attempts=2, backoff=Backoff(first=0.005, most=0.01)))
async def fail(work: str, base: int, after: list[str]) -> Done:
    """An effect that never succeeds."""
    _begin(work, base, after, [], "")
    raise LookupError(work)


class Witness(Actor, kind="witness"):
    """What the tortured actors have in common: a history of the messages whose turn succeeded."""

    history: list[str] = []

    def enter(self, tag: str) -> int:
        """Tell the world that a handler runs; returns how many turns this one builds on."""
        WORLD.write("turn", tag=tag, actor=self.key)
        return len(self.history)

    @query
    async def progress(self) -> int:
        """How many turns succeeded."""
        return len(self.history)


class Account(Witness, kind="account", retry=QUICK, passivate_after=0.2):
    """Money, which is never made nor lost."""

    balance: int = OPENING

    @handler
    async def deposit(self, tag: str, n: int, amount: int, refuse: bool = False) -> int:  # noqa: FBT001, FBT002  # an argument of a message
        """Take money, or refuse it after having touched the state."""
        self.enter(tag)
        self.balance += amount
        self.history.append(tag)
        if refuse:
            raise Rejected(tag)
        return self.balance

    @handler
    async def pay_telling(self, tag: str, n: int, to: list[str], amount: int) -> int:
        """Pay by telling; nothing durable happens between the messages and the end."""
        self.enter(tag)
        for place, key in enumerate(to):
            self.balance -= amount
            await self.system.get(Account, key).deposit.tell(f"{tag}/d{place}", place, amount)
        self.history.append(tag)
        return self.balance

    @handler
    async def pay_asking(self, tag: str, n: int, to: str, amount: int, refuse: bool) -> int:  # noqa: FBT001  # an argument of a message
        """Pay by asking, after two messages to the same receiver; money that was refused comes back."""
        self.enter(tag)
        receiver = self.system.get(Account, to)
        told = [f"{tag}/a", f"{tag}/b"]
        for place, name in enumerate(told):
            await receiver.deposit.options(id=name).tell(name, place, 0)
        self.balance -= amount
        asked = f"{tag}/d"
        try:
            heard = await receiver.deposit.options(id=asked)(asked, 2, amount, refuse)
        except Rejected as no:
            self.balance += amount
            WORLD.write("refused", id=asked, text=str(no), error="Rejected")
        else:
            WORLD.write("heard", id=asked, value=heard)
        WORLD.write("released", tags=told)
        self.history.append(tag)
        return self.balance

    @handler
    async def relay(self, tag: str, n: int, hops: list[str], amount: int) -> int:
        """Hand money along a row of accounts, each asking the next."""
        self.enter(tag)
        if hops:
            self.balance -= amount
            asked = f"{tag}>"
            heard = await self.system.get(Account, hops[0]).relay.options(id=asked)(asked, 0, hops[1:], amount)
            WORLD.write("heard", id=asked, value=heard)
        if tag.endswith(">"):
            self.balance += amount
        self.history.append(tag)
        return self.balance


class Worker(Witness, kind="worker", retry=QUICK, passivate_after=0.01):
    """Effects outside, in every shape. Replies name the steps that the turn depends on."""

    @step
    async def conclude(self, work: str, base: int, after: list[str], saw: str) -> Done:
        """A step that is a method."""
        sid = _begin(work, base, after, [], saw)
        WORLD.write("end", work=work, sid=sid)
        return Done(sid, value_of(work))

    @handler
    async def run(self, tag: str, n: int, items: int, to: str) -> list[str]:
        """A pipeline: one step, many at once, one in a thread, one that has to try again, one to conclude."""
        base = self.enter(tag)
        first = await act(f"{tag}/first", base, [], [], f"{uuid4()} {random().random()} {now().isoformat()}")
        told = f"{tag}/d"
        await self.system.get(Account, to).deposit.tell(told, 0, 0)
        names = [f"{tag}/item{item}" for item in range(items)]
        items_done = await fan_out(lambda name: act(name, base, [first.sid], [told]), names, concurrency=3)
        WORLD.write("released", tags=[told])
        done = [first, *items_done]
        done.append(await act_in_thread(f"{tag}/thread", base, [each.sid for each in done], [], str(uuid4())))
        done.append(await act_stubbornly(f"{tag}/stubborn", base, [done[-1].sid]))
        total = sum(each.value for each in done)
        await self.conclude(f"{tag}/last", base, [each.sid for each in done], f"{total} {now().isoformat()}")
        self.history.append(tag)
        return [f"{tag}/first", *names, f"{tag}/thread", f"{tag}/stubborn", f"{tag}/last"]

    @handler
    async def race(self, tag: str, n: int, to: str) -> list[str]:
        """Plain `gather`: the order in which its tasks finish is part of what the turn did."""
        base = self.enter(tag)
        order: list[str] = []

        async def work(name: str) -> None:
            done = await act(f"{tag}/{name}", base, [], [])
            await act(f"{tag}/{name}2", base, [done.sid], [], name)
            order.append(name)

        async def ask(place: int) -> None:
            asked = f"{tag}/q{place}"
            heard = await self.system.get(Account, to).deposit.options(id=asked)(asked, place, 0)
            WORLD.write("heard", id=asked, value=heard)
            order.append(asked)

        await asyncio.gather(work("x"), ask(0), work("y"), ask(1), work("z"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work("u"))
            tasks.create_task(work("v"))
        await self.conclude(f"{tag}/last", base, [], " ".join(order))
        self.history.append(tag)
        return [*(f"{tag}/{name}" for name in ("x", "x2", "y", "y2", "z", "z2", "u", "u2", "v", "v2")), f"{tag}/last"]

    @handler
    async def stumble(self, tag: str, n: int, to: str) -> list[str]:
        """Fail twice: once in the first segment, once after a durable point."""
        base = self.enter(tag)
        receiver = self.system.get(Account, to)
        if WORLD.happens(f"{tag}.early", 1):
            await receiver.deposit.tell(f"{tag}/never", 9, 0)
            WORLD.write("raised", tag=tag)
            raise RuntimeError(tag)
        await receiver.deposit.tell(f"{tag}/d", 0, 0)
        done = await act(f"{tag}/first", base, [], [f"{tag}/d"], str(uuid4()))
        WORLD.write("released", tags=[f"{tag}/d"])
        self.history.append(tag)
        if WORLD.happens(f"{tag}.late", 1):
            WORLD.write("raised", tag=tag)
            raise RuntimeError(tag)
        await self.conclude(f"{tag}/last", base, [done.sid], "")
        return [f"{tag}/first", f"{tag}/last"]

    @handler
    async def survive(self, tag: str, n: int) -> list[str]:
        """Catch a step that failed for good, and go on."""
        base = self.enter(tag)
        caught = ""
        try:
            await fail(f"{tag}/broken", base, [])
        except StepError as error:
            caught = error.error_type
            WORLD.write("caught", work=f"{tag}/broken")
        await act(f"{tag}/after", base, [], [], caught)
        self.history.append(tag)
        return [f"{tag}/after"]

    @handler
    async def nap(self, tag: str, n: int, seconds: float) -> list[str]:
        """Sleep durably between two steps."""
        base = self.enter(tag)
        done = await act(f"{tag}/before", base, [], [])
        WORLD.write("asleep", tag=tag, seconds=seconds)
        await sleep(seconds)
        WORLD.write("awake", tag=tag)
        await act(f"{tag}/after", base, [done.sid], [], now().isoformat())
        self.history.append(tag)
        return [f"{tag}/before", f"{tag}/after"]

    @handler
    async def refuse(self, tag: str, n: int, to: str) -> None:
        """Refuse: what an earlier segment sent stays sent, what the unfinished one sent never was."""
        base = self.enter(tag)
        receiver = self.system.get(Account, to)
        await receiver.deposit.tell(f"{tag}/d", 0, 0)
        await act(f"{tag}/first", base, [], [f"{tag}/d"])
        await receiver.deposit.tell(f"{tag}/never", 1, 0)
        self.history.append(tag)
        raise Rejected(tag)

    @handler
    async def poison(self, tag: str, n: int, to: str) -> None:
        """Fail always: a dead letter, whose released messages stay released, once."""
        base = self.enter(tag)
        await self.system.get(Account, to).deposit.tell(f"{tag}/d", 0, 0)
        await act(f"{tag}/first", base, [], [f"{tag}/d"])
        self.history.append(tag)
        WORLD.write("raised", tag=tag)
        raise RuntimeError(tag)


class Collector(Witness, kind="collector", retry=QUICK):
    """Receipts kept in state, and claimed by a later turn."""

    receipts: dict[str, Receipt[int]] = {}

    @handler
    async def start(self, tag: str, n: int, to: str) -> str:
        """Tell, keep the receipt, and remind oneself."""
        self.enter(tag)
        receipt = await self.system.get(Account, to).deposit.tell(f"{tag}/d", 0, 0)
        self.receipts[tag] = receipt
        await self.ref.collect.options(delay=0.03).tell(f"{tag}/c", 1, tag)
        self.history.append(tag)
        return receipt.id

    @handler
    async def collect(self, tag: str, n: int, which: str) -> int:
        """Wait for what an earlier turn started."""
        self.enter(tag)
        receipt = self.receipts.pop(which)
        value = await receipt.result()
        WORLD.write("heard", id=receipt.id, value=value)
        self.history.append(tag)
        return value


class Infant(Witness, kind="infant", retry=QUICK, passivate_after=0.01):
    """An actor that exists only once somebody spawned it."""

    purse: int

    @handler
    async def cry(self, tag: str, n: int) -> int:
        """Answer with the money it was born with."""
        self.enter(tag)
        self.history.append(tag)
        return self.purse


class Parent(Witness, kind="parent", retry=QUICK):
    """Actors begun inside a turn."""

    purse: int = OPENING

    @handler
    async def bear(self, tag: str, n: int, amount: int) -> int:
        """Spawn, tell and ask a child, which takes some of the parent's money."""
        base = self.enter(tag)
        child = await self.spawn(Infant, f"{self.key}.{tag}", purse=amount)
        self.purse -= amount
        await child.cry.tell(f"{tag}/told", 0)
        asked = f"{tag}/asked"
        heard = await child.cry.options(id=asked)(asked, 1)
        WORLD.write("heard", id=asked, value=heard)
        await act(f"{tag}/christened", base, [], [f"{tag}/told"])
        self.history.append(tag)
        return heard
