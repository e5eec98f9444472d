"""The SQL of the read model, of supervision: who supervises whom, what was restarted, what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from perdure.console.rows import fetch
from perdure.storage.records import ActorStatus, Life, Restart

if TYPE_CHECKING:
    import sqlite3


@frozen
class MemberRow:
    """An actor as part of the supervision tree; `supervisor` is none under the system's root."""

    supervisor: int | None
    id: int
    kind: str
    key: str
    restart: Restart
    declared: int
    significant: int
    status: ActorStatus
    life: Life
    reason: str | None
    restart_at: float | None
    restarts: int
    counted: int
    failures: int


def failures(
    connection: sqlite3.Connection, column: Literal["actor", "message"], number: int, limit: int
) -> list[tuple[Any, ...]]:
    """The newest failures of an actor or of a message, oldest first: when, message, attempt, error, decision."""
    sql = f"""SELECT at, id, attempt, error, decision FROM failure LEFT JOIN message ON message.seq = failure.message
              WHERE failure.{column} = :number ORDER BY failure.seq DESC LIMIT :limit"""  # noqa: S608  # one of two names
    return fetch(connection, sql, number=number, limit=limit)[::-1]


_MEMBER = """
actor.id, kind, key, coalesce(restart, 'transient'), coalesce(declared, 0), coalesce(significant, 0), status, life,
reason, restart_at, (SELECT count(*) FROM restart WHERE restart.supervisor = coalesce(child.supervisor, -actor.id)
                     AND restart.child = actor.id AND at > 0),
(SELECT count(*) FROM restart WHERE restart.supervisor = actor.id AND at > 0),
(SELECT count(*) FROM failure WHERE failure.actor = actor.id)
"""
_ALONE = "id NOT IN (SELECT child.actor FROM child) AND id NOT IN (SELECT child.supervisor FROM child)"


def tops(connection: sqlite3.Connection) -> list[MemberRow]:
    """Actors under the system's root that supervise others."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM actor LEFT JOIN child ON child.actor = actor.id
              WHERE child.actor IS NULL AND actor.id IN (SELECT supervisor FROM child)
              ORDER BY kind, key"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in fetch(connection, sql)]


def children(connection: sqlite3.Connection, limit: int) -> list[MemberRow]:
    """The first children of every supervisor in start order, and those that supervise or do not run."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM
              (SELECT *, row_number() OVER (PARTITION BY supervisor ORDER BY declared DESC, position) AS place
              FROM child) AS child JOIN actor ON actor.id = child.actor
              WHERE place <= :limit OR life <> 'running' OR actor.id IN (SELECT supervisor FROM child)
              ORDER BY child.supervisor, place"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in fetch(connection, sql, limit=limit)]


def family_sizes(connection: sqlite3.Connection) -> dict[int, int]:
    """How many children each supervisor has."""
    return dict(fetch(connection, "SELECT supervisor, count(*) FROM child GROUP BY supervisor"))


def alone(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many actors are in no family and have not stopped, and how many of them do not run."""
    sql = f"""SELECT count(*), coalesce(sum(life <> 'running'), 0) FROM actor
              WHERE status <> 'stopped' AND {_ALONE}"""  # noqa: S608  # constant condition
    ((total, held),) = fetch(connection, sql)
    return total, held


def held_alone(connection: sqlite3.Connection, limit: int) -> list[MemberRow]:
    """Actors in no family that do not run, failed ones first."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM actor LEFT JOIN child ON child.actor = actor.id
              WHERE life <> 'running' AND status <> 'stopped' AND {_ALONE}
              ORDER BY life <> 'failed', kind, key LIMIT :limit"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in fetch(connection, sql, limit=limit)]
