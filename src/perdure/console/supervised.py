"""The SQL of the read model, of supervision: who supervises whom, what was restarted, what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from perdure.storage.records import ActorStatus, Life, Restart

if TYPE_CHECKING:
    from perdure.console.database import Moment


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


def failures(moment: Moment, column: Literal["actor", "message"], number: int, limit: int) -> list[tuple[Any, ...]]:
    """The newest failures of an actor or of a message, oldest first: when, message, attempt, error, decision."""
    sql = f"""SELECT at, id, attempt, error, decision FROM failure LEFT JOIN message ON message.seq = failure.message
              WHERE failure.{column} = :number ORDER BY failure.seq DESC LIMIT :limit"""  # noqa: S608  # one of two names
    return moment.fetch(sql, number=number, limit=limit)[::-1]


_MEMBER = """
actor.id, kind, key, coalesce(child.restart, 'transient'), coalesce(declared, 0), coalesce(significant, 0), status,
life, reason, restart_at, (SELECT count(*) FROM restart WHERE restart.supervisor = coalesce(child.supervisor, -actor.id)
                           AND restart.child = actor.id AND at > 0),
(SELECT count(*) FROM restart WHERE restart.supervisor = actor.id AND at > 0),
(SELECT count(*) FROM failure WHERE failure.actor = actor.id)
"""
_ALONE = """
NOT EXISTS (SELECT 1 FROM child AS it WHERE it.actor = actor.id)
AND NOT EXISTS (SELECT 1 FROM child AS its WHERE its.supervisor = actor.id)
"""


def tops(moment: Moment) -> list[MemberRow]:
    """Actors under the system's root that supervise others."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM actor LEFT JOIN child ON child.actor = actor.id
              WHERE child.actor IS NULL AND actor.id IN (SELECT supervisor FROM child)
              ORDER BY kind, key"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in moment.fetch(sql)]


def children(moment: Moment, limit: int) -> list[MemberRow]:
    """The first children of every supervisor in start order, and those that supervise or do not run."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM
              (SELECT *, row_number() OVER (PARTITION BY supervisor ORDER BY declared DESC, position) AS place
              FROM child) AS child JOIN actor ON actor.id = child.actor
              WHERE place <= :limit OR life <> 'running' OR actor.id IN (SELECT supervisor FROM child)
              ORDER BY child.supervisor, place"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in moment.fetch(sql, limit=limit)]


def family_sizes(moment: Moment) -> dict[int, int]:
    """How many children each supervisor has."""
    return dict(moment.fetch("SELECT supervisor, count(*) FROM child GROUP BY supervisor"))


def alone(moment: Moment) -> tuple[int, int]:
    """How many actors are in no family and have not stopped, and how many of them do not run."""
    sql = f"""SELECT count(*), count(*) FILTER (WHERE life <> 'running') FROM actor
              WHERE status <> 'stopped' AND {_ALONE}"""  # noqa: S608  # constant condition
    ((total, held),) = moment.fetch(sql)
    return total, held


def held_alone(moment: Moment, limit: int) -> list[MemberRow]:
    """Actors in no family that do not run, failed ones first."""
    sql = f"""SELECT child.supervisor, {_MEMBER} FROM actor LEFT JOIN child ON child.actor = actor.id
              WHERE life <> 'running' AND status <> 'stopped' AND {_ALONE}
              ORDER BY life <> 'failed', kind, key LIMIT :limit"""  # noqa: S608  # constant columns
    return [MemberRow(*row) for row in moment.fetch(sql, limit=limit)]
