"""Who may write an actor: a model of claiming, releasing, offering, committing, dying and adopting, all of it seen.

    database   one actor's row, its journal, its outcomes and its state; a row for each node that ever was
    senders    send two messages, each through any node or from a process that runs no actor
    places     two: each runs one node after another, never two at once. A node is a committer, which is a queue of
               writes of which one is in the database at a time, and at most one activation: the actor in memory

Time is not in it. Whoever could act may always wait instead, so every pause of any length is in it, and any node may be
taken for dead at any moment, however wrongly: what is held here is held without trusting the judgement of who is dead.
That judgement is `judgement.py`.

A turn begins in memory, may write one segment (of the first message an ask, of the second a step), goes on when that is
durable, and ends with a write. The next begins on what the first left in memory, before its end is durable. A turn that
waits for the reply to its ask may leave memory; then the actor's status is `waiting`.

An actor between two turns may be offered to the other place's node, which takes it, or declines. Whoever offered may
withdraw, which is in the model as something that nothing may need: an offer to a node that does not live is void.

What goes wrong is bounded by `Bounds.failures` in all, of any kind: a process is killed, a node is buried although it
lives, a transaction fails, a COMMIT's answer is lost, a node leaves the deployment in the middle.

The properties are the strings below and `STUCK`. The rules are in `Rule`; with one of them left out, a property breaks.
`test_ownership.py` has the list. Six are doubled by others, and break nothing alone:

    BURY_RAISES      a row that was buried has no owner (FENCE_OWNER), and another epoch when it has one (CLAIM_RAISES)
    RELEASE_ORDERED  a release that overtakes the end of a turn finds mail in the row, one that overtakes the ask of a
                     turn finds nothing to wait for, and both are refused (RELEASE_REFUSED)
    EXPECTED_NUMBER  the end of a message out of turn is refused (FOLLOWS_END), and so is its segment (FOLLOWS_SEGMENT)
    VOIDED           as to safety: what later turns write is refused (FOLLOWS_END, FOLLOWS_SEGMENT); but they would try
                     for ever
    OFFER_TO_LIVE    an offer to a node that is gone is void (OFFER_VOID)
    OFFER_CLEARED    nobody takes on an offer what somebody has (TAKE_UNOWNED), and the other way round

A sweep finds by the row alone what has mail and no owner, so taking an unowned actor at the append, or refusing to
release one with mail, saves time, and nothing rests on it; what rests on RELEASE_REFUSED is a turn that waits.
That an offer keeps others away, and stands in the queue behind the turns before it, saves time alike: what it overtakes
is refused by the fence, and done again by the taker.

Not in it: batches of several writes, which have fewer places to die in than writes alone; a release is heard a pass of
the loop later than what was committed with it, and that is in it (`leaving`).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

# properties -----------------------------------------------------------------------------------------------------------

IN_ORDER: Final = "the state is that after each message below the cursor, once, in order, and each has one outcome"
ONE_WRITER: Final = "only the activation that owns the row, under its present epoch, writes"
EPOCH_RISES: Final = "the epoch rises at every claim"
TRUE_ANSWER: Final = "who is told of a write is told the truth: acknowledged is durable, failed is not"
NO_EARLY_REPLY: Final = "no reply leaves before the turn's end is durable"
TAKEN_FROM_NOBODY: Final = "only its own node's write, or a burial, ends an owner's ownership"
RESTS_ON_DURABLE: Final = "no segment is durable, and no step begins, before the turn below it has a durable end"


class Rule(Enum):
    """What makes it right."""

    FENCE_OWNER = "a turn's write is refused unless its node owns the row"
    FENCE_EPOCH = "a turn's write is refused unless the row has the epoch that its activation was given"
    CLAIM_RAISES = "the epoch rises when an actor gets an owner"
    BURY_RAISES = "the epoch rises when an owner is buried or leaves"
    RELEASE_REFUSED = "an actor is not released while it has mail, or the reply that its turn waits for"
    RELEASE_ORDERED = "a release stands in the committer's queue, behind the turns before it"
    APPEND_MARKS = "the transaction that appends to an unowned actor takes it, or makes it one that sweeps find"
    REPLY_WAKES = "the transaction that completes an ask makes a waiting actor ready"
    TAKER_LIVES = "a node that was buried takes no actor: its appends and claims are refused"
    NEW_IDENTITY = "a process that starts, and a node that was buried, has an identity that nobody had"
    REPLY_AFTER = "a reply leaves when the turn's end is durable"
    LOST_NOT_FAILED = "a COMMIT whose answer is lost is looked up by its batch's id, and not taken for failed"
    LOST_NOT_DONE = "a COMMIT whose answer is lost is looked up by its batch's id, and not taken for done"
    VOIDED = "a failed write takes its activation with it, with every turn that it began since"
    FOLLOWS_END = "a turn's end is refused unless the cursor stands just before its message"
    FOLLOWS_SEGMENT = "any segment of a turn is refused unless the cursor stands just before its message"
    EXPECTED_NUMBER = "an activation takes only the number that it expects"
    OFFER_FENCED = "an offer changes nothing unless its node owns the row, under the epoch of the activation offered"
    OFFER_TO_LIVE = "an offer to a node that does not live is refused"
    OFFER_VOID = "an offer to a node that does not live keeps nobody away"
    OFFER_MARKS = "an actor that is offered with mail is one that sweeps find"
    OFFER_CLEARED = "whoever gets an actor ends what is offered of it"
    TAKE_UNOWNED = "an offered actor is taken only if nobody has it"
    RECEIVER_LIVES = "a node that was buried takes nothing that it is offered"
    STALE_DROPPED = "an activation is dropped when its node is told that it has the actor under another epoch"


class Bounds(NamedTuple):
    """How far the model goes."""

    messages: int = 2
    failures: int = 2
    lives: int = 2
    queue: int = 2
    epochs: int = 10
    offers: int = 0
    withdrawals: int = 0


# what is stored -------------------------------------------------------------------------------------------------------

NOBODY: Final = -1


class Row(NamedTuple):
    """The actor in the database. `marked`: a sweep finds it. `ask`: the first message's. `state`, `ended`: numbers.

    `offered`: the node that it is kept for.
    """

    owner: int = NOBODY
    epoch: int = 1
    cursor: int = 0
    tail: int = 0
    waiting: bool = False
    marked: bool = False
    ask: str = ""
    journal: int = 0
    state: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()
    offered: int = NOBODY


class Write(NamedTuple):
    """One write in a committer's queue; whoever submitted an `orphan` is gone and hears nothing of it.

    `to`: the node that is offered something.
    """

    kind: str
    epoch: int = 0
    number: int = 0
    state: tuple[int, ...] = ()
    orphan: bool = False
    to: int = NOBODY


class Answer(NamedTuple):
    """What became of a write: `done`, `no`, `fenced`, `failed`; with the epoch, if the actor is now this node's."""

    said: str
    epoch: int = 0
    durable: bool = False
    lost: bool = False


class Activation(NamedTuple):
    """The actor in a node's memory. `stage`: `loading`, `idle`, and of a turn `begun`, `asks`, `goes on`, `evicted`.

    `leaving`: it was released, and does not know yet.
    """

    epoch: int
    stage: str = "loading"
    number: int = 0
    state: tuple[int, ...] = ()
    leaving: bool = False


class Process(NamedTuple):
    """What runs in one place. `name` is the node's; a place whose process is gone has none."""

    name: int
    life: int = 0
    activation: Activation | None = None
    queue: tuple[Write, ...] = ()
    answer: Answer | None = None


class World(NamedTuple):
    """Everything. `nodes` are the rows of nodes by name; the last four count what may yet happen."""

    row: Row
    nodes: tuple[str, ...]
    places: tuple[Process, Process]
    unsent: int
    failures: int
    offers: int = 0
    withdrawals: int = 0


# the store: one transaction -------------------------------------------------------------------------------------------


def own(rules: frozenset[Rule], row: Row, node: int) -> Row:
    """Give a row to a node."""
    epoch = row.epoch + (Rule.CLAIM_RAISES in rules)
    offered = NOBODY if Rule.OFFER_CLEARED in rules else row.offered
    return row._replace(owner=node, epoch=epoch, marked=False, offered=offered)


def disown(rules: frozenset[Rule], row: Row) -> Row:
    """Take a row from a node that is dead or leaves."""
    epoch = row.epoch + (Rule.BURY_RAISES in rules)
    return marked(row._replace(owner=NOBODY, epoch=epoch))


def marked(row: Row) -> Row:
    """A row that nobody has, as sweeps see it."""
    return row._replace(marked=not row.waiting and row.cursor < row.tail)


def kept(rules: frozenset[Rule], row: Row, me: int, nodes: tuple[str, ...]) -> bool:
    """Whether a row is offered to another node."""
    offered = row.offered not in (NOBODY, me)
    return offered and (nodes[row.offered] == "live" or Rule.OFFER_VOID not in rules)


def settle(rules: frozenset[Rule], row: Row, me: int, write: Write, nodes: tuple[str, ...]) -> tuple[Row, Answer]:
    """What becomes of a node's write, and of the row."""
    if write.kind in ("release", "park"):
        return release(rules, row, me, write)
    if write.kind in ("segment", "end"):
        return turn(rules, row, me, write)
    if write.kind == "offer":
        return offer(rules, row, me, write, nodes)
    must_live = Rule.RECEIVER_LIVES if write.kind == "take" else Rule.TAKER_LIVES
    if nodes[me] != "live" and must_live in rules:
        return row, Answer("fenced")
    if write.kind in ("take", "decline", "withdraw"):
        return end_offer(rules, row, me, write)
    return take(rules, row, me, write, nodes)


def offer(rules: frozenset[Rule], row: Row, me: int, write: Write, nodes: tuple[str, ...]) -> tuple[Row, Answer]:
    """Give a row up for another node."""
    if nodes[write.to] != "live" and Rule.OFFER_TO_LIVE in rules:
        return row, Answer("no", durable=True)
    if (row.owner != me or row.epoch != write.epoch) and Rule.OFFER_FENCED in rules:
        return row, Answer("done", durable=True)
    free = row._replace(owner=NOBODY, offered=write.to)
    return marked(free) if Rule.OFFER_MARKS in rules else free, Answer("done", durable=True)


def end_offer(rules: frozenset[Rule], row: Row, me: int, write: Write) -> tuple[Row, Answer]:
    """Take what this node is offered, leave it to anybody, or withdraw what another one did not take."""
    to = write.to if write.kind == "withdraw" else me
    if row.offered != to or (row.owner != NOBODY and Rule.TAKE_UNOWNED in rules):
        return row, Answer("done", durable=True)
    row = row._replace(offered=NOBODY)
    has_work = not row.waiting and row.cursor < row.tail
    wanted = {"take": not row.waiting, "decline": False, "withdraw": has_work}[write.kind]
    row = own(rules, row, me) if wanted else row
    return row, Answer("done", row.epoch if wanted else 0, durable=True)


def take(rules: frozenset[Rule], row: Row, me: int, write: Write, nodes: tuple[str, ...]) -> tuple[Row, Answer]:
    """Append a message, or claim; the actor may become this node's by it."""
    free = row.owner == NOBODY and not kept(rules, row, me, nodes)
    if write.kind == "append":
        row = row._replace(tail=row.tail + 1)
        wanted = free and not row.waiting and Rule.APPEND_MARKS in rules
    elif write.kind == "claim":
        wanted = row.marked and free
    else:
        wanted = free and not row.waiting
    if wanted:
        row = own(rules, row, me)
    elif row.owner == NOBODY and Rule.APPEND_MARKS in rules:
        row = marked(row)
    mine = row.owner == me and (wanted or write.kind == "append")
    return row, Answer("done", row.epoch if mine else 0, durable=True)


def release(rules: frozenset[Rule], row: Row, me: int, write: Write) -> tuple[Row, Answer]:
    """Give a row back, unless there is work; with `park` its turn waits for a reply."""
    if row.owner != me or row.epoch != write.epoch:
        return row, Answer("done", durable=True)
    has_work = row.ask != "open" if write.kind == "park" else row.cursor < row.tail
    if has_work and Rule.RELEASE_REFUSED in rules:
        return row, Answer("no", durable=True)
    return marked(row._replace(owner=NOBODY, waiting=write.kind == "park")), Answer("done", durable=True)


def turn(rules: frozenset[Rule], row: Row, me: int, write: Write) -> tuple[Row, Answer]:
    """What a turn did, if the fence lets it through."""
    if (Rule.FENCE_OWNER in rules and row.owner != me) or (Rule.FENCE_EPOCH in rules and row.epoch != write.epoch):
        return row, Answer("fenced")
    follows = Rule.FOLLOWS_END if write.kind == "end" else Rule.FOLLOWS_SEGMENT
    if row.cursor != write.number - 1 and follows in rules:
        return row, Answer("failed")
    if write.kind == "end":
        row = row._replace(cursor=write.number, state=write.state, ended=(*row.ended, write.number))
    else:
        row = row._replace(journal=write.number, ask=row.ask or ("open" if write.number == 1 else ""))
    return row, Answer("done", durable=True)


# the properties of a state, and of a transaction ----------------------------------------------------------------------


def broken_state(world: World) -> str | None:
    """The property that a state breaks."""
    row = world.row
    if not row.state == row.ended == tuple(range(1, row.cursor + 1)):
        return IN_ORDER
    return RESTS_ON_DURABLE if row.journal > row.cursor + 1 else None


def broken_transaction(before: Row, after: Row, me: int, write: Write) -> str | None:
    """The property that a transaction breaks."""
    if after.owner not in (before.owner, NOBODY) and after.epoch <= before.epoch:
        return EPOCH_RISES
    if before.owner not in (NOBODY, after.owner, me):
        return TAKEN_FROM_NOBODY
    wrote = write.kind in ("segment", "end") and after != before
    if wrote and (before.owner != me or before.epoch != write.epoch):
        return ONE_WRITER
    return None
