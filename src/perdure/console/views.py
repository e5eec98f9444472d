"""What the read model gives: frozen records, whose attribute names are the keys of the `--json` documents.

Times are seconds since the Unix epoch; `seconds` are durations.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias, cast

from attrs import field, frozen

from perdure.storage.records import ActorStatus, Address, Life, RecordKind, RecordStatus, Restart

MessageState: TypeAlias = Literal[
    "delayed", "pending", "running", "waiting", "parked", "succeeded", "rejected", "cancelled", "expired", "dead"
]
"""Where a message is. The last five are outcomes, which never change."""

WaitKind: TypeAlias = Literal[
    "running", "step", "step_retry", "reply", "outcome", "sleep", "retry", "parked", "unclaimed", "orphaned",
    "restarting", "terminated", "failed", "limit",
]  # fmt: skip
"""Why a mailbox does not move on: see `Wait`."""


@frozen
class Stored:
    """A value as the database holds it: JSON text, or text of another codec."""

    text: str
    codec: str = "json"

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.text.encode(errors="surrogatepass"))

    def value(self) -> Any:  # noqa: ANN401  # any JSON value
        """The value; where it cannot be read here, an object that says so: `{"unreadable": codec, "bytes": size}`."""
        if self.codec == "json":
            try:
                return json.loads(self.text)
            except (ValueError, RecursionError):
                pass
        return {"unreadable": self.codec, "bytes": self.size}


@frozen
class NodeView:
    """A process that opened the database.

    Attributes:
        status: As recorded: `live` until it left or another node noticed its death.
        live: Whether the process is there now: on SQLite, as the kernel's lock on its file beside the database says; on
            PostgreSQL, whether it is connected to the server. None where that cannot be found out: where the file may
            not be read, on a standby, and through a pooler.
    """

    id: str
    pid: int
    host: str
    python: str
    version: str
    started: float
    status: Literal["live", "left", "dead"]
    live: bool | None


@frozen
class MessageRef:
    """A message in few words."""

    id: str
    actor: Address
    handler: str
    state: MessageState


@frozen
class Failure:
    """An exception as it was stored; `type` is its qualified name."""

    type: str
    text: str
    traceback: str | None = None

    @classmethod
    def parse(cls, stored: str | None) -> Failure | None:
        """The failure in a stored JSON text; one that is not as expected is shown as it is."""
        if stored is None:
            return None
        fields: Any = Stored(stored).value()
        if not isinstance(fields, dict) or "type" not in fields:
            return cls("", stored)
        members = cast(dict[str, Any], fields)
        return cls(str(members["type"]), str(members.get("text", "")), _text(members.get("traceback")))

    @property
    def short(self) -> str:
        """The failure in one line, its type without the module."""
        return ": ".join(filter(None, [self.type.rsplit(".", 1)[-1], self.text]))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@frozen
class FailureView:
    """A failure as a supervisor was told of it.

    Attributes:
        message: The id of the message that failed; none where no message was to blame, or it is no longer kept.
        attempt: Which failure of that message it was, or how often in a row the actor had not started.
        decision: What came of it.
    """

    at: float
    message: str | None
    attempt: int
    error: Failure
    decision: str


@frozen
class StepView:
    """A row of a turn's journal: one thing the turn did.

    Attributes:
        position: Place of its completion in the order results were handed to the handler.
        digest: First hexadecimal digits of the SHA-256 of the arguments.
        target: The message whose outcome completes it: of an ask, or of a receipt.
        due: A sleep's end, a step's next attempt, or an ask's deadline.
    """

    key: str
    kind: RecordKind
    name: str
    status: RecordStatus
    attempt: int
    position: int | None
    digest: str | None
    started: float
    finished: float | None
    seconds: float | None
    result: Stored | None
    error: Failure | None
    target: MessageRef | None
    due: float | None


@frozen
class Wait:
    """Why a mailbox does not move on to its next message.

    Attributes:
        kind: `running` the handler computes; `step` steps run; `step_retry` failed steps wait for their next attempt;
            `reply` it asked another actor; `outcome` it waits for a receipt; `sleep` it sleeps; `retry` the handler
            failed and waits for its next attempt; `parked` a person must act; `unclaimed` no process has taken it;
            `orphaned` the process that had it is gone; `restarting` its supervisor restarts it; `terminated` its
            supervisor stopped it; `failed` it failed too often, and a person must restart it; `limit` it,
            or every step that it has begun, waits for a limit across the deployment.
        text: The same in one sentence.
        message: The message at the head of the mailbox.
        until: When it goes on by itself, where that is known.
        error: The failure behind it.
        open: What the turn has begun and not ended, oldest first; `open_count` may be more than are listed.
    """

    kind: WaitKind
    text: str
    message: MessageRef
    until: float | None = None
    error: Failure | None = None
    open: tuple[StepView, ...] = ()
    open_count: int = 0


@frozen
class ActorView:
    """An actor and its mailbox.

    Attributes:
        mail: Messages accepted and not yet handled, the one in hand included.
        delayed: Messages that are not yet due.
        handled: Messages that have ended.
        wait: Why the mailbox waits; none when it is empty.
        life: What its supervisor wants of it.
        restart_at: When it begins again, not before, if it is restarted.
        supervisor: Who supervises it; none under the system's root.
    """

    address: Address
    status: ActorStatus
    reason: str | None
    owner: NodeView | None
    epoch: int
    mail: int
    delayed: int
    handled: int
    created: float
    parent: Address | None
    wait: Wait | None
    life: Life
    restart_at: float | None
    supervisor: Address | None


@frozen
class StateView:
    """An actor's state after its last committed turn; `initial` is what it was spawned with."""

    version: int
    codec: str
    fields: Stored
    initial: Stored | None


@frozen
class Did:
    """How often a turn did something: `succeeded` + `failed` + `open` times."""

    kind: RecordKind
    name: str
    succeeded: int
    failed: int
    open: int


@frozen
class MessageView:
    """A message, what its turn did, and what came of it.

    Attributes:
        seq: Its number in the database.
        number: Its place in the mailbox; none until a delayed message falls due.
        due: Not before.
        expires: Latest start.
        cause: The message whose turn sent this one; none if it came from outside, or is no longer kept.
        chain: The actors whose asks wait above this message, outermost first.
        attempts: Failed runs of the handler.
        blame: Deaths of the process while it was executing.
        changes: The fields of the state that its turn changed, as they became.
        did: What its turn did, by name.
    """

    seq: int
    id: str
    actor: Address
    number: int | None
    handler: str
    args: Stored
    state: MessageState
    sent: float
    due: float | None
    expires: float | None
    started: float | None
    finished: float | None
    seconds: float | None
    result: Stored | None
    error: Failure | None
    cause: MessageRef | None
    chain: tuple[str, ...]
    attempts: int
    blame: int
    retry_at: float | None
    changes: Stored | None
    did: tuple[Did, ...]


@frozen
class Overview:
    """What `perdure ps` shows.

    Attributes:
        busy: Actors with mail.
        parked: Actors that a person must look at.
        failed: Actors that a person must restart.
        total: All actors, or all of the kind that was asked for.
        nodes: Processes that have not left.
        dead_letters: Dead letters in the whole database.
        more: Whether there are actors beyond those listed.
    """

    database: str
    read: float
    actors: tuple[ActorView, ...]
    more: bool
    total: int
    busy: int
    parked: int
    failed: int
    nodes: tuple[NodeView, ...]
    dead_letters: int


@frozen
class ActorHistory:
    """What `perdure show` shows.

    Attributes:
        messages: The newest of the actor, in the order of its mailbox.
        failures: Its newest, oldest first.
    """

    database: str
    read: float
    actor: ActorView
    state: StateView | None
    messages: tuple[MessageView, ...]
    more: bool
    failures: tuple[FailureView, ...] = ()


@frozen
class Caused:
    """A message that another one caused; `depth` is 1 for those sent by the message's own turn."""

    depth: int
    cause: str
    message: MessageRef


@frozen
class MessageHistory:
    """What `perdure journal` shows.

    Attributes:
        steps: The journal in order of start.
        more: Whether the journal is longer than `steps`.
        wait: Why the mailbox waits, if this message is at its head.
        failures: The failures of its handler, oldest first; the newest of them, if there are very many.
        caused: The messages its turn sent, theirs beneath them, depth first.
        caused_complete: False if there may be more.
    """

    database: str
    read: float
    message: MessageView
    wait: Wait | None
    steps: tuple[StepView, ...]
    more: bool
    failures: tuple[FailureView, ...] = ()
    caused: tuple[Caused, ...] = ()
    caused_complete: bool = True


@frozen
class DeadLetters:
    """What `perdure dead` shows: what died last first. `total` are all of the kind of error that was asked for."""

    database: str
    read: float
    messages: tuple[MessageView, ...]
    more: bool
    total: int = field(default=0)


MemberState: TypeAlias = Literal["running", "restarting", "stopped", "failed"]
"""What an actor does in the supervision tree; `running` says nothing of whether it is in memory."""


@frozen
class MemberView:
    """An actor in the supervision tree.

    Attributes:
        depth: 0 under the system's root.
        restart: When it is restarted: always, after a failure, or never.
        declared: Whether its supervisor's class declares it; others were started at run time.
        restart_at: When it begins again, not before, if it is restarted.
        restarts: How often it was restarted, as its supervisor counts.
        counted: How many restarts it counts as a supervisor.
        failures: How many of its failures are kept.
        hidden: How many children of it are not listed.
    """

    depth: int
    address: Address
    supervisor: Address | None
    restart: Restart
    declared: bool
    significant: bool
    state: MemberState
    reason: str | None
    restart_at: float | None
    restarts: int
    counted: int
    failures: int
    hidden: int = 0


@frozen
class TreeView:
    """What `perdure tree` shows.

    Attributes:
        members: Supervisors, each followed by its children in start order, depth first.
        others: How many actors are under the system's root that supervise nobody and have not stopped.
        held: Those among them that do not run; `held_count` may be more than are listed.
    """

    database: str
    read: float
    members: tuple[MemberView, ...]
    others: int
    held: tuple[MemberView, ...]
    held_count: int
