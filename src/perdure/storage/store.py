"""The seam between actors and a database: what is stored, and what a store must do.

A store speaks of actors, messages, turns and ownership, never of SQL. Everything that changes something is a *write*;
writes reach the store in batches, one transaction a batch, and each is settled on its own: one that is refused leaves
the others of its batch untouched.

    Append   a message from outside            -> Appended | Existing | error
    Spawn    an actor with its first state     -> Placed | error
    Segment  what a turn did up to a point     -> Committed | error
    Claim    ownership of runnable actors      -> Claimed
    Release  ownership given back              -> bool: False if it was refused because there is work
    Due      delayed messages, ended sleeps    -> Fired
    Bury     a dead node's ownership ended     -> Buried
    Purge    history past its retention        -> int, the rows removed

**The fence.** An actor belongs to one node under an *epoch* that rises at every claim. A write of an activation names
the epoch it was given; the store refuses it with `FencedError` when the actor's row says otherwise.

Times are seconds since the Unix epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from attrs import define, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from perdure.errors import PerdureError

OutcomeStatus: TypeAlias = Literal["succeeded", "rejected", "cancelled", "expired", "dead"]
ActorStatus: TypeAlias = Literal["ready", "waiting", "parked", "stopped"]
RecordKind: TypeAlias = Literal["step", "ask", "receipt", "sleep", "tell", "spawn", "value"]
RecordStatus: TypeAlias = Literal["started", "completed", "failed", "cancelled"]


class Address(NamedTuple):
    """An actor's durable name: `Kind/key`."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"


@frozen
class NodeRecord:
    """One process's presence in the deployment; `id` is random at every start."""

    id: str
    pid: int
    host: str
    python: str
    version: str
    started: float


# messages -------------------------------------------------------------------------------------------------------------


@define(eq=False)
class Envelope:
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


@define(eq=False)
class Mail:
    """A message in a mailbox."""

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


@frozen
class Outcome:
    """How a message ended. `result` and `error` are JSON."""

    status: OutcomeStatus
    result: str | None = None
    error: str | None = None


# the journal ----------------------------------------------------------------------------------------------------------


@define(eq=False)
class Record:
    """One thing a turn did, under a key that a replay finds again.

    Attributes:
        position: Place of the completion in the order results were handed to the handler.
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


@define(eq=False)
class TurnRecord:
    """The past of a message that failed, was parked or was running when a process died."""

    attempts: int = 0
    blame: int = 0
    suspect: bool = False
    executing: str | None = None
    retry_at: float | None = None
    error: str | None = None


@frozen
class Completion:
    """A record that somebody else completed: the reply to an ask, or the outcome a receipt waits for."""

    actor: int
    message: int
    key: str
    outcome: Outcome


# writes ---------------------------------------------------------------------------------------------------------------


@define(eq=False)
class Append:
    """A message from outside any turn."""

    envelope: Envelope


@define(eq=False)
class Spawn:
    """An actor with its first state. Quiet when it exists with the same initial state."""

    to: Address
    version: int
    codec: str
    initial: str
    created: float
    parent: int | None = None


@define(eq=False)
class Snapshot:
    """State to be kept."""

    version: int
    codec: str
    state: str


@define(eq=False)
class End:
    """A message's outcome, with what its turn changed. `number` is the message's place in the mailbox."""

    number: int
    outcome: Outcome
    started: float | None
    finished: float
    changes: str | None = None
    snapshot: Snapshot | None = None
    stop: bool = False


@define(eq=False)
class Send:
    """A message that leaves with a segment; `key` is the ask's record that its outcome is to complete."""

    envelope: Envelope
    key: str | None = None


@define(eq=False)
class Watch:
    """A record to be completed by the outcome of a message that already exists."""

    key: str
    id: str


@define(eq=False)
class Segment:
    """What a turn did up to a durable point. All of it is written, or none.

    Attributes:
        records: Journal records, whole, replacing those with the same key.
        numbered: Positions given to records that somebody else completed.
        erased: Keys of records to forget.
        sends: Messages that leave, in order.
        spawns: Actors that begin.
        settles: Asks given up by their owner (deadline, deadlock) with their error, unless the reply came first.
        turn: The turn's row, whole.
        end: The outcome, with the last segment.
        status: New status of the actor (parked, or ready again) with the reason people see.
    """

    actor: int
    epoch: int
    message: int
    records: Sequence[Record] = ()
    numbered: Sequence[tuple[str, int]] = ()
    erased: Sequence[str] = ()
    sends: Sequence[Send] = ()
    watches: Sequence[Watch] = ()
    spawns: Sequence[Spawn] = ()
    settles: Sequence[tuple[str, str]] = ()
    turn: TurnRecord | None = None
    end: End | None = None
    status: ActorStatus | None = None
    reason: str | None = None


@frozen
class Claim:
    """Ownership of unowned actors with work, of kinds this node knows; or of one actor, work or not."""

    kinds: tuple[str, ...] = ()
    limit: int = 1000
    only: Address | None = None


@define(eq=False)
class Release:
    """Ownership given back. With `waiting`, the actor's head turn waits for something durable and is not runnable."""

    actor: int
    epoch: int
    waiting: int | None = None


@frozen
class Due:
    """Whatever is due by `now`: delayed messages get their numbers, evicted sleepers become runnable."""

    now: float
    limit: int = 1000


@frozen
class Bury:
    """The end of a dead node: its actors lose their owner, and the messages it was executing take the blame."""

    node: str
    deaths: int
    now: float


@frozen
class Purge:
    """Removal of handled messages, below their cursor: ended before `history`, or `ids` if the id was chosen."""

    history: float
    ids: float
    keep: int
    limit: int = 1000


Write: TypeAlias = Append | Spawn | Segment | Claim | Release | Due | Bury | Purge


# what writes give -----------------------------------------------------------------------------------------------------


@define(eq=False)
class Placed:
    """An actor's place: its row, and whose it is. `epoch` is set where this node owns it."""

    actor: int
    to: Address
    epoch: int | None
    fresh: bool = False


@define(eq=False)
class Appended:
    """A message is on disk; with a number it is in the mailbox, without it waits to fall due."""

    place: Placed
    mail: Mail
    numbered: bool = True


@frozen
class Existing:
    """The id was used before for the same message; `outcome` if that has ended."""

    seq: int
    outcome: Outcome | None


@define(eq=False)
class Committed:
    """A segment is on disk.

    Attributes:
        appended: The messages that left.
        completions: Records that this commit completed, this turn's own included.
        woken: Actors that became runnable and now belong to this node.
        ended: Other messages that this commit ended: the mail of an actor that stopped.
    """

    appended: Sequence[Appended] = ()
    completions: Sequence[Completion] = ()
    woken: Sequence[Placed] = ()
    ended: Sequence[tuple[int, Outcome]] = ()


@frozen
class Claimed:
    """Actors that now belong to this node."""

    actors: tuple[Placed, ...]


@frozen
class Fired:
    """Messages that fell due, and actors whose sleep ended."""

    appended: tuple[Appended, ...]
    woken: tuple[Placed, ...]
    more: bool
    completions: tuple[Completion, ...] = ()


@frozen
class Buried:
    """What a dead node left: how many actors, and the messages that took its blame or became dead letters by it."""

    actors: int
    blamed: tuple[str, ...]
    dead: tuple[str, ...]
    completions: tuple[Completion, ...] = ()


Settled: TypeAlias = "Appended | Existing | Placed | Committed | Claimed | Fired | Buried | bool | int | PerdureError"


# reads ----------------------------------------------------------------------------------------------------------------


@define(eq=False)
class Loaded:
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


@frozen
class Found:
    """A message looked up by its id."""

    seq: int
    actor: Address
    handler: str
    number: int | None
    outcome: Outcome | None
    cursor: int
    status: ActorStatus
    executing: bool


@frozen
class OpenAsk:
    """An edge of the wait-for graph: `caller`'s head turn waits for a message in `callee`'s mailbox."""

    caller: Address
    callee: Address
    message: int
    key: str
    started: float


class Store(Protocol):
    """A database that keeps actors.

    Every method raises `StorageError` (or a subclass) for failures of the database, and is safe to cancel: a
    transaction that began ends, whole, whoever stopped waiting for it.
    """

    @property
    def location(self) -> str:
        """Where the data lies, for people."""
        ...

    async def open(self, node: NodeRecord, runs: Callable[[str], bool]) -> None:
        """Open or create the database, migrate it, and enter `node`. Raises `TargetError` if it is not ours.

        Any write that makes an unowned actor runnable gives it to this node at once if `runs(kind)` says so. It is
        called from the store's own thread.
        """
        ...

    async def close(self) -> None:
        """End `node`'s presence and every connection. Safe to call twice."""
        ...

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and say for each write what became of it. Returns only when it is durable.

        If this raises, nothing of the batch is or will be in the database.
        """
        ...

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """Read what is needed to run these actors, with up to `mail` messages of each mailbox."""
        ...

    async def mail(self, actor: int, after: int, limit: int) -> list[Mail]:
        """Read up to `limit` messages of a mailbox numbered above `after`, in order."""
        ...

    async def find(self, id: str) -> Found | None:
        """Look a message up by its id."""
        ...

    async def completed(self, message: int) -> list[Completion]:
        """Records of a turn that somebody else completed and its owner has not numbered yet."""
        ...

    async def next_due(self) -> float | None:
        """The earliest time at which `Due` has something to do."""
        ...

    async def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        ...

    async def behind(self, known: Collection[tuple[int, int]]) -> list[int]:
        """Of these (actor, last known number), those whose mailbox has grown since."""
        ...

    async def dead_nodes(self) -> list[str]:
        """Nodes that ended without leaving."""
        ...

    async def buried(self, node: str) -> None:
        """Remove what a node that was buried left outside the database."""
        ...

    async def checkpoint(self) -> None:
        """Housekeeping between transactions."""
        ...

    async def open_asks(self, actor: int) -> list[OpenAsk]:
        """The wait-for graph reachable from an actor: every open ask without a deadline on the way."""
        ...

    async def unknown_kinds(self, kinds: Collection[str]) -> list[tuple[str, int]]:
        """Kinds not among these that have runnable actors without an owner, and how many."""
        ...
