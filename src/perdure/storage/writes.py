"""What changes a store, and what each change gives.

    Append   a message from outside            -> Appended | Existing | error
    Spawn    an actor with its first state     -> Placed | error
    Segment  what a turn did up to a point     -> Committed | error
    Claim    ownership of runnable actors      -> Claimed
    Release  ownership given back              -> bool: False if it was refused because there is work
    Offer    actors for another node to take   -> int, how many; 0 if that node takes none, and all stay
    Take     what is offered to this node      -> Claimed
    Withdraw offers that nobody took           -> Claimed
    Leave    all ownership of this node ended  -> int, the actors that were still its own
    Due      delayed messages, ended sleeps    -> Fired
    Beat     a sign of life                    -> int, this node's counter
    Bury     a dead node's ownership ended     -> Buried | False: it lives after all, or is not to be told yet
    Purge    history past its retention        -> Purged, the messages removed
    Order    what a supervisor decided         -> Committed | StaleDecision
    Begin    an actor that is to run           -> Placed | False: it is not to run after all
    Declare  a supervisor's declared children  -> Adopted
    Adopt    a child started at run time       -> Adopted | error
    Monitor  a watcher of an actor's end       -> Committed | error
    Resend   a dead letter that is tried again -> Appended | error
    Forget   dead letters removed for good     -> int, how many there were
    Yield    actors for another node to start  -> True
    Inquire  a query for whoever has the actor -> Placed | True: it travels | False: no such actor | error
    Answer   what became of another's query    -> bool: False if nobody asks any more, or the actor is another's
    Heard    queries that are over             -> int, how many there were
    Demand   what this node wants of limits    -> Grants

Times are seconds since the Unix epoch.

Structs without cycles, and so without the garbage collector's attention: a message makes a dozen of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from perdure.storage.history_writes import Forget, Purge, Purged, Resend
from perdure.storage.limit_writes import Demand, Grants
from perdure.storage.offer_writes import Offer, Take, Withdraw
from perdure.storage.query_writes import Answer, Heard, Inquire
from perdure.storage.records import (
    ActorStatus,
    Address,
    ChildSpec,
    Completion,
    Envelope,
    FailureRecord,
    Mail,
    Member,
    Outcome,
    Record,
    Snapshot,
    TurnRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.errors import PerdureError

# writes ---------------------------------------------------------------------------------------------------------------


class Append(Struct, eq=False, gc=False):
    """A message from outside any turn; an ask is refused by an actor that handles nothing."""

    envelope: Envelope
    ask: bool = False


class Spawn(Struct, eq=False, gc=False):
    """An actor with its first state. Quiet when it exists with the same initial state.

    With `child`, its parent supervises it.
    """

    to: Address
    version: int
    codec: str
    initial: str
    created: float
    parent: int | None = None
    child: ChildSpec | None = None


class End(Struct, eq=False, gc=False):
    """A message's outcome, with what its turn changed. `number` is the message's place in the mailbox."""

    number: int
    outcome: Outcome
    started: float | None
    finished: float
    changes: str | None = None
    snapshot: Snapshot | None = None
    stop: bool = False


class Send(Struct, eq=False, gc=False):
    """A message that leaves with a segment; `key` is the ask's record that its outcome is to complete."""

    envelope: Envelope
    key: str | None = None


class Watch(Struct, eq=False, gc=False):
    """A record to be completed by the outcome of a message that already exists."""

    key: str
    id: str


class Monitor(Struct, frozen=True, gc=False):
    """A message to `watcher` when `actor` ends; at once, if it has ended. `parameter` is the handler's only one."""

    actor: Address
    watcher: Address
    handler: str
    parameter: str
    cause: int | None = None


class Count(Struct, frozen=True, gc=False):
    """A supervisor's restarts as a decision left them.

    Attributes:
        last: The number of the newest restart that the decision knew of.
        add: Whether one is added: of `child`, whose `message` failed, at `at`.
        since: Older ones are forgotten.
    """

    supervisor: int
    last: int
    add: bool
    child: int
    message: int | None
    at: float
    since: float


class Remaining(Struct, frozen=True, gc=False):
    """How many other significant children of a supervisor still ran when one was judged."""

    supervisor: int
    child: int
    others: int


class Order(Struct, eq=False, gc=False):
    """What a supervisor decided. Each actor stands for itself and all it supervises.

    Attributes:
        about: The actor that ended; if it is not running any more, the order is refused with `StaleDecision`, for
            another one has come first.
        counts: The restarts it rests on; if any is otherwise by now, the order is refused alike.
        remaining: The siblings it rests on, alike: of two that end at once, one must see that it is the last.
        cleared: Counts that begin from nothing; those of supervisors that are restarted do so anyway.
        restart: Actors to stop and to start again, not before `restart_at`. Those that had ended run again, too.
        terminate: Actors to stop; their mail is kept.
        fail: Actors that may not go on until someone restarts them; their mail is kept.
        end: Actors that end; their mail becomes dead letters. So do temporary children among all of the others.
        discard: Children that are forgotten, with the actor itself if it has handled nothing.
        reason: What people see.
    """

    now: float
    about: int | None = None
    counts: Sequence[Count] = ()
    remaining: Sequence[Remaining] = ()
    cleared: Sequence[int] = ()
    restart: Sequence[int] = ()
    terminate: Sequence[int] = ()
    fail: Sequence[int] = ()
    end: Sequence[int] = ()
    discard: Sequence[int] = ()
    restart_at: float | None = None
    failure: FailureRecord | None = None
    reason: str = ""


class Segment(Struct, eq=False, gc=False):
    """What a turn did up to a durable point. All of it is written, or none.

    Attributes:
        records: Journal records, whole, replacing those with the same key.
        numbered: Positions given to records on disk: somebody else completed them, or nobody has to ask for them.
        renewed: Keys of records whose results are forgotten: they begin anew, which their rows go on to say.
        sends: Messages that leave, in order.
        spawns: Actors that begin.
        settles: Asks given up by their owner (deadline, deadlock) with their error, unless the reply came first.
        turn: The turn's row, whole.
        end: The outcome, with the last segment.
        status: New status of the actor (parked, or ready again) with the reason people see.
        monitors: Watchers to be told of an actor's end.
        order: What its supervisor decided of this turn's failure or end.
    """

    actor: int
    epoch: int
    message: int
    records: Sequence[Record] = ()
    numbered: Sequence[tuple[str, int]] = ()
    renewed: Sequence[str] = ()
    sends: Sequence[Send] = ()
    watches: Sequence[Watch] = ()
    spawns: Sequence[Spawn] = ()
    settles: Sequence[tuple[str, str]] = ()
    turn: TurnRecord | None = None
    end: End | None = None
    status: ActorStatus | None = None
    reason: str | None = None
    monitors: Sequence[Monitor] = ()
    order: Order | None = None


class Claim(Struct, frozen=True, gc=False):
    """Ownership of unowned actors with work, of kinds this node knows; or of one actor, work or not."""

    kinds: tuple[str, ...] = ()
    limit: int = 1000
    only: Address | None = None


class Release(Struct, eq=False, gc=False):
    """Ownership given back.

    Attributes:
        waiting: The message of the actor's head turn, if that waits for something durable; it is not runnable then.
        anyway: Whether it is given back with work, too, for others to do; and as runnable where a turn said to wait has
            something to go on with.
    """

    actor: int
    epoch: int
    waiting: int | None = None
    anyway: bool = False


class Leave(Struct, frozen=True, gc=False):
    """The end of this node as one that runs actors: what is still its own is anybody's, and so are its orders."""


class Due(Struct, frozen=True, gc=False):
    """Whatever is due by `now`: delayed messages get their numbers, evicted sleepers become runnable."""

    now: float
    limit: int = 1000


class Beat(Struct, frozen=True, gc=False):
    """A sign of life: this node's counter rises.

    `load` is how many actors it has in memory, `draining` whether it gives them up, and is to be offered none.
    """

    load: int
    draining: bool = False


class Bury(Struct, frozen=True, gc=False):
    """The end of a dead node: its actors lose their owner, and the messages it was executing take the blame.

    With `beats`, that is the counter it was judged by; if it has risen since, or somebody buries it, nothing is done.
    Without, the kernel says that its process is gone. It can write nothing from the first of these on; each frees no
    more actors than `limit`, and has to be repeated while there are more.
    """

    node: str
    deaths: int
    now: float
    beats: int | None = None
    limit: int = 1000


class Begin(Struct, frozen=True, gc=False):
    """An actor that was to be restarted runs from now on; it becomes this node's if nobody has it.

    With another `restart_at` than this, a newer order is about it, and it does not begin.
    """

    actor: int
    restart_at: float | None


class Yield(Struct, frozen=True, gc=False):
    """Actors of an order of this node that it cannot start: whoever can may."""

    actors: tuple[int, ...]


class Declare(Struct, frozen=True, gc=False):
    """A supervisor's children as its class declares them, in start order. Those no longer among them are let go."""

    supervisor: int
    children: tuple[tuple[Spawn, ChildSpec], ...]


class Adopt(Struct, frozen=True, gc=False):
    """A child started at run time. `cause` is the message that asked for it: asked again, it is the same child.

    Its key may have been made for it, and be `once` given: then it does not begin anew after it has ended by itself.
    """

    supervisor: int
    child: Spawn
    spec: ChildSpec
    cause: int | None
    once: bool = False


Write: TypeAlias = (
    Append
    | Spawn
    | Segment
    | Claim
    | Release
    | Offer
    | Take
    | Withdraw
    | Leave
    | Due
    | Beat
    | Bury
    | Purge
    | Order
    | Begin
    | Declare
    | Adopt
    | Monitor
    | Resend
    | Forget
    | Yield
    | Inquire
    | Answer
    | Heard
    | Demand
)


# what writes give -----------------------------------------------------------------------------------------------------


class Placed(Struct, eq=False, gc=False):
    """An actor's place: its row, and whose it is. `epoch` is set where this node owns it."""

    actor: int
    to: Address
    epoch: int | None
    fresh: bool = False


class Appended(Struct, eq=False, gc=False):
    """A message is on disk; with a number it is in the mailbox, without it waits to fall due."""

    place: Placed
    mail: Mail
    numbered: bool = True


class Existing(Struct, frozen=True, gc=False):
    """The id was used before for the same message; `outcome` if that has ended."""

    seq: int
    outcome: Outcome | None


class Committed(Struct, eq=False, gc=False):
    """A segment is on disk.

    Attributes:
        appended: The messages that left.
        completions: Records that this commit completed, this turn's own included.
        woken: Actors that became runnable and now belong to this node.
        ended: Other messages that this commit ended, or refuses for now: the mail of an actor that stopped.
        members: Actors that this commit stopped or has restarted, in start order, as they were before.
    """

    appended: Sequence[Appended] = ()
    completions: Sequence[Completion] = ()
    woken: Sequence[Placed] = ()
    ended: Sequence[tuple[int, Outcome]] = ()
    members: Sequence[Member] = ()


class Adopted(Struct, frozen=True, gc=False):
    """A supervisor's children, in start order; with `place`, the one that was adopted runs from now on."""

    children: tuple[Member, ...]
    place: Placed | None = None


class Claimed(Struct, frozen=True, gc=False):
    """Actors that now belong to this node."""

    actors: tuple[Placed, ...]


class Fired(Struct, frozen=True, gc=False):
    """Messages that fell due, and actors whose sleep ended."""

    appended: tuple[Appended, ...]
    woken: tuple[Placed, ...]
    more: bool
    completions: tuple[Completion, ...] = ()


class Buried(Struct, frozen=True, gc=False):
    """What a dead node left: how many actors, and the messages that took its blame or became dead letters by it.

    If there is `more`, that was a part of it.
    """

    actors: int
    blamed: tuple[str, ...]
    dead: tuple[str, ...]
    completions: tuple[Completion, ...] = ()
    more: bool = False


Swept: TypeAlias = "Fired | Buried | Purged"
Settled: TypeAlias = (
    "Appended | Existing | Placed | Committed | Adopted | Claimed | Swept | Grants | bool | int | PerdureError"
)
