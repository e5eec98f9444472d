"""What people do by hand: try dead letters again or remove them, and have an actor go on that failed.

It works beside a live system of another process, or on what a dead one left: as a node that runs no actor, like a
client, which enters the database, writes, and leaves. Whoever runs the actors notices, now or when it starts.

    operator = Operator("agents.db")
    await operator.retry(*operator.letters("ValueError"))
    await operator.restart("Researcher/r1")
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

from attrs import frozen

from perdure.client import node_record
from perdure.console import rows
from perdure.console.database import known_text
from perdure.console.names import parse_address, unknown_actor, unknown_message
from perdure.console.reading import Reading
from perdure.console.targets import database_of
from perdure.console.why import held
from perdure.errors import ActorError, ActorStopped, NoSuchMessage, NotADeadLetter, PerdureError
from perdure.storage.history_writes import Forget, Resend
from perdure.storage.records import Address
from perdure.storage.targets import store_of
from perdure.storage.writes import Appended, Committed, Order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from perdure.console.database import Moment
    from perdure.console.views import MessageRef
    from perdure.storage.records import Member
    from perdure.storage.store import Store

T = TypeVar("T")

_A_TRANSACTION = 500
_REASON = "restarted by hand"


class ActorRuns(ActorError):
    """The actor runs, so there is nothing to restart."""


class StoppedForGood(ActorStopped):
    """The actor ended, and nobody supervises it, so it is not started again."""


class SupervisorDown(ActorError):
    """The actor's supervisor does not run, so nobody would supervise it. `supervisor` is the one to restart."""

    supervisor: Address

    def __init__(self, text: str, supervisor: Address) -> None:
        super().__init__(text)
        self.supervisor = supervisor


@frozen
class Refusal:
    """A message that was left as it is. `error` is the name of the error's class."""

    message: str
    error: str
    text: str


@frozen
class HeldUp:
    """An actor that does not run, and so handles no letter yet."""

    actor: Address
    why: str


@frozen
class Retried:
    """What `perdure dead retry` did: the messages are in their mailboxes again."""

    database: str
    read: float
    messages: tuple[MessageRef, ...]
    held: tuple[HeldUp, ...]
    refused: tuple[Refusal, ...]


@frozen
class Removed:
    """What `perdure dead purge` did."""

    database: str
    read: float
    removed: int
    refused: tuple[Refusal, ...]


@frozen
class Restarting:
    """What `perdure restart` did.

    Attributes:
        actor: The one that was named.
        others: Those it supervises, which begin again with it, in start order.
        processes: How many processes that run actors are there now.
    """

    database: str
    read: float
    actor: Address
    others: tuple[Address, ...]
    processes: int


class Operator:
    """Writes into a database that is there. All methods raise `TargetError` where it is not one of perdure's."""

    def __init__(self, target: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> None:
        self._database = database_of(target)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Operator {self._database.name}>"

    @asynccontextmanager
    async def _store(self) -> AsyncGenerator[Store]:
        # A store would make the database that it does not find, and migrate an older one beneath whoever runs on it.
        self._database.read(lambda _: None)
        store = store_of(self._database.target, client=True)
        node = node_record(f"by-hand-{secrets.token_hex(6)}", self._clock(), runs=False)
        await store.open(node, lambda _: False)
        try:
            yield store
        finally:
            await store.close()

    # dead letters -----------------------------------------------------------------------------------------------------

    def letters(self, error: str | None = None) -> list[str]:
        """Ids of the dead letters, in the order they were sent; of one class of errors, as `Inspector.dead` has it."""
        return self._database.read(lambda moment: rows.dead_ids(moment, error))

    async def retry(self, *messages: str) -> Retried:
        """Put dead letters back into their mailboxes, at the end, in this order; each goes on from its journal."""
        seqs: list[int] = []
        refused: list[Refusal] = []
        async with self._store() as store:
            for some in _portions(_named(messages)):
                for id_, settled in zip(some, await store.write([Resend(id_) for id_ in some]), strict=True):
                    if isinstance(settled, Appended):
                        seqs.append(settled.mail.seq)
                    elif isinstance(settled, PerdureError):
                        refused.append(self._refusal(id_, settled))
        refs, waiting = self._look(seqs)
        return Retried(self._database.name, self._clock(), refs, waiting, tuple(refused))

    def _look(self, seqs: Sequence[int]) -> tuple[tuple[MessageRef, ...], tuple[HeldUp, ...]]:
        """Where messages are now, and whose actors do not run."""
        refs: list[MessageRef] = []
        waiting: dict[Address, HeldUp] = {}

        def look(moment: Moment, some: Sequence[int]) -> None:
            reading = Reading(moment, self._database.name, moment.now())
            found = rows.places(moment, some, reading.now)
            reading.know(row.owner for row in found.values())
            for row in (found[seq] for seq in some if seq in found):
                ref = reading.ref(row)
                refs.append(ref)
                why = held(ref.actor, row.life, row.reason)
                if why is not None:
                    waiting[ref.actor] = HeldUp(ref.actor, why[1])

        for some in _portions(seqs):
            self._database.read(partial(look, some=some))
        return tuple(refs), tuple(waiting.values())

    async def purge(self, *messages: str) -> Removed:
        """Remove dead letters for good, with their journals and failures. Their ids are free again."""
        ids = _named(messages)
        states = self._database.read(lambda moment: rows.states(moment, ids))
        refused: list[Refusal] = []
        for id_ in ids:
            if id_ not in states:
                refused.append(self._refusal(id_, NoSuchMessage(id_)))
            elif states[id_] != "dead":
                refused.append(self._refusal(id_, _not_dead(id_, states[id_])))
        removed = 0
        async with self._store() as store:
            for some in _portions(ids):
                (settled,) = await store.write([Forget(tuple(some))])
                removed += settled if isinstance(settled, int) else _refuse(settled)
        return Removed(self._database.name, self._clock(), removed, tuple(refused))

    def _refusal(self, id_: str, error: PerdureError) -> Refusal:
        if isinstance(error, NoSuchMessage):
            error = self._database.read(lambda moment: unknown_message(moment, id_))
        return Refusal(id_, type(error).__name__, str(error))

    # supervision ------------------------------------------------------------------------------------------------------

    async def restart(self, actor: Address | str) -> Restarting:
        """Have an actor go on that failed or was stopped by its supervisor, with all it supervises; counts begin anew.

        Raises:
            UnknownActor: There is no such actor; the error names those most like it.
            ActorRuns: It runs already.
            StoppedForGood: It has ended, and is no supervisor's child.
            SupervisorDown: Its supervisor does not run either.
        """
        address = parse_address(actor) if isinstance(actor, str) else actor
        async with self._store() as store:
            member = await store.member(address)
            if member is None:
                raise self._database.read(lambda moment: unknown_actor(moment, address))
            _check_restartable(member, [level.child for level in await store.lineage(member.actor)][1:])
            now = self._clock()
            me = member.actor
            at = store.timestamp()  # as they have it who are to obey
            order = Order(at, restart=[me], cleared=[-me, me], restart_at=at, reason=_REASON)
            (settled,) = await store.write([order])
            if not isinstance(settled, Committed):
                _refuse(settled)
            runners = (await store.whereabouts(address)).runners
        others = tuple(one.to for one in settled.members if one.actor != me and one.life == "restarting")
        return Restarting(self._database.name, now, address, others, self._there(runners))

    def _there(self, nodes: Sequence[str]) -> int:
        """How many of some processes are there."""

        def look(moment: Moment) -> int:
            reading = Reading(moment, self._database.name, moment.now())
            reading.know(nodes)
            found = [reading.node(node) for node in nodes]
            return sum(node is not None and node.live is not False for node in found)

        return self._database.read(look)


def _named(messages: Sequence[str]) -> list[str]:
    """Each message once."""
    return list(dict.fromkeys(map(known_text, messages)))


def _portions(all_: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that nobody waits long for."""
    return (all_[start : start + _A_TRANSACTION] for start in range(0, len(all_), _A_TRANSACTION))


def _not_dead(id_: str, status: str | None) -> NotADeadLetter:
    what = "has not ended yet" if status is None else f"ended as {status}"
    return NotADeadLetter(f"message '{id_}': {what}, and is no dead letter; only those are removed by hand.")


def _check_restartable(member: Member, above: Sequence[Member]) -> None:
    """Raise if an actor cannot be restarted; `above` are its supervisors, nearest first."""
    to, reason = member.to, member.reason or "no reason was recorded"
    if member.status == "stopped" and member.supervisor is None:
        raise StoppedForGood(
            f"actor '{to}': has stopped for good ({reason}), and is no supervisor's child. Use another key."
        )
    for one in reversed(above):
        if one.status == "stopped" or one.life in {"failed", "terminated"}:
            raise SupervisorDown(
                f"actor '{to}': its supervisor {one.to} does not run ({one.reason or 'no reason was recorded'}), and "
                f"restarts it when it is restarted itself: perdure restart {one.to}",
                one.to,
            )
    if member.status != "stopped" and member.life == "running":
        raise ActorRuns(f"actor '{to}': runs, so there is nothing to restart. What it does: perdure show {to}")


def _refuse(settled: object) -> NoReturn:
    raise settled if isinstance(settled, PerdureError) else TypeError(f"unexpected answer {settled!r}")
