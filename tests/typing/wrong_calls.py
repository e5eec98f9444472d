"""Calls that every type checker refuses: each line marked `# E…`, and no other. Checked, never run.

What one of them lets through is listed in `test_checkers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

from perdure import (
    Actor,
    ActorSystem,
    Backoff,
    Child,
    ChildError,
    Directive,
    Encrypted,
    Failure,
    Limits,
    OneForAll,
    OneForOne,
    Receipt,
    RestForOne,
    Retry,
    Signed,
    Supervisor,
    fan_out,
    field,
    handler,
    query,
    sleep,
    step,
    watch,
)
from tests.typing.right_calls import (
    Client,
    Counter,
    Crew,
    Foreman,
    Needs,
    asynchronous,
    blocking,
    blocking_with_options,
)


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


def declarations() -> Child[Needs]:
    Child(Counter, "a", totl=3)  # E89: unknown state
    Child(Counter, totl=3)  # E90: unknown state, key left out
    Child(Counter, "a", total="3")  # E91: wrong type of state
    Child(Counter, "a", client=Client())  # E92: an ephemeral field is not state
    Child(Counter, "a", 3)  # E93: state by position
    Child(Counter, 3)  # E94: a key is text
    Child(Needs, "x")  # E95: missing state
    Child(Needs)  # E96: missing state, key left out
    Child(int, "x")  # E97: no actor
    Child(Counter(), "x")  # E98: a class is wanted
    Child(Counter, "x").options(restart="never")  # E99: unknown restart
    Child(Counter, "x").options(shutdown="kill")  # E100: unknown word for a shutdown
    Child(Counter, "x").options(significant="yes")  # E101: wrong type of option
    Child(Counter, "x").options(timeout=3)  # E102: unknown option
    Child(Counter, "x").options("transient")  # E103: an option by position
    other: Child[Needs] = Child(Counter, "x")  # E104: another actor
    return other


async def spawned_children(system: ActorSystem, foreman: Foreman) -> Needs:
    await system.spawn(Child(Counter, "z", totl=3))  # E105: unknown state
    await system.spawn(Child(Needs, "z"))  # E106: missing state
    await system.spawn(Child(Counter, "z"), total=3)  # E107: state beside a child
    await system.spawn(Child(Counter), "z")  # E108: a key beside a child
    await foreman.spawn(Child(Counter, "z").options(restart="never"))  # E109: unknown restart
    system.spawn(Child(Counter, "z"))  # E110: forgotten await
    other: Needs = await system.spawn(Child(Counter, "z"))  # E111: another actor
    return other


async def supervisors(crew: Crew, counter: Counter) -> Needs:
    await crew.start_child(Counter)  # E112: a class, where a child is wanted
    await crew.start_child(counter)  # E113: a reference, where a child is wanted
    await crew.start_child(Child(Counter, "z", totl=3))  # E114: unknown state
    await crew.start_child()  # E115: missing child
    await crew.terminate_child("z")  # E116: a key, where a reference is wanted
    await crew.terminate_child(Child(Counter, "z"))  # E117: a child, where a reference is wanted
    await crew.restart_child(Counter)  # E118: a class, where a reference is wanted
    await crew.delete_child()  # E119: missing child
    await crew.which_children(counter)  # E120: too many arguments
    await counter.which_children()  # E121: a counter supervises nobody
    crew.start_child(Child(Counter, "z"))  # E122: forgotten await
    crew.terminate_child(counter)  # E123: forgotten await
    crew.which_children()  # E124: forgotten await
    str((await crew.count_children()).waiting)  # E125: unknown count
    for status in await crew.which_children():
        str(status.status)  # E126: unknown field
        await status.actor.add(3)  # E127: some actor, whose messages nobody knows
        if status.state == "dead":  # E128: unknown state
            break
    other: Needs = await crew.start_child(Child(Counter, "z"))  # E129: another actor
    return other


async def watchers(counter: Counter, foreman: Foreman) -> None:
    await watch(counter, foreman.hire)  # E130: its handler takes something else
    await watch(counter, foreman.count_from)  # E131: its handler takes two things
    await watch(counter, foreman.ref.key)  # E132: no handler
    await watch(counter, counter.value)  # E133: a question, where a handler is wanted
    await watch(counter, Foreman.note)  # E134: the handler of nobody
    await watch(Counter, foreman.note)  # E135: a class, where a reference is wanted
    await watch(foreman.note, counter)  # E136: the other way round
    await watch(counter)  # E137: missing handler
    watch(counter, foreman.note)  # E138: forgotten await


def failures(failure: Failure, error: ChildError) -> int:
    failure.caused_by("ValueError")  # E139: a name, where a class is wanted
    str(failure.key)  # E140: unknown field
    attempt: int = failure.error  # E141: wrong type
    if error.reason == "gone":  # E142: unknown reason
        return 0
    return attempt


def strategies(system: ActorSystem) -> None:
    OneForOne(max_restarts="3")  # E143: wrong type of a count
    OneForAll(3)  # E144: a count by position
    RestForOne(within="a minute")  # E145: wrong type of a period
    OneForOne(backoff=3)  # E146: wrong type of backoff
    OneForOne(max_restart=3)  # E147: unknown keyword
    Backoff("soon")  # E148: wrong type of a wait
    Backoff(factr=2)  # E149: unknown keyword
    ActorSystem("x.db", root=Counter)  # E150: the root is a supervisor
    ActorSystem("x.db", root=Crew())  # E151: a class is wanted
    ActorSystem("x.db", on_escalation="restart")  # E152: unknown word for an escalation


class WrongStrategy(Supervisor, strategy="one_for_one"):  # E153: wrong type of class keyword
    pass


class StrategyClass(Supervisor, strategy=OneForAll):  # E154: a class, where a strategy is wanted
    pass


class WrongShutdown(Supervisor, auto_shutdown="always"):  # E155: unknown word for a shutdown
    pass


class OfAnActor(Supervisor, supervision=OneForAll()):  # E156: a supervisor has strategy=
    pass


class OfASupervisor(Actor, strategy=OneForAll()):  # E157: an actor has supervision=
    pass


class WrongSupervision(Actor, supervision="one_for_one"):  # E158: wrong type of class keyword
    pass


class ClassesForChildren(Supervisor):
    def children(self) -> Iterable[type[Actor]]:  # E159: classes, where children are wanted
        return [Counter]


class ReferencesForChildren(Supervisor):
    def children(self) -> Iterable[Child[Actor]]:
        return [self]  # E160: an actor, where a child is wanted


class UnknownDecision(Supervisor):
    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        return "retry"  # E161: unknown decision


class AnyDecision(Supervisor):
    @classmethod
    def decide(cls, failure: Failure) -> str:  # E162: not any text
        return "restart"


class TooManyDecisions(Supervisor):
    @classmethod
    def decide(cls, failure: Failure) -> Literal["restart", "retry"]:  # E163: unknown decision
        return "restart"


class ReservedSupervising(Supervisor):
    async def start_child(self) -> None: ...  # E164: a supervisor's own message


def seals() -> None:
    Signed("secret")  # E165: a text, where keys are wanted
    Signed(["secret"])  # E166: texts, where bytes are wanted
    Signed()  # E167: no keys
    Encrypted([b""], everything=True)  # E168: it always encrypts everything
    ActorSystem("a.db", seal=[b""])  # E169: keys, where a seal is wanted
    ActorSystem("a.db", seal=Signed)  # E170: a class, where a seal is wanted


def clients() -> None:
    ActorSystem.client("a.db", root=Supervisor)  # E171: a client has no tree
    ActorSystem.client("a.db", on_escalation="stop")  # E172: nothing escalates in a client
    ActorSystem.client("a.db", limits=5)  # E173: a number, where limits are wanted


class WrongNeeds(Actor, needs={1}):  # E174: a number, where tags are wanted
    pass


def tags() -> None:
    ActorSystem("a.db", tags=3)  # E175: a number, where tags are wanted
    ActorSystem("a.db", tags=[b"gpu"])  # E176: bytes, where texts are wanted
