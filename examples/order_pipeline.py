"""An order pipeline that keeps itself running: a nested supervision tree, a flaky gateway, a poisonous order.

    python examples/order_pipeline.py --db orders.db          # kill it as you like and start it again

    Shop (rest_for_one) ─┬─ stock      if it fails, everybody who relies on its reservations starts afresh
                         ├─ till       the flaky part: its line to the bank drops now and then
                         └─ Packing (one_for_all) ─┬─ printer    a jam tears the label: both begin anew
                                                   └─ packer

No actor has a line about crashes. What fails is restarted from its snapshot, with its mail; an order that can never be
handled ends as a dead letter, and the shop goes on. `perdure tree --db orders.db` shows what became of everybody.
"""

import argparse
import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Literal

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    DeadLetterError,
    Failure,
    OneForAll,
    RestForOne,
    Retry,
    Supervisor,
    ephemeral,
    handler,
    step,
    step_id,
)

weather = Random(7)


class Line:
    """A connection to the bank, which drops; a payment that was made is not made again under the same id."""

    paid: dict[str, int] = {}

    async def pay(self, id_: str, amount: int) -> str:
        await asyncio.sleep(0.005)
        if weather.random() < 0.3:
            raise ConnectionError("the line to the bank dropped")
        self.paid.setdefault(id_, amount)
        return f"receipt for {amount}"


class Stock(Actor, kind="stock"):
    left: int = 1_000

    @handler
    async def reserve(self, pieces: int) -> int:
        self.left -= pieces
        return self.left


class Till(Actor, kind="till", retry=Retry(attempts=20, backoff=Backoff(0.01, 0.1))):
    takings: int = 0
    line: Line = ephemeral()

    async def started(self) -> None:
        self.line = Line()

    @step(retry=Retry(attempts=2, backoff=Backoff(0.01)))
    async def charge(self, amount: int) -> str:
        return await self.line.pay(step_id(), amount)

    @handler
    async def take(self, amount: int) -> str:
        receipt = await self.charge(amount)
        self.takings += amount
        return receipt


class Printer(Actor, kind="printer", retry=Retry(attempts=3, backoff=Backoff(0.01))):
    printed: int = 0

    @handler
    async def label(self, address: str) -> str:
        street, city = address.split(", ")  # "nowhere" has no city: no attempt can print it
        self.printed += 1
        return f"{street.upper()} / {city.upper()}"


class Packer(Actor, kind="packer"):
    shipped: list[str] = []

    @handler
    async def pack(self, order: str, label: str) -> int:
        self.shipped = [*self.shipped, f"{order} -> {label}"]
        return len(self.shipped)


class Packing(Supervisor, kind="packing", strategy=OneForAll(max_restarts=5, backoff=Backoff(0.01))):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Printer, "printer")
        yield Child(Packer, "packer")


class Shop(
    Supervisor,
    kind="shop",
    strategy=RestForOne(max_restarts=100, within=timedelta(seconds=10), backoff=Backoff(0.01, 0.1)),
):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Stock, "stock")
        yield Child(Till, "till").options(shutdown=2)
        yield Child(Packing, "packing")

    @classmethod
    def decide(cls, failure: Failure) -> Literal["restart", "resume", "stop", "escalate"]:
        # a dropped line concerns the till alone: it tries again, and nobody restarts
        return "resume" if failure.caused_by(ConnectionError) else "restart"


class Order(Actor, kind="order", retry=Retry(attempts=1)):
    """One order: asks everybody in turn. Killed in the middle, it goes on where it was."""

    state: str = "new"

    @handler
    async def run(self, pieces: int, address: str) -> str:
        await self.system.get(Stock, "stock").reserve(pieces)
        receipt = await self.system.get(Till, "till").take(pieces * 3)
        label = await self.system.get(Printer, "printer").label(address)
        await self.system.get(Packer, "packer").pack(self.key, label)
        self.state = f"shipped, {receipt}"
        return self.state


async def main(database: str, orders: int) -> None:
    async with ActorSystem(database, root=Shop) as system:
        receipts = [
            await system.get(Order, f"o{n}").run.options(id=f"order {n}").tell(n % 5 + 1, f"{n} High St, Town")
            for n in range(orders)
        ]
        poison = await system.get(Order, "poison").run.options(id="order to nowhere").tell(1, "nowhere")
        for receipt in receipts:
            print(f"{receipt.id}: {await receipt.result()}")
        try:
            await poison.result()
        except DeadLetterError as error:
            print(f"order to nowhere: {error}")
        children = await system.get(Shop, "root").which_children()
        print("the shop is open:", ", ".join(f"{child.actor.key} {child.state}" for child in children))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # each failure is said in the log; here the outcome is of interest
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="orders.db")
    parser.add_argument("--orders", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.db, arguments.orders))
