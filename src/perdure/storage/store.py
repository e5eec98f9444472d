"""The seam between actors and a database: what a store must do.

A store speaks of actors, messages, turns and ownership, never of SQL. Everything that changes something is a *write*
(`writes.py`) over what is stored (`records.py`). Writes reach the store in batches, one transaction a batch, and each
is settled on its own: one that is refused leaves the others of its batch untouched.

**Wake-ups.** Nodes are told of each other's commits by hints: `write` wakes the nodes that its commit concerns, which
the store alone knows: the owners of receivers, and of callers whose asks were answered; whoever awaits a message that
ended, or asked a query that was answered; all of them, for what any may take up, for orders and for burials. That costs
nothing while there is no other node, never waits, and cannot fail a commit.

**The fence.** An actor belongs to one node under an *epoch* that rises at every claim. A write of an activation names
the epoch it was given; the store refuses it with `FencedError` when the actor's row says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from perdure.storage.hints import Heard
    from perdure.storage.limit_writes import LimitState
    from perdure.storage.records import (
        Address,
        Answered,
        Completion,
        Found,
        Grown,
        Level,
        Loaded,
        Mail,
        Member,
        NodeRecord,
        OpenAsk,
        OpenQuery,
        Past,
        Peer,
        Whereabouts,
    )
    from perdure.storage.writes import Settled, Write


class Store(Protocol):
    """A database that keeps actors.

    Every method raises `StorageError` (or a subclass) for failures of the database, and is safe to cancel: a
    transaction that began ends, whole, whoever stopped waiting for it. Texts come back letter by letter: seals are
    over letters.
    """

    @property
    def location(self) -> str:
        """Where the data lies, for people."""
        ...

    @property
    def requires_signed(self) -> bool:
        """Whether others than the application's own processes may write to it, as to a server.

        Then a system without a seal refuses to store anything with cloudpickle. A file that is its owner's alone needs
        no signatures.
        """
        ...

    async def open(self, node: NodeRecord, runs: Callable[[str], bool]) -> None:
        """Open or create the database, migrate it, and enter `node`. Raises `TargetError` if it is not ours.

        Any write that makes an unowned actor runnable gives it to this node at once if `runs(kind)` says so. It is
        called from the store's own thread.
        """
        ...

    def timestamp(self) -> float:
        """The present, in seconds since the Unix epoch, as all nodes of the database have it.

        Never ahead of the database's clock, once it is open; before, it is the machine's time.
        """
        ...

    async def close(self) -> None:
        """End `node`'s presence and every connection. Safe to call twice."""
        ...

    async def write(self, batch: Sequence[Write]) -> list[Settled]:
        """Commit one transaction, and say for each write what became of it. Returns only when it is durable.

        If this raises, nothing of the batch is or will be in the database, but for one error.

        Raises:
            NodeBuried: This node was taken for dead.
            OutcomeUnknownError: The database went away in the middle of a commit, and did not come back in time. If the
                batch turns out to be there, this node's actors are freed before it writes anything more, so that
                whoever runs them next reads them anew.
        """
        ...

    async def load(self, actors: Collection[int], mail: int) -> list[Loaded]:
        """Read what is needed to run these actors, with up to `mail` messages of each mailbox."""
        ...

    async def mail(self, actor: int, after: int, limit: int) -> list[Mail]:
        """Read up to `limit` messages of a mailbox numbered above `after`, in order."""
        ...

    async def past(self, message: int) -> Past:
        """What is known of a turn that began before: its row, and its journal."""
        ...

    async def find(self, id: str) -> Found | None:
        """Look a message up by its id."""
        ...

    async def find_all(self, ids: Collection[str]) -> list[tuple[str, Found]]:
        """Look messages up by their ids; those that are there."""
        ...

    async def completed(self, *messages: int) -> list[Completion]:
        """Records of these turns that somebody else completed and their owner has not numbered yet."""
        ...

    async def next_due(self) -> float | None:
        """The earliest time at which `Due` has something to do."""
        ...

    async def changed(self) -> bool:
        """Whether another node may have committed since the last call. It may be true for nothing, and not false."""
        ...

    async def wait(self, seconds: float) -> Heard:
        """Wait until another node may have committed something for this one, or has died, or so many seconds.

        What it was told; nothing if the time was over before. A hint and no more: it may come for nothing, and it may
        be lost, so whoever waits looks all the same now and then. For one waiter at a time.
        """
        ...

    def await_ends(self, messages: Collection[int]) -> None:
        """Have `wait` return soon if one of these messages ends on another node, or has just ended. Or be lost, too."""
        ...

    async def grown(self, known: Collection[tuple[int, int]], limit: int) -> list[Grown]:
        """Of these (actor, last known number), those whose mailbox has grown, with up to `limit` messages each."""
        ...

    async def dead_nodes(self) -> list[str]:
        """Nodes that ended without leaving, as far as the kernel tells.

        Whoever asks knows the living ones from then on, and wakes them.
        """
        ...

    async def peers(self) -> list[Peer]:
        """The other nodes that have not left."""
        ...

    async def rejoin(self, node: NodeRecord) -> None:
        """Enter under another identity, after this node was buried."""
        ...

    async def departed(self) -> list[str]:
        """Nodes that left, or were buried to the end: whoever has not seen one among them looks for what it ran."""
        ...

    async def unburied(self) -> list[str]:
        """Nodes whose burial this one has begun and not ended, or nobody goes on with: `Bury` them again."""
        ...

    async def buried(self, node: str) -> None:
        """Remove what a node that was buried left outside the database."""
        ...

    async def checkpoint(self) -> None:
        """Housekeeping between transactions."""
        ...

    async def open_asks(self, actor: int) -> list[OpenAsk]:
        """The wait-for graph reachable from an actor: all that waits on the way without a deadline."""
        ...

    async def lineage(self, actor: int) -> list[Level]:
        """The way from an actor up to the system's root: who supervises it, and what each has counted."""
        ...

    async def children(self, supervisor: int) -> list[Member]:
        """The children of a supervisor, in start order."""
        ...

    async def member(self, actor: Address) -> Member | None:
        """An actor's place in the supervision tree."""
        ...

    async def tops(self) -> list[Member]:
        """Actors that supervise and are themselves under the system's root."""
        ...

    async def restarting(self) -> list[Member]:
        """Actors that nobody has and that are to be restarted, without those below another such one.

        Those that another live node is to start are not among them.
        """
        ...

    async def unwanted(self) -> list[Member]:
        """This node's actors that are not to run any more: each before those it supervises, siblings in start order."""
        ...

    async def elsewhere(self, actors: Collection[int]) -> list[int]:
        """Of these actors, those that another node has."""
        ...

    async def unknown_kinds(self, kinds: Collection[str]) -> list[tuple[str, int]]:
        """Kinds not among these that have runnable actors which this node may claim, and how many."""
        ...

    async def offered(self, node: str | None = None) -> list[int]:
        """Some of the actors that are offered to a node, this one if none is named, and that it has not taken."""
        ...

    async def loads(self) -> dict[str, int]:
        """How many actors each node has, or is offered; those that have none are left out."""
        ...

    async def whereabouts(self, actor: Address) -> Whereabouts:
        """Who has an actor, and who could run it."""
        ...

    async def open_queries(self, kinds: Collection[str], limit: int) -> list[OpenQuery]:
        """Unanswered queries to actors that this node has, or, being of these kinds, may take; the oldest first.

        Not those to parked actors that nobody has: whoever asks looks at their snapshot.
        """
        ...

    async def answered(self) -> list[Answered]:
        """Queries of this node that were answered, and that it has not said it has `Heard`."""
        ...

    async def limits(self, names: Collection[str]) -> list[LimitState]:
        """Limits across the deployment, of these names, with what every node has of them and wants."""
        ...
