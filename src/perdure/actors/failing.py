"""What is done about a turn that failed, an actor that did not start, and one that ended: asked of its supervisor.

failed ──► judged (beside the supervisor, see `supervision.judge`) ──► one commit: attempt or dead letter, the
supervisor's count, the failure, the order ──► again from here, or gone until the order is carried out

A replay that differed from its journal is no failure: it is begun again from here, a few times, if timing may be all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias, cast

from msgspec.structs import replace

from perdure.actors.handout import MOST_TRIES
from perdure.actors.past import LEFT, RESULTS, UNTAKEN, cancelled_beside, carried, decided, rest_on
from perdure.actors.sealing import close_error
from perdure.actors.steps import escaped_keys
from perdure.actors.stops import TurnStopped
from perdure.errors import (
    ActorDefinitionError,
    ArgumentsError,
    EncodingError,
    NestedStepError,
    NotAMessageError,
    PerdureError,
    StateError,
    StepNameError,
)
from perdure.storage.failure import encode_failure, failure_fields
from perdure.storage.records import Outcome, TurnRecord
from perdure.storage.writes import End
from perdure.supervision.strategy import Ended, Failure, GiveUp, TryAgain, after_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from perdure.actors.activation import Activation
    from perdure.actors.actor import Actor
    from perdure.actors.ref import Reference
    from perdure.actors.turn import Turn
    from perdure.storage.records import Record
    from perdure.storage.writes import Segment
    from perdure.supervision.judge import Judgement
    from perdure.supervision.strategy import Decision

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


def failure_of(actor: Reference, message: str | None, attempt: int, error: BaseException) -> Failure:
    """A failure as a supervisor is told of it."""
    stored = failure_fields(encode_failure(error))
    type_, text, traceback = (str(stored.get(name, "")) for name in ("type", "text", "traceback"))
    return Failure(cast("Actor", actor), message, attempt, type_, text, traceback, tuple(stored.get("lineage", ())))


async def fail(seat: Activation, turn: Turn, error: BaseException) -> Again | None:
    """The handler raised: count the attempt, and begin again, give the message up, or leave it to an order."""
    settled = await settle_failure(seat, turn, error)
    if settled is None:
        return None
    judgement, part = settled
    if not await _go_on(seat, judgement) or part.end is not None or part.turn is None:
        return None
    renewed = {*part.renewed}
    return part.turn, [
        replace(record, status="cancelled", position=LEFT) if record.key in renewed else record
        for record in _journal(turn)
    ]


def _decide(seat: Activation, turn: Turn, error: BaseException, attempts: int) -> Decision:
    """Whether the message is tried again."""
    handler = seat.spec.by_stored_name[turn.mail.handler]
    retry = handler.retry or seat.spec.retry or seat.host.retry
    return GiveUp() if isinstance(error, _HOPELESS) else after_failure(retry, attempts, error)


def _anew(turn: Turn, error: BaseException) -> dict[str, Record]:
    """What the next attempt does anew: whose errors got out, and what was cancelled while one of them failed.

    The next attempt may not fail there, and nobody would cancel it again, even if the handler went on, as in `finally`.
    So does what was cancelled and followed by nothing; it is written now, since what the next attempt does follows it.
    """
    records = turn.records
    failed = [records[key] for key in escaped_keys(error) if key in records]
    kept = {record.key for record in decided([*records.values()])}
    open_ = [record for key, record in records.items() if key not in kept]
    return {each.key: each for each in (*failed, *cancelled_beside(records.values(), failed), *open_)}


def _leave(turn: Turn, completed: Segment, anew: Mapping[str, Record], error: BaseException) -> None:
    """Mark what rests on an error that is to come no more, which the next attempt may not ask for."""
    records, raised = turn.records, {id(one) for one in carried(error)}
    amid = [records[key] for key, one in turn.amid if id(one) in raised and key in records]
    # nor may anybody cancel again what did something about that
    tidied = [records[key] for key, one in turn.amid if isinstance(one, asyncio.CancelledError) and key in records]
    for record in {each.key: each for each in (*rest_on(records.values(), [*anew.values()], amid), *tidied)}.values():
        if record.position != UNTAKEN and record.key not in turn.dropped and record.key not in anew:
            _put_down(turn, completed, record, LEFT)


def _put_down(turn: Turn, segment: Segment, record: Record, position: int) -> None:
    """Mark what nobody has to ask for (see `past.py`)."""
    turn.records[record.key] = replace(record, position=position)
    segment.numbered = [*segment.numbered, (record.key, position)]


async def settle_failure(
    seat: Activation, turn: Turn, error: BaseException, outcome: Outcome | None = None
) -> tuple[Judgement, Segment] | None:
    """Judge a failure of a turn and commit what follows; none if the activation was lost.

    Args:
        seat: Where the turn runs.
        turn: It; has ended with this.
        error: Why it failed.
        outcome: How its message ends, whatever is decided about the actor; without it, that depends.
    """
    turn.ended = True  # nothing stops it any more, and its end is decided here
    past = turn.past or TurnRecord()
    attempts = past.attempts + 1
    _LOG.warning("%s: '%s' failed, attempt %d: %r", seat.address, turn.mail.id, attempts, error)
    decision = _decide(seat, turn, error, attempts)
    stored = close_error(seat.seal, error, turn.mail.id, seat.address)
    anew = _anew(turn, error)
    escaped = list(anew)
    completed = turn.take_completions()
    _leave(turn, completed, anew, error)
    failure = failure_of(seat.reference, turn.mail.id, attempts, error)
    no_more = isinstance(decision, GiveUp)
    ended = Ended(
        seat.actor, "failure", turn.mail.seq, failure, stored, tuple(escaped), given_up=no_more or outcome is not None
    )

    def segment(judgement: Judgement) -> Segment:
        """What is written of the failure, under one judgement."""
        over = no_more or (judgement.verdict.action, judgement.verdict.at) == ("end", 0)
        part = replace(completed, order=judgement.order)
        if over or outcome is not None:
            now = seat.host.timestamp()
            part.end = End(turn.mail.number, outcome or Outcome("dead", error=stored), turn.started, now)
            part.turn = replace(past, attempts=attempts, error=stored, executing=None, suspect=False, retry_at=None)
            return part
        delay = decision.delay if isinstance(decision, TryAgain) else 0.0
        at = seat.host.timestamp() + max(delay, judgement.delay if judgement.here else 0.0)
        part.records = [record for record in completed.records if record.key not in escaped]
        part.renewed = escaped
        part.turn = replace(past, attempts=attempts, retry_at=at, error=stored, executing=None)
        return part

    settled = await _settle(seat, ended, segment)
    if settled is not None:
        _, part = settled
        if part.end is not None:
            seat.host.message_ended(turn.mail.seq)
            seat.cursor = turn.mail.number
    return settled


def may_come_out_otherwise(seat: Activation, turn: Turn) -> bool:
    """Whether a replay that differs may do so for its timing alone; several are tried."""
    able = turn.differs and turn.may_differ and not (seat.closing or seat.gone)
    return able and turn.tries < MOST_TRIES


async def replay_again(seat: Activation, turn: Turn, before: Iterable[Record]) -> Again:
    """Put down what a replay that differed did as what rests on nothing, and begin again.

    Args:
        seat: Where the turn runs.
        turn: It; was stopped.
        before: The journal that it began with.
    """
    seat.host.differed[turn.mail.seq] = turn.tries + 1
    _LOG.warning("%s: a replay of '%s' is tried again: %s", seat.address, turn.mail.id, turn.reason)
    segment, known = turn.take_completions(), {record.key: record for record in before}
    for key, record in [*turn.records.items()]:
        was = known.get(key)
        same = was is not None and (was.status, was.position) == (record.status, record.position)
        if not same and record.kind in RESULTS and record.status != "started" and key not in turn.dropped:
            untaken = was is not None and was.position == UNTAKEN
            _put_down(turn, segment, record, UNTAKEN if untaken else LEFT)
    await seat.commit(segment)
    return turn.past or TurnRecord(), _journal(turn)


def _journal(turn: Turn) -> list[Record]:
    return [record for key, record in {**turn.anew, **turn.records}.items() if key not in turn.dropped]


async def did_not_start(seat: Activation, turn: Turn, error: PerdureError) -> Again | None:
    """`started()` raised: no attempt of the message is spent; it waits for the actor."""
    turn.ended = True
    past = replace(turn.past or TurnRecord(), executing=None)
    failure, stored = seat.host.floor.failure(seat.address, error)
    ended = Ended(seat.actor, "failure", None, failure, stored)

    def segment(judgement: Judgement) -> Segment:
        """What is written, under one judgement."""
        part = seat.segment(turn.mail.seq)
        part.order = judgement.order
        part.turn = replace(past, retry_at=seat.host.timestamp() + judgement.delay)
        return part

    settled = await _settle(seat, ended, segment)
    if settled is None:
        return None
    judgement, part = settled
    if not await _go_on(seat, judgement) or part.turn is None:
        return None
    return part.turn, [*{**turn.anew, **turn.records}.values()]


async def _settle(
    seat: Activation, ended: Ended, segment: Callable[[Judgement], Segment]
) -> tuple[Judgement, Segment] | None:
    """Judge and commit; none if the activation was lost."""
    written: list[Segment] = []

    async def write(judgement: Judgement) -> None:
        """Have nobody see the failed instance, and commit."""
        written[:] = [segment(judgement)]
        if judgement.verdict.action == "resume":
            seat.living.rollback()
        else:
            seat.living.crash()
        await seat.commit(written[0])

    try:
        judgement = await seat.host.judge.settle(ended, write)
    except TurnStopped:
        return None
    except PerdureError as problem:
        seat.lose(problem)
        return None
    return judgement, written[0]


async def _go_on(seat: Activation, judgement: Judgement) -> bool:
    """Do in memory what was decided; whether the actor goes on here."""
    if not judgement.here:
        seat.still = seat.halted = True
        await seat.retire()
    elif judgement.verdict.action != "resume":
        await seat.living.end()
    return judgement.here
