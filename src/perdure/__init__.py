"""perdure: actors whose mailboxes, steps and state outlive the process."""

from perdure._version import __version__
from perdure.actors.actor import Actor, ephemeral, field
from perdure.actors.handler import handler, query
from perdure.actors.receipt import Receipt
from perdure.actors.ref import Ref
from perdure.actors.steps import fan_out, now, random, sleep, step, step_id, uuid4
from perdure.errors import (
    ActivationError,
    ActorError,
    ActorExists,
    ActorStopped,
    AskTimeout,
    DeadLetterError,
    DeadlockError,
    EncodingError,
    IdReusedError,
    MailboxFull,
    MessageCancelled,
    MessageExpired,
    NondeterminismError,
    NotSpawnedError,
    PerdureError,
    Rejected,
    StepError,
    StorageError,
    TargetError,
)
from perdure.limits import Limits
from perdure.supervision.strategy import Backoff, Retry
from perdure.system import ActorSystem

__all__ = [
    "ActivationError",
    "Actor",
    "ActorError",
    "ActorExists",
    "ActorStopped",
    "ActorSystem",
    "AskTimeout",
    "Backoff",
    "DeadLetterError",
    "DeadlockError",
    "EncodingError",
    "IdReusedError",
    "Limits",
    "MailboxFull",
    "MessageCancelled",
    "MessageExpired",
    "NondeterminismError",
    "NotSpawnedError",
    "PerdureError",
    "Receipt",
    "Ref",
    "Rejected",
    "Retry",
    "StepError",
    "StorageError",
    "TargetError",
    "__version__",
    "ephemeral",
    "fan_out",
    "field",
    "handler",
    "now",
    "query",
    "random",
    "sleep",
    "step",
    "step_id",
    "uuid4",
]
