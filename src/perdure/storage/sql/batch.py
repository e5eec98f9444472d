"""One write transaction on SQLite: settle every write of a batch in memory, then put the rows down in bulk.

Each write is settled on its own: what refuses one is found out before anything of it is applied, and the others of its
batch do not notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

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
from perdure.storage.failure import encode_failure, outcome_status, storable
from perdure.storage.hints import ANYBODY
from perdure.storage.history_writes import Forget, Purge, Purged, Resend
from perdure.storage.records import Address, Completion, Mail, Outcome
from perdure.storage.seal_text import may_be_same, may_be_same_state
from perdure.storage.sql import claims, family, held, letters, limits, nodes, orders, queries
from perdure.storage.sql.cache import ActorRow, Known
from perdure.storage.sql.gather import Gathering
from perdure.storage.sql.rare import bury, due, purge
from perdure.storage.writes import (
    Adopt,
    Append,
    Appended,
    Beat,
    Begin,
    Bury,
    Committed,
    Declare,
    Due,
    Existing,
    Fired,
    Leave,
    Monitor,
    Order,
    Placed,
    Release,
    Segment,
    Send,
    Spawn,
    Yield,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from perdure.storage.records import Envelope
    from perdure.storage.writes import End, Settled, Write


class Transaction(Gathering):
    """The settling of one batch."""

    def run(self, batch: Sequence[Write], now: float, also: Iterable[int] = ()) -> list[Settled]:
        """Settle every write and put the rows down; `also`: actors that it met late when it was tried before.

        Raises:
            NodeBuried: This node was taken for dead.
            Again: An actor that it met late is another transaction's. Nothing is to be committed.
        """
        self.now = now
        if self.connection.refresh(self._cache):
            nodes.check(self.connection, self.node)
        self._prefetch(batch, also)
        settled = [_SETTLE[type(write)](self, write) for write in batch]
        self.flush()
        return settled

    # settling ---------------------------------------------------------------------------------------------------------

    def deliver(self, envelope: Envelope, *, ask: bool = False) -> Appended | PerdureError:
        """Put a message into its mailbox, or say why not."""
        row = self._cache.by_address.get(envelope.to) or self.row_at(envelope.to)
        if row is None:
            if envelope.must_exist:
                return _not_spawned(envelope)
            row = self.create(envelope.to, envelope.sent)
        elif row.status == "stopped":
            return ActorStopped(f"{envelope.to} has stopped; '{envelope.handler}' was not sent. Use another key.")
        elif ask and held.is_held(row):
            return held.refusal(row, f"'{envelope.handler}' was not sent; a tell would wait.")
        elif envelope.limit is not None and row.tail - row.cursor >= envelope.limit:
            return MailboxFull(
                f"{envelope.to} holds {row.tail - row.cursor} unhandled messages, its limit; '{envelope.handler}' was "
                "not sent. Send again later, or raise mailbox_limit= on the class."
            )
        return self._append_row(row, envelope)

    def _append_row(self, row: ActorRow, e: Envelope) -> Appended:
        seq, number = next(self._cache.seqs), None
        if e.due is None:
            row.tail = number = row.tail + 1
            if row.owner != self.node or self.connection.shared:  # or else the mailbox's index knows it: `tail()`
                self._dirty[row.id] = row
                if row.owner is None and row.status == "ready":
                    self.own(row)
        if e.chosen or e.id in self._known:
            self._known[e.id] = Known(seq, e.to, e.handler, e.args, e.codec, None)
        if number is None or e.chosen or e.cause is not None or e.chain or e.expires is not None or e.codec != "json":
            self.put_message(seq, row.id, number, e)
        else:
            self._plain_messages.append((seq, e.id, row.id, number, e.handler, e.args, e.sent))
        mail = Mail(seq, number or 0, e.id, e.handler, e.args, e.codec, e.sent, e.cause, e.chain, e.expires)
        here = row.stored and row.owner == self.node
        place = Placed(row.id, row.address, row.epoch) if here else self.place(row)
        return Appended(place, mail, number is not None)

    def _existing(self, envelope: Envelope) -> Existing | IdReusedError | None:
        known = self._known.get(envelope.id)
        if known is None:
            return None
        # Arguments stored with cloudpickle have no one encoding, so they are not compared.
        same = known.to == envelope.to and known.handler == envelope.handler
        if same and (known.codec != "json" or envelope.codec != "json" or may_be_same(known.args, envelope.args)):
            return Existing(known.seq, self._ended.get(known.seq, known.outcome))
        return IdReusedError(
            f"id '{envelope.id}' is taken by '{known.handler}' to {known.to} with "
            f"{'other arguments' if same else 'another receiver or handler'}. "
            "The same id is the same message: choose another id for another message."
        )

    def append(self, write: Append) -> Settled:
        """Settle a message from outside."""
        existing = self._existing(write.envelope) if self._known else None
        return existing or self.deliver(write.envelope, ask=write.ask)

    def spawn(self, write: Spawn) -> Placed | ActorExists:
        """Settle an actor's beginning."""
        row = self.row_at(write.to)
        if row is None:
            row = self.create(write.to, write.created, write.parent)
            self._snapshots[row.id] = (row.id, write.version, write.codec, write.initial, write.initial)
            if write.child is not None and write.parent is not None:
                family.enter(self, write.parent, row.id, write.child)
            return self.place(row)
        conflict = self._conflict(row, write)
        return conflict or replace(self.place(row), fresh=False)

    def _conflict(self, row: ActorRow, write: Spawn) -> ActorExists | None:
        pending = self._snapshots.get(row.id)
        stored: Any = pending[4] if pending else None
        if stored is None:
            found = self.connection.fetch("SELECT initial FROM snapshot WHERE actor = ?", row.id)
            stored = found[0][0] if found else None
        if may_be_same_state(stored, write.initial):
            return None
        return ActorExists(
            f"{write.to} exists"
            + (", spawned with other initial state. " if stored else ", made by its first message. ")
            + "Use another key, or get() to reach the one that is there."
        )

    def segment(self, write: Segment) -> Settled:
        """Settle what a turn did."""
        row = self._cache.by_id.get(write.actor) or self.row(write.actor)
        if row is None or row.owner != self.node or row.epoch != write.epoch or row.status == "stopped":
            return self._fenced(row, write)
        end = write.end
        if end is not None and row.cursor != end.number - 1:
            return StorageError(
                f"{row.address}: message {end.number} ended while the cursor was at {row.cursor}. "
                "This is a bug; the actor is loaded anew."
            )
        done = Committed()
        if not _only_ends(write):
            refusal = self._refusal(write) if write.order or write.spawns or write.sends else None
            if refusal is not None:
                return refusal
            self._gather(row, write, done)
        if end is not None:
            self._finish(row, write.message, end, done)
        if write.order is not None:
            orders.apply(self, write.order, done)
        return done

    def _fenced(self, row: ActorRow | None, write: Segment) -> FencedError:
        """Why a segment is not its activation's to write any more."""
        if row is not None and row.owner == self.node and row.epoch == write.epoch:
            return FencedError(f"{row.address} has stopped meanwhile: {row.reason}. What it computed is dropped.")
        return FencedError(
            f"actor row {write.actor}: owned by {row.owner if row else 'nobody'} under epoch "
            f"{row.epoch if row else 0}, not by this activation's epoch {write.epoch}. What it computed is dropped."
        )

    def _gather(self, row: ActorRow, write: Segment, done: Committed) -> None:
        for spawn in write.spawns:
            self.spawn(spawn)  # conflicts were refused before
        for key in write.renewed:
            self._renewed.append((write.message, key))
            self._records.pop((write.message, key), None)
            self._completed.pop((write.message, key), None)
        for record in write.records:
            self._records[write.message, record.key] = record
        for send in write.sends:
            self._send(write, send, done)
        for watch in write.watches:
            self._watch(write, watch.key, self._known.get(watch.id), done)
        for key, error in write.settles:
            self._settle(write, key, error, done)
        for key, position in write.numbered:
            self._numbered.append((write.message, key, position))
        for note in write.monitors:
            orders.watch(self, note, done)
        if write.turn is not None or write.status is not None:
            self._mark(row, write)

    def _mark(self, row: ActorRow, write: Segment) -> None:
        """Note where the turn and its actor stand."""
        if write.turn is not None:
            t = write.turn
            self._turns[write.message] = (
                write.message, t.attempts, t.blame, int(t.suspect), t.executing, t.retry_at, t.error
            )  # fmt: skip
        if write.status is not None:
            row.status, row.reason = write.status, None if write.reason is None else storable(write.reason)
            self.touch(row)

    def _refusal(self, write: Segment) -> PerdureError | None:
        """Why a segment cannot be written, found out before anything of it is applied."""
        if write.order is not None:
            return orders.stale(self, write.order)
        born: dict[Address, str] = {}
        refusal: PerdureError | None = _reused(write)
        for spawn in write.spawns:
            refusal = refusal or self._spawn_refusal(spawn, born)
        for send in write.sends:
            if send.key is None:
                refusal = refusal or self._send_refusal(send.envelope, born)
        return refusal

    def _spawn_refusal(self, spawn: Spawn, born: dict[Address, str]) -> PerdureError | None:
        if born.setdefault(spawn.to, spawn.initial) != spawn.initial:
            return ActorExists(f"{spawn.to} is spawned twice in one turn, with different state. Use another key.")
        row = self.row_at(spawn.to)
        return None if row is None else self._conflict(row, spawn)

    def _send_refusal(self, envelope: Envelope, born: Container[Address]) -> PerdureError | None:
        existing = self._existing(envelope)
        if isinstance(existing, IdReusedError):
            return existing
        if envelope.must_exist and envelope.to not in born and self.row_at(envelope.to) is None:
            return _not_spawned(envelope)
        return None

    def _send(self, write: Segment, send: Send, done: Committed) -> None:
        envelope = send.envelope
        settled = self._existing(envelope) or self.deliver(envelope, ask=send.key is not None)
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
        appended = self._append_row(row, replace(envelope, due=None))
        row.cursor = row.tail
        self._dirty[row.id] = row
        outcome = Outcome("dead", error=encode_failure(error, with_traceback=False))
        self.end(appended.mail.seq, outcome, changes=None, started=None, finished=self.now)

    def _await(self, write: Segment, key: str, target: int) -> None:
        self._records[write.message, key] = replace(self._records[write.message, key], target=target)
        self._awaited.setdefault(target, []).append((write.actor, write.message, key))
        if self._cache.awaited is not None:
            self._cache.awaited.add(target)

    def _watch(self, write: Segment, key: str, known: Known | None, done: Committed) -> None:
        if known is None:
            gone = StorageError("no message with that id is kept here; its retention may have passed")
            self._complete_own(write, key, Outcome("rejected", error=encode_failure(gone)), done)
            return
        outcome = self._ended.get(known.seq, known.outcome)
        row = self.row_at(known.to) if outcome is None else None
        if row is not None and held.is_held(row):  # who waited before has been told, and nobody will be told again
            outcome = held.no_reply(row, known.handler)
        if outcome is None:
            self._await(write, key, known.seq)
        else:
            self._complete_own(write, key, outcome, done)

    def _complete_own(self, write: Segment, key: str, outcome: Outcome, done: Committed) -> None:
        self._completed[write.message, key] = outcome
        self._decided.add((write.message, key))
        done.completions = [*done.completions, Completion(write.actor, write.message, key, outcome)]

    def _settle(self, write: Segment, key: str, error: str, done: Committed) -> None:
        """Give an ask up, unless its reply is already here."""
        outcome = self._completed.get((write.message, key))
        if outcome is None:
            sql = "SELECT status, result, error FROM journal WHERE message = ? AND key = ?"
            for status, result, stored in self.connection.fetch(sql, write.message, key):
                if status != "started":
                    outcome = Outcome("succeeded" if status == "completed" else outcome_status(stored), result, stored)
        self._complete_own(write, key, outcome or Outcome("rejected", error=error), done)

    def _finish(self, row: ActorRow, seq: int, end: End, done: Committed) -> None:
        row.cursor = end.number
        self._dirty[row.id] = row
        if row.status in {"waiting", "parked"}:  # in memory it went on by itself, and no commit has said so
            self.touch(row).status, row.reason = "ready", None
        if end.snapshot is not None:
            self._snapshots[row.id] = (row.id, end.snapshot.version, end.snapshot.codec, end.snapshot.state, None)
        outcome = end.outcome
        if outcome.status == "succeeded":
            self._ended[seq] = outcome
            self._successes.append((seq, outcome.result, end.changes, end.started, end.finished))
        else:
            self.end(seq, outcome, changes=end.changes, started=end.started, finished=end.finished)
        if seq in self._awaited:
            self.complete(seq, outcome, done)
        if end.stop:
            self.touch(row).status = "stopped"
            row.reason = "normal"
            self.flush()
            orders.ended(self, row, done)

    def release(self, write: Release) -> bool:
        """Settle a release: refused while there is something to do."""
        row = self.row(write.actor)
        if row is None or row.owner != self.node or row.epoch != write.epoch:
            return True
        if row.life != "running":
            self.news.nodes.add(ANYBODY)  # it is to stop, whatever there is to do; who carries the order out waits
        elif write.waiting is not None and not self._can_go_on(write.waiting):
            row.status = "waiting"
        elif write.anyway and row.status == "waiting":
            row.status = "ready"  # it has gone on since
        elif not write.anyway and (write.waiting is not None or (row.status == "ready" and row.cursor < row.tail)):
            return False
        row.owner, row.moved = None, True
        self.concern(self.touch(row))
        return True

    def _can_go_on(self, message: int) -> bool:
        """Whether a turn has something to go on with, or nothing that could ever wake it."""
        sql = "SELECT count(*) FILTER (WHERE status IN ('completed', 'failed') AND position IS NULL \
               OR status = 'started' AND due <= ?), \
               count(*) FILTER (WHERE status = 'started' AND coalesce(target, due) IS NOT NULL) \
               FROM journal WHERE message = ? AND kind NOT IN ('tell', 'spawn', 'value')"
        ((ready, awaited),) = self.connection.fetch(sql, self.now, message)
        return ready > 0 or awaited == 0 or any(seq == message for seq, _ in self._completed)

    def due(self, write: Due) -> Fired:
        """Settle what has fallen due."""
        self.flush()
        return due(self, write)

    def bury(self, write: Bury) -> Settled:
        """Settle a dead node's estate."""
        self.flush()
        if not nodes.is_to_be_buried(self, write):
            return False
        self.news.nodes.add(ANYBODY)
        buried = bury(self, write, self._ended.__setitem__)
        self.forget()
        return buried

    def purge(self, write: Purge) -> Purged:
        """Settle history past its retention."""
        self.flush()
        self.evidence = None  # it may be among what goes
        return purge(self.connection, write)


def _reused(write: Segment) -> IdReusedError | None:
    """Two different messages of one segment under one id."""
    seen: dict[str, Envelope] = {}
    for send in write.sends:
        e = send.envelope
        first = seen.setdefault(e.id, e)
        compared = e.codec == first.codec == "json"
        if (first.to, first.handler) != (e.to, e.handler) or (compared and first.args != e.args):
            return IdReusedError(f"id '{e.id}' is given to two different messages of one turn. Choose another id.")
    return None


def _only_ends(w: Segment) -> bool:
    """Whether a segment is an end and nothing else, as that of a turn without steps is."""
    return w.end is not None and not (
        w.records
        or w.numbered
        or w.renewed
        or w.sends
        or w.watches
        or w.spawns
        or w.settles
        or w.turn
        or w.status
        or w.monitors
        or w.order
    )


def _not_spawned(envelope: Envelope) -> NotSpawnedError:
    return NotSpawnedError(
        f"{envelope.to} does not exist, and its class has fields without defaults; '{envelope.handler}' was not sent. "
        "Spawn it first, with those fields."
    )


_SETTLE: dict[type, Callable[[Transaction, Any], Settled]] = {
    Append: Transaction.append,
    Spawn: Transaction.spawn,
    Segment: Transaction.segment,
    Release: Transaction.release,
    Leave: nodes.resign,
    Due: Transaction.due,
    Beat: nodes.beat,
    Bury: Transaction.bury,
    Purge: Transaction.purge,
    Order: orders.order,
    Begin: family.begin,
    Declare: family.declare,
    Adopt: family.adopt,
    Monitor: orders.monitor,
    Resend: letters.resend,
    Forget: letters.forget,
    Yield: orders.yield_up,
    **claims.SETTLE,
    **queries.SETTLE,
    **limits.SETTLE,
}
