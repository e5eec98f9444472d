"""The supervision tree on SQLite: reading it, the restarts that are counted, who is a child.

All of this is rare, so it works on the tables directly, after the rows that wait have been put down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.errors import ChildError, StorageError
from perdure.storage.records import Address, ChildSpec, Level, Member, Restarted
from perdure.storage.writes import Adopted, Begin, Placed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.errors import PerdureError
    from perdure.storage.sql.batch import Transaction
    from perdure.storage.sql.cache import ActorRow
    from perdure.storage.sql.connection import Connection, Parameter
    from perdure.storage.writes import Adopt, Declare, Spawn

# Who has no row in `child` is under the system's root.
_MEMBER = """
SELECT actor.id, actor.kind, actor.key, supervisor, coalesce(restart, 'transient'),
       CASE WHEN child.actor IS NULL THEN 5.0 ELSE shutdown END,
       coalesce(significant, 0), coalesce(declared, 0), life, status, restart_at, reason
"""
_BY_ID = f"""{_MEMBER} FROM numbers(?) AS wanted CROSS JOIN actor ON actor.id = wanted.value
LEFT JOIN child ON child.actor = actor.id"""
_CHILDREN = f"""{_MEMBER} FROM numbers(?) AS wanted CROSS JOIN child ON child.supervisor = wanted.value
JOIN actor ON actor.id = child.actor ORDER BY supervisor, declared DESC, position"""
_EVERYONE = f"{_MEMBER} FROM actor LEFT JOIN child ON child.actor = actor.id"
_FREE = """ WHERE life = 'restarting' AND owner IS NULL AND NOT EXISTS (
    SELECT 1 FROM node WHERE node.id = carrier AND node.status = 'live' AND node.id <> ?)"""
_IN_ORDER = " ORDER BY declared DESC, position"
_RESTARTING = _EVERYONE + _FREE + _IN_ORDER
_UNWANTED = f"{_EVERYONE} WHERE owner = ? AND (life <> 'running' OR status = 'stopped') {_IN_ORDER}"
_TOPS = f"{_EVERYONE} WHERE child.actor IS NULL AND actor.id IN (SELECT supervisor FROM child)"  # noqa: S608  # constant parts

_DEEPEST = 1_000


# reading --------------------------------------------------------------------------------------------------------------


def _members(connection: Connection, sql: str, *parameters: Parameter) -> list[Member]:
    return [
        Member(actor, Address(kind, key), supervisor, ChildSpec(restart, shutdown, bool(significant)), bool(declared),
               life, status, restart_at, reason)
        for actor, kind, key, supervisor, restart, shutdown, significant, declared, life, status, restart_at, reason
        in connection.fetch(sql, *parameters)
    ]  # fmt: skip


def children(connection: Connection, *supervisors: int) -> list[Member]:
    """See `Store.children`."""
    return _members(connection, _CHILDREN, list(supervisors))


def member(connection: Connection, address: Address) -> Member | None:
    """See `Store.member`."""
    return next(iter(_members(connection, f"{_EVERYONE} WHERE kind = ? AND key = ?", *address)), None)


def restarting(connection: Connection, node: str) -> list[Member]:
    """See `Store.restarting`."""
    found = _members(connection, _RESTARTING, node)
    among = {one.actor for one in found}
    return [one for one in found if one.supervisor not in among]


def tops(connection: Connection) -> list[Member]:
    """See `Store.tops`."""
    return _members(connection, _TOPS)


def unwanted(connection: Connection, node: str) -> list[Member]:
    """See `Store.unwanted`."""
    found = {one.actor: one for one in _members(connection, _UNWANTED, node)}
    roots = [one.actor for one in found.values() if one.supervisor not in found]
    return [one for one in subtrees(connection, roots) if one.actor in found]


def subtrees(connection: Connection, roots: Iterable[int]) -> list[Member]:
    """Actors and all they supervise: each before its children, siblings in start order."""
    wanted = list(dict.fromkeys(roots))
    found = {one.actor: one for one in _members(connection, _BY_ID, wanted)}
    below: dict[int | None, list[Member]] = {}
    seen = set(found)
    level = wanted
    while level:
        young = children(connection, *level)
        for one in young:
            below.setdefault(one.supervisor, []).append(one)
        level = [one.actor for one in young if one.actor not in seen]
        seen.update(level)
    ordered: dict[int, Member] = {}
    stack = [found[actor] for actor in reversed(wanted) if actor in found]
    while stack:
        one = stack.pop()
        if one.actor not in ordered:
            ordered[one.actor] = one
            stack.extend(reversed(below.get(one.actor, ())))
    return list(ordered.values())


def lineage(connection: Connection, actor: int) -> list[Level]:
    """See `Store.lineage`."""
    levels: list[Level] = []
    above: int | None = actor
    while above is not None and len(levels) < _DEEPEST:
        (child,) = _members(connection, _BY_ID, [above])
        above = child.supervisor
        budget = -child.actor if above is None else above
        sql = "SELECT number, child, message, at FROM restart WHERE supervisor = ? ORDER BY number"
        restarts = tuple(Restarted(*row) for row in connection.fetch(sql, budget))
        address, others = None, 0
        if above is not None:
            ((kind, key),) = connection.fetch("SELECT kind, key FROM actor WHERE id = ?", above)
            address = Address(kind, key)
            others = others_of(connection, above, child.actor)
        levels.append(Level(child, address, restarts, others))
    if above is not None:
        raise StorageError(f"actor row {actor}: more than {_DEEPEST} supervisors above it. This is a bug.")
    return levels


def others_of(connection: Connection, supervisor: int, child: int) -> int:
    """How many other significant children of a supervisor run."""
    sql = "SELECT count(*) FROM child JOIN actor ON id = child.actor WHERE supervisor = ? AND significant = 1 \
           AND id <> ? AND status <> 'stopped' AND life IN ('running', 'restarting')"
    ((others,),) = connection.fetch(sql, supervisor, child)
    return int(others)


# who is a child -------------------------------------------------------------------------------------------------------


def begin(transaction: Transaction, write: Begin) -> Placed | bool:
    """Settle that an actor runs from now on."""
    row = transaction.row(write.actor)
    if row is None or row.status == "stopped" or row.life not in {"running", "restarting"}:
        return False
    if row.owner not in {None, transaction.node}:
        return False  # its owner stops it first
    if row.life == "restarting":
        transaction.flush()
        ((at,),) = transaction.connection.fetch("SELECT restart_at FROM actor WHERE id = ?", row.id)
        if at != write.restart_at:
            return False
        transaction.connection.execute("UPDATE actor SET life = 'running', restart_at = NULL WHERE id = ?", row.id)
        row.life, row.reason = "running", None
        transaction.touch(row)
    transaction.own(row)
    return transaction.place(row)


def enter(transaction: Transaction, supervisor: int, actor: int, spec: ChildSpec, cause: int | None = None) -> None:
    """Make an actor the youngest child of a supervisor."""
    transaction.connection.execute(
        "INSERT INTO child (actor, supervisor, position, restart, shutdown, significant, cause) SELECT ?1, ?2, \
         coalesce((SELECT position FROM child WHERE supervisor = ?2 AND declared = 0 \
         ORDER BY position DESC LIMIT 1), 0) + 1, ?3, ?4, ?5, ?6",
        actor, supervisor, spec.restart, spec.shutdown, int(spec.significant), cause,
    )  # fmt: skip


def adopt(transaction: Transaction, write: Adopt) -> Adopted | PerdureError:
    """Settle a child started at run time."""
    transaction.flush()
    row = transaction.row_at(write.child.to)
    sql = "SELECT supervisor, cause FROM child WHERE actor = ?"
    for supervisor, cause in transaction.connection.fetch(sql, row.id if row is not None else None):
        if (supervisor, cause) != (write.supervisor, write.cause) or cause is None:
            return _taken(row, supervisor, write)
        conflict = transaction.spawn(write.child)
        return conflict if isinstance(conflict, Exception) else _adopted(transaction, write)
    above = {level.child.actor for level in lineage(transaction.connection, write.supervisor)}
    if row is not None and row.id in above:
        return ChildError(f"{write.child.to} supervises this supervisor, or is it.", "already_started")
    if row is not None and row.status == "stopped":
        if write.once and row.reason == "normal":
            return _adopted(transaction, write)  # it was temporary, and has done what it was started for
        _renew(transaction, row, write.child)
    else:
        conflict = transaction.spawn(write.child)
        if isinstance(conflict, Exception):
            return conflict
    row = transaction.row_at(write.child.to)
    if row is not None:
        enter(transaction, write.supervisor, row.id, write.spec, write.cause)
    return _adopted(transaction, write)


def _adopted(transaction: Transaction, write: Adopt) -> Adopted | PerdureError:
    """The child, which runs from now on if it has not ended."""
    transaction.flush()
    one = member(transaction.connection, write.child.to)
    if one is None:
        raise StorageError(f"{write.child.to}: is not there after it was adopted. This is a bug.")
    place = begin(transaction, Begin(one.actor, one.restart_at))
    return Adopted((one,), place if isinstance(place, Placed) else None)


def _taken(row: ActorRow | None, supervisor: int, write: Adopt) -> ChildError:
    if supervisor != write.supervisor:
        return ChildError(f"{write.child.to} is another supervisor's child. Use another key.", "already_started")
    if row is not None and row.status != "stopped" and row.life in {"running", "restarting"}:
        return ChildError(f"{write.child.to} is a child already, and runs.", "already_started")
    return ChildError(
        f"{write.child.to} is a child already, and does not run. Use restart_child, or delete_child first.",
        "already_present",
    )


def _renew(transaction: Transaction, row: ActorRow, spawn: Spawn) -> None:
    """Begin an actor anew that had ended and was forgotten."""
    transaction.connection.execute(
        "INSERT INTO snapshot (actor, version, codec, state, initial) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (actor) DO UPDATE SET version = ?2, codec = ?3, state = ?4, initial = ?4",
        row.id, spawn.version, spawn.codec, spawn.initial,
    )  # fmt: skip
    row.status, row.reason, row.owner, row.moved = "ready", None, None, True
    transaction.touch(row)
    transaction.flush()


def declare(transaction: Transaction, write: Declare) -> Adopted | PerdureError:
    """Settle what a supervisor's class declares. A child that was deleted stays so; what left the class is let go."""
    connection = transaction.connection
    kept: list[int] = []
    for position, (spawn, spec) in enumerate(write.children):
        row = transaction.row_at(spawn.to)
        if row is None:
            transaction.spawn(spawn)
            row = transaction.row_at(spawn.to)
        if row is None:
            continue
        known: list[Any] = connection.fetch("SELECT supervisor FROM child WHERE actor = ?", row.id)
        if not known and row.status == "stopped":
            continue
        if known and known[0][0] != write.supervisor:
            return ChildError(
                f"{spawn.to} is another supervisor's child. Give this one another key.", "already_started"
            )
        kept.append(row.id)
        connection.execute(
            "INSERT INTO child (actor, supervisor, position, restart, shutdown, significant, declared) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1) ON CONFLICT (actor) DO UPDATE SET position = ?3, restart = ?4, \
             shutdown = ?5, significant = ?6, declared = 1",
            row.id, write.supervisor, position, spec.restart, spec.shutdown, int(spec.significant),
        )  # fmt: skip
    connection.execute(
        "DELETE FROM child WHERE supervisor = ? AND declared = 1 AND actor NOT IN (SELECT value FROM numbers(?) AS k)",
        write.supervisor,
        kept,
    )
    transaction.flush()
    return Adopted(tuple(children(connection, write.supervisor)))
