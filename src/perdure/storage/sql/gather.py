"""What one write transaction knows and gathers: rows read ahead, rows to put down.

Runs in the connection's thread between BEGIN and COMMIT, so what it reads stays true until it has written: nobody else
writes meanwhile (SQLite), or an actor's row is locked before it is relied on (PostgreSQL). Who has an actor's row has
all that is its own: mailbox, turn, journal, and who awaits its messages.

Rows are locked in the order of their ids before anything else. What turns up later is locked without waiting, which
cannot deadlock; if somebody has it, the transaction begins again (`Again`) with that row among the first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perdure.storage.hints import ANYBODY, News
from perdure.storage.records import Address, Completion, Outcome, Record
from perdure.storage.sql import rows
from perdure.storage.sql.cache import ActorRow, Cache, Known
from perdure.storage.sql.connection import Again
from perdure.storage.sql.locks import named
from perdure.storage.writes import Append, Committed, Placed, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perdure.storage.records import Envelope
    from perdure.storage.sql.connection import Connection, Value
    from perdure.storage.writes import Write

_ACTOR_COLUMNS = (
    "actor.id, actor.kind, actor.key, owner, epoch, tail(), cursor, status, reason, created, actor.parent, life, "
    "offered"
)
_ROWS_BY_ID = f"""SELECT {_ACTOR_COLUMNS} FROM actor WHERE id IN (SELECT value FROM numbers(?) AS wanted)
ORDER BY actor.id /* lock */"""  # noqa: S608  # constant columns
_ROWS_FIRST = _ROWS_BY_ID.replace("/* lock */", "/* lock, wait */")
_IDS_BY_ADDRESS = "SELECT id, kind, actor.key FROM pairs(?) AS wanted CROSS JOIN actor ON kind = a AND actor.key = b"

_AWAITED = """SELECT awaits, message.actor, journal.message, journal.key FROM numbers(?) AS wanted
CROSS JOIN journal ON awaits = wanted.value JOIN message ON message.seq = journal.message"""


class Gathering:
    """The rows of one transaction."""

    def __init__(
        self,
        connection: Connection,
        cache: Cache,
        node: str,
        runs: Callable[[str], bool],
        *,
        thorough: bool = False,
    ) -> None:
        self.connection = connection
        self.node = node
        self._cache = cache
        self.runs = runs
        self._thorough = thorough
        self._held: set[int] = set()
        self._known: dict[str, Known | None] = {}
        self._awaited: dict[int, list[tuple[int, int, str]]] = {}
        self._dirty: dict[int, ActorRow] = {}
        self._messages: list[Sequence[Value]] = []
        self._plain_messages: list[Sequence[Value]] = []
        self._outcomes: list[Sequence[Value]] = []
        self._successes: list[Sequence[Value]] = []
        self._ended: dict[int, Outcome] = {}
        self._snapshots: dict[int, Sequence[Value]] = {}
        self._turns: dict[int, Sequence[Value]] = {}
        self._records: dict[tuple[int, str], Record] = {}
        self._completed: dict[tuple[int, str], Outcome] = {}
        self._decided: set[tuple[int, str]] = set()
        self._numbered: list[Sequence[Value]] = []
        self._renewed: list[tuple[int, str]] = []
        self.now = 0.0
        self.news = News(ended=self._ended.keys())

    evidence: tuple[str, Value, Value] | None = None
    """A row that is in the database if and only if this transaction is: its query and two values."""

    def forget(self) -> None:
        """Drop what is known of the rows, after they were changed by other statements."""
        self.connection.forget(self._cache)

    # reading ahead ----------------------------------------------------------------------------------------------------

    def _prefetch(self, batch: Sequence[Write], also: Iterable[int]) -> None:
        if self.connection.shared:
            self._lock(batch, also)
            return
        missing, ids, ends = self._wanted(batch)
        if missing:
            self._load_addresses(missing)
        if ids:
            self._load_ids(ids)
        if ends:
            self.load_awaited(ends)

    def _wanted(self, batch: Sequence[Write]) -> tuple[set[Address], list[str], list[int]]:
        """Receivers that are not known yet, ids to be looked up, and messages that end and that somebody awaits.

        Where nobody else writes, that is all: the rest of what `named` finds is known, and every message passes here.
        """
        known, awaited = self._cache.by_address, self._cache.awaited or ()
        missing: set[Address] = set()
        ids: list[str] = []
        ends: list[int] = []
        for write in batch:
            if type(write) is Append:
                e = write.envelope
                if e.to not in known:
                    missing.add(e.to)
                if e.chosen or self._thorough:
                    ids.append(e.id)
            elif type(write) is Segment:
                if write.sends or write.watches:
                    missing |= {send.envelope.to for send in write.sends} - known.keys()
                    ids += [send.envelope.id for send in write.sends] + [watch.id for watch in write.watches]
                if write.end is not None and write.message in awaited:
                    ends.append(write.message)
        return missing, ids, ends

    def _lock(self, batch: Sequence[Write], also: Iterable[int]) -> None:
        """Lock the actors that a batch names, and those `also` that it met late before; read what the batch needs."""
        names = named(batch, thorough=self._thorough)
        sql = "SELECT message.id, actor FROM message WHERE message.id IN (SELECT value FROM texts(?) AS wanted)"
        taken = self.connection.fetch(sql, names.ids) if names.ids else []
        self._find(names.addresses - self._cache.ids.keys())
        ids = self._cache.ids
        first = {*names.actors, *also, *(actor for _, actor in taken), *(ids[a] for a in names.addresses if a in ids)}
        rows = self.connection.ahead(_ROWS_FIRST, sorted(first))
        awaited = self.connection.ahead(_AWAITED, names.ends) if names.ends else None  # rows are locked by then
        for found in rows():
            self._cache.put(ActorRow(*found))
        self._held.update(first)
        self._known.update(dict.fromkeys(names.ids))
        if taken:
            self._load_ids([id_ for id_, _ in taken])
        if awaited is not None:
            self._await_all(awaited())

    def _find(self, addresses: Iterable[Address]) -> None:
        """Learn the ids of actors."""
        wanted = [(a.kind, a.key) for a in addresses]
        for actor, kind, key in self.connection.fetch(_IDS_BY_ADDRESS, json.dumps(wanted)) if wanted else ():
            self._cache.ids[Address(kind, key)] = actor

    def hold(self, actors: Iterable[int]) -> bool:
        """Have nobody else change these actors until this transaction ends; whether any was not held already.

        Raises:
            Again: Somebody has one of them.
        """
        missing = [actor for actor in actors if actor not in self._held] if self.connection.shared else []
        if not missing:
            return False
        try:
            found = self.connection.fetch(_ROWS_BY_ID, missing)
        except Again:
            raise Again(missing) from None
        for row in found:
            self._cache.put(ActorRow(*row))
        self._held.update(missing)
        return True

    def _load_addresses(self, addresses: Iterable[Address]) -> None:
        if self.connection.shared:
            ids = self._cache.ids
            self._find([address for address in addresses if address not in ids])
            self.hold([ids[address] for address in addresses if address in ids])
            for address in addresses:
                if address in ids and address not in self._cache.by_address:
                    self._load_held(address)
            return
        sql = f"SELECT {_ACTOR_COLUMNS} FROM pairs(?) AS wanted CROSS JOIN actor \
                ON actor.kind = wanted.a AND actor.key = wanted.b"  # noqa: S608  # constant columns
        for found in self.connection.fetch(sql, json.dumps([(a.kind, a.key) for a in addresses])):
            self._cache.put(ActorRow(*found))

    def _load_held(self, address: Address) -> None:
        """Read a row that is held, and was dropped since, because other statements changed it."""
        ids = self._cache.ids
        if self.row(ids[address]) is None:  # that id was learnt in a transaction that was rolled back
            del ids[address]
            self._find([address])
            if address in ids:
                self.row(ids[address])

    def _load_ids(self, ids: Sequence[str]) -> None:
        self._known.update(dict.fromkeys(ids))
        sql = "SELECT message.id, seq, kind, actor.key, handler, args, codec, outcome.status, result, error \
               FROM texts(?) AS wanted CROSS JOIN message ON message.id = wanted.value \
               JOIN actor ON actor.id = message.actor LEFT JOIN outcome ON outcome.message = seq"
        for id_, seq, kind, key, handler, args, codec, status, result, error in self.connection.fetch(sql, list(ids)):
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
        self._await_all(self.connection.fetch(_AWAITED, list(messages)))

    def _await_all(self, records: Iterable[tuple[int, int, int, str]]) -> None:
        callers: set[int] = set()
        for target, actor, message, key in records:
            self._awaited.setdefault(target, []).append((actor, message, key))
            callers.add(actor)
        self.hold(callers)

    def row_at(self, address: Address) -> ActorRow | None:
        """The row of an actor, if there is one."""
        row = self._cache.by_address.get(address)
        if row is None:
            self._load_addresses([address])
            row = self._cache.by_address.get(address)
        return row

    def glance(self, address: Address) -> ActorRow | None:
        """An actor's row as it is or just was: what this transaction does not rest on, others may change."""
        row = self._cache.by_address.get(address)
        if row is not None or not self.connection.shared:
            return row or self.row_at(address)
        sql = f"SELECT {_ACTOR_COLUMNS} FROM actor WHERE kind = ? AND actor.key = ?"  # noqa: S608  # constant columns
        return next((ActorRow(*found) for found in self.connection.fetch(sql, *address)), None)

    def row(self, actor: int) -> ActorRow | None:
        """The row with a number, if there is one."""
        row = self._cache.by_id.get(actor)
        if row is None and self.hold([actor]):
            row = self._cache.by_id.get(actor)
        if row is None:
            sql = f"SELECT {_ACTOR_COLUMNS} FROM actor WHERE id = ?"  # noqa: S608  # constant columns
            for found in self.connection.fetch(sql, actor):
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
        """Note which other node is to look at an actor: its owner, or any that runs its kind, if it can go on."""
        if row.owner is not None and row.owner != self.node:
            self.news.actors.setdefault(row.owner, set()).add(row.id)
        elif row.owner is None and row.status == "ready" and row.life == "running" and row.cursor < row.tail:
            self.news.nodes.add(ANYBODY)

    def own(self, row: ActorRow) -> None:
        """Give a row to this node, under a new epoch, if nobody has it and this node can run it."""
        if row.owner is None and row.life == "running" and self.runs(row.kind) and not self._is_kept(row):
            row.owner, row.epoch, row.offered, row.moved = self.node, row.epoch + 1, None, True
            self.touch(row)

    def _is_kept(self, row: ActorRow) -> bool:
        """Whether a row is offered to another node, which lives."""
        if row.offered in {None, self.node}:
            return False
        return bool(self.connection.fetch("SELECT 1 FROM node WHERE id = ? AND status = 'live'", row.offered))

    def create(self, address: Address, created: float, parent: int | None = None) -> ActorRow:
        """Make the row of an actor that is not there yet."""
        row = ActorRow(
            next(self._cache.actors),
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
        self._cache.put(row)
        return self.touch(row)

    def fresh_id(self) -> str:
        """A message id that this transaction makes up."""
        return f"{self.node}-s{next(self._cache.seqs):x}"

    def put_message(self, seq: int, actor: int, number: int | None, e: Envelope) -> None:
        """Write a message that has more to it than most."""
        if number is None and not self.runs(e.to.kind):
            self.news.nodes.add(ANYBODY)  # this node does not look at the clock for it
        chain = json.dumps(e.chain) if e.chain else None
        self._messages.append((
            seq, e.id, actor, number, e.handler, e.args, e.codec, int(e.chosen), e.cause, chain, e.sent, e.due,
            e.expires,
        ))  # fmt: skip

    def end(self, seq: int, outcome: Outcome, *, changes: str | None, started: float | None, finished: float) -> None:
        """Write the outcome of a message that did not succeed."""
        self._ended[seq] = outcome
        self._outcomes.append((seq, outcome.status, outcome.result, outcome.error, changes, started, finished))

    def complete(self, seq: int, outcome: Outcome, into: Committed) -> None:
        """Complete the records that await a message, and wake those whose turn was evicted."""
        if self._cache.awaited is not None:
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
        return bool(self.connection.fetch(sql, message, row.cursor + 1))

    # writing ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Put the rows down."""
        messages, outcomes = self._plain_messages or self._messages, self._successes or self._outcomes
        if messages:
            seq, id_, *_ = messages[0]
            self.evidence = ("SELECT 1 FROM message WHERE seq = ? AND id = ?", seq, id_)
        elif outcomes and self.evidence is None:
            # Who takes the actor over may end the same message, but not at the same microsecond.
            seq, *_, finished = outcomes[0]
            self.evidence = ("SELECT 1 FROM outcome WHERE message = ? AND finished = ?", seq, finished)
        self._messages.sort(key=_unique)
        for statement, pending in (
            (rows.INSERT_MESSAGES, self._messages),
            (rows.INSERT_PLAIN_MESSAGES, self._plain_messages),
            (rows.INSERT_OUTCOMES, self._outcomes),
            (rows.INSERT_SUCCESSES, self._successes),
        ):
            if pending:
                self.connection.put(statement, pending)
                pending.clear()
        if self._dirty:  # behind the messages: those that a cursor passes leave their mailbox
            self._flush_actors()
        if self._snapshots:
            self.connection.put(rows.PUT_SNAPSHOTS, [*self._snapshots.values()])
            self._snapshots.clear()
        if self._turns or self._records or self._completed or self._numbered or self._renewed:
            self._flush_turns()

    def _flush_turns(self) -> None:
        completed = [rows.completion(seq, key, outcome, self.now) for (seq, key), outcome in self._completed.items()]
        rows_by_statement: list[tuple[rows.Statement, Sequence[Sequence[Value]]]] = [
            (rows.PUT_TURNS, [*self._turns.values()]),
            (rows.RENEW_RECORDS, self._renewed),
            *rows.records(self._records.items()),
            (rows.COMPLETE_RECORDS, completed),
            (rows.NUMBER_RECORDS, self._numbered),
        ]
        for statement, pending in rows_by_statement:
            if pending:
                self.connection.put(statement, pending)
        for done in (self._turns, self._records, self._completed, self._numbered, self._renewed):
            done.clear()

    def _flush_actors(self) -> None:
        advanced: list[Sequence[Value]] = []
        others: list[ActorRow] = []
        for r in self._dirty.values():
            if r.stored and r.owner == self.node and not r.restated:
                advanced.append((r.id, r.epoch, r.tail, r.cursor))
            else:
                others.append(r)
        if others:
            self._flush_others(others)
        if advanced:
            self.connection.put(rows.ADVANCE_ACTORS, advanced, self.node, exact=True)
        self._dirty.clear()

    def _flush_others(self, others: Iterable[ActorRow]) -> None:
        """Put down actors that are new, or changed in more than their numbers."""
        fresh: list[Sequence[Value]] = []
        moved: list[Sequence[Value]] = []
        restated: list[Sequence[Value]] = []
        for r in others:
            if r.stored:
                values = (r.id, r.epoch, r.owner, r.tail, r.cursor, r.status, r.reason)
                if r.moved:
                    moved.append((*values, r.offered))
                else:
                    restated.append(values)
            else:
                fresh.append(
                    (r.id, r.kind, r.key, r.owner, r.epoch, r.tail, r.cursor, r.status, r.reason, r.parent, r.created)
                )
            r.stored, r.moved, r.restated = True, False, False
        self.connection.put(rows.INSERT_ACTORS, sorted(fresh, key=_unique))
        self.connection.put(rows.MOVE_ACTORS, moved, exact=True)
        self.connection.put(rows.UPDATE_ACTORS, restated, exact=True)


def _unique(row: Sequence[Value]) -> tuple[Value, ...]:
    """Kind and key of a new actor's row, or the id of a message, chosen by its sender, and its receiver.

    Two transactions that put the same down wait for each other, so all begin with the same one.
    """
    return tuple(row[1:3])
