"""One attempt at one message: the handler runs, and its end is made durable.

returned ──► state, result and what it sent, in one last segment
Rejected ──► answered; the state is as before
raised   ──► counted; the state is as before; again after a backoff, or a dead letter
stopped  ──► parked, evicted or drained: nothing of the open segment is written, what is complete is
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from perdure.actors.steps import escaped_keys
from perdure.actors.stops import Drained, Evicted, Expired, Parked, TurnStopped
from perdure.errors import (
    ActorDefinitionError,
    ArgumentsError,
    DeadlockError,
    EncodingError,
    LeakedTaskError,
    NestedStepError,
    NondeterminismError,
    NotAMessageError,
    PerdureError,
    Rejected,
    StateError,
    StateMisfit,
    StepNameError,
)
from perdure.storage.failure import encode_failure
from perdure.storage.record_codec import join
from perdure.storage.records import Outcome, Record, TurnRecord
from perdure.storage.writes import End
from perdure.supervision.strategy import GiveUp, TryAgain, after_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.turn import Turn
    from perdure.storage.writes import Segment

Again: TypeAlias = "tuple[TurnRecord, list[Record]]"
"""What the next attempt begins with: the message's past, and its journal."""

_LOG = logging.getLogger("perdure.actors")

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


class Attempt:
    """One run of a handler."""

    __slots__ = ("seat", "started", "turn")

    def __init__(self, seat: Activation, turn: Turn) -> None:
        self.seat = seat
        self.turn = turn
        self.started = 0.0

    def __repr__(self) -> str:
        return f"<attempt at {self.turn!r}>"

    async def run(self) -> Again | None:
        """Run the handler to its outcome; what to begin again with, if it failed."""
        turn = self.turn
        self.started = turn.last_change = self.seat.timestamp()
        past = turn.past
        if past is not None and past.retry_at is not None:
            await turn.until(past.retry_at)
        try:
            if past is not None and past.suspect and past.executing != self.seat.host.node:
                turn.past = turn.opened.turn = replace(past, executing=self.seat.host.node)
                await turn.durable()
            value = await self._call()
            turn.check()
            leaked = turn.leaked()
            if leaked:
                await self._end_tasks(leaked)
            self._check_refused()
            await self._succeed(value)
        except asyncio.CancelledError as error:
            if turn.stopped is None:
                # Code of the handler cancelled itself, or this worker is being ended.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                own = StateError(f"the handler was cancelled by its own code: {error!r}")
                return await self._fail(own)
            await self._stopped()
            return None
        except Exception as error:  # noqa: BLE001  # whatever user code raises is a failure of its actor
            return await self._raised(error)
        await self.seat.settle_pipeline()
        return None

    async def _raised(self, error: Exception) -> Again | None:
        """The handler raised: the turn was stopped, or refuses its message, or failed."""
        turn = self.turn
        if turn.stopped is not None:
            await self._stopped()
            return None
        if turn.refused is not None or not isinstance(error, Rejected | DeadlockError):
            return await self._fail(turn.refused or error)
        self.seat.living.rollback()
        self._finish(Outcome("rejected", error=encode_failure(error)))
        await self.seat.settle_pipeline()
        return None

    async def _call(self) -> object:
        turn = self.turn
        mail = turn.mail
        handler = self.seat.spec.by_stored_name.get(mail.handler)
        if handler is None:
            turn.park(
                f"'{mail.handler}' is no handler of {self.seat.spec.cls.__name__} any more. "
                "Give the renamed one aliases=."
            )
            turn.check()
            raise NondeterminismError(turn.reason)
        instance = self.seat.living.instance or await self._activate()
        try:
            arguments = handler.signature.decode(mail.args)
        except PerdureError as error:
            turn.park(f"the stored arguments do not fit the handler: {error}")
            turn.check()
            raise
        timeout = handler.timeout if handler.timeout is not None else self.seat.spec.timeout
        if timeout is None:
            return await handler.function(instance, **arguments)
        first = min([turn.timestamp(), *(record.started for record in turn.records.values())])
        why = Expired(f"its handler ran past {timeout:g} s")
        timer = asyncio.get_running_loop().call_later(max(0.0, first + timeout - turn.timestamp()), turn.stop, why)
        try:
            return await handler.function(instance, **arguments)
        finally:
            timer.cancel()

    async def _activate(self) -> Actor:
        try:
            return await self.seat.living.start()
        except StateMisfit as error:
            self.turn.park(str(error))
            self.turn.check()
            raise

    async def _end_tasks(self, leaked: list[asyncio.Task[Any]]) -> None:
        for task in leaked:
            task.cancel()
        await asyncio.gather(*leaked, return_exceptions=True)
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

    async def _succeed(self, value: object) -> None:
        turn = self.turn
        handler = self.seat.spec.by_stored_name[turn.mail.handler]
        result = handler.signature.reply.encode(value, f"{handler.signature.what} reply").decode()
        living = self.seat.living
        fields, changed = living.encode()
        before, living.fields = living.fields, fields
        segment = self._last_segment(Outcome("succeeded", result), changed)
        refusable = segment.spawns or any(send.envelope.must_exist or send.envelope.chosen for send in segment.sends)
        if not refusable and not turn.stop_actor:
            self.seat.submit(segment)
            return
        # The store may refuse this, and then the turn has failed: nothing may be built on it before.
        try:
            await self.seat.commit(segment)
        except PerdureError:
            living.fields = before
            self.seat.go_back(turn.mail.number)
            raise
        if turn.stop_actor:
            await self.seat.retire()

    def _finish(self, outcome: Outcome) -> None:
        """End a turn whose state does not change."""
        self.seat.submit(self._last_segment(outcome))

    def _last_segment(self, outcome: Outcome, changed: Mapping[str, bytes] | None = None) -> Segment:
        turn = self.turn
        good = outcome.status == "succeeded"
        segment = turn.take() if good else turn.take_completions()
        # The turn is over, so nothing will look for what it sent under its keys.
        if segment.records:
            segment.records = [record for record in segment.records if record.kind not in ("tell", "spawn", "value")]
        snapshot = changes = None
        if changed:
            living = self.seat.living
            snapshot = living.snapshot()
            changes = snapshot.state if len(changed) == len(living.fields) else join(changed)
        segment.end = End(
            turn.mail.number,
            outcome,
            self.started,
            self.seat.host.timestamp(),
            changes,
            snapshot,
            stop=turn.stop_actor and good,
        )
        if turn.past is not None:
            segment.turn = replace(turn.past, executing=None, suspect=False, retry_at=None)
        turn.ended = True
        self.seat.advance(turn.mail.number)
        return segment

    async def _fail(self, error: BaseException) -> Again | None:
        """The handler raised: count the attempt, and begin again or give up."""
        turn = self.turn
        past = turn.past or TurnRecord()
        attempts = past.attempts + 1
        handler = self.seat.spec.by_stored_name[turn.mail.handler]
        retry = handler.retry or self.seat.spec.retry or self.seat.host.retry
        decision = GiveUp() if isinstance(error, _HOPELESS) else after_failure(retry, attempts, error)
        _LOG.warning("%s: '%s' failed, attempt %d: %r", self.seat.address, turn.mail.id, attempts, error)
        self.seat.living.rollback(crashed=True)
        if not isinstance(decision, TryAgain):
            turn.past = replace(past, attempts=attempts, error=encode_failure(error))
            self._finish(Outcome("dead", error=encode_failure(error)))
            await self.seat.settle_pipeline()
            return None
        escaped = [key for key in escaped_keys(error) if key in turn.records]
        failed = replace(
            past,
            attempts=attempts,
            retry_at=self.seat.host.timestamp() + decision.delay,
            error=encode_failure(error),
            executing=None,
        )
        segment = turn.take_completions()
        segment.records = [record for record in segment.records if record.key not in escaped]
        segment.erased = escaped
        segment.turn = failed
        turn.ended = True
        try:
            await self.seat.commit(segment)
        except (TurnStopped, PerdureError):
            return None
        return failed, [r for key, r in turn.records.items() if key not in escaped and key not in turn.dropped]

    async def _stopped(self) -> None:
        """The turn was stopped from outside its handler."""
        turn = self.turn
        why = turn.stopped
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()  # the cancellation was the turn's, and this task handles the next message
        self.seat.living.rollback(crashed=True)
        if isinstance(why, Expired):
            turn.stopped = None
            self._finish(Outcome("expired", error=encode_failure(PerdureError(str(why)), with_traceback=False)))
            await self.seat.settle_pipeline()
            return
        segment = turn.take_completions()
        if isinstance(why, Parked):
            segment.status, segment.reason = "parked", turn.reason
            _LOG.error("%s parks at '%s': %s", self.seat.address, turn.mail.id, turn.reason)
        if (segment.status or segment.records or segment.numbered) and not self.seat.gone:
            await self.seat.commit(segment)
        await self.seat.retire(waiting=turn.mail.seq if isinstance(why, Evicted) else None)
        raise why or Drained()
