"""An actor in memory: its instance, its mailbox, and the task that handles one message after the other.

    loading ──► running ⇄ idle ──► released
                  │
                  ├─ handler raised ─► instance thrown away, state as before the message, backoff, the message again
                  ├─ parked | evicted ─► released, the message stays
                  └─ lost (fenced, or a commit failed) ─► dropped; whoever owns the actor goes on

**Pipelining.** The next turn starts while the commit of the one before is in flight. Commits keep their order, so
nothing a turn lets out (a step's start, a message, a reply) can be on disk before what the turn rests on. If a commit
fails, the activation is lost, with every turn that came after.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from perdure.actors.actor import bind, read_only
from perdure.actors.ref import Reference, decoding_port
from perdure.actors.scope import current, here
from perdure.actors.steps import escaped_keys
from perdure.actors.turn import Drained, Evicted, Expired, Lost, Parked, Turn, TurnStopped
from perdure.errors import (
    ActivationError,
    ActorDefinitionError,
    ArgumentsError,
    DeadlockError,
    EncodingError,
    FencedError,
    LargeStateWarning,
    LeakedTaskError,
    NestedStepError,
    NotAMessageError,
    NotInTurnError,
    PerdureError,
    Rejected,
    StateError,
    StepNameError,
    StorageError,
)
from perdure.storage.codec import join, split
from perdure.storage.failure import encode_failure
from perdure.storage.store import Committed, End, Outcome, Release, Segment, Snapshot, Spawn, TurnRecord
from perdure.supervision.strategy import GiveUp, TryAgain, after_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.actors.actor import Actor, ActorSpec
    from perdure.actors.host import Host
    from perdure.actors.ref import Outgoing, Port
    from perdure.storage.store import Address, Completion, Envelope, Loaded, Mail, Placed, Record, Settled
    from perdure.system import ActorSystem

_LOG = logging.getLogger("perdure.actors")
_MAILBOX_IN_MEMORY = 1_000
_PIPELINE = 256
_LARGE_STATE_BYTES = 256 << 10


class Activation:
    """One live actor."""

    def __init__(self, host: Host, spec: ActorSpec, place: Placed) -> None:
        self.host = host
        self.spec = spec
        self.actor = place.actor
        self.address: Address = place.to
        self.epoch = place.epoch or 0
        self.reference = Reference(spec.cls, place.to, host)
        self._name = f"perdure {place.to.kind}/{place.to.key}"
        self.instance: Actor | None = None
        self.turn: Turn | None = None
        self.gone = False
        self.idle_since = host.timestamp()
        self.careful = False
        self._cursor = 0
        self._tail = 0
        self._mailbox: deque[Mail] = deque()
        self._fields: dict[str, bytes] = {}
        self._loaded: asyncio.Event = asyncio.Event()
        if place.fresh:
            self._loaded.set()
        self._head: tuple[TurnRecord | None, list[Record]] = (None, [])
        self._early: list[Completion] = []
        self._worker: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._landed: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        state = "gone" if self.gone else "running" if self.turn else "idle"
        return f"<activation of {self.address}, epoch {self.epoch}, {state}, {self._cursor} of {self._tail}>"

    # what a live actor and its turns ask of it ------------------------------------------------------------------------

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        return self.host.system

    @property
    def port(self) -> Port:
        """The system as references know it."""
        return self.host

    @property
    def node(self) -> str:
        """The node it runs on."""
        return self.host.node

    @property
    def closing(self) -> bool:
        """Whether the system is closing."""
        return self.host.closing

    @property
    def max_steps(self) -> int:
        """How many results a turn may ask for."""
        return self.host.limits.steps

    def timestamp(self) -> float:
        """The system's time."""
        return self.host.timestamp()

    async def spawn(self, cls: type[Actor], key: str | None, state: Mapping[str, object]) -> Reference:
        """Begin an actor from the running turn."""
        scope = here()
        if scope is None:
            raise NotInTurnError("self.spawn() was called outside a handler's turn. Use system.spawn() there.")
        return await scope.turn.spawn(scope, cls, key, state)

    def stop(self) -> None:
        """End the actor with its running turn."""
        scope = here()
        if scope is None:
            raise NotInTurnError("self.stop() was called outside a handler's turn. Call it in a @handler.")
        scope.turn.stop_actor = True

    def envelope(self, message: Outgoing, id_: str, chain: tuple[str, ...], cause: int) -> Envelope:
        """A turn's message as it is stored."""
        return self.host.envelope(message, id_, chain, cause)

    def spawning(self, cls: type[Actor], key: str, state: Mapping[str, object]) -> Spawn:
        """An actor's beginning, as the running turn writes it."""
        return self.host.spawning(cls, key, state, parent=self.actor)

    def segment(self, message: int) -> Segment:
        """An empty segment."""
        return Segment(self.actor, self.epoch, message)

    def commit(self, segment: Segment) -> asyncio.Future[Committed]:
        """Submit a segment; refusals fail the turn, other errors lose the activation."""
        future: asyncio.Future[Committed] = self.host.loop.create_future()
        if self.gone:
            future.set_exception(Lost("the activation is gone"))
        else:
            self._submit(segment, future)
        return future

    def _submit(self, segment: Segment, future: asyncio.Future[Committed] | None) -> None:
        self.host.committer.submit(segment, partial(self._told, segment, future))
        self._in_flight += 1

    def _told(
        self, segment: Segment, future: asyncio.Future[Committed] | None, settled: Settled | PerdureError
    ) -> None:
        self._in_flight -= 1
        if isinstance(settled, Committed):
            self.host.committed(settled)
            if segment.end is not None:
                self.host.ended(segment.message, segment.end.outcome)
            if future is not None and not future.done():
                future.set_result(settled)
        else:
            error = settled if isinstance(settled, PerdureError) else StorageError(f"unexpected answer {settled!r}")
            self._refused(segment, error, future)
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    def _refused(self, segment: Segment, error: PerdureError, future: asyncio.Future[Committed] | None) -> None:
        if isinstance(error, StorageError):
            self.lose(error)
        elif self.turn is not None and self.turn.mail.seq == segment.message:
            self.turn.refused = error
            self.turn.take_back(segment)
        if future is not None and not future.done():
            future.set_exception(Lost(str(error)) if isinstance(error, StorageError) else error)
            future.exception()  # whoever waits is told again; nobody waiting is no fault

    async def find_cycle(self, turn: Turn) -> None:
        """Fail an ask of the running turn if it is the youngest on a cycle of asks."""
        asks = await self.host.store.open_asks(self.actor)
        mine = {ask.key: ask for ask in asks if ask.message == turn.mail.seq and ask.key in turn.open_replies()}
        edges: dict[str, list[tuple[str, float]]] = {}
        for ask in asks:
            edges.setdefault(str(ask.caller), []).append((str(ask.callee), ask.started))
        for key, ask in mine.items():
            path = _cycle(edges, str(ask.callee), str(self.address), ask.started)
            if path is not None:
                error = DeadlockError([str(self.address), *path])
                turn.give_up(key, encode_failure(error, with_traceback=False))

    # the mailbox ------------------------------------------------------------------------------------------------------

    def loaded(self, loaded: Loaded) -> None:
        """Take what the store has of the actor."""
        self._cursor = loaded.cursor
        self._tail = max(self._tail, loaded.tail)
        numbered = {mail.number: mail for mail in (*loaded.mail, *self._mailbox) if mail.number > loaded.cursor}
        self._mailbox = deque(numbered[number] for number in sorted(numbered))
        self._head = (loaded.turn, loaded.records)
        self.careful = loaded.turn is not None and loaded.turn.suspect
        if loaded.snapshot is not None:
            self._fields = self._read(loaded.snapshot)
        self._loaded.set()
        self.wake()

    def unload(self) -> None:
        """What is known is not to be used until it is loaded again."""
        self._loaded.clear()

    async def ready(self) -> None:
        """Wait until the actor is loaded. Raises `FencedError` if it has gone elsewhere meanwhile."""
        await self._loaded.wait()
        if self.gone:
            raise FencedError(f"{self.address}: left this node while it was being loaded. Try again.")

    async def catch_up(self) -> None:
        """Take mail that another process appended."""
        for mail in await self.host.store.mail(self.actor, self._tail, _MAILBOX_IN_MEMORY):
            self.deliver(mail)

    def _read(self, snapshot: Snapshot) -> dict[str, bytes]:
        if snapshot.version == self.spec.version:
            return split(snapshot.state)
        old: dict[str, object] = {name: _plain(raw) for name, raw in split(snapshot.state).items()}
        fields = self.spec.cls.migrate(snapshot.version, old)
        return {name: _json(value) for name, value in fields.items()}

    def deliver(self, mail: Mail) -> None:
        """Take a message that is on disk; what does not fit in memory is read from there later."""
        self._tail = max(self._tail, mail.number)
        last = self._mailbox[-1].number if self._mailbox else self._cursor
        if len(self._mailbox) < _MAILBOX_IN_MEMORY and mail.number == last + 1:
            self._mailbox.append(mail)
        self.wake()

    def knows_of(self, tail: int) -> None:
        """There is mail on disk that was not delivered here."""
        self._tail = max(self._tail, tail)
        self.wake()

    @property
    def tail(self) -> int:
        """The last number known."""
        return self._tail

    def wake(self) -> None:
        """Handle what is there."""
        if (
            self._worker is None
            and self._loaded.is_set()
            and not self.gone
            and self._cursor < self._tail
            and not self.host.closing
        ):
            self._worker = self.host.loop.create_task(self._work(), name=self._name)

    async def _next(self) -> Mail | None:
        wanted = self._cursor + 1
        while self._mailbox and self._mailbox[0].number < wanted:
            self._mailbox.popleft()
        if self._mailbox and self._mailbox[0].number == wanted:
            return self._mailbox.popleft()
        if wanted > self._tail:
            return None
        self._mailbox = deque(await self.host.store.mail(self.actor, self._cursor, _MAILBOX_IN_MEMORY))
        if not self._mailbox or self._mailbox[0].number != wanted:
            raise StorageError(
                f"{self.address}: message number {wanted} is missing in its mailbox. This is a bug; run no further."
            )
        return self._mailbox.popleft()

    # working ----------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        decoding_port.set(self.host)
        try:
            while not self.gone and not self.host.closing:
                mail = await self._next()
                if mail is None:
                    break
                await self._handle(mail)
        except TurnStopped:
            pass
        except PerdureError as error:
            _LOG.exception("%s stops", self.address)
            self.lose(error)
        finally:
            self._worker = None
            self.idle_since = self.host.timestamp()
        self.wake()

    async def _handle(self, mail: Mail) -> None:
        """See one message to its outcome, or stop."""
        past, records = self._head
        self._head = (None, [])
        if mail.expires is not None and self.host.timestamp() > mail.expires and past is None and not records:
            self._finish_unstarted(mail, Outcome("expired", error=_text("it was not started before its latest start")))
            return
        while True:
            if past is None or not past.blame:
                again = await self._attempt(mail, past, records)
            else:
                async with self.host.blame.admitted(past.blame):
                    again = await self._attempt(mail, past, records)
            if again is None:
                return
            past, records = again

    async def _attempt(
        self, mail: Mail, past: TurnRecord | None, records: list[Record]
    ) -> tuple[TurnRecord, list[Record]] | None:
        """Run the handler once; what to begin again with, if it failed."""
        turn = self.turn = Turn(self, mail, past, records)
        if self._early:
            early, self._early = self._early, []
            for completion in early:
                self.completed(completion)
        token = current.set(turn.scope)
        try:
            return await self._run(turn)
        finally:
            current.reset(token)
            turn.close()
            self.turn = None

    async def _run(self, turn: Turn) -> tuple[TurnRecord, list[Record]] | None:
        started = turn.last_change = self.host.timestamp()
        past = turn.past
        if past is not None and past.retry_at is not None:
            await turn.until(past.retry_at)
        try:
            if past is not None and past.suspect and past.executing != self.host.node:
                turn.past = turn.opened.turn = evolve(past, executing=self.host.node)
                await turn.durable()
            value = await self._call(turn)
            turn.check()
            leaked = turn.leaked()
            if leaked:
                await self._end_tasks(turn, leaked)
            self._check_refused(turn)
            await self._succeed(turn, value, started)
        except asyncio.CancelledError as error:
            if turn.stopped is None:
                # Code of the handler cancelled itself, or this worker is being ended.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                own = StateError(f"the handler was cancelled by its own code: {error!r}")
                return await self._fail(turn, own, started)
            await self._stopped(turn, started)
            return None
        except Exception as error:  # noqa: BLE001  # whatever user code raises is a failure of its actor
            return await self._raised(turn, error, started)
        await self._settle_pipeline()
        return None

    async def _raised(self, turn: Turn, error: Exception, started: float) -> tuple[TurnRecord, list[Record]] | None:
        """The handler raised: the turn was stopped, or refuses its message, or failed."""
        if turn.stopped is not None:
            await self._stopped(turn, started)
            return None
        if turn.refused is not None or not isinstance(error, Rejected | DeadlockError):
            return await self._fail(turn, turn.refused or error, started)
        self._rollback()
        self._finish(turn, Outcome("rejected", error=encode_failure(error)), started)
        await self._settle_pipeline()
        return None

    async def _call(self, turn: Turn) -> object:
        mail = turn.mail
        handler = self.spec.by_stored_name.get(mail.handler)
        if handler is None:
            turn.park(
                f"'{mail.handler}' is no handler of {self.spec.cls.__name__} any more. Give the renamed one aliases=."
            )
            turn.check()
            raise StorageError("unreachable: a parked turn stops")
        instance = self.instance or await self.activate()
        try:
            arguments = handler.signature.decode(mail.args)
        except PerdureError as error:
            turn.park(f"the stored arguments do not fit the handler: {error}")
            turn.check()
            raise
        timeout = handler.timeout if handler.timeout is not None else self.spec.timeout
        if timeout is None:
            return await handler.function(instance, **arguments)
        first = min([turn.timestamp(), *(record.started for record in turn.records.values())])
        why = Expired(f"its handler ran past {timeout:g} s")
        timer = asyncio.get_running_loop().call_later(max(0.0, first + timeout - turn.timestamp()), turn.stop, why)
        try:
            return await handler.function(instance, **arguments)
        finally:
            timer.cancel()

    @staticmethod
    async def _end_tasks(turn: Turn, leaked: list[asyncio.Task[Any]]) -> None:
        for task in leaked:
            task.cancel()
        await asyncio.gather(*leaked, return_exceptions=True)
        raise LeakedTaskError(
            f"the handler of '{turn.mail.id}' returned while {len(leaked)} of its tasks still used perdure. "
            "Await every task that a handler starts, for instance with a task group."
        )

    @staticmethod
    def _check_refused(turn: Turn) -> None:
        if turn.refused is not None:
            raise turn.refused
        unclaimed = turn.unclaimed
        if unclaimed is not None:
            turn.stuck(unclaimed)
            turn.check()

    # ending -----------------------------------------------------------------------------------------------------------

    async def _succeed(self, turn: Turn, value: object, started: float) -> None:
        instance = cast("Actor", self.instance)
        handler = self.spec.by_stored_name[turn.mail.handler]
        result = handler.signature.reply.encode(value, f"{handler.signature.what} reply").decode()
        fields = self.spec.state.encode_changed(self.spec.values(instance), self._fields, self.spec.cls.__name__)
        changed = {name: raw for name, raw in fields.items() if self._fields.get(name) != raw}
        before, self._fields = self._fields, fields
        segment = self._last_segment(turn, Outcome("succeeded", result), started, changed)
        refusable = segment.spawns or any(send.envelope.must_exist or send.envelope.chosen for send in segment.sends)
        if not refusable and not turn.stop_actor:
            self._submit(segment, None)
            return
        # The store may refuse this, and then the turn has failed: nothing may be built on it before.
        try:
            await self.commit(segment)
        except PerdureError:
            self._fields = before
            self._cursor -= 1
            raise
        if turn.stop_actor:
            await self.retire()

    def _finish(self, turn: Turn, outcome: Outcome, started: float) -> None:
        """End a turn whose state does not change."""
        self._submit(self._last_segment(turn, outcome, started), None)

    def _last_segment(
        self, turn: Turn, outcome: Outcome, started: float, changed: Mapping[str, bytes] | None = None
    ) -> Segment:
        good = outcome.status == "succeeded"
        segment = turn.take() if good else turn.take_completions()
        # The turn is over, so nothing will look for what it sent under its keys.
        if segment.records:
            segment.records = [record for record in segment.records if record.kind not in ("tell", "spawn", "value")]
        snapshot: Snapshot | None = None
        if changed:
            state = join(self._fields)
            snapshot = Snapshot(self.spec.version, self.spec.state.name, state)
            if len(state) > _LARGE_STATE_BYTES:
                self._warn_of_size()
        segment.end = End(
            turn.mail.number,
            outcome,
            started,
            self.host.timestamp(),
            join(changed) if changed else None,
            snapshot,
            stop=turn.stop_actor and good,
        )
        if turn.past is not None:
            segment.turn = evolve(turn.past, executing=None, suspect=False, retry_at=None)
        turn.ended = True
        self._cursor = turn.mail.number
        return segment

    def _finish_unstarted(self, mail: Mail, outcome: Outcome) -> None:
        segment = self.segment(mail.seq)
        segment.end = End(mail.number, outcome, None, self.host.timestamp())
        self._cursor = mail.number
        self._submit(segment, None)

    async def _settle_pipeline(self) -> None:
        """Wait while too much is in flight, or for everything where turns may not run ahead."""
        while self._in_flight > (0 if self.careful else _PIPELINE) and not self.gone:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed

    async def _fail(self, turn: Turn, error: BaseException, started: float) -> tuple[TurnRecord, list[Record]] | None:
        """The handler raised: count the attempt, and begin again or give up."""
        past = turn.past or TurnRecord()
        attempts = past.attempts + 1
        handler = self.spec.by_stored_name[turn.mail.handler]
        retry = handler.retry or self.spec.retry or self.host.retry
        decision = GiveUp() if isinstance(error, _HOPELESS) else after_failure(retry, attempts, error)
        _LOG.warning("%s: '%s' failed, attempt %d: %r", self.address, turn.mail.id, attempts, error)
        for task in turn.leaked():
            task.cancel()
        self._rollback(crashed=True)
        if not isinstance(decision, TryAgain):
            turn.past = evolve(past, attempts=attempts, error=encode_failure(error))
            self._finish(turn, Outcome("dead", error=encode_failure(error)), started)
            await self._settle_pipeline()
            return None
        escaped = [key for key in escaped_keys(error) if key in turn.records]
        failed = evolve(
            past,
            attempts=attempts,
            retry_at=self.host.timestamp() + decision.delay,
            error=encode_failure(error),
            executing=None,
        )
        segment = turn.take_completions()
        segment.records = [record for record in segment.records if record.key not in escaped]
        segment.erased = escaped
        segment.turn = failed
        turn.ended = True
        try:
            await self.commit(segment)
        except (TurnStopped, PerdureError):
            return None
        return failed, [r for key, r in turn.records.items() if key not in escaped and key not in turn.dropped]

    async def _stopped(self, turn: Turn, started: float) -> None:
        """The turn was stopped from outside its handler."""
        why = turn.stopped
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()  # the cancellation was the turn's, and this task handles the next message
        self._rollback(crashed=True)
        if isinstance(why, Expired):
            turn.stopped = None
            self._finish(turn, Outcome("expired", error=_text(str(why))), started)
            await self._settle_pipeline()
            return
        segment = turn.take_completions()
        if isinstance(why, Parked):
            segment.status, segment.reason = "parked", turn.reason
            _LOG.error("%s parks at '%s': %s", self.address, turn.mail.id, turn.reason)
        if (segment.status or segment.records or segment.numbered) and not self.gone:
            await self.commit(segment)
        await self.retire(waiting=turn.mail.seq if isinstance(why, Evicted) else None)
        raise why or Drained()

    def _rollback(self, *, crashed: bool = False) -> None:
        """Take the state back to before the message; after a crash with a new instance."""
        if crashed or self.instance is None:
            self.instance = None
            return
        before = self._restored()
        for name in self.spec.fields:
            self.instance.__dict__[name] = before.__dict__[name]

    def _warn_of_size(self) -> None:
        name = max(self._fields, key=lambda field: len(self._fields[field]))
        warnings.warn(
            f"{self.address} holds more than {_LARGE_STATE_BYTES >> 10} KiB of state, most of it in '{name}' "
            f"({len(self._fields[name])} bytes), written at every turn that changes it. Keep large values outside.",
            LargeStateWarning,
            stacklevel=2,
        )

    # the instance -----------------------------------------------------------------------------------------------------

    def _restored(self) -> Actor:
        """A new instance with the state of the last turn."""
        token = decoding_port.set(self.host)
        try:
            return self.spec.cls(**self.spec.state.decode(join(self._fields)))
        finally:
            decoding_port.reset(token)

    async def activate(self) -> Actor:
        """The live actor, made from its state if it is not there yet."""
        if self.instance is not None:
            return self.instance
        async with self._starting:
            if self.instance is None:
                self.instance = await self._start()
            return self.instance

    async def _start(self) -> Actor:
        try:
            instance = self._restored()
        except Exception as error:
            reason = f"the stored state does not fit {self.spec.cls.__name__}: {error}"
            if self.turn is not None:
                self.turn.park(reason)
                self.turn.check()
            raise ActivationError(
                f"{self.address}: {reason}. Its bytes are kept; mend the class or its migrate()."
            ) from error
        bind(instance, self)
        scope, guard = current.set(None), read_only.set("started()")
        try:
            await instance.started()
        except Exception as error:
            raise ActivationError(f"{self.address}: started() raised {type(error).__name__}: {error}") from error
        finally:
            current.reset(scope)
            read_only.reset(guard)
        return instance

    async def retire(self, *, waiting: int | None = None) -> None:
        """Leave memory and give the actor up, unless there is work."""
        instance, self.instance = self.instance, None
        if instance is not None:
            scope, guard = current.set(None), read_only.set("stopping()")
            try:
                await instance.stopping()
            except Exception:  # noqa: BLE001  # the actor leaves all the same
                _LOG.exception("%s: stopping() raised", self.address)
            finally:
                current.reset(scope)
                read_only.reset(guard)
        if self.gone or self.host.closing:
            return  # a node that leaves gives up all its actors at once
        try:
            released = await self.host.committer.write(Release(self.actor, self.epoch, waiting))
        except FencedError as error:
            self.lose(error)
            return
        if released:
            self.gone = True
            self.host.forget(self)
            if waiting is not None:
                self.host.system.due_changed()
        elif waiting is not None:
            self.host.reload(self)
        else:
            self.wake()

    def lose(self, error: PerdureError) -> None:
        """This activation may write nothing any more."""
        if self.gone:
            return
        self.gone = True
        if not isinstance(error, FencedError):
            _LOG.error("%s is reloaded: %s", self.address, error)
        if self.turn is not None:
            self.turn.stop(Lost(str(error)))
        self.instance = None
        self._loaded.set()
        self.host.lost(self, error)

    def completed(self, completion: Completion) -> None:
        """Somebody completed a record of this actor's running turn."""
        turn = self.turn
        if turn is None:
            self._early.append(completion)
        elif turn.mail.seq == completion.message:
            turn.reply(completion.key, completion.outcome)

    @property
    def idle(self) -> bool:
        """Whether nothing runs here."""
        return self._worker is None and self._in_flight == 0

    @property
    def worker(self) -> asyncio.Task[None] | None:
        """The task that handles its messages."""
        return self._worker


# Mistakes in the code itself, which the next attempt would only repeat.
_HOPELESS = (
    ActorDefinitionError,
    ArgumentsError,
    EncodingError,
    NestedStepError,
    NotAMessageError,
    StateError,
    StepNameError,
)


def _cycle(edges: Mapping[str, list[tuple[str, float]]], start: str, end: str, youngest: float) -> list[str] | None:
    """The path from `start` to `end` over asks none of which is younger, if there is one."""
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop()
        if path[-1] == end:
            return path
        for callee, started in edges.get(path[-1], ()):
            if callee not in seen and started <= youngest:
                seen.add(callee)
                paths.append([*path, callee])
    return None


def _text(text: str) -> str:
    return encode_failure(PerdureError(text), with_traceback=False)


def _plain(raw: bytes) -> object:
    import msgspec  # noqa: PLC0415  # only migrations need it here

    return msgspec.json.decode(raw)


def _json(value: object) -> bytes:
    import msgspec  # noqa: PLC0415  # only migrations need it here

    return msgspec.json.encode(value)
