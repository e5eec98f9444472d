"""Everything perdure raises: one tree, each error naming the thing, the cause and the remedy.

PerdureError
├── Rejected                       a handler's own "no", an answer like any other
├── ActorError                     a message, a reference or an actor class is not right
├── StepError                      a step ran out of attempts
├── StorageError                   the database cannot be used as asked
├── SupervisionError               an actor could not be kept running
└── ApplicationError               `perdure run` has nothing to run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.actors.receipt import Receipt


class PerdureError(Exception):
    """Base of every error of perdure."""


class Rejected(PerdureError):
    """Raised by a handler to refuse a message: answered with this error, state untouched, never retried.

    Subclass it for reasons the caller tells apart; a subclass arrives at the caller as itself when its arguments
    are JSON values.
    """


# actors ---------------------------------------------------------------------------------------------------------------


class ActorError(PerdureError):
    """Base of errors about actors and the messages sent to them."""


class ActorDefinitionError(ActorError):
    """An actor class is not well formed; raised where it is defined or first used."""


class KindError(ActorDefinitionError):
    """Two actor classes claim one durable name (`kind`)."""


class StepNameError(ActorDefinitionError):
    """A step has no name that would be the same tomorrow (a lambda, for instance)."""


class LimitError(ActorDefinitionError):
    """A `Limit` is not well formed, or two of one name differ in one process, or a step has the limit of its turn."""


class NotAMessageError(ActorError, AttributeError):
    """A reference was used for something other than a message."""


class StateError(ActorError, AttributeError):
    """A field was assigned that the actor does not declare, or where state may not change."""


class ReadOnlyError(StateError):
    """A query assigned a field."""


class KeyFormatError(ActorError, ValueError):
    """A key or id is not one to 255 bytes of NFC text without control characters."""


class NotInTurnError(ActorError):
    """Something that belongs to a running handler was used elsewhere."""


class NestedStepError(ActorError):
    """A step, ask or sleep was begun inside a step."""


class LeakedTaskError(ActorError):
    """A handler returned while a task it had started was still using perdure."""


class StuckError(ActorError):
    """A handler did not give way. `stack` is where it was, as text."""

    stack: str = ""

    def __init__(self, text: str, stack: str = "") -> None:
        super().__init__(text)
        self.stack = stack


class BlockedLoopError(StuckError):
    """A handler blocked the event loop past `Limits(blocked_failure=…)`: a failure of its actor."""


class StubbornHandlerError(StuckError):
    """A handler was cancelled and did not stop within `Limits(grace=…)`: left behind, a failure of its actor."""


class ArgumentsError(ActorError, TypeError):
    """A message's arguments do not fit the handler's signature."""


class MailboxFull(ActorError):
    """The receiver holds as many unhandled messages as its class allows. Nothing was written; send again later."""


class MessageTooLarge(ActorError, ValueError):
    """An encoded message is over the limit. Nothing was written."""


class IdReusedError(ActorError):
    """The id is taken by a message to another actor or handler, or with other arguments."""


class NotSpawnedError(ActorError):
    """The actor's class has required fields, so it exists only once spawned."""


class ActorExists(ActorError):
    """The actor was spawned before, with other initial state."""


class NotRunningError(ActorError):
    """Base of the errors of an ask whose receiver handles nothing.

    Attributes:
        key: The ask's journal key, where a turn asked: its next attempt asks anew.
    """

    key: str = ""


class ActorStopped(NotRunningError):
    """The actor ended; it takes no more messages."""


class ActorFailed(NotRunningError):
    """The actor failed too often and handles nothing until someone restarts it. Its mail is kept; a tell waits."""


class QueryError(ActorError):
    """A query's own code raised, here or in the process that has the actor; what perdure knows arrives as itself.

    Attributes:
        error_type: Qualified name of the exception.
        lineage: Names of that exception's classes, most derived first.
    """

    error_type: str
    lineage: tuple[str, ...]

    def __init__(self, text: str, *, error_type: str, lineage: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.error_type = error_type
        self.lineage = tuple(lineage)

    def caused_by(self, *types: type[BaseException]) -> bool:
        """Whether the exception was an instance of one of these types."""
        return any(f"{type_.__module__}.{type_.__qualname__}" in self.lineage for type_ in types)


class QueryTimeout(ActorError, TimeoutError):
    """The process that has the actor did not answer a query within `Limits(query=…)`. Nothing was changed by it."""


class ClientError(ActorError):
    """A client runs no actors, and was asked for something that only whoever runs them can do."""


class AskTimeout(ActorError, TimeoutError):
    """The wait for a reply ended; the message goes on. `receipt` rejoins it."""

    receipt: Receipt[object]

    def __init__(self, text: str, receipt: Receipt[object]) -> None:
        super().__init__(text)
        self.receipt = receipt


class DeadlockError(ActorError):
    """A reply can never come: whoever is to send it waits, in the end, for its receiver. `path` names the cycle."""

    path: tuple[str, ...]

    def __init__(self, path: Sequence[str]) -> None:
        self.path = tuple(path)
        super().__init__(
            f"{' -> '.join(self.path)}: each waits for the next, so no reply can come. "
            "Use tell for one of these messages and do not wait for its result, or split the actor."
        )


class DeadLetterError(ActorError):
    """The message ran out of attempts, or of deaths of its process, and lies among the dead letters."""


class NoSuchMessage(ActorError):
    """There is no message with that id, or it is no longer kept."""


class NotADeadLetter(ActorError):
    """The message lies not among the dead letters, so it can neither be sent again nor removed by hand."""


class MessageCancelled(ActorError):
    """The message was cancelled before it completed."""


class MessageExpired(ActorError):
    """The message was not started before its latest start, or ran past its handler's timeout."""


class NondeterminismError(ActorError):
    """A replayed handler asked for something other than its journal holds. The turn is parked, nothing is lost."""


class StepError(PerdureError):
    """A step failed for the last time. Raised alike when it happens and when it is replayed.

    Attributes:
        error_type: Qualified name of the exception the step raised, such as ``builtins.ValueError``'s ``ValueError``.
        key: The journal key of the step.
        lineage: Names of that exception's classes, most derived first.
    """

    error_type: str
    key: str
    lineage: tuple[str, ...]

    def __init__(self, text: str, *, error_type: str, key: str, lineage: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.error_type = error_type
        self.key = key
        self.lineage = tuple(lineage)

    def caused_by(self, *types: type[BaseException]) -> bool:
        """Whether the step's own exception was an instance of one of these types, on replay too."""
        return any(f"{type_.__module__}.{type_.__qualname__}" in self.lineage for type_ in types)


class StepTimeout(PerdureError, TimeoutError):
    """A step ran past its `timeout`; counted as a failed attempt of that step alone."""


# storage --------------------------------------------------------------------------------------------------------------


class StorageError(PerdureError):
    """The database cannot be used as asked."""


class TargetError(StorageError):
    """The system's target is not a database perdure can use."""


class SchemaTooNewError(TargetError):
    """The database was written by a newer perdure."""


class InUseError(TargetError):
    """A system still runs on the database, and what is asked would leave two of it. Stop it first."""


class NotEmptyError(TargetError):
    """Something is already where a copy or a backup is to be. It was not touched."""


class CannotCopyError(StorageError):
    """A value, or a table, cannot be carried over as it is. The copy was given up, and nothing of it is left."""


class CopyDiffersError(StorageError):
    """What was written is not what was read. The copy was given up, and nothing of it is left."""


class DatabaseReplacedError(StorageError):
    """The database file was replaced or removed while in use; nothing more is acknowledged."""


class WriterLockTimeout(StorageError, TimeoutError):
    """Another process held the writer lock past the deadline."""


class OutcomeUnknownError(StorageError):
    """The database went away while a transaction was committed: what was sent may be there, or not.

    The actors of this process see what the database has, once it is back. Whoever sent from outside sends again: under
    an id of its own (`options(id=…)`) a message is the same one, and handled once.
    """


class FencedError(StorageError):
    """This activation no longer owns its actor; what it computed was not written."""


class NodeBuried(FencedError):
    """This node was taken for dead by another; its actors are others'. Nothing of the transaction was written."""

    def __init__(self, node: str) -> None:
        super().__init__(
            f"node {node} was taken for dead, for its heartbeats had stopped, and its actors were given to others. "
            "Look for what held the process or its database up for so long; it goes on as another node."
        )
        self.node = node


class EncodingError(StorageError, TypeError):
    """A value cannot be stored as annotated, or would come back changed. Nothing was written."""

    def __init__(self, path: str, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}. {remedy}")
        self.path = path
        self.reason = reason
        self.remedy = remedy


class DecodingError(StorageError):
    """Stored bytes do not fit what the code declares. The bytes are kept."""

    def __init__(self, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what}: {reason}. {remedy}")
        self.what = what
        self.reason = reason
        self.remedy = remedy


class SealKeyError(StorageError, ValueError):
    """Keys of a seal are missing, too short, or not in the form that is read."""


class MissingExtraError(StorageError, ImportError):
    """What was asked for needs a package that is not installed."""


class UnknownKeyError(DecodingError):
    """A stored value is sealed under a key that was not given. `key` is its id; the value is kept."""

    key: str = ""


class TamperedError(DecodingError):
    """A stored value is not what was sealed for its place: altered, moved there from elsewhere, or put there unsealed.

    Nothing of it was decoded, and it is kept.
    """


class UnsignedError(EncodingError):
    """A value would be stored with cloudpickle, unsigned, where others than the application can write. Not written."""


class SystemClosedError(StorageError):
    """The system is not open: not entered yet, closed, or copied into a forked process."""


# supervision ----------------------------------------------------------------------------------------------------------


class SupervisionError(PerdureError):
    """An actor could not be kept running."""


Obstacle: TypeAlias = Literal[
    "already_started", "already_present", "not_found", "running", "restarting", "start_failed"
]
"""Why a supervisor cannot do something with a child; all but the last as in OTP."""


class ChildError(Rejected):
    """A supervisor cannot do what was asked with that child.

    Attributes:
        reason: ``already_started``, ``already_present``, ``not_found``, ``running`` or ``restarting``, as in OTP;
            or ``start_failed``.
    """

    def __init__(self, text: str, reason: Obstacle) -> None:
        super().__init__(text, reason)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def reason(self) -> Obstacle:
        """What stands in the way, in one word."""
        return cast("Obstacle", self.args[1])


class StaleDecision(SupervisionError):
    """Others counted restarts while this was decided; it is decided anew."""


class EscalationError(SupervisionError):
    """The tree's root supervisor could not keep its children running; the system has stopped."""


class ActivationError(SupervisionError):
    """`started()` raised, or the stored state does not fit the class."""


class StartError(ActivationError):
    """A child did not start, and with it its supervisor; what had started was stopped again."""


class StateMisfit(ActivationError):
    """The stored state does not fit the class. The actor parks with its bytes kept; mend the class or its `migrate`."""


class ApplicationError(PerdureError):
    """`perdure run` was told to run something that is not there, or is no system.

    Attributes:
        reason: ``malformed``, ``no_module``, ``no_attribute`` or ``wrong_type``.
    """

    def __init__(self, text: str, reason: Literal["malformed", "no_module", "no_attribute", "wrong_type"]) -> None:
        super().__init__(text)
        self.reason = reason
