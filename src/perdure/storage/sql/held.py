"""Actors that handle nothing until somebody restarts them: their mail is kept, and nobody is to wait for a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.errors import ActorFailed, ActorStopped
from perdure.storage.failure import encode_failure
from perdure.storage.records import Outcome

if TYPE_CHECKING:
    from perdure.errors import PerdureError
    from perdure.storage.records import Member
    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.writes import Order

_ERRORS: dict[str, type[PerdureError]] = {"failed": ActorFailed, "terminated": ActorStopped}


def is_held(row: ActorRow) -> bool:
    """Whether an actor is one of them."""
    return row.life in _ERRORS


def became(one: Member, order: Order) -> PerdureError:
    """What those are told who wait as an order makes an actor one of them."""
    if order.fail:
        return ActorFailed(
            f"{one.to} has failed: {order.reason}. Its mail is kept. Restart it: perdure restart {one.to}"
        )
    return ActorStopped(f"{one.to} was stopped by its supervisor; its mail is kept until it is restarted.")


def refusal(row: ActorRow, what: str) -> PerdureError:
    """What whoever asks one of them is told; `what` has become of the message."""
    return _ERRORS[row.life](
        f"{row.address} {row.life}: {row.reason}. {what} Restart it: perdure restart {row.address}"
    )


def no_reply(row: ActorRow, handler: str) -> Outcome:
    """What whoever waits for a message to one of them is told, while the message itself is kept."""
    return Outcome("rejected", error=encode_failure(refusal(row, f"'{handler}' waits."), with_traceback=False))
