"""Calls that every type checker refuses: each line marked `# E…`, and no other. Checked, never run.

What one of them lets through is listed in `test_checkers.py`.
"""

from __future__ import annotations

from datetime import timedelta

from perdure import Actor, ActorSystem, Limits, Receipt, Retry, fan_out, field, handler, query, sleep, step
from tests.typing.right_calls import Client, Counter, Needs, asynchronous, blocking, blocking_with_options


async def messages(counter: Counter) -> str:
    await counter.add("x")  # E1: wrong type of argument
    await counter.add()  # E2: missing argument
    await counter.add(1, 2)  # E3: too many arguments
    await counter.mul(1, True)  # E4: a keyword by position
    await counter.mul(1, thrice=True)  # E5: unknown keyword
    await counter.nope()  # E6: unknown message
    await counter.add.tell("x")  # E7: wrong type of argument
    await counter.add.tell()  # E8: missing argument
    await counter.add.options(id=3)(1)  # E9: wrong type of option
    await counter.add.options(delayy=3)(1)  # E10: unknown option
    await counter.add.options(at=timedelta(1)).tell(1)  # E11: a duration for a time
    await counter.add.options(id="x").tell("x")  # E12: wrong type of argument behind options
    await counter  # E13: a reference is no message
    counter.add(3)  # E14: forgotten await
    counter.add.tell(3)  # E15: forgotten await
    counter.add.options(id="x").tell(3)  # E16: forgotten await
    text: str = await counter.add(3)  # E17: wrong type of reply
    return text


async def queries(counter: Counter) -> str:
    await counter.value(3)  # E18: wrong type of argument
    await counter.value.tell()  # E19: a question cannot be told
    await counter.value.options(id="x")()  # E20: a question has no options
    counter.value()  # E21: forgotten await
    text: str = await counter.value()  # E22: wrong type of answer
    return text


async def receipts(system: ActorSystem, counter: Counter) -> tuple[Receipt[str], Receipt[str]]:
    receipt: Receipt[str] = await counter.add.tell(3)  # E23: another reply
    stored: Receipt[str] = system.receipt("x", Counter.add)  # E24: another reply
    system.receipt("x", Counter.value)  # E25: a question has no receipt
    system.receipt(3)  # E26: an id is text
    receipt.result()  # E27: forgotten await
    await receipt.result("soon")  # E28: wrong type of timeout
    return receipt, stored


async def systems(system: ActorSystem) -> None:
    system.get(int, "x")  # E29: no actor
    system.get(Counter, 3)  # E30: a key is text
    system.get(Counter)  # E31: missing key
    system.get("Counter", "x")  # E32: a class is wanted
    ActorSystem(3)  # E33: no target
    ActorSystem("x.db", limits=3)  # E34: wrong type of limits
    Limits(attemps=3)  # E35: unknown limit


async def spawns(system: ActorSystem) -> Needs:
    await system.spawn(Counter, "k", totl=3)  # E36: unknown state
    await system.spawn(Counter, "k", total="3")  # E37: wrong type of state
    await system.spawn(Counter, "k", client=Client())  # E38: an ephemeral field is not state
    await system.spawn(Counter, "k", cache={})  # E39: an ephemeral field is not state
    await system.spawn(Counter, totl=3)  # E40: unknown state, key left out
    await system.spawn(Counter, "k", 3)  # E41: state by position
    await system.spawn(Counter, 3)  # E42: a key is text
    await system.spawn(Counter, "k", labels=3)  # E43: wrong type of a field with a factory
    await system.spawn(Needs, "k")  # E44: missing state
    await system.spawn(Needs, "k", goal=3)  # E45: wrong type of state
    await system.spawn(int, "k")  # E46: no actor
    system.spawn(Counter, "k")  # E47: forgotten await
    other: Needs = await system.spawn(Counter, "k")  # E48: another actor
    return other


def unit_tests() -> None:
    Counter(totl=3)  # E49: unknown state
    Counter(total="3")  # E50: wrong type of state
    Counter(client=Client())  # E51: an ephemeral field is not state
    Needs()  # E52: missing state


async def steps(counter: Counter) -> None:
    await asynchronous("x")  # E53: wrong type of argument
    await blocking("x")  # E54: wrong type of argument
    await blocking_with_options(1, 2)  # E55: wrong type of argument
    await counter.fetch(3)  # E56: wrong type of argument
    await counter.parse(3)  # E57: wrong type of argument
    await step(asynchronous, key="k")("x")  # E58: wrong type of argument
    await step(asynchronous, key=3)(1)  # E59: wrong type of key
    asynchronous(3)  # E60: forgotten await
    blocking(3)  # E61: forgotten await
    counter.fetch("x")  # E62: forgotten await
    counter.parse("x")  # E63: forgotten await
    await fan_out(asynchronous, ["a"])  # E64: wrong type of items
    await fan_out(counter.add, ["a"])  # E65: wrong type of items
    await fan_out(len, ["a"])  # E66: no awaitable
    await fan_out(asynchronous, [1], key=3)  # E67: wrong type of key
    await sleep("a day")  # E68: wrong type of duration
    fan_out(asynchronous, [1])  # E69: forgotten await
    sleep(1)  # E70: forgotten await


class Misspelt(Actor, knd="x"):  # E71: unknown class keyword
    pass


class Mistyped(Actor, version="2"):  # E72: wrong type of class keyword
    pass


class Blocking(Actor):
    @handler  # E73: a handler must be async
    def add(self, n: int) -> int:
        return n


class BlockingQuery(Actor):
    @query  # E74: a query must be async
    def total(self) -> int:
        return 3


class BlockingWithOptions(Actor):
    @handler(timeout=3)  # E75: a handler must be async
    def add(self, n: int) -> int:
        return n


class Options(Actor):
    @handler(retry=3)  # E76: wrong type of option
    async def add(self, n: int) -> int:
        return n

    @step(timeout="soon")  # E77: wrong type of option
    async def fetch(self, n: int) -> int:
        return n

    @handler(atempts=3)  # E78: unknown option
    async def mul(self, n: int) -> int:
        return n


class ReservedMethod(Actor):
    @handler  # E79: perdure's own name; mypy reports a decorated method here
    async def stop(self) -> None: ...  # E79


class ReservedProperty(Actor):
    key: int = 3  # E80: perdure's own name


class ReservedSpawn(Actor):
    async def spawn(self) -> None: ...  # E81: perdure's own name


class WrongDefault(Actor):
    total: int = "3"  # E82: wrong type of default
    notes: list[str] = field(factory=3)  # E83: a factory is called


class AnotherReply(Counter):
    @handler
    async def add(self, n: int) -> str:  # E84: not what callers of a Counter expect
        return str(n)


@handler  # E85: a handler belongs to an actor
async def function(x: int) -> int:
    return x


def state(counter: Counter) -> int:
    counter.total = 3  # E86: state of another actor
    return counter.total  # E87: state of another actor


Retry(attempts="3")  # E88: wrong type of attempts
