"""What one write transaction knows and gathers: rows read ahead, rows to put down.

Runs in the connection's thread between BEGIN IMMEDIATE and COMMIT, so what it reads stays true until it has written.
Actor rows are kept from one transaction to the next and are good as long as no other connection has committed
(`PRAGMA data_version` tells), so a process alone with its database appends without reading.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define, field

from perdure.errors import StorageError
from perdure.storage import sqlite_rows as rows
from perdure.storage.records import Address, Completion, Outcome, Record
from perdure.storage.sqlite_rows import fetch
from perdure.storage.wake import ANYBODY
from perdure.storage.writes import Append, Committed, Placed, Segment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Sequence

    from perdure.storage.records import ActorStatus, Envelope, Life
    from perdure.storage.writes import Write

CACHED_ROWS = 100_000
_ACTOR_COLUMNS = (
    "actor.id, actor.kind, actor.key, owner, epoch, tail, cursor, status, reason, created, actor.parent, life"
)


@define(eq=False)
class ActorRow:
    """An actor's row as this transaction leaves it."""

    id: int
    kind: str
    key: str
    owner: str | None
    epoch: int
    tail: int
    cursor: int
    status: ActorStatus
    reason: str | None
    created: float
    parent: int | None = None
    life: Life = "running"
    stored: bool = True
    moved: bool = False
    restated: bool = False
    address: Address = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.address = Address(self.kind, self.key)


@define(eq=False)
class Cache:
    """Rows known to be as they are in the database, and the next free numbers."""

    by_address: dict[Address, ActorRow] = field(factory=dict[Address, ActorRow])
    by_id: dict[int, ActorRow] = field(factory=dict[int, ActorRow])
    next_actor: int = 0
    next_seq: int = 0
    awaited: set[int] = field(factory=set[int])
    version: int = -1

    def clear(self) -> None:
        """Know nothing."""
        self.by_address.clear()
        self.by_id.clear()
        self.next_actor = self.next_seq = 0

    def put(self, row: ActorRow) -> None:
        """Know a row."""
        self.by_address[row.address] = row
        self.by_id[row.id] = row


@define(eq=False)
class Known:
    """A message id in use."""

    seq: int
    to: Address
    handler: str
    args: str
    codec: str
    outcome: Outcome | None


class Gathering:
    """The rows of one transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        cache: Cache,
        node: str,
        runs: Callable[[str], bool],
        *,
        thorough: bool = False,
    ) -> None:
        self.connection = connection
        self.node = node
        self._cache = cache
        self._runs = runs
        self._thorough = thorough
        self._known: dict[str, Known | None] = {}
        self._awaited: dict[int, list[tuple[int, int, str]]] = {}
        self._dirty: dict[int, ActorRow] = {}
        self._messages: list[Sequence[rows.Value]] = []
        self._plain_messages: list[Sequence[rows.Value]] = []
        self._outcomes: list[Sequence[rows.Value]] = []
        self._successes: list[Sequence[rows.Value]] = []
        self._ended: dict[int, Outcome] = {}
        self._snapshots: dict[int, Sequence[rows.Value]] = {}
        self._turns: dict[int, Sequence[rows.Value]] = {}
        self._records: dict[tuple[int, str], Record] = {}
        self._completed: dict[tuple[int, str], Outcome] = {}
        self._decided: set[tuple[int, str]] = set()
        self._numbered: list[Sequence[rows.Value]] = []
        self._erased: list[tuple[int, str]] = []
        self.now = 0.0
        self.concerned: set[str] = set()

    evidence: tuple[str, rows.Value, rows.Value] | None = None
    """A row that is in the database if and only if this transaction is: its query and two values."""

    def forget(self) -> None:
        """Drop what is known of the rows, after they were changed by other statements."""
        self._cache.clear()
        self._number()

    def _number(self) -> None:
        sql = "SELECT (SELECT coalesce(max(id), 0) FROM actor), \
               max((SELECT coalesce(max(seq), 0) FROM message), (SELECT max(seq) FROM removed))"
        ((actor, seq),) = fetch(self.connection, sql)
        self._cache.next_actor, self._cache.next_seq = actor + 1, seq + 1
        sql = "SELECT target FROM journal WHERE status = 'started' AND target IS NOT NULL"
        self._cache.awaited = {target for (target,) in fetch(self.connection, sql)}

    # reading ahead ----------------------------------------------------------------------------------------------------

    def _prefetch(self, batch: Sequence[Write]) -> None:
        missing, ids, ends = self._wanted(batch)
        if missing:
            self._load_addresses(missing)
        if ids:
            self._load_ids(ids)
        if ends:
            self.load_awaited(ends)

    def _wanted(self, batch: Sequence[Write]) -> tuple[set[Address], list[str], list[int]]:
        """Receivers that are not known yet, ids to be looked up, and messages that end and that somebody awaits."""
        known, awaited = self._cache.by_address, self._cache.awaited
        missing: set[Address] = set()
        ids: list[str] = []
        ends: list[int] = []
        for write in batch:
            if isinstance(write, Append):
                e = write.envelope
                if e.to not in known:
                    missing.add(e.to)
                if e.chosen or self._thorough:
                    ids.append(e.id)
            elif isinstance(write, Segment):
                if write.sends or write.watches:
                    missing |= {send.envelope.to for send in write.sends} - known.keys()
                    ids += [send.envelope.id for send in write.sends] + [watch.id for watch in write.watches]
                if write.end is not None and write.message in awaited:
                    ends.append(write.message)
        return missing, ids, ends

    def _load_addresses(self, addresses: Iterable[Address]) -> None:
        sql = f"SELECT {_ACTOR_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN actor \
                ON actor.kind = wanted.value ->> 0 AND actor.key = wanted.value ->> 1"  # noqa: S608  # constant columns
        for found in fetch(self.connection, sql, json.dumps([(a.kind, a.key) for a in addresses])):
            self._cache.put(ActorRow(*found))

    def _load_ids(self, ids: Sequence[str]) -> None:
        self._known.update(dict.fromkeys(ids))
        sql = "SELECT message.id, seq, kind, actor.key, handler, args, codec, outcome.status, result, error \
               FROM json_each(?) AS wanted CROSS JOIN message ON message.id = wanted.value \
               JOIN actor ON actor.id = message.actor LEFT JOIN outcome ON outcome.message = seq"
        for id_, seq, kind, key, handler, args, codec, status, result, error in fetch(
            self.connection, sql, json.dumps(ids)
        ):
            outcome = Outcome(status, result, error) if status is not None else None
            self._known[id_] = Known(seq, Address(kind, key), handler, args, codec, outcome)

    def reread(self, messages: Iterable[tuple[int, str]]) -> None:
        """Look messages up anew whose rows other statements have changed; what is pending was put down before."""
        ids: list[str] = []
        for seq, id_ in messages:
            self._ended.pop(seq, None)
            ids.append(id_)
        self._load_ids(ids)
        self.evidence = None  # it may have been one of their rows

    def load_awaited(self, messages: Sequence[int]) -> None:
        """Learn which records await the outcomes of these messages."""
        sql = "SELECT target, message.actor, journal.message, journal.key FROM json_each(?) AS wanted \
               CROSS JOIN journal ON target = wanted.value AND journal.status = 'started' \
               JOIN message ON message.seq = journal.message"
        for target, actor, message, key in fetch(self.connection, sql, json.dumps(messages)):
            self._awaited.setdefault(target, []).append((actor, message, key))

    def row_at(self, address: Address) -> ActorRow | None:
        """The row of an actor, if there is one."""
        row = self._cache.by_address.get(address)
        if row is None:
            self._load_addresses([address])
            row = self._cache.by_address.get(address)
        return row

    def row(self, actor: int) -> ActorRow | None:
        """The row with a number, if there is one."""
        row = self._cache.by_id.get(actor)
        if row is None:
            sql = f"SELECT {_ACTOR_COLUMNS} FROM actor WHERE id = ?"  # noqa: S608  # constant columns
            for found in fetch(self.connection, sql, actor):
                self._cache.put(row := ActorRow(*found))
        return row

    # changing rows ----------------------------------------------------------------------------------------------------

    def drop(self, actors: Iterable[int]) -> None:
        """Forget rows that other statements are about to change; all pending ones are put down first."""
        self.flush()
        for actor in actors:
            row = self._cache.by_id.pop(actor, None)
            if row is not None:
                del self._cache.by_address[row.address]

    def touch(self, row: ActorRow) -> ActorRow:
        """Mark a row as changed in more than its numbers."""
        row.restated = True
        self._dirty[row.id] = row
        return row

    def place(self, row: ActorRow) -> Placed:
        """The row as this node sees it; fresh when there is nothing to load."""
        epoch = row.epoch if row.owner == self.node else None
        if epoch is None:
            self.concern(row)
        fresh = not row.stored and row.id not in self._snapshots
        return Placed(row.id, row.address, epoch, fresh)

    def concern(self, row: ActorRow) -> None:
        """Note which other node is to look at a row: its owner, or any that runs its kind, if it can go on."""
        if row.owner is not None and row.owner != self.node:
            self.concerned.add(row.owner)
        elif row.owner is None and row.status == "ready" and row.life == "running" and row.cursor < row.tail:
            self.concerned.add(ANYBODY)

    @property
    def ended(self) -> Collection[int]:
        """The messages that this transaction ended."""
        return self._ended.keys()

    def own(self, row: ActorRow) -> None:
        """Give a row to this node, under a new epoch, if nobody has it and this node can run it."""
        if row.owner is None and row.life == "running" and self._runs(row.kind):
            row.owner, row.epoch, row.moved = self.node, row.epoch + 1, True
            self.touch(row)

    def create(self, address: Address, created: float, parent: int | None = None) -> ActorRow:
        """Make the row of an actor that is not there yet."""
        row = ActorRow(
            self._cache.next_actor,
            address.kind,
            address.key,
            None,
            0,
            0,
            0,
            "ready",
            None,
            created,
            parent,
            "running",
            stored=False,
        )
        self._cache.next_actor += 1
        self._cache.put(row)
        return self.touch(row)

    def fresh_id(self) -> str:
        """A message id that this transaction makes up."""
        return f"{self.node}-s{self._cache.next_seq:x}"

    def put_message(self, seq: int, actor: int, number: int | None, e: Envelope) -> None:
        """Write a message."""
        special = number is None or e.chosen or e.cause is not None or e.chain or e.expires is not None
        if special or e.codec != "json":
            chain = json.dumps(e.chain) if e.chain else None
            self._messages.append((
                seq, e.id, actor, number, e.handler, e.args, e.codec, int(e.chosen), e.cause, chain, e.sent, e.due,
                e.expires,
            ))  # fmt: skip
        else:
            self._plain_messages.append((seq, e.id, actor, number, e.handler, e.args, e.sent))

    def end(self, seq: int, outcome: Outcome, *, changes: str | None, started: float | None, finished: float) -> None:
        """Write a message's outcome."""
        self._ended[seq] = outcome
        if outcome.status == "succeeded":
            self._successes.append((seq, outcome.result, changes, started, finished))
        else:
            self._outcomes.append((seq, outcome.status, outcome.result, outcome.error, changes, started, finished))

    def complete(self, seq: int, outcome: Outcome, into: Committed) -> None:
        """Complete the records that await a message, and wake those whose turn was evicted."""
        self._cache.awaited.discard(seq)
        for actor, message, key in self._awaited.pop(seq, ()):
            own = self._records.get((message, key))
            if (message, key) in self._decided or (own is not None and own.status != "started"):
                continue  # completed before, in this batch: the first one holds
            self._decided.add((message, key))
            self._completed[message, key] = outcome
            into.completions = [*into.completions, Completion(actor, message, key, outcome)]
            row = self.row(actor)
            if row is not None and row.status == "waiting" and self._is_head(row, message):
                row.status = "ready"
                self.own(self.touch(row))
                into.woken = [*into.woken, self.place(row)]
            elif row is not None:
                self.concern(row)

    def _is_head(self, row: ActorRow, message: int) -> bool:
        sql = "SELECT 1 FROM message WHERE seq = ? AND number = ?"
        return bool(fetch(self.connection, sql, message, row.cursor + 1))

    # writing ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Put the rows down."""
        connection = self.connection
        messages, outcomes = self._plain_messages or self._messages, self._successes or self._outcomes
        if messages:
            seq, id_, *_ = messages[0]
            self.evidence = ("SELECT 1 FROM message WHERE seq = ? AND id = ?", seq, id_)
        elif outcomes and self.evidence is None:
            self.evidence = ("SELECT 1 FROM outcome WHERE message = ? AND ? IS NULL", outcomes[0][0], None)
        self._flush_actors()
        rows.INSERT_MESSAGES.run(connection, self._messages)
        rows.INSERT_PLAIN_MESSAGES.run(connection, self._plain_messages)
        rows.INSERT_OUTCOMES.run(connection, self._outcomes)
        rows.INSERT_SUCCESSES.run(connection, self._successes)
        rows.PUT_SNAPSHOTS.run(connection, list(self._snapshots.values()))
        rows.PUT_TURNS.run(connection, list(self._turns.values()))
        if self._erased:
            connection.executemany("DELETE FROM journal WHERE message = ? AND key = ?", self._erased)
        rows.PUT_RECORDS.run(connection, [_record_row(seq, record) for (seq, _), record in self._records.items()])
        rows.COMPLETE_RECORDS.run(
            connection,
            [
                (
                    seq,
                    key,
                    "ask",
                    "",
                    "completed" if o.status == "succeeded" else "failed",
                    o.result,
                    _told(o),
                    0.0,
                    self.now,
                )
                for (seq, key), o in self._completed.items()
            ],
        )
        rows.NUMBER_RECORDS.run(connection, self._numbered)
        for pending in (
            self._dirty, self._messages, self._plain_messages, self._outcomes, self._successes, self._snapshots,
            self._turns, self._records, self._completed, self._numbered, self._erased,
        ):  # fmt: skip
            pending.clear()

    def _flush_actors(self) -> None:
        fresh: list[Sequence[rows.Value]] = []
        moved: list[Sequence[rows.Value]] = []
        restated: list[Sequence[rows.Value]] = []
        advanced: list[Sequence[rows.Value]] = []
        for r in self._dirty.values():
            if r.stored and r.owner == self.node and not r.restated:
                advanced.append((r.id, r.epoch, r.tail, r.cursor))
                continue
            if r.stored:
                values = (r.id, r.epoch, r.owner, r.tail, r.cursor, r.status, r.reason)
                (moved if r.moved else restated).append(values)
            else:
                fresh.append(
                    (r.id, r.kind, r.key, r.owner, r.epoch, r.tail, r.cursor, r.status, r.reason, r.parent, r.created)
                )
            r.stored, r.moved, r.restated = True, False, False
        rows.INSERT_ACTORS.run(self.connection, fresh)
        changed = rows.MOVE_ACTORS.run(self.connection, moved)
        changed += rows.UPDATE_ACTORS.run(self.connection, restated)
        changed += rows.ADVANCE_ACTORS.run(self.connection, advanced, self.node)
        lost = len(moved) + len(restated) + len(advanced) - changed
        if lost:
            raise StorageError(f"{lost} actors changed hands inside a transaction: the cached rows were wrong")


def _told(outcome: Outcome) -> str | None:
    """An outcome's error as a journal keeps it: with the status, which tells how to raise it."""
    if outcome.status == "succeeded":
        return None
    fields: dict[str, Any] = json.loads(outcome.error) if outcome.error else {}
    fields.pop("traceback", None)
    return json.dumps({**fields, "status": outcome.status}, ensure_ascii=False)


def _record_row(seq: int, record: Record) -> Sequence[rows.Value]:
    r = record
    return (
        seq, r.key, r.kind, r.name, r.digest, r.status, r.attempt, r.position, r.result, r.error, r.target, r.due,
        r.started, r.finished,
    )  # fmt: skip
