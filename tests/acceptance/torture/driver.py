"""The sender outside: an endless row of messages, the same for a seed, sent again after every death of the process.

What was acknowledged and what was answered goes to the diary *after* perdure said so.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from perdure import DeadLetterError, Rejected
from tests.acceptance.torture.actors import Account, Collector, Parent, Witness, Worker
from tests.acceptance.torture.gamblers import Gambler, Lover

if TYPE_CHECKING:
    from perdure import ActorSystem
    from tests.acceptance.torture.facts import Fact, FactFile

_GENERATION = 400  # messages until fresh actors take over, so that no state grows with the length of a run
_ACCOUNTS = 6
_IN_FLIGHT = 24


@frozen
class Order:
    """A message to be sent: its tag is its id, unless it is anonymous and so never sent again."""

    n: int
    actor: type[Witness]
    key: str
    handler: str
    args: tuple[Any, ...]
    ask: bool
    anonymous: bool
    delay: float | None
    cancel_after: int | None

    @property
    def tag(self) -> str:
        """The message's name."""
        return f"m{self.n}"


def order(seed: int, n: int) -> Order:
    """The nth message of a seed."""
    random = Random(f"{seed}/{n}")
    generation = n // _GENERATION
    accounts = [f"a{place}.{generation}" for place in range(_ACCOUNTS)]
    low, high = sorted(random.sample(range(_ACCOUNTS), 2))
    amount = random.randint(1, 9)
    worker = (Worker, f"w{random.randrange(4)}.{generation}")
    pause = round(random.uniform(0.0, 0.06), 3)
    choices: list[tuple[int, type[Witness], str, str, tuple[Any, ...]]] = [
        (6, Account, accounts[low], "pay_telling", (random.sample(accounts, 3), amount)),
        (6, Account, accounts[low], "pay_asking", (accounts[high], amount, random.random() < 0.3)),
        (3, Account, accounts[low], "relay", (accounts[low + 1 : high + 1], amount)),
        (4, *worker, "run", (random.randint(1, 6), accounts[low])),
        (3, *worker, "race", (accounts[high],)),
        (2, *worker, "stumble", (accounts[high],)),
        (2, *worker, "survive", ()),
        (2, *worker, "nap", (round(random.uniform(0.01, 0.2), 3),)),
        (1, *worker, "refuse", (accounts[low],)),
        (1, *worker, "poison", (accounts[low],)),
        (2, Collector, f"c{random.randrange(2)}.{generation}", "start", (accounts[high],)),
        (2, Gambler, f"g{random.randrange(2)}.{generation}", "first_of", ()),
        (2, Gambler, f"g{random.randrange(2)}.{generation}", "some_fail", ()),
        (2, Gambler, f"g{random.randrange(2)}.{generation}", "hurry", (f"s{random.randrange(3)}.{generation}", pause)),
        (2, Gambler, f"g{random.randrange(2)}.{generation}", "bound", (f"s{random.randrange(3)}.{generation}", pause)),
        (1, Lover, f"l{low % 2}.{generation}", "hug", (f"l{1 - low % 2}.{generation}",)),
        (2, Parent, f"p{random.randrange(2)}.{generation}", "bear", (amount,)),
    ]
    (chosen,) = random.choices(choices, weights=[choice[0] for choice in choices])
    _, actor, key, handler, args = chosen
    ask = random.random() < 0.5
    return Order(
        n, actor, key, handler, args, ask,
        anonymous=not ask and random.random() < 0.2,
        delay=round(random.uniform(0.0, 0.2), 3) if not ask and random.random() < 0.1 else None,
        cancel_after=random.randrange(30) if random.random() < 0.05 else None,
    )  # fmt: skip


@define
class Seen:
    """What a new process finds in the diary of those before it."""

    issued: set[int] = field(factory=set[int])
    settled: set[int] = field(factory=set[int])

    @classmethod
    def in_diary(cls, diary: list[Fact]) -> Seen:
        """Read what was sent, and what was acknowledged or answered."""
        seen = cls()
        for fact in diary:
            if fact.event == "issued":
                seen.issued.add(fact["n"])
            elif fact.event in {"acked", "reply", "refused"}:
                seen.settled.add(fact["n"])
        return seen


class Driver:
    """Sends a seed's messages."""

    def __init__(self, system: ActorSystem, seed: int, run: int, diary: FactFile) -> None:
        self._system = system
        self._seed = seed
        self._random = Random(f"driver {seed} {run}")
        self._diary = diary
        self._free = asyncio.Semaphore(_IN_FLIGHT)

    async def drive(self, seen: Seen, *, finish: bool) -> None:
        """Send what is not acknowledged again, some of what is, and then new messages for ever, unless to finish."""
        async with asyncio.TaskGroup() as tasks:
            for n in sorted(seen.issued - seen.settled):
                await self._issue(tasks, order(self._seed, n), again=True)
            for n in self._random.sample(sorted(seen.settled), min(3, len(seen.settled))):
                await self._issue(tasks, order(self._seed, n), again=True)
            n = max(seen.issued, default=-1)
            while not finish:
                n += 1
                await self._issue(tasks, order(self._seed, n), again=False)
                await asyncio.sleep(self._random.choice((0, 0, 0, 0.002, 0.01)))

    async def collect(self, seen: Seen) -> None:
        """Wait for the outcome of every message that can be named."""
        for n in sorted(seen.issued):
            sent = order(self._seed, n)
            if not sent.anonymous:
                receipt = self._system.receipt(sent.tag, getattr(sent.actor, sent.handler))
                await self._settle(sent, receipt.result())

    async def _issue(self, tasks: asyncio.TaskGroup, sent: Order, *, again: bool) -> None:
        if again and sent.anonymous:
            return
        await self._free.acquire()
        task = tasks.create_task(self._send(sent))
        task.add_done_callback(lambda _: self._free.release())
        if sent.cancel_after is not None and not again:
            tasks.create_task(self._cancel(task, sent))

    async def _cancel(self, task: asyncio.Task[None], sent: Order) -> None:
        for _ in range(sent.cancel_after or 0):
            await asyncio.sleep(0)
        if not task.done():
            self._diary.write("cancelled", n=sent.n, id=sent.tag)
            task.cancel()

    async def _send(self, sent: Order) -> None:
        reference = self._system.get(sent.actor, sent.key)
        bound: Any = getattr(reference, sent.handler)
        if not sent.anonymous:
            bound = bound.options(id=sent.tag)
        if sent.delay is not None:
            bound = bound.options(delay=sent.delay)
        self._diary.write("issued", n=sent.n, id=sent.tag, run_by=sent.key)
        if sent.ask:
            await self._settle(sent, bound(sent.tag, sent.n, *sent.args))
            return
        receipt = await bound.tell(sent.tag, sent.n, *sent.args)
        self._diary.write("acked", n=sent.n, id=receipt.id, tag=sent.tag)
        await self._settle(sent, receipt.result(), id=receipt.id)

    async def _settle(self, sent: Order, answer: Any, id: str = "") -> None:  # noqa: ANN401  # passed on as it is
        try:
            value = await answer
        except (Rejected, DeadLetterError) as error:
            self._diary.write("refused", n=sent.n, id=id or sent.tag, error=type(error).__name__, text=str(error))
        else:
            self._diary.write("reply", n=sent.n, id=id or sent.tag, value=value)
