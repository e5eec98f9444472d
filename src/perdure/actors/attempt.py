"""One attempt at one message: the handler runs, and its end is made durable.

returned ──► state, result and what it sent, in one last segment
Rejected ──► answered; the state is as before
raised   ──► counted; the state is as before; again after a backoff, or a dead letter
stopped  ──► parked, evicted or drained: nothing of the open segment is written, what is complete is
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec.structs import replace

from perdure.actors.failing import did_not_start, fail, may_come_out_otherwise, replay_again
from perdure.actors.flight import retrieve
from perdure.actors.scope import current
from perdure.actors.sealing import SEAL_ERRORS, cannot_open, close_error, open_arguments
from perdure.actors.stops import Blocked, Drained, Evicted, Expired, Lost, Parked
from perdure.actors.stubborn import expired, stop_handler
from perdure.actors.turn import Turn
from perdure.errors import (
    ActivationError,
    DeadlockError,
    FencedError,
    LeakedTaskError,
    NondeterminismError,
    PerdureError,
    QueryTimeout,
    Rejected,
    StateError,
    StateMisfit,
    StorageError,
    SystemClosedError,
)
from perdure.storage.record_codec import join
from perdure.storage.records import Outcome, Record, TurnRecord
from perdure.storage.seal_identity import changes_of, result_of
from perdure.storage.seal_text import MARKS
from perdure.storage.writes import End
from perdure.supervision.strategy import Ended

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.failing import Again
    from perdure.actors.handler import Handler, Signature
    from perdure.actors.stops import TurnStopped
    from perdure.storage.records import Mail
    from perdure.storage.writes import Order, Segment, Send
    from perdure.supervision.judge import Judgement

T = TypeVar("T")

_LOG = logging.getLogger("perdure.actors")


class Attempt:
    """One run of a handler."""

    _misfit: Order | None = None
    _fields_before: dict[str, bytes]
    unstarted: ActivationError | None = None

    def __init__(self, seat: Activation, mail: Mail, past: TurnRecord | None, records: list[Record]) -> None:
        self.seat = seat
        self._before = records
        self.turn = Turn(seat, mail, past, records)

    def __repr__(self) -> str:
        return f"<attempt at {self.turn!r}>"

    async def run(self) -> None:
        """Run the handler to its outcome; if it failed and is to be tried again, the message is put back."""
        seat, turn = self.seat, self.turn
        turn.started = turn.last_change = seat.host.timestamp()
        seat.begin(turn)
        current.set(turn)
        before = copy_context()
        try:
            if turn.past is not None or seat.spec.limit is not None:
                await self._take_up(turn.past)
                if turn.slot is not None and self._is_late():
                    seat.finish_late(turn.mail)
                    return
            handler, arguments = self._open_mail()
            instance = seat.living.instance or await self._activate()
            timeout = handler.timeout if handler.timeout is not None else seat.spec.timeout
            if timeout is None:
                value = await handler.function(instance, **arguments)
            else:
                value = await self._bounded(handler.function(instance, **arguments), timeout)
            if not turn.plain:
                await self._check_course()
            segment = self._success(handler.signature, value)
            if segment is not None:
                await self._commit_refusable(segment)
            if seat.crowded:
                await seat.settle_pipeline()
        except asyncio.CancelledError as error:
            self._put_back(await self._cancelled(error))
        except Exception as error:  # noqa: BLE001  # whatever user code raises is a failure of its actor
            self._put_back(await self._raised(error))
        finally:
            seat.end(marked=not _same(before, copy_context()))

    def _put_back(self, again: Again | None) -> None:
        if again is not None and not (self.seat.gone or self.seat.host.draining):
            self.seat.put_back(self.turn.mail, again)

    async def _take_up(self, past: TurnRecord | None) -> None:
        """Wait for the next attempt's time, then for a slot; put a suspect's start on disk (see `BlameRule`)."""
        turn, node = self.turn, self.seat.host.node
        if past is not None and past.retry_at is not None:
            await turn.until(past.retry_at)
        if self.seat.spec.limit is not None:
            await turn.take_slot(self.seat.spec.limit)
            await turn.may_begin(None)
            turn.started = self.seat.host.timestamp()
        if past is not None and past.suspect and past.executing != node:
            turn.past = turn.opened.turn = replace(past, executing=node)
            await turn.durable()

    def _is_late(self) -> bool:
        """Whether a message that has not begun waited past its latest start."""
        turn = self.turn
        fresh = turn.past is None and not turn.replays
        return fresh and turn.mail.expires is not None and turn.timestamp() > turn.mail.expires

    async def _cancelled(self, error: asyncio.CancelledError) -> Again | None:
        """The turn was stopped, or the handler's own code cancelled it, or this worker is being ended."""
        if self.turn.stopped is not None:
            return await self._stopped()
        if isinstance(error, Lost) and self.seat.gone:
            raise error  # as its end was written
        seat, turn, task = self.seat, self.turn, asyncio.current_task()
        if seat.host.draining and not (turn.ended or seat.gone):
            return await self._drained()  # what its handler awaited was given up with this node
        if task is not None and task.cancelling():
            if turn.ended or seat.gone:
                raise error
            if turn.mail.seq not in seat.host.interrupted:
                # A handler that ran in this task before may have left a timer that cancels it, or somebody cancelled
                # every task there is. This message has no part in it: it begins again, from what is on disk, and in
                # another task.
                seat.host.interrupted.add(turn.mail.seq)
                seat.lose(PerdureError(f"the handler of '{turn.mail.id}' was cancelled from outside"))
                return None
            while task.cancelling():
                task.uncancel()
        own = StateError(f"the handler was cancelled by its own code: {error!r}")
        return await self._whole(fail(seat, turn, own))

    async def _check_course(self) -> None:
        """Raise if the turn was stopped or refused, left tasks behind, or did not ask for what its journal holds."""
        turn = self.turn
        turn.check()
        if turn.blocked is not None:
            raise turn.blocked
        leaked = turn.leaked()
        if leaked:
            await self._end_tasks(leaked)
        self._check_refused()

    async def _raised(self, error: Exception) -> Again | None:
        """The handler raised: the turn was stopped, or refuses its message, or failed."""
        turn = self.turn
        if turn.stopped is not None:
            return await self._stopped()
        if self.seat.host.draining and isinstance(error, QueryTimeout | SystemClosedError):
            return await self._drained()
        if self.unstarted is not None and error is self.unstarted:
            return await self._whole(did_not_start(self.seat, turn, self.unstarted))
        problem = turn.refused or turn.blocked
        if problem is not None or not isinstance(error, Rejected | DeadlockError):
            return await self._whole(fail(self.seat, turn, problem or error))
        self.seat.living.rollback()
        self._finish(Outcome("rejected", error=close_error(self.seat.seal, error, turn.mail.id, self.seat.address)))
        await self.seat.settle_pipeline()
        return None

    def _open_mail(self) -> tuple[Handler[..., Any], dict[str, Any]]:
        """The handler and its arguments; parks the turn if the code does not know them any more."""
        turn, spec = self.turn, self.seat.spec
        mail = turn.mail
        handler = spec.by_stored_name.get(mail.handler)
        if handler is None:
            turn.park(f"'{mail.handler}' is no handler of {spec.cls.__name__} any more. Give the renamed one aliases=.")
            turn.check()
            raise NondeterminismError(turn.reason)
        try:
            args = mail.args
            if self.seat.seal is not None or args.startswith(MARKS):
                args = open_arguments(self.seat.seal, mail, self.seat.address, handler.signature)
            return handler, handler.signature.arguments.decode(args)
        except SEAL_ERRORS as error:
            cannot_open(turn, error)
        except PerdureError as error:
            turn.park(f"the stored arguments do not fit the handler: {error}")
            turn.check()
            raise

    async def _bounded(self, handling: Coroutine[Any, Any, object], timeout: float) -> object:
        """Run the handler no longer than its timeout, counted from the turn's first start."""
        turn = self.turn
        first = min([turn.timestamp(), *(record.started for record in turn.records.values())])
        if turn.past is not None and turn.past.since is not None:  # somebody had it tried again
            first = max(first, turn.past.since)
        why = Expired(f"its handler ran past {timeout:g} s")
        left = max(0.0, first + timeout - turn.timestamp())
        timer = self.seat.host.loop.call_later(left, stop_handler, self.seat, turn, why)
        try:
            return await handling
        finally:
            timer.cancel()

    async def _activate(self) -> Actor:
        seat = self.seat
        try:
            await seat.start()
        except FencedError as error:
            self.turn.stop(Drained(str(error)))
            self.turn.check()
            raise
        except StateMisfit as error:
            failure, stored = seat.host.floor.failure(seat.address, error)
            misfit = Ended(seat.actor, "failure", None, failure, stored)
            self._misfit = await seat.host.judge.hopeless(misfit)
            if self._misfit is not None:
                self.turn.park(str(error))
                self.turn.check()
            self.unstarted = error
            raise
        except ActivationError as error:
            self.unstarted = error
            raise
        return cast("Actor", seat.living.instance)

    async def _end_tasks(self, leaked: list[asyncio.Task[Any]]) -> None:
        for task in leaked:
            task.cancel()
        host = self.seat.host
        ended, stubborn = await asyncio.wait(leaked, timeout=host.limits.grace)
        host.workers.leave(*stubborn)
        for task in ended:
            retrieve(task)
        raise LeakedTaskError(
            f"the handler of '{self.turn.mail.id}' returned while {len(leaked)} of its tasks still used perdure. "
            "Await every task that a handler starts, for instance with a task group."
        )

    def _check_refused(self) -> None:
        turn = self.turn
        if turn.refused is not None:
            raise turn.refused
        unclaimed = turn.unclaimed
        if unclaimed is not None:
            turn.stuck(unclaimed)
            turn.check()

    # ending -----------------------------------------------------------------------------------------------------------

    def _success(self, signature: Signature, value: object) -> Segment | None:
        """Submit the end of a turn that went well; give the segment back instead if the store may refuse it."""
        turn, living = self.turn, self.seat.living
        result = signature.reply.encode(value, signature.reply_path).decode()
        if self.seat.seal is not None:
            result = self.seat.seal.close(result, result_of(turn.mail.id), signature.reply)
        fields, changed = living.encode()
        self._fields_before, living.fields = living.fields, fields
        segment = self._last_segment(Outcome("succeeded", result), changed)
        if turn.stop_actor or segment.spawns or (segment.sends and _refusable(segment.sends)):
            return segment
        self.seat.submit(segment)
        return None

    async def _commit_refusable(self, segment: Segment) -> None:
        """Commit before anything is built on it; if the store refuses, the turn has failed."""
        turn, seat = self.turn, self.seat

        async def write(judgement: Judgement) -> None:
            """Commit what the supervisor makes of the end: one that is permanent begins again."""
            if segment.end is not None:
                segment.end.stop = not judgement.permanent
            segment.order = judgement.order
            await seat.commit(segment)

        try:
            if turn.stop_actor:
                await self._whole(seat.host.judge.settle(Ended(seat.actor, "normal", alone=False), write))
            else:
                await seat.commit(segment)
        except StorageError as error:  # what its supervisor is asked could not be read: no fault of the handler's
            seat.lose(error)
            raise Lost(str(error)) from error
        except PerdureError:
            seat.living.fields = self._fields_before
            seat.cursor = turn.mail.number - 1  # it has not ended after all
            raise
        if turn.stop_actor:
            seat.still = True
            await self._whole(seat.retire())

    def _finish(self, outcome: Outcome) -> None:
        """End a turn whose state does not change."""
        self.seat.submit(self._last_segment(outcome))

    def _last_segment(self, outcome: Outcome, changed: Mapping[str, bytes] | None = None) -> Segment:
        turn, seat = self.turn, self.seat
        good = outcome.status == "succeeded"
        segment = turn.take() if good else turn.take_completions()
        # The turn is over, so nothing will look for what it sent under its keys.
        if segment.records:
            segment.records = [record for record in segment.records if record.kind not in ("tell", "spawn", "value")]
        snapshot = changes = None
        if changed:
            snapshot = seat.living.snapshot()
            if seat.seal is not None:
                changes = seat.seal.close(join(changed), changes_of(turn.mail.id), seat.spec.state)
            else:
                changes = snapshot.state if len(changed) == len(seat.living.fields) else join(changed)
        number = turn.mail.number
        segment.end = End(
            number, outcome, turn.started, seat.host.timestamp(), changes, snapshot, turn.stop_actor and good
        )
        if turn.past is not None:
            segment.turn = replace(turn.past, executing=None, suspect=False, retry_at=None)
        turn.ended = True
        seat.host.message_ended(turn.mail.seq)
        seat.cursor = number
        return segment

    async def _drained(self) -> Again | None:
        """The handler met something that is not here any more, for its node leaves: it goes on elsewhere."""
        self.turn.stop(Drained("the system is draining"))
        return await self._stopped()

    async def _stopped(self) -> Again | None:
        """The turn was stopped from outside its handler."""
        turn = self.turn
        why = turn.stopped or Drained()
        if turn.ended:
            raise why  # the handler was left behind, and its end is decided
        if turn.patience is not None:
            turn.patience.cancel()
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()  # the cancellation was the turn's, and this task handles the next message
        if isinstance(why, Blocked) and turn.blocked is not None:
            turn.stopped = None
            return await self._whole(fail(self.seat, turn, turn.blocked))
        self.seat.living.crash()
        if isinstance(why, Expired):
            await self._whole(self.seat.living.end())
            turn.stopped = None
            self._finish(expired(why))
            await self.seat.settle_pipeline()
            return None
        if isinstance(why, Parked) and may_come_out_otherwise(self.seat, turn):
            return await self._whole(replay_again(self.seat, turn, self._before))
        await self._whole(self._leave(why))
        raise why

    async def _leave(self, why: TurnStopped) -> None:
        """Write what is complete of a turn that goes on elsewhere or later, and give its actor up."""
        turn = self.turn
        segment = turn.take_completions()
        if isinstance(why, Parked):
            self.seat.host.differed.pop(turn.mail.seq, None)
            segment.status, segment.reason, segment.order = "parked", turn.reason, self._misfit
            _LOG.error("%s parks at '%s': %s", self.seat.address, turn.mail.id, turn.reason)
        if turn.past is not None and turn.past.executing:
            segment.turn = replace(turn.past, executing=None)  # a death of this process is not its doing any more
        if (segment.status or segment.records or segment.numbered or segment.turn) and not self.seat.gone:
            await self.seat.commit(segment)
        if not self.seat.closing:  # or whoever halts it does, in the time it has
            await self.seat.retire(waiting=turn.mail.seq if isinstance(why, Evicted) else None)

    async def _whole(self, ending: Coroutine[Any, Any, T]) -> T:
        """Do what follows an attempt to its end, whoever cancels this worker meanwhile: the next one rests on it."""
        seat, task = self.seat, self.seat.host.loop.create_task(ending, name=f"perdure {self.seat.address} ends a turn")
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if seat.gone:  # left behind
                    task.cancel()
                    raise
        if task.cancelled():
            seat.lose(PerdureError(f"the end of an attempt at '{self.turn.mail.id}' was cancelled from outside"))
            raise Lost("its end was cut short")
        return task.result()


def _refusable(sends: Iterable[Send]) -> bool:
    return any(send.envelope.must_exist or send.envelope.chosen for send in sends)


def _same(before: Context, after: Context) -> bool:
    """Whether two contexts hold the same, by identity: equal values are not, and some do not like to be compared.

    CPython's contexts share one persistent map until something is set, which is seen without looking into it.
    """
    maps = gc.get_referents(before, after)
    if len(maps) == 2 and maps[0] is maps[1]:  # noqa: PLR2004  # each refers to its own, and to nothing else
        return True
    return [*map(id, before.keys()), *map(id, before.values())] == [*map(id, after.keys()), *map(id, after.values())]
