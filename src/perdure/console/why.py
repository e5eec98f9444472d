"""Where a message is, and why a mailbox waits: decided from rows, without a database or a clock.

A message is delayed, then pending, then running or waiting or parked, until it has an outcome.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from perdure.console.views import Wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.console.views import Failure, MessageRef, MessageState, StepView, WaitKind
    from perdure.storage.records import ActorStatus, Address, Life, OutcomeStatus

_OPEN_SHOWN = 20


@frozen
class Place:
    """Where a message stands in its mailbox.

    Attributes:
        cursor: Number of the last message its actor has handled.
        owned: Whether a process has the actor: `no`, `live`, or `gone` if that process is.
        steps: How many of its steps run.
        waits: How many asks, receipts and sleeps of it are open.
        life: What its supervisor wants of its actor, which begins again at `restart_at`, if it is restarted.
    """

    outcome: OutcomeStatus | None
    number: int | None
    cursor: int
    actor: ActorStatus
    owned: Literal["no", "live", "gone"]
    retry_at: float | None = None
    steps: int = 0
    waits: int = 0
    life: Life = "running"
    restart_at: float | None = None

    def state(self, now: float) -> MessageState:
        """Where the message is."""
        if self.outcome is not None:
            return self.outcome
        if self.number is None:
            return "delayed"
        if self.number != self.cursor + 1:
            return "pending"
        return "parked" if self.actor == "parked" else self._state_of_head(now)

    def _state_of_head(self, now: float) -> MessageState:
        if self.life != "running" or self.actor == "waiting" or (self.retry_at is not None and self.retry_at > now):
            return "waiting"
        if self.owned != "live":
            return "pending"
        return "waiting" if self.waits and not self.steps else "running"


def why(
    head: MessageRef,
    place: Place,
    reason: str | None,
    failure: Failure | None,
    begun: Sequence[StepView],
    now: float,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> Wait:
    """Why a mailbox does not move on from the message at its head.

    Args:
        head: The message.
        place: Where it stands.
        reason: What the actor's row says.
        failure: The last failure of the handler.
        begun: The open records of its journal, oldest first.
        now: The time.
        limits: The limits that it waits for, and how many of its steps, or itself, wait for each.
    """
    kind, text, until = _cause(head, place, reason, failure, begun, now)
    if limits and kind in {"running", "step", "reply", "outcome", "sleep"}:
        kind, text, until = _for_limits(kind, text, _of("step", begun, now), limits)
    shown = tuple(begun[:_OPEN_SHOWN])
    return Wait(kind, text, head, until=until, error=failure, open=shown, open_count=len(begun))


def _cause(
    head: MessageRef, place: Place, reason: str | None, failure: Failure | None, begun: Sequence[StepView], now: float
) -> tuple[WaitKind, str, float | None]:
    stopped = held(head.actor, place.life, reason)
    if stopped is not None:
        return *stopped, place.restart_at
    if place.actor == "parked":
        return "parked", f"parked, and waits for a person: {reason or 'no reason was recorded'}", None
    if place.retry_at is not None and place.retry_at > now:
        text = f"tries '{head.handler}' again after {failure.short if failure else 'a failure'}"
        return "retry", text, place.retry_at
    if place.owned == "live" or (place.actor == "waiting" and begun):
        return _in_turn(head, begun, now)
    if place.owned == "gone":
        return "orphaned", "its process is gone; another takes over, or the next to start", None
    return "unclaimed", "no process has taken it; start one that knows this kind", None


def _for_limits(
    kind: WaitKind, text: str, running: Sequence[StepView], limits: Mapping[str, int]
) -> tuple[WaitKind, str, float | None]:
    """What is said of a turn that waits for limits; with some of its steps, or with all of them."""
    names, waiting = ", ".join(limits), sum(limits.values())
    if waiting >= len(running):
        return "limit", f"waits for limit {names}", None
    return kind, f"{text}, of which {waiting} wait for limit {names}", None


def held(actor: Address, life: Life, reason: str | None) -> tuple[WaitKind, str] | None:
    """Why an actor does nothing, mail or not; none if it runs."""
    because = reason or "no reason was recorded"
    if life == "failed":
        return "failed", f"failed: {because}; perdure restart {actor}"
    if life == "terminated":
        return "terminated", f"stopped by its supervisor: {because}; perdure restart {actor}"
    return ("restarting", f"restarts: {because}") if life == "restarting" else None


def _in_turn(head: MessageRef, begun: Sequence[StepView], now: float) -> tuple[WaitKind, str, float | None]:
    """The most active thing that a turn has open."""
    for kind, text in _TEXTS.items():
        found = _of(kind, begun, now)
        if found:
            until = min((step.due for step in found if step.due is not None), default=None)
            return kind, text.format(_names(found)), until if kind != "step" else None
    return "running", f"'{head.handler}' is running", None


_TEXTS: dict[WaitKind, str] = {
    "step": "runs {}",
    "step_retry": "waits for the next attempt of {}",
    "reply": "waits for the reply of {}",
    "outcome": "waits for the outcome of {}",
    "sleep": "sleeps",
}


def _of(kind: WaitKind, begun: Sequence[StepView], now: float) -> list[StepView]:
    record = {"step": "step", "step_retry": "step", "reply": "ask", "outcome": "receipt", "sleep": "sleep"}.get(kind)
    found = [step for step in begun if step.kind == record]
    if record != "step":
        return found
    later = kind == "step_retry"
    return [step for step in found if later == (step.due is not None and step.due > now)]


def _names(steps: Sequence[StepView]) -> str:
    """`summarise`, or `summarise x8`, or `summarise and 7 others`."""
    counted = Counter(f"{step.target.actor}.{step.target.handler}" if step.target else step.name for step in steps)
    (name, count), *others = counted.most_common()
    first = f"{name} x{count}" if count > 1 else name
    rest = sum(number for _, number in others)
    return first if not rest else f"{first} and {rest} other{'s' if rest > 1 else ''}"
