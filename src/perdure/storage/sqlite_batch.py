"""One write transaction on SQLite: settle every write of a batch in memory, then put the rows down in bulk.

Runs in the connection's thread between BEGIN IMMEDIATE and COMMIT, so what it reads stays true until it has written.
Actor rows are kept from one transaction to the next and are good as long as no other connection has committed
(`PRAGMA data_version` tells), so a process alone with its database appends without reading.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from perdure.errors import (
    ActorExists,
    ActorStopped,
    FencedError,
    IdReusedError,
    MailboxFull,
    NotSpawnedError,
    PerdureError,
    StorageError,
)
from perdure.storage import sqlite_rows as rows
from perdure.storage.failure import encode_failure
from perdure.storage.sqlite_rare import bury, dead_letter_rest, due, purge
from perdure.storage.sqlite_rows import fetch
from perdure.storage.store import (
    Address,
    Append,
    Appended,
    Bury,
    Claim,
    Claimed,
    Committed,
    Completion,
    Due,
    Existing,
    Fired,
    Mail,
    Outcome,
    Placed,
    Purge,
    Record,
    Release,
    Segment,
    Send,
    Spawn,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from perdure.storage.store import ActorStatus, End, Envelope, Settled, Write

_CACHED_ROWS = 100_000
_ACTOR_COLUMNS = "actor.id, actor.kind, actor.key, owner, epoch, tail, cursor, status, reason, created"


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
    stored: bool = True
    moved: bool = False


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
        self.by_address[Address(row.kind, row.key)] = row
        self.by_id[row.id] = row


@define(eq=False)
class _Known:
    """A message id in use."""

    seq: int
    to: Address
    handler: str
    args: str
    codec: str
    outcome: Outcome | None


class Transaction:
    """The settling of one batch."""

    def __init__(self, connection: sqlite3.Connection, cache: Cache, node: str, runs: Callable[[str], bool]) -> None:
        self.connection = connection
        self.node = node
        self._cache = cache
        self._runs = runs
        self._known: dict[str, _Known | None] = {}
        self._awaited: dict[int, list[tuple[int, int, str]]] = {}
        self._dirty: dict[int, ActorRow] = {}
        self._messages: list[Sequence[rows.Value]] = []
        self._outcomes: dict[int, Sequence[rows.Value]] = {}
        self._ended: dict[int, Outcome] = {}
        self._snapshots: dict[int, Sequence[rows.Value]] = {}
        self._turns: dict[int, Sequence[rows.Value]] = {}
        self._records: dict[tuple[int, str], Record] = {}
        self._completed: dict[tuple[int, str], Outcome] = {}
        self._numbered: list[Sequence[rows.Value]] = []
        self._erased: list[tuple[int, str]] = []
        self._now = 0.0

    evidence: tuple[str, rows.Value, rows.Value] | None = None
    """A row that is in the database if and only if this transaction is: its query and two values."""

    def run(self, batch: Sequence[Write], now: float) -> list[Settled]:
        """Settle every write and put the rows down."""
        self._now = now
        version = int(fetch(self.connection, "PRAGMA data_version")[0][0])
        if version != self._cache.version or len(self._cache.by_id) > _CACHED_ROWS:
            self._cache.clear()
            self._cache.version = version
        if not self._cache.next_seq:
            self._number()
        self._prefetch(batch)
        settled = [_SETTLE[type(write)](self, write) for write in batch]
        self.flush()
        return settled

    def forget(self) -> None:
        """Drop what is known of the rows, after they were changed by other statements."""
        self._cache.clear()
        self._number()

    def _number(self) -> None:
        sql = "SELECT (SELECT coalesce(max(id), 0) FROM actor), max((SELECT coalesce(max(seq), 0) FROM message), \
               (SELECT coalesce(max(message), 0) FROM outcome))"
        ((actor, seq),) = fetch(self.connection, sql)
        self._cache.next_actor, self._cache.next_seq = actor + 1, seq + 1
        sql = "SELECT target FROM journal WHERE status = 'started' AND target IS NOT NULL"
        self._cache.awaited = {target for (target,) in fetch(self.connection, sql)}

    # reading ahead ----------------------------------------------------------------------------------------------------

    def _prefetch(self, batch: Sequence[Write]) -> None:
        addresses: set[Address] = set()
        ids: list[str] = []
        ends: list[int] = []
        for write in batch:
            if isinstance(write, Append):
                addresses.add(write.envelope.to)
                if write.envelope.chosen:
                    ids.append(write.envelope.id)
            elif isinstance(write, Segment):
                addresses.update(send.envelope.to for send in write.sends)
                ids.extend(send.envelope.id for send in write.sends)
                ids.extend(watch.id for watch in write.watches)
                if write.end is not None and write.message in self._cache.awaited:
                    ends.append(write.message)
        missing = [address for address in addresses if address not in self._cache.by_address]
        if missing:
            self._load_addresses(missing)
        if ids:
            self._load_ids(ids)
        if ends:
            self.load_awaited(ends)

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
            self._known[id_] = _Known(seq, Address(kind, key), handler, args, codec, outcome)

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

    def touch(self, row: ActorRow) -> ActorRow:
        """Mark a row as changed."""
        self._dirty[row.id] = row
        return row

    def place(self, row: ActorRow) -> Placed:
        """The row as this node sees it; fresh when there is nothing to load."""
        epoch = row.epoch if row.owner == self.node else None
        fresh = not row.stored and row.id not in self._snapshots
        return Placed(row.id, Address(row.kind, row.key), epoch, fresh)

    def own(self, row: ActorRow) -> None:
        """Give a row to this node, under a new epoch, if nobody has it and this node can run it."""
        if row.owner is None and self._runs(row.kind):
            row.owner, row.epoch, row.moved = self.node, row.epoch + 1, True
            self.touch(row)

    def _create(self, address: Address, created: float, parent: int | None = None) -> ActorRow:
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
            stored=False,
        )
        self._cache.next_actor += 1
        self._cache.put(row)
        return self.touch(row)

    def end(self, seq: int, outcome: Outcome, *, changes: str | None, started: float | None, finished: float) -> None:
        """Write a message's outcome."""
        self._ended[seq] = outcome
        self._outcomes[seq] = (seq, outcome.status, outcome.result, outcome.error, changes, started, finished)

    def complete(self, seq: int, outcome: Outcome, into: Committed) -> None:
        """Complete the records that await a message, and wake those whose turn was evicted."""
        self._cache.awaited.discard(seq)
        for actor, message, key in self._awaited.pop(seq, ()):
            self._completed[message, key] = outcome
            into.completions = [*into.completions, Completion(actor, message, key, outcome)]
            row = self.row(actor)
            if row is not None and row.status == "waiting":
                row.status = "ready"
                self.own(self.touch(row))
                into.woken = [*into.woken, self.place(row)]

    # settling ---------------------------------------------------------------------------------------------------------

    def _deliver(self, envelope: Envelope) -> Appended | PerdureError:
        row = self.row_at(envelope.to)
        if row is None:
            if envelope.must_exist:
                return _not_spawned(envelope)
            row = self._create(envelope.to, envelope.sent)
        elif row.status == "stopped":
            return ActorStopped(f"{envelope.to} has stopped; '{envelope.handler}' was not sent. Use another key.")
        elif envelope.limit is not None and row.tail - row.cursor >= envelope.limit:
            return MailboxFull(
                f"{envelope.to} holds {row.tail - row.cursor} unhandled messages, its limit; '{envelope.handler}' was "
                "not sent. Send again later, or raise mailbox_limit= on the class."
            )
        return self._append_row(row, envelope)

    def _append_row(self, row: ActorRow, envelope: Envelope) -> Appended:
        seq = self._cache.next_seq
        self._cache.next_seq += 1
        numbered = envelope.due is None
        if numbered:
            row.tail += 1
            self._dirty[row.id] = row
            if row.owner is None and row.status == "ready":
                self.own(row)
        e = envelope
        chain = json.dumps(e.chain) if e.chain else None
        number = row.tail if numbered else None
        self._messages.append(
            (
                seq,
                e.id,
                row.id,
                number,
                e.handler,
                e.args,
                e.codec,
                int(e.chosen),
                e.cause,
                chain,
                e.sent,
                e.due,
                e.expires,
            )
        )
        if e.chosen or e.id in self._known:
            self._known[e.id] = _Known(seq, e.to, e.handler, e.args, e.codec, None)
        mail = Mail(seq, number or 0, e.id, e.handler, e.args, e.codec, e.sent, e.cause, e.chain, e.expires)
        return Appended(self.place(row), mail, numbered)

    def _existing(self, envelope: Envelope) -> Existing | IdReusedError | None:
        known = self._known.get(envelope.id)
        if known is None:
            return None
        # Arguments stored with cloudpickle have no one encoding, so they are not compared.
        same = known.to == envelope.to and known.handler == envelope.handler
        if same and (known.codec != "json" or envelope.codec != "json" or known.args == envelope.args):
            return Existing(known.seq, self._ended.get(known.seq, known.outcome))
        return IdReusedError(
            f"id '{envelope.id}' is taken by '{known.handler}' to {known.to} with "
            f"{'other arguments' if same else 'another receiver or handler'}. "
            "The same id is the same message: choose another id for another message."
        )

    def append(self, write: Append) -> Settled:
        """Settle a message from outside."""
        return self._existing(write.envelope) or self._deliver(write.envelope)

    def spawn(self, write: Spawn) -> Placed | ActorExists:
        """Settle an actor's beginning."""
        row = self.row_at(write.to)
        if row is None:
            row = self._create(write.to, write.created, write.parent)
            self._snapshots[row.id] = (row.id, write.version, write.codec, write.initial, write.initial)
            return self.place(row)
        conflict = self._conflict(row, write)
        return conflict or evolve(self.place(row), fresh=False)

    def _conflict(self, row: ActorRow, write: Spawn) -> ActorExists | None:
        pending = self._snapshots.get(row.id)
        stored = pending[4] if pending else None
        if stored is None:
            found = fetch(self.connection, "SELECT initial FROM snapshot WHERE actor = ?", row.id)
            stored = found[0][0] if found else None
        if stored == write.initial or (stored is None and write.initial == "{}"):
            return None
        return ActorExists(
            f"{write.to} exists"
            + (", spawned with other initial state. " if stored else ", made by its first message. ")
            + "Use another key, or get() to reach the one that is there."
        )

    def segment(self, write: Segment) -> Settled:
        """Settle what a turn did."""
        row = self.row(write.actor)
        if row is None or row.owner != self.node or row.epoch != write.epoch:
            return FencedError(
                f"actor row {write.actor}: owned by {row.owner if row else 'nobody'} under epoch "
                f"{row.epoch if row else 0}, not by this activation's epoch {write.epoch}. What it computed is dropped."
            )
        refusal = self._refusal(write)
        if refusal is not None:
            return refusal
        done = Committed()
        for spawn in write.spawns:
            self.spawn(spawn)  # conflicts were refused above
        for record in write.records:
            self._records[write.message, record.key] = record
        for send in write.sends:
            self._send(write, send, done)
        for watch in write.watches:
            self._watch(write, watch.key, self._known.get(watch.id), done)
        for key, error in write.settles:
            self._settle(write, key, error, done)
        self._numbered.extend((write.message, key, "ask", "", "started", 0.0, n) for key, n in write.numbered)
        self._erased.extend((write.message, key) for key in write.erased)
        self._mark(row, write)
        if write.end is not None:
            self._finish(row, write.message, write.end, done)
        return done

    def _mark(self, row: ActorRow, write: Segment) -> None:
        """Note where the turn and its actor stand."""
        if write.turn is not None:
            t = write.turn
            self._turns[write.message] = (
                write.message, t.attempts, t.blame, int(t.suspect), t.executing, t.retry_at, t.error
            )  # fmt: skip
        if write.status is not None:
            row.status, row.reason = write.status, write.reason
            self.touch(row)

    def _refusal(self, write: Segment) -> PerdureError | None:
        """Why a segment cannot be written, found out before anything of it is applied."""
        born: set[Address] = set()
        twice = _reused(write)
        if twice is not None:
            return twice
        for spawn in write.spawns:
            row = self.row_at(spawn.to)
            if row is not None and (conflict := self._conflict(row, spawn)) is not None:
                return conflict
            born.add(spawn.to)
        for send in write.sends:
            envelope = send.envelope
            if send.key is not None:
                continue
            existing = self._existing(envelope)
            if isinstance(existing, IdReusedError):
                return existing
            if envelope.must_exist and envelope.to not in born and self.row_at(envelope.to) is None:
                return _not_spawned(envelope)
        return None

    def _send(self, write: Segment, send: Send, done: Committed) -> None:
        envelope = send.envelope
        settled = self._existing(envelope) or self._deliver(envelope)
        if isinstance(settled, Appended):
            done.appended = [*done.appended, settled]
            if send.key is not None:
                self._await(write, send.key, settled.mail.seq)
        elif isinstance(settled, Existing):
            if send.key is not None:
                known = self._known[envelope.id]
                self._watch(write, send.key, known, done)
        elif send.key is not None:
            refused = Outcome("rejected", error=encode_failure(settled, with_traceback=False))
            self._complete_own(write, send.key, refused, done)
        else:
            self._dead_letter(envelope, settled)

    def _dead_letter(self, envelope: Envelope, error: PerdureError) -> None:
        """A turn's message that nobody can take: kept, with the reason, passed by the mailbox."""
        row = self.row_at(envelope.to)
        if row is None:
            raise StorageError(f"{envelope.to}: a message was refused by an actor that is not there: {error}")
        appended = self._append_row(row, evolve(envelope, due=None))
        row.cursor = row.tail
        outcome = Outcome("dead", error=encode_failure(error, with_traceback=False))
        self.end(appended.mail.seq, outcome, changes=None, started=None, finished=self._now)

    def _await(self, write: Segment, key: str, target: int) -> None:
        self._records[write.message, key] = evolve(self._records[write.message, key], target=target)
        self._awaited.setdefault(target, []).append((write.actor, write.message, key))
        self._cache.awaited.add(target)

    def _watch(self, write: Segment, key: str, known: _Known | None, done: Committed) -> None:
        if known is None:
            gone = StorageError("no message with that id is kept here; its retention may have passed")
            self._complete_own(write, key, Outcome("rejected", error=encode_failure(gone)), done)
            return
        outcome = self._ended.get(known.seq, known.outcome)
        if outcome is None:
            self._await(write, key, known.seq)
        else:
            self._complete_own(write, key, outcome, done)

    def _complete_own(self, write: Segment, key: str, outcome: Outcome, done: Committed) -> None:
        self._completed[write.message, key] = outcome
        done.completions = [*done.completions, Completion(write.actor, write.message, key, outcome)]

    def _settle(self, write: Segment, key: str, error: str, done: Committed) -> None:
        """Give an ask up, unless its reply is already here."""
        outcome = self._completed.get((write.message, key))
        if outcome is None:
            sql = "SELECT status, result, error FROM journal WHERE message = ? AND key = ?"
            for status, result, stored in fetch(self.connection, sql, write.message, key):
                if status != "started":
                    outcome = Outcome("succeeded" if status == "completed" else "rejected", result, stored)
        self._complete_own(write, key, outcome or Outcome("rejected", error=error), done)

    def _finish(self, row: ActorRow, seq: int, end: End, done: Committed) -> None:
        if row.cursor != end.number - 1:
            raise StorageError(f"{row.kind}/{row.key}: message {end.number} ended while the cursor was at {row.cursor}")
        row.cursor = end.number
        self._dirty[row.id] = row
        if end.snapshot is not None:
            self._snapshots[row.id] = (row.id, end.snapshot.version, end.snapshot.codec, end.snapshot.state, None)
        self.end(seq, end.outcome, changes=end.changes, started=end.started, finished=end.finished)
        if seq in self._awaited:
            self.complete(seq, end.outcome, done)
        if end.stop:
            row.status = "stopped"
            self.flush()
            dead_letter_rest(self, row, done, self._now)

    def claim(self, write: Claim) -> Claimed:
        """Settle a claim."""
        if write.only is not None:
            row = self.row_at(write.only)
            if row is not None and row.status != "stopped":
                self.own(row)
            return Claimed((self.place(row),) if row is not None else ())
        sql = "SELECT id FROM actor WHERE owner IS NULL AND status = 'ready' AND cursor < tail \
               AND kind IN (SELECT value FROM json_each(?)) LIMIT ?"
        claimed: list[Placed] = []
        for (actor,) in fetch(self.connection, sql, json.dumps(write.kinds), write.limit):
            row = self.row(actor)
            if row is not None and row.owner is None and row.status == "ready":
                self.own(row)
                claimed.append(self.place(row))
        return Claimed(tuple(claimed))

    def release(self, write: Release) -> bool:
        """Settle a release: refused while there is something to do."""
        row = self.row(write.actor)
        if row is None or row.owner != self.node or row.epoch != write.epoch:
            return True
        if write.waiting is None:
            if row.status == "ready" and row.cursor < row.tail:
                return False
        elif self._can_go_on(write.waiting):
            return False
        else:
            row.status = "waiting"
        row.owner, row.moved = None, True
        self.touch(row)
        return True

    def _can_go_on(self, message: int) -> bool:
        """Whether a turn has something to go on with, or nothing that could ever wake it."""
        sql = "SELECT count(*) FILTER (WHERE status IN ('completed', 'failed') AND position IS NULL \
               OR status = 'started' AND due <= ?), \
               count(*) FILTER (WHERE status = 'started' AND coalesce(target, due) IS NOT NULL) \
               FROM journal WHERE message = ? AND kind NOT IN ('tell', 'spawn', 'value')"
        ((ready, awaited),) = fetch(self.connection, sql, self._now, message)
        return ready > 0 or awaited == 0 or any(seq == message for seq, _ in self._completed)

    def due(self, write: Due) -> Fired:
        """Settle what has fallen due."""
        self.flush()
        return due(self, write)

    def bury(self, write: Bury) -> Settled:
        """Settle a dead node's estate."""
        self.flush()
        buried = bury(self.connection, write)
        self.forget()
        return buried

    def purge(self, write: Purge) -> int:
        """Settle history past its retention."""
        self.flush()
        return purge(self.connection, write)

    # writing ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Put the rows down."""
        connection = self.connection
        if self._messages:
            seq, id_, *_ = self._messages[0]
            self.evidence = ("SELECT 1 FROM message WHERE seq = ? AND id = ?", seq, id_)
        elif self._outcomes and self.evidence is None:
            self.evidence = ("SELECT 1 FROM outcome WHERE message = ? AND ? IS NULL", next(iter(self._outcomes)), None)
        self._flush_actors()
        rows.INSERT_MESSAGES.run(connection, self._messages)
        rows.INSERT_OUTCOMES.run(connection, list(self._outcomes.values()))
        rows.PUT_SNAPSHOTS.run(connection, list(self._snapshots.values()))
        rows.PUT_TURNS.run(connection, list(self._turns.values()))
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
                    self._now,
                )
                for (seq, key), o in self._completed.items()
            ],
        )
        rows.NUMBER_RECORDS.run(connection, self._numbered)
        if self._erased:
            connection.executemany("DELETE FROM journal WHERE message = ? AND key = ?", self._erased)
        for pending in (
            self._dirty, self._messages, self._outcomes, self._snapshots, self._turns, self._records, self._completed,
            self._numbered, self._erased,
        ):  # fmt: skip
            pending.clear()

    def _flush_actors(self) -> None:
        fresh: list[Sequence[rows.Value]] = []
        kept: list[Sequence[rows.Value]] = []
        moved: list[Sequence[rows.Value]] = []
        for r in self._dirty.values():
            if not r.stored:
                fresh.append(
                    (r.id, r.kind, r.key, r.owner, r.epoch, r.tail, r.cursor, r.status, r.reason, r.parent, r.created)
                )
            else:
                values = (r.id, r.kind, r.key, r.owner, r.epoch, r.tail, r.cursor, r.status, r.reason, r.created)
                (moved if r.moved else kept).append(values)
            r.stored, r.moved = True, False
        rows.INSERT_ACTORS.run(self.connection, fresh)
        rows.MOVE_ACTORS.run(self.connection, moved)
        changed = rows.UPDATE_ACTORS.run(self.connection, kept)
        if changed != len(kept):
            raise StorageError(
                f"{len(kept) - changed} actors changed hands inside a transaction: the cached rows were wrong"
            )


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


def _reused(write: Segment) -> IdReusedError | None:
    """Two different messages of one segment under one id."""
    seen: dict[str, Envelope] = {}
    for send in write.sends:
        e = send.envelope
        first = seen.setdefault(e.id, e)
        if (first.to, first.handler, first.args) != (e.to, e.handler, e.args):
            return IdReusedError(f"id '{e.id}' is given to two different messages of one turn. Choose another id.")
    return None


def _not_spawned(envelope: Envelope) -> NotSpawnedError:
    return NotSpawnedError(
        f"{envelope.to} does not exist, and its class has fields without defaults; '{envelope.handler}' was not sent. "
        "Spawn it first, with those fields."
    )


_SETTLE: dict[type, Callable[[Transaction, Any], Settled]] = {
    Append: Transaction.append,
    Spawn: Transaction.spawn,
    Segment: Transaction.segment,
    Claim: Transaction.claim,
    Release: Transaction.release,
    Due: Transaction.due,
    Bury: Transaction.bury,
    Purge: Transaction.purge,
}
