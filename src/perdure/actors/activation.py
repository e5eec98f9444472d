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
from typing import TYPE_CHECKING, Any

from perdure.actors.attempt import Attempt
from perdure.actors.living import STOPPING_SECONDS, Living
from perdure.actors.port import decoding_port
from perdure.actors.ref import Reference
from perdure.actors.relatives import Kin
from perdure.actors.seated import Seated
from perdure.actors.stops import Lost, TurnStopped
from perdure.errors import (
    FencedError,
    PerdureError,
    StaleDecision,
    StorageError,
)
from perdure.storage.failure import encode_failure
from perdure.storage.records import Outcome
from perdure.storage.writes import Committed, End, Release, Segment

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from perdure.actors.actor import Actor, ActorSpec
    from perdure.actors.host import Host
    from perdure.actors.turn import Turn
    from perdure.storage.records import Completion, Grown, Loaded, Mail, Past
    from perdure.storage.writes import Placed, Settled, Write

_LOG = logging.getLogger("perdure.actors")
_PIPELINE = 256
_NO_PAST: Past = (None, [])

_LATE = Outcome(
    "expired", error=encode_failure(PerdureError("it was not started before its latest start"), with_traceback=False)
)


class Activation(Seated):
    """One live actor.

    Attributes:
        worker: The task that handles its messages now.
    """

    def __init__(self, host: Host, spec: ActorSpec, place: Placed) -> None:
        super().__init__(host, spec, place)
        self.reference = Reference(spec.cls, place.to, host)
        self._name = f"perdure {place.to.kind}/{place.to.key}"
        self.living = Living(spec, place.to, self, host)
        self.turn: Turn | None = None
        self.gone = False
        self.halted = False
        """Its supervisor stops it: it does not even start any more."""
        self.starter: asyncio.Task[Actor] | None = None
        self.idle_since = host.timestamp()
        self.careful = False
        self._head = _NO_PAST
        self._early: list[Completion] = []
        self._told = self._settled  # bound once, not at every message
        self.worker: asyncio.Task[None] | None = None
        self._marked = False
        self._queued = False
        self._in_flight = 0
        self._landed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "gone" if self.gone else "running" if self.turn else "idle"
        return f"<activation of {self.address}, epoch {self.epoch}, {state}, {self.cursor} of {self.tail}>"

    @property
    def relatives(self) -> Kin:
        """The actors it supervises."""
        return Kin(self)

    # commits ----------------------------------------------------------------------------------------------------------

    def commit(self, segment: Segment) -> asyncio.Future[Committed]:
        """Submit a segment; refusals fail the turn, other errors lose the activation."""
        future: asyncio.Future[Committed] = self.host.loop.create_future()
        if not self.submit(segment, future):
            future.set_exception(Lost("the activation is gone"))
            future.exception()  # whoever waits is told again; nobody waiting is no fault
        return future

    def submit(self, segment: Segment, future: asyncio.Future[Committed] | None = None) -> bool:
        """Submit a segment, unless this one is lost: another may have the actor, under the same epoch."""
        if not self.gone:
            self.host.committer.submit(segment, self._told, future)
            self._in_flight += 1
        return not self.gone

    def _settled(self, write: Write, settled: Settled | PerdureError, future: asyncio.Future[Committed] | None) -> None:
        if not isinstance(write, Segment):
            raise TypeError(f"an activation was told of {write!r}")
        self._in_flight -= 1
        if isinstance(settled, Committed):
            if settled.appended or settled.completions or settled.ended or settled.members:
                self.host.committed(settled)
            if write.spawns:
                self.host.floor.spawned(write.spawns)
            if write.end is not None:
                self.host.outcomes.ended(write.message, write.end.outcome)
            if future is not None and not future.done():
                future.set_result(settled)
        else:
            error = settled if isinstance(settled, PerdureError) else StorageError(f"unexpected answer {settled!r}")
            self._refused(write, error, future)
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    def _refused(self, segment: Segment, error: PerdureError, future: asyncio.Future[Committed] | None) -> None:
        if isinstance(error, StorageError):
            self.lose(error)
        elif isinstance(error, StaleDecision):
            pass  # decided anew by whoever waits for it
        elif self.turn is not None and self.turn.mail.seq == segment.message:
            self.turn.refused = error
            self.turn.take_back(segment)
        else:
            # Its turn has ended in memory, and others may rest on it: begin again from what is on disk.
            self.lose(StorageError(f"{self.address}: the end of message {segment.message} was refused: {error}"))
        if future is not None and not future.done():
            future.set_exception(Lost(str(error)) if isinstance(error, StorageError) else error)
            future.exception()  # whoever waits is told again; nobody waiting is no fault

    # the mailbox ------------------------------------------------------------------------------------------------------

    def loaded(self, loaded: Loaded) -> None:
        """Take what the store has of the actor."""
        self._fill(loaded)
        self._head = (loaded.turn, loaded.records)
        self.careful = loaded.turn is not None and loaded.turn.suspect
        if loaded.snapshot is not None:
            self.living.take(loaded.snapshot)
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

    def catch_up(self, grown: Grown) -> None:
        """Take mail that another process appended."""
        self._accept_all(grown)
        self.wake()

    def deliver(self, mail: Mail) -> None:
        """Take a message that is on disk."""
        self._accept(mail)
        if self.worker is None and not self._queued:
            self.wake()

    def wake(self) -> None:
        """Handle what is there."""
        if (
            self.worker is None
            and not self._queued
            and self.cursor < self.tail
            and not self.given
            and self._loaded.is_set()
            and not (self.gone or self.still or self.host.draining)
        ):
            self._queued = True
            self.host.workers.run(self)

    # working ----------------------------------------------------------------------------------------------------------

    async def work(self, worker: asyncio.Task[None]) -> bool:
        """See `Workload.work`."""
        self._queued = False
        self.worker = worker
        worker.set_name(self._name)
        host = self.host
        if decoding_port.get() is not host:  # as after the first actor that it was lent to
            decoding_port.set(host)
        clean, self._marked, stale = True, False, False
        try:
            # `has_next` and `closing` spelt out here and in `wake`, for they are asked at every message
            while clean and self.cursor < self.tail and not (self.given or self.gone or self.still or host.draining):
                stale = host.stale()
                if stale:
                    break
                mail = self._take()
                if mail is None:
                    mail = await self._read_on()
                    if self.gone or self.closing:  # type: ignore[redundant-expr]  # lost meanwhile
                        break
                await self._beginning(mail)
                clean = not (self._marked or worker.cancelling())
        except TurnStopped:
            clean = False
        except Exception as error:  # noqa: BLE001  # whatever it is, the actor is loaded anew
            self._broke(error)
            clean = False
        finally:
            self.worker = None
            self.idle_since = host.timestamp()
            if self.cursor < self.tail and not stale:  # else it is woken once it may begin something
                self.wake()
            if host.leaving is not None:
                host.leaving.look_again()
        return clean

    def _broke(self, error: Exception) -> None:
        """Something failed that is no handler's; that another node has the actor is no fault."""
        if not isinstance(error, FencedError):
            _LOG.exception("%s stops", self.address)
        self.lose(error if isinstance(error, PerdureError) else StorageError(f"{error!r}. This is a bug."))

    def _beginning(self, mail: Mail) -> Coroutine[Any, Any, None]:
        """The next attempt at a message."""
        if self._head is _NO_PAST and mail.expires is None and not mail.past:
            return Attempt(self, mail, *_NO_PAST).run()
        return self._go_on(mail)

    async def _go_on(self, mail: Mail) -> None:
        """Attempt a message that was begun before, or may have waited too long."""
        (past, records), self._head = self._head, _NO_PAST
        if mail.past and past is None and not records:  # a dead letter that is tried again beside us
            past, records = await self.host.store.past(mail.seq)
        if mail.expires is not None and self.host.timestamp() > mail.expires and past is None and not records:
            self.finish_late(mail)
            return
        attempt = Attempt(self, mail, past, records)
        if past is None or not past.blame:
            await attempt.run()
        else:
            async with self.host.blame.admitted(past.blame):
                await attempt.run()

    def put_back(self, mail: Mail, past: Past) -> None:
        """Have a message attempted again, before all others."""
        self._head = past
        self._mailbox.appendleft(mail)

    @property
    def is_to_replay(self) -> bool:
        """Whether a turn that it was loaded with has not begun again yet."""
        return bool(self._head[1]) and not self.still

    def begin(self, turn: Turn) -> None:
        """An attempt begins."""
        self.turn = turn
        if self._early:
            early, self._early = self._early, []
            for completion in early:
                self.completed(completion)

    def end(self, *, marked: bool) -> None:
        """The attempt is over; `marked` if its handler left something in the context of the worker."""
        if self.turn is not None:
            self.turn.close()
            self.turn = None
        self._marked = self._marked or marked

    def finish_late(self, mail: Mail) -> None:
        """End a message that was not started before its latest start."""
        segment = self.segment(mail.seq)
        segment.end = End(mail.number, _LATE, None, self.host.timestamp())
        self.cursor = mail.number
        self.submit(segment)

    @property
    def crowded(self) -> bool:
        """Whether too much is in flight, or anything where turns may not run ahead."""
        return self._in_flight > (0 if self.careful else _PIPELINE) and not self.gone

    async def settle_pipeline(self) -> None:
        """Wait while it is crowded."""
        while self.crowded:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed

    # leaving ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have the live object made, if it is not there. Raises `ActivationError`, or `FencedError` if it is halted."""
        if self.living.instance is not None:
            return
        if self.halted:
            raise FencedError(f"{self.address}: was halted before it started.")
        self.starter = starter = self.host.loop.create_task(self.living.start(), name=f"{self._name} starts")
        try:
            await starter
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.halted or (task is not None and task.cancelling()):
                raise  # whoever waits is cancelled, and not the start
            raise FencedError(f"{self.address}: was halted while it started.") from None
        finally:
            if self.starter is starter:
                self.starter = None
        self.host.failed_starts.pop(self.address, None)

    async def abandon(self, *, anew: bool = False) -> None:
        """Leave a handler behind that nothing stops; whatever it does now, nothing of it is written.

        The actor is given up, or goes on here in another activation.
        """
        self.gone = True
        self.host.workers.leave(self.worker, self.starter)
        if self.turn is not None:
            self.turn.stop(Lost("it did not stop"))
            self.host.workers.leave(*self.turn.leaked())
            self.turn.close()
        self.living.drop()
        self.host.forget(self)
        if anew:
            self.host.again(self)
        else:
            await self.host.committer.write(Release(self.actor, self.epoch, anyway=self.host.draining))

    async def retire(self, *, waiting: int | None = None, seconds: float | None = STOPPING_SECONDS) -> None:
        """Leave memory and give the actor up, unless there is work. `stopping()` has so many seconds."""
        await self.living.end(seconds)
        if self.gone:
            return
        try:
            released = await self.host.committer.write(Release(self.actor, self.epoch, waiting))
        except PerdureError as error:
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
        self.living.instance = None
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
        return self.worker is None and not self._queued and self._in_flight == 0 and not self.still
