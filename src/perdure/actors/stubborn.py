"""A handler that does not stop when it is cancelled is left behind, and its actor goes on without it.

    cancelled (it ran past its timeout, or blocked the loop) ──► it stops: as ever
           └─ its grace is over ──► its end is decided without it, and committed
                     └─► its activation is abandoned ──► another one, another worker, the next message

Whatever a handler that was left behind does is not written: its turn has ended, its activation is gone. When it ends at
last, its worker ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.actors.failing import settle_failure
from perdure.actors.stacks import stack_of_task
from perdure.actors.stops import Expired
from perdure.errors import PerdureError, StubbornHandlerError
from perdure.storage.failure import encode_failure
from perdure.storage.records import Outcome

if TYPE_CHECKING:
    from perdure.actors.activation import Activation
    from perdure.actors.stops import TurnStopped
    from perdure.actors.turn import Turn


def expired(why: Expired) -> Outcome:
    """The outcome of a message whose handler ran past its timeout."""
    return Outcome("expired", error=encode_failure(PerdureError(str(why)), with_traceback=False))


def stop_handler(seat: Activation, turn: Turn, why: TurnStopped) -> None:
    """Cancel a handler; if it has not stopped when its grace is over, leave it behind."""
    turn.stop(why)
    if turn.stopped is why and not turn.ended:
        turn.patience = seat.host.loop.call_later(seat.host.limits.grace, _lose_patience, seat, turn, why)


def _lose_patience(seat: Activation, turn: Turn, why: TurnStopped) -> None:
    if turn.ended or seat.gone or seat.closing:
        return  # it has ended; or whoever stops the actor, or the system, sees to it
    turn.ended = seat.still = True
    seat.host.spawn_task(_leave_behind(seat, turn, why), f"perdure leaves a handler of {seat.address} behind")


async def _leave_behind(seat: Activation, turn: Turn, why: TurnStopped) -> None:
    """End a message without its handler, as a failure of its actor, and have the actor go on."""
    stack = "" if seat.worker is None else stack_of_task(seat.worker).text
    error = StubbornHandlerError(
        f"'{turn.mail.handler}' of {seat.address} did not stop within {seat.host.limits.grace:g} s after it was "
        f"cancelled ({why}), and was left behind. Let CancelledError through: `except Exception` does.",
        stack,
    )
    settled = await settle_failure(seat, turn, error, expired(why) if isinstance(why, Expired) else None)
    if settled is not None:
        judgement, _ = settled
        await seat.abandon(anew=judgement.here)
