"""What is stored: messages, journals, turns, and what is read of them. Times are seconds since the Unix epoch.

Structs without cycles, and so without the garbage collector's attention: a message makes a dozen of them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

OutcomeStatus: TypeAlias = Literal["succeeded", "rejected", "cancelled", "expired", "dead"]
ActorStatus: TypeAlias = Literal["ready", "waiting", "parked", "stopped"]
Life: TypeAlias = Literal["running", "restarting", "terminated", "failed"]
Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
RecordKind: TypeAlias = Literal["step", "ask", "receipt", "sleep", "tell", "spawn", "value"]
RecordStatus: TypeAlias = Literal["started", "completed", "failed", "cancelled"]


class Address(NamedTuple):
    """An actor's durable name: `Kind/key`."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


class NodeRecord(Struct, frozen=True, gc=False):
    """One process's presence in the deployment; `id` is random at every start.

    Attributes:
        runs: Whether it runs actors; a client does not.
        tags: What it has that actors may need.
        kinds: The kinds that it runs, as far as they were known when it entered.
    """

    id: str
    pid: int
    host: str
    python: str
    version: str
    started: float
    runs: bool = True
    tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


class Peer(Struct, frozen=True, gc=False):
    """Another node that has not left: the counter it raises while it lives, its load, what it has, and what it runs.

    Attributes:
        takes: Whether it runs actors at all, and does not give them up just now.
    """

    id: str
    beats: int
    load: int
    tags: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    takes: bool = True


class Whereabouts(Struct, frozen=True, gc=False):
    """Who has an actor, whether nobody does although it has work, and which nodes that run actors have not left."""

    owner: str | None
    runnable: bool
    runners: tuple[str, ...]


# queries --------------------------------------------------------------------------------------------------------------


class OpenQuery(Struct, frozen=True, gc=False):
    """A query of another node that this one may answer, for it has the actor, or may take it."""

    id: str
    to: Address
    name: str
    args: str
    asker: str


class Answered(Struct, frozen=True, gc=False):
    """What became of a query of this node: the answer as JSON, or why there is none."""

    id: str
    result: str | None
    error: str | None


# messages -------------------------------------------------------------------------------------------------------------


class Envelope(Struct, eq=False, gc=False):
    """A message as its sender made it.

    Attributes:
        args: The arguments, a JSON object.
        codec: The codec that `args` was written with.
        chosen: Whether the sender chose the id.
        cause: Sequence number of the message whose turn sends this one.
        chain: The actors whose asks wait above this message, outermost first.
        due: Not to be handled before.
        expires: Not to be started after.
        must_exist: The receiver's class has required fields, so it is never created by a message.
        limit: How many unhandled messages the receiver may hold; none where the sender is a turn.
    """

    id: str
    to: Address
    handler: str
    args: str
    codec: str
    sent: float
    chosen: bool = False
    cause: int | None = None
    chain: tuple[str, ...] = ()
    due: float | None = None
    expires: float | None = None
    must_exist: bool = False
    limit: int | None = None


class Mail(Struct, eq=False, gc=False):
    """A message in a mailbox; with a `past`, its turn has begun before, and goes on with what `Store.past` gives."""

    seq: int
    number: int
    id: str
    handler: str
    args: str
    codec: str
    sent: float
    cause: int | None = None
    chain: tuple[str, ...] = ()
    expires: float | None = None
    past: bool = False


class Outcome(Struct, frozen=True, gc=False):
    """How a message ended. `result` and `error` are JSON."""

    status: OutcomeStatus
    result: str | None = None
    error: str | None = None


# the journal ----------------------------------------------------------------------------------------------------------


class Record(Struct, eq=False, gc=False):
    """One thing a turn did, under a key that a replay finds again.

    Attributes:
        position: Place of the completion in the order results were handed to the handler; 0 for what only an attempt
            that failed has asked for, or, cancelled, for what begins anew; -1 for a result that nobody went on with.
        target: Sequence number of the message whose outcome completes this record.
        due: End of a sleep, next attempt of a step, or deadline of an ask.
    """

    key: str
    kind: RecordKind
    name: str
    started: float
    digest: bytes | None = None
    status: RecordStatus = "started"
    attempt: int = 1
    position: int | None = None
    result: str | None = None
    error: str | None = None
    target: int | None = None
    due: float | None = None
    finished: float | None = None


class TurnRecord(Struct, eq=False, gc=False):
    """The past of a message that failed, was parked or was running when a process died.

    Attributes:
        since: When it was last tried again by hand; its handler's timeout counts from there. Only `Resend` writes it.
    """

    attempts: int = 0
    blame: int = 0
    suspect: bool = False
    executing: str | None = None
    retry_at: float | None = None
    error: str | None = None
    since: float | None = None


Past: TypeAlias = tuple[TurnRecord | None, list[Record]]
"""What a turn that began before goes on with: its row, and its journal."""


class Completion(Struct, frozen=True, gc=False):
    """A record that somebody else completed: the reply to an ask, or the outcome a receipt waits for."""

    actor: int
    message: int
    key: str
    outcome: Outcome


# supervision ----------------------------------------------------------------------------------------------------------


class ChildSpec(Struct, frozen=True, gc=False):
    """How a child is supervised.

    Attributes:
        restart: When it is restarted: always, after a failure, or never.
        shutdown: Seconds it has to stop in; 0 for none, nothing for as long as it takes.
        significant: Whether its end may end its supervisor.
    """

    restart: Restart = "permanent"
    shutdown: float | None = 5.0
    significant: bool = False


class Member(Struct, eq=False, gc=False):
    """An actor as part of the supervision tree; `supervisor` is none under the system's root."""

    actor: int
    to: Address
    supervisor: int | None
    spec: ChildSpec
    declared: bool
    life: Life
    status: ActorStatus
    restart_at: float | None = None
    reason: str | None = None


class Restarted(Struct, frozen=True, gc=False):
    """A restart that a supervisor counts. `message` is the sequence number of the message that failed, if one did."""

    number: int
    child: int
    message: int | None
    at: float


class Level(Struct, frozen=True, gc=False):
    """One step up the tree: a child, its supervisor, and the restarts this one has counted.

    Attributes:
        supervisor: Its address; none for the system's root.
        restarts: Oldest first; the root's are of this child alone.
        others: Other significant children of the supervisor that run.
    """

    child: Member
    supervisor: Address | None
    restarts: tuple[Restarted, ...]
    others: int


class FailureRecord(Struct, frozen=True, gc=False):
    """A failure as it is kept. `error` is JSON, as `storage.failure` writes it."""

    actor: int
    message: int | None
    attempt: int
    at: float
    error: str
    decision: str
    escaped: tuple[str, ...] = ()


# reads ----------------------------------------------------------------------------------------------------------------


class Snapshot(Struct, eq=False, gc=False):
    """State to be kept."""

    version: int
    codec: str
    state: str


class Grown(Struct, eq=False, gc=False):
    """A mailbox with more mail than its actor's node knew of.

    Attributes:
        tail: Highest number in it.
        mail: What follows the last message that was known; not all of it where that is much.
    """

    actor: int
    tail: int
    mail: list[Mail]


class Loaded(Struct, eq=False, gc=False):
    """An actor as its owner needs it to run: its state, the beginning of its mailbox, its head's journal."""

    actor: int
    to: Address
    epoch: int
    cursor: int
    tail: int
    status: ActorStatus
    snapshot: Snapshot | None
    mail: list[Mail]
    turn: TurnRecord | None
    records: list[Record]


class Found(Struct, frozen=True, gc=False):
    """A message looked up by its id."""

    seq: int
    actor: Address
    handler: str
    number: int | None
    outcome: Outcome | None
    cursor: int
    status: ActorStatus
    executing: bool
    life: Life = "running"
    reason: str | None = None


class OpenAsk(Struct, frozen=True, gc=False):
    """An edge of the wait-for graph: `caller`'s head turn waits for the end of a message to `callee`."""

    caller: Address
    callee: Address
    message: int
    key: str
    started: float
