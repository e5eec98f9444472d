"""perdure: actors whose mailboxes, steps and state outlive the process."""

from perdure._version import __version__
from perdure.actors.actor import Actor, ephemeral, field
from perdure.actors.child import Child
from perdure.actors.handler import handler, query
from perdure.actors.receipt import Receipt
from perdure.actors.ref import Ref
from perdure.actors.steps import fan_out, now, random, sleep, step, step_id, uuid4
from perdure.actors.watching import Terminated, watch
from perdure.errors import (
    ActivationError,
    ActorError,
    ActorExists,
    ActorFailed,
    ActorStopped,
    AskTimeout,
    ChildError,
    DeadLetterError,
    DeadlockError,
    EncodingError,
    EscalationError,
    IdReusedError,
    MailboxFull,
    MessageCancelled,
    MessageExpired,
    NondeterminismError,
    NotSpawnedError,
    PerdureError,
    Rejected,
    StartError,
    StepError,
    StorageError,
    TargetError,
)
from perdure.limits import Limits
from perdure.supervision.strategy import Backoff, Failure, OneForAll, OneForOne, RestForOne, Retry, Strategy
from perdure.supervision.supervisor import ChildCounts, ChildStatus, Supervisor
from perdure.system import ActorSystem

__all__ = [
    "ActivationError",
    "Actor",
    "ActorError",
    "ActorExists",
    "ActorFailed",
    "ActorStopped",
    "ActorSystem",
    "AskTimeout",
    "Backoff",
    "Child",
    "ChildCounts",
    "ChildError",
    "ChildStatus",
    "DeadLetterError",
    "DeadlockError",
    "EncodingError",
    "EscalationError",
    "Failure",
    "IdReusedError",
    "Limits",
    "MailboxFull",
    "MessageCancelled",
    "MessageExpired",
    "NondeterminismError",
    "NotSpawnedError",
    "OneForAll",
    "OneForOne",
    "PerdureError",
    "Receipt",
    "Ref",
    "Rejected",
    "RestForOne",
    "Retry",
    "StartError",
    "StepError",
    "StorageError",
    "Strategy",
    "Supervisor",
    "TargetError",
    "Terminated",
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
    "watch",
]
