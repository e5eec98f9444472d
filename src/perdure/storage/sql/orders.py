"""Carrying out what a supervisor decided, in the transaction that says so.

    restart ───► restarting, not before a time       ┐ and all below;
    terminate ─► terminated, its mail kept           │ temporary children
    fail ──────► failed, its mail kept               │ among them end
    end ───────► stopped, its mail dead letters      ┘

Whoever asked an actor that now handles nothing is told so; whoever watches it gets a message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from perdure.errors import StaleDecision
from perdure.storage.failure import encode_failure, storable
from perdure.storage.hints import ANYBODY
from perdure.storage.records import Envelope, Outcome
from perdure.storage.sql.family import children, member, others_of, subtrees
from perdure.storage.sql.held import became
from perdure.storage.sql.rare import dead_letter_rest
from perdure.storage.writes import Appended, Committed, Monitor, Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perdure.errors import PerdureError
    from perdure.storage.records import Address, FailureRecord, Life, Member
    from perdure.storage.sql.batch import Transaction
    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.writes import Count, Yield

_LIVES: tuple[Life, ...] = ("restarting", "terminated", "failed")
# who is to run again has not ended any more, and what was parked is tried again
_SET_LIFE = """
UPDATE actor SET life = ?1, restart_at = ?2, reason = ?3, carrier = ?5, offered = NULL,
    status = CASE WHEN ?1 = 'restarting' AND status IN ('stopped', 'parked') THEN 'ready' ELSE status END
WHERE id IN (SELECT value FROM numbers(?4) AS wanted)
"""
_KEPT_FAILURES = 20


def stale(transaction: Transaction, write: Order) -> StaleDecision | None:
    """Whether something else was decided of the same actor, counted, or ended beside it, since this was decided."""
    row = None if write.about is None else transaction.row(write.about)
    if row is not None and row.life != "running":
        return StaleDecision(f"{row.kind}/{row.key} is {row.life} by now. Decide anew.")
    for count in write.counts:
        sql = "SELECT coalesce(max(number), 0) FROM restart WHERE supervisor = ?"
        ((last,),) = transaction.connection.fetch(sql, count.supervisor)
        if last != count.last:
            return StaleDecision(
                f"supervisor row {count.supervisor} has counted {last}, not {count.last}. Decide anew."
            )
    return _stale_of_others(transaction, write)


def _stale_of_others(transaction: Transaction, write: Order) -> StaleDecision | None:
    if write.remaining:
        transaction.flush()  # a sibling may have ended in this very transaction
    for one in write.remaining:  # their supervisor's row is held, so siblings end one after the other
        others = others_of(transaction.connection, one.supervisor, one.child)
        if others != one.others:
            return StaleDecision(
                f"supervisor row {one.supervisor} has {others} other significant children, not {one.others}. "
                "Decide anew."
            )
    return None


def order(transaction: Transaction, write: Order) -> Committed | PerdureError:
    """Settle an order that comes without a turn."""
    refusal = stale(transaction, write)
    if refusal is not None:
        return refusal
    done = Committed()
    apply(transaction, write, done)
    return done


def apply(transaction: Transaction, write: Order, done: Committed) -> None:
    """Put an order down."""
    for count in write.counts:
        _count(transaction, count)
    for supervisor in write.cleared:
        _clear(transaction, supervisor)
    if write.failure is not None:
        _note(transaction, write.failure)
    wanted = _wanted(write)
    if not wanted:
        return
    write = replace(write, reason=storable(write.reason))
    transaction.flush()
    transaction.news.nodes.add(ANYBODY)
    done.members = subtrees(transaction.connection, wanted)
    while transaction.hold(one.actor for one in done.members):  # one may be adopted before its supervisor is held
        done.members = subtrees(transaction.connection, wanted)
    fates = _fates(done.members, wanted)
    transaction.drop(fates)
    for life in _LIVES:
        actors = [actor for actor, fate in fates.items() if fate == life]
        at, carrier = (write.restart_at, transaction.node) if life == "restarting" else (None, None)
        transaction.connection.execute(_SET_LIFE, life, at, write.reason, actors, carrier)
    for actor, fate in fates.items():
        if fate == "restarting":
            _clear(transaction, actor)
    gone = [actor for actor, fate in fates.items() if fate == "gone"]
    transaction.connection.execute("DELETE FROM child WHERE actor IN (SELECT value FROM numbers(?) AS wanted)", gone)
    _end(transaction, [one for one in done.members if fates[one.actor] in {"ended", "gone"}], write, done)
    _as_written(done.members, fates, write)
    held = [one for one in done.members if fates[one.actor] in {"terminated", "failed"}]
    _refuse_askers(transaction, held, write, done)
    _tell_watchers(transaction, {one.actor: one.to for one in held}, write.reason, write.now, done)


def yield_up(transaction: Transaction, write: Yield) -> bool:
    """Settle that another node may start what this one cannot."""
    sql = "UPDATE actor SET carrier = NULL WHERE carrier = ? AND id IN (SELECT value FROM numbers(?) AS wanted)"
    transaction.connection.execute(sql, transaction.node, list(write.actors))
    transaction.news.nodes.add(ANYBODY)
    return True


def _as_written(members: Iterable[Member], fates: Mapping[int, str], write: Order) -> None:
    """Have members, read before the order was put down, say what it says."""
    for one in members:
        if fates[one.actor] in _LIVES:
            one.life, one.restart_at, one.reason = cast("Life", fates[one.actor]), write.restart_at, write.reason
        if fates[one.actor] == "restarting" and one.status in {"stopped", "parked"}:
            one.status = "ready"


def _wanted(write: Order) -> dict[int, str]:
    lists = (
        ("gone", write.discard), ("ended", write.end), ("failed", write.fail), ("terminated", write.terminate),
        ("restarting", write.restart),
    )  # fmt: skip
    return {actor: fate for fate, actors in lists for actor in actors}


def _fates(members: Iterable[Member], wanted: dict[int, str]) -> dict[int, str]:
    """What becomes of each: as ordered, or as its supervisor's fate has it. Temporary children never come back."""
    fates: dict[int, str] = {}
    for one in members:  # supervisors before their children
        above = fates.get(one.supervisor or 0, "")
        fate = wanted.get(one.actor) or ("terminated" if above == "ended" else above)
        fates[one.actor] = "gone" if one.spec.restart == "temporary" or above == "gone" else fate
    return fates


def ended(transaction: Transaction, row: ActorRow, done: Committed) -> None:
    """An actor ended by itself: its mail becomes dead letters, what it supervises is terminated."""
    dead_letter_rest(transaction, row, done, transaction.now)
    transaction.flush()
    below = children(transaction.connection, row.id)
    if below:
        apply(transaction, Order(transaction.now, terminate=[one.actor for one in below], reason="shutdown"), done)
    transaction.connection.execute("DELETE FROM child WHERE actor = ? AND restart = 'temporary'", row.id)
    _tell_watchers(transaction, {row.id: row.address}, "normal", transaction.now, done)


def _end(transaction: Transaction, members: Iterable[Member], write: Order, done: Committed) -> None:
    """End actors for good; what they had not handled becomes dead letters."""
    stopped: dict[int, Address] = {}
    for one in members:
        row = transaction.row(one.actor)
        if row is None or row.status == "stopped":
            continue
        row.status, row.reason = "stopped", write.reason
        transaction.touch(row)
        transaction.flush()
        dead_letter_rest(transaction, row, done, write.now)
        stopped[one.actor] = one.to
    transaction.drop(stopped)
    transaction.connection.execute(
        "UPDATE actor SET life = 'running', restart_at = NULL WHERE id IN (SELECT value FROM numbers(?) AS wanted)",
        list(stopped),
    )
    _tell_watchers(transaction, stopped, write.reason, write.now, done)


def _count(transaction: Transaction, count: Count) -> None:
    newest = count.last
    if count.add:
        newest += 1
        transaction.connection.execute(
            "INSERT INTO restart (supervisor, number, child, message, at) VALUES (?, ?, ?, ?, ?)",
            count.supervisor, newest, count.child, count.message, count.at,
        )  # fmt: skip
    # the newest stays, however old, so that numbers only rise
    transaction.connection.execute(
        "DELETE FROM restart WHERE supervisor = ? AND at < ? AND number < ?", count.supervisor, count.since, newest
    )


def _clear(transaction: Transaction, supervisor: int) -> None:
    """Count from nothing: the newest number stays, with a time that no period reaches."""
    transaction.connection.execute(
        "DELETE FROM restart WHERE supervisor = ?1 \
         AND number < (SELECT max(number) FROM restart WHERE supervisor = ?1)",
        supervisor,
    )
    transaction.connection.execute("UPDATE restart SET at = 0 WHERE supervisor = ?", supervisor)


def _note(transaction: Transaction, failure: FailureRecord) -> None:
    transaction.connection.execute(
        "INSERT INTO failure (actor, message, attempt, at, error, decision, escaped) VALUES (?, ?, ?, ?, ?, ?, ?)",
        failure.actor, failure.message, failure.attempt, failure.at, failure.error, failure.decision,
        json.dumps(failure.escaped) if failure.escaped else None,
    )  # fmt: skip
    # a message's failures go with the message; of the others the newest are kept
    transaction.connection.execute(
        "DELETE FROM failure WHERE actor = ?1 AND message IS NULL AND seq <= (SELECT seq FROM failure WHERE actor = ?1 \
         AND message IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        failure.actor,
        _KEPT_FAILURES,
    )


# telling others -------------------------------------------------------------------------------------------------------


def _refuse_askers(transaction: Transaction, members: Iterable[Member], write: Order, done: Committed) -> None:
    """Tell whoever waits for an actor that handles nothing now; the messages themselves stay in its mailbox."""
    told = list(done.ended)
    for one in members:
        outcome = Outcome("rejected", error=encode_failure(became(one, write), with_traceback=False))
        sql = "SELECT mail.message FROM actor JOIN mailbox() AS mail ON mail.actor = actor.id AND number > cursor \
               WHERE actor.id = ?"
        waiting = [seq for (seq,) in transaction.connection.fetch(sql, one.actor)]
        transaction.load_awaited(waiting)
        for seq in waiting:
            told.append((seq, outcome))
            transaction.complete(seq, outcome, done)
    done.ended = told


def _tell_watchers(
    transaction: Transaction, actors: Mapping[int, Address], reason: str, now: float, done: Committed
) -> None:
    """Send their messages to the watchers of actors that ended; each is told once."""
    rows = transaction.connection.fetch(
        "DELETE FROM watcher WHERE actor IN (SELECT value FROM numbers(?) AS wanted) \
         RETURNING actor, watcher, handler, parameter, cause",
        list(actors),
    )
    for actor, watcher, handler, parameter, cause in rows:
        row = transaction.row(watcher)
        if row is not None:
            note = Monitor(actors[actor], row.address, handler, parameter, cause)
            _tell(transaction, note, reason, now, done)


def _tell(transaction: Transaction, note: Monitor, reason: str, now: float, done: Committed) -> None:
    text = json.dumps({note.parameter: {"actor": str(note.actor), "reason": reason}}, ensure_ascii=False)
    envelope = Envelope(transaction.fresh_id(), note.watcher, note.handler, text, "json", now, cause=note.cause)
    settled = transaction.deliver(envelope)
    if isinstance(settled, Appended):  # a watcher that has ended itself hears nothing any more
        done.appended = [*done.appended, settled]


def monitor(transaction: Transaction, write: Monitor) -> Committed:
    """Settle a watcher that comes without a turn."""
    done = Committed()
    watch(transaction, write, done)
    return done


def watch(transaction: Transaction, note: Monitor, done: Committed) -> None:
    """Have a watcher told of an actor's end; at once, if it has ended or was never there."""
    transaction.flush()
    watched = member(transaction.connection, note.actor)
    if watched is None:
        reason = "it does not exist"
    elif watched.status == "stopped" or watched.life in {"terminated", "failed"}:
        reason = watched.reason or "normal"
    else:
        watcher = transaction.row_at(note.watcher)
        if watcher is None:
            watcher = transaction.create(note.watcher, transaction.now)
            transaction.flush()
        transaction.connection.execute(
            "INSERT INTO watcher (actor, watcher, handler, parameter, cause) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (actor, watcher, handler) \
             DO UPDATE SET parameter = excluded.parameter, cause = excluded.cause",
            watched.actor,
            watcher.id,
            note.handler,
            note.parameter,
            note.cause,
        )
        return
    _tell(transaction, note, reason, transaction.now, done)
