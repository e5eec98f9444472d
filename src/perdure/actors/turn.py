"""A turn: one message handled, as a row of segments, each ended by a durable point.

    handler runs ──► step | ask | receipt | sleep ──► segment commits ──► it begins ──► … ──► end commits

What the handler sends, spawns and draws (`now`, `uuid4`, `random`) between two durable points is gathered in the open
segment and leaves with the next one. Completions are written as they come, and the handler goes on with them at once:
whatever depends on a completion is committed after it, for writes are committed in order.

On recovery the handler runs again from its first line and finds, by key, what the journal holds (see `scope.py` for
keys, `handout.py` for the order of results).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import replace

from perdure.actors.deadlock import deadlocked
from perdure.actors.flight import retrieve
from perdure.actors.receipt import Receipt
from perdure.actors.ref import Reference, address_of, class_of
from perdure.actors.sealing import SEAL_ERRORS, cannot_open, close_result, open_error, open_reply, open_result
from perdure.actors.segments import Segments
from perdure.actors.turn_slot import TurnSlot
from perdure.errors import AskTimeout, DeadlockError, LimitError, NotRunningError, PerdureError
from perdure.storage.failure import encode_failure, outcome_status, told_failure
from perdure.storage.records import Outcome, Record
from perdure.storage.writes import Send, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from perdure.actors.actor import Actor
    from perdure.actors.handler import Query
    from perdure.actors.limit import Limit
    from perdure.actors.port import Outgoing
    from perdure.actors.scope import Scope
    from perdure.actors.slots import Place
    from perdure.storage.records import ChildSpec, OutcomeStatus, RecordKind
    from perdure.storage.writes import Monitor

T = TypeVar("T")

_DEADLOCK_LOOK_SECONDS = 1.0

_looking: set[asyncio.Task[None]] = set()
"""Searches for cycles that run, kept alive here."""


class Turn(Segments):
    """One message being handled: what references, receipts and steps call while its handler runs."""

    idleness_told = False
    """Whether it was said that it waits long for something unknown."""
    started_children = 0
    """How many children without a key its handler has started."""

    def timestamp(self) -> float:
        """The system's time."""
        return self.seat.timestamp()

    @property
    def turn(self) -> Turn:
        """See `Scope.turn`: it is its own outermost one."""
        return self

    async def take_slot(self, limit: Limit) -> None:
        """Wait for a slot under the limit of its kind."""
        self.slot = TurnSlot(self, limit, self.seat.port.slots)
        await self.slot.take()

    async def admitted(self, limit: Limit, name: str) -> Place:
        """Wait for a slot of a step's own."""
        if self.slot is not None and self.slot.limit.name == limit.name:
            raise LimitError(
                f"step '{name}' has the limit '{limit.name}' of {self.seat.address.kind}, whose turn calls it, so the "
                "two would wait for each other. Give the step or the kind a limit of another name."
            )
        place = self.seat.port.slots.enter(limit, self.mail.seq, begins=True)
        try:
            if not place.holds:
                await self._in_line(place)
        except BaseException:
            place.leave()
            raise
        return place

    async def _in_line(self, place: Place) -> None:
        """Wait in line. A suspect turn does not take the blame for a death meanwhile."""
        past = self.past
        self._rest()
        if self.past is not past:
            await self.durable()
        if not place.holds:
            await self.wait(place.future)
        await self._resume()

    async def _wait_durably(self, waiting: Coroutine[Any, Any, T]) -> T:
        if self.slot is None:
            return await super()._wait_durably(waiting)
        self.slot.rest()
        try:
            return await super()._wait_durably(waiting)
        finally:
            await self.slot.resume()

    def _id(self, key: str) -> str:
        """The id of what a turn sends under a key: the same on every replay, another when its own id is used anew."""
        return hashlib.blake2b(f"{self.mail.seq}\0{self.mail.id}\0{key}".encode(), digest_size=16).hexdigest()

    def _message_record(
        self, scope: Scope, kind: RecordKind, message: Outgoing
    ) -> tuple[str, str, bytes, Record | None]:
        name = f"{message.to.kind}.{message.handler.name}"
        digest = _text_digest(f"{message.to}", message.args)
        key, record = self.claim(scope, kind, name, digest)
        return key, name, digest, record

    def _send(self, send: Send) -> None:
        sends = self.opened.sends
        if isinstance(sends, list):
            sends.append(send)  # a turn may send thousands
        else:
            self.opened.sends = [send]

    def tell(self, scope: Scope, message: Outgoing) -> Receipt[Any]:
        """Send with the next durable point."""
        key, name, digest, record = self._message_record(scope, "tell", message)
        id_ = message.options.id or self._id(key)
        if record is None:
            self._send(Send(self.seat.envelope(message, id_, chain=(), cause=self.mail.seq, ask=False)))
            self.begin(Record(key, "tell", name, self.timestamp(), digest, "completed"))
        return Receipt(id_, message.handler.signature.reply, self.seat.port)

    async def ask(self, scope: Scope, message: Outgoing) -> object:
        """Send, and wait for the reply."""
        me = str(self.seat.address)
        if str(message.to) in (*self.mail.chain, me):
            raise DeadlockError([*self.mail.chain, me, str(message.to)])
        key, name, digest, record = self._message_record(scope, "ask", message)
        id_ = message.options.id or self._id(key)
        receipt: Receipt[Any] = Receipt(id_, message.handler.signature.reply, self.seat.port)
        if record is None or record.status == "cancelled":
            await self.may_begin(name, record, key)
            due = None if message.options.timeout is None else self.timestamp() + message.options.timeout
            record = Record(key, "ask", name, self.timestamp(), digest, due=due)
            self.begin(record)
            chain = (*self.mail.chain, me)
            envelope = self.seat.envelope(message, id_, chain=chain, cause=self.mail.seq, ask=True)
            self._send(Send(envelope, key))
            return await self._reply(record, receipt, begin=True)
        return await self._reply(record, receipt, begin=False)

    async def await_receipt(self, scope: Scope, receipt: Receipt[Any], timeout: float | None) -> object:
        """Wait for another message's outcome."""
        key, record = self.claim(scope, "receipt", "receipt", _text_digest(receipt.id))
        if record is None or record.status == "cancelled":
            await self.may_begin("receipt", record, key)
            due = None if timeout is None else self.timestamp() + timeout
            record = Record(key, "receipt", "receipt", self.timestamp(), _text_digest(receipt.id), due=due)
            self.begin(record)
            self.opened.watches = [*self.opened.watches, Watch(key, receipt.id)]
            return await self._reply(record, receipt, begin=True)
        return await self._reply(record, receipt, begin=False)

    async def _reply(self, record: Record, receipt: Receipt[Any], *, begin: bool) -> object:
        """Wait for a record that somebody else completes."""
        key = record.key
        if record.status != "started":
            record = await self.recorded(record)
            status: OutcomeStatus = "succeeded" if record.status == "completed" else outcome_status(record.error)
            return self._open_outcome(Outcome(status, record.result, record.error), receipt, key)
        future = self._replies[key] = self._loop.create_future()
        if key in self._early:
            future.set_result(self._early.pop(key))
        timers: list[asyncio.TimerHandle] = []
        if record.due is None:
            # Until it was looked for, a cycle may rest on this turn alone: it stays in memory.
            self._unlooked += 1
            timers.append(self._loop.call_later(_DEADLOCK_LOOK_SECONDS, self._look_for_cycle, key))
        if record.due is not None:
            delay = max(0.0, record.due - self.timestamp())
            timers.append(self._loop.call_later(delay, self._time_out, key, receipt, delay))
        try:
            with self.fly():
                if begin:
                    self._rest()
                    await self.durable()
                else:
                    self.seat.port.seek(self)
                outcome = await self._wait_durably(self.wait(future))
                await self._resume()
                self.records[key] = replace(
                    self.records[key],
                    status="completed" if outcome.status == "succeeded" else "failed",
                    result=outcome.result,
                    error=None if outcome.status == "succeeded" else told_failure(outcome.status, outcome.error),
                    finished=self.timestamp(),
                )
                await self.hand(key)
        except asyncio.CancelledError:
            self.cancelled(key)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            if record.due is None and key not in self._looked:
                self._unlooked -= 1
        return self._open_outcome(outcome, receipt, key)

    def _open_outcome(self, outcome: Outcome, receipt: Receipt[Any], key: str) -> object:
        seal = self.seat.seal
        try:
            if outcome.status == "succeeded":
                return open_reply(seal, outcome, receipt.id, receipt.codec)
            error = open_error(seal, outcome, receipt.id)
        except SEAL_ERRORS as broken:
            cannot_open(self, broken)
        if isinstance(error, AskTimeout):
            error.receipt = receipt
        if isinstance(error, NotRunningError):
            error.key = key
        raise error

    def reply(self, key: str, outcome: Outcome) -> None:
        """Somebody completed one of this turn's records."""
        future = self._replies.get(key)
        if future is None:
            self._early[key] = outcome
        elif not future.done():
            future.set_result(outcome)

    def open_replies(self) -> list[str]:
        """Keys of the records that somebody else is to complete."""
        return [key for key, future in self._replies.items() if not future.done()]

    def _time_out(self, key: str, receipt: Receipt[Any], delay: float) -> None:
        error = AskTimeout(
            f"no reply to message '{receipt.id}' within {delay:g} s; it goes on. Rejoin it with error.receipt.", receipt
        )
        self.give_up(key, encode_failure(error, with_traceback=False))

    def _look_for_cycle(self, key: str) -> None:
        if self.stopped is None and not self.ended and self.open_replies():
            task = asyncio.ensure_future(self._break_cycle(key))
            _looking.add(task)
            task.add_done_callback(_looking.discard)

    async def _break_cycle(self, key: str) -> None:
        try:
            asks = await self.seat.open_asks()
        except PerdureError:
            # Nobody else may look: the others of the cycle have, before this ask closed it.
            self._loop.call_later(_DEADLOCK_LOOK_SECONDS, self._look_for_cycle, key)
            return
        for youngest, path in deadlocked(asks, self.seat.address, self.mail.seq, self.open_replies()):
            self.give_up(youngest, encode_failure(DeadlockError(path), with_traceback=False))
        if key in self.open_replies():
            self._looked.add(key)
            self._unlooked -= 1

    def give_up(self, key: str, error: str) -> None:
        """Fail an open ask, or a receipt's result, unless its reply comes first."""
        if self.stopped is None and not self.ended:
            segment = self.seat.segment(self.mail.seq)
            segment.settles = [(key, error)]
            self.seat.commit(segment).add_done_callback(retrieve)

    async def sleep(self, scope: Scope, duration: float) -> None:
        """Wait for time to pass, durably."""
        key, record = self.claim(scope, "sleep", "sleep", None)
        if record is None or record.status == "cancelled":
            await self.may_begin("sleep", record, key)
            record = Record(key, "sleep", "sleep", self.timestamp(), due=self.timestamp() + duration)
            self.begin(record)
            begin = True
        elif record.status != "started":
            await self.recorded(record)
            return
        else:
            begin = False
        try:
            with self.fly():
                if begin:
                    self._rest()
                    await self.durable()
                await self._wait_durably(self.until(record.due or 0.0))
                await self._resume()
                self.complete(replace(record, status="completed"))
                await self.hand(key)
        except asyncio.CancelledError:
            self.cancelled(key)
            raise

    async def spawn(
        self,
        scope: Scope,
        cls: type[Actor],
        key: str | None,
        state: Mapping[str, object],
        child: ChildSpec | None = None,
    ) -> Reference:
        """Begin an actor with the next durable point."""
        kind = cls.__perdure__.kind
        record_key, record = self.claim(scope, "spawn", kind, None)
        spawn = self.seat.spawning(cls, key if key is not None else self._id(record_key), state, child)
        if record is None:
            self.opened.spawns = [*self.opened.spawns, spawn]
            self.begin(Record(record_key, "spawn", kind, self.timestamp(), None, "completed"))
        return Reference(cls, spawn.to, self.seat.port)

    def watch(self, scope: Scope, note: Monitor) -> None:
        """Have a watcher told of an actor's end, from the next durable point on."""
        name = f"watch {note.actor}"
        key, record = self.claim(scope, "tell", name, _text_digest(str(note.watcher), note.handler))
        if record is None:
            note = replace(note, cause=self.mail.seq)
            self.opened.monitors = list(dict.fromkeys([*self.opened.monitors, note]))
            digest = _text_digest(str(note.watcher), note.handler)
            self.begin(Record(key, "tell", name, self.timestamp(), digest, "completed"))

    def value(self, scope: Scope, name: str, make: Callable[[], str]) -> str:
        """A value that replay must find again, as JSON."""
        key, record = self.claim(scope, "value", name, None)
        if record is None:
            result = close_result(self, key, make())
            record = Record(key, "value", name, self.timestamp(), None, "completed", result=result)
            self.begin(record)
        return open_result(self, record)

    async def query(
        self, scope: Scope, ref: Reference, query: Query, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """A query's answer, which replay must find again."""
        address = address_of(ref)
        name = f"{class_of(ref).__name__}.{query.name}"
        key, record = self.claim(scope, "value", name, _text_digest(str(address)))
        reply = query.signature.reply
        if record is None:
            await self.may_begin(None)
            answer = await self.seat.port.query(ref, query, args, kwargs)
            text = close_result(self, key, reply.encode(answer, name).decode(), reply)
            record = Record(key, "value", name, self.timestamp(), _text_digest(str(address)), "completed", result=text)
            self.begin(record)
        return reply.decode(open_result(self, record, reply))


def _text_digest(*texts: str) -> bytes:
    """SHA-256 of texts, JSON among them in one order of members."""
    parts = [
        msgspec.json.encode(msgspec.json.decode(text), order="deterministic") if text[:1] == "{" else text.encode()
        for text in texts
    ]
    return hashlib.sha256(b"\0".join(parts)).digest()
