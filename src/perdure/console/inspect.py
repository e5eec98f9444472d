"""What actors did, do and wait for: the one read model, from the database alone.

It works beside a live system, of this process or another, and on what a dead one left. It writes nothing.

    inspector = Inspector("agents.db")
    inspector.overview().actors
    inspector.actor("Researcher/r1").messages
    inspector.message("r1/why").steps
    inspector.dead().messages
    inspector.tree().members
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attrs import evolve

from perdure.console import rows
from perdure.console.lens import Lens
from perdure.console.names import parse_address, unknown_actor, unknown_message
from perdure.console.reading import Reading
from perdure.console.targets import database_of
from perdure.console.views import ActorHistory, DeadLetters, MessageHistory, Overview
from perdure.storage.records import Address

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from perdure.console.database import Moment
    from perdure.console.views import ActorView, MessageView, StepView, TreeView

T = TypeVar("T")

_PAGE = 500
_ALL = 2**62


class Inspector:
    """Reads a database. What belongs together is read in one transaction; long lists, page by page.

    Where a `limit` may be none, that gives everything; one below nothing gives nothing. All methods raise `TargetError`
    where there is no database that can be read.

    Args:
        target: The database, as `ActorSystem` is given it: a file, or `postgresql://…`.
        clock: Where it takes its time from; the database's clock, if it is not given.
        keys: Of the system's seal: what is encrypted is shown, and what is signed is verified.
    """

    def __init__(
        self, target: str | os.PathLike[str], clock: Callable[[], float] | None = None, keys: Sequence[bytes] = ()
    ) -> None:
        self._database = database_of(target)
        self._clock = clock
        self._lens = Lens(keys)

    def __repr__(self) -> str:
        return f"<Inspector {self._database.name}>"

    @property
    def location(self) -> str:
        """The database's path, or its URL without user and password."""
        return self._database.name

    def _read(self, query: Callable[[Reading], T]) -> T:
        def look(moment: Moment) -> T:
            now = moment.now() if self._clock is None else self._clock()
            return query(Reading(moment, self._database.name, now, self._lens))

        return self._database.read(look)

    # actors -----------------------------------------------------------------------------------------------------------

    def overview(self, *, kind: str | None = None, limit: int | None = 50) -> Overview:
        """The actors, those with mail or parked first, and the processes that have them."""

        def query(reading: Reading) -> Overview:
            total, busy, parked, failed = rows.actor_counts(reading.moment, kind)
            return Overview(
                database=self.location,
                read=reading.now,
                actors=(),
                more=False,
                total=total,
                busy=busy,
                parked=parked,
                failed=failed,
                nodes=reading.nodes(),
                dead_letters=rows.dead_count(reading.moment),
            )

        overview = self._read(query)
        actors, more = _collect(lambda count, found: self._actors(kind, count, found), limit)
        return evolve(overview, actors=tuple(actors), more=more)

    def _actors(self, kind: str | None, count: int, found: list[ActorView]) -> list[ActorView]:
        after = None
        if found:
            last = found[-1]
            idle = last.mail <= 0 and last.status != "parked" and last.life == "running"
            after = (idle, last.address.kind, last.address.key)

        def query(reading: Reading) -> list[ActorView]:
            delayed = rows.delayed(reading.moment)
            return reading.actors(rows.actors(reading.moment, kind, count, after), delayed)

        return self._read(query)

    def actor(self, address: Address | str, *, limit: int = 10) -> ActorHistory:
        """An actor with its state, why its mailbox waits, and its newest messages with what each changed.

        Raises:
            UnknownActor: There is no such actor; the error names those most like it.
        """
        wanted = parse_address(address) if isinstance(address, str) else address
        most = _bounded(limit)

        def query(reading: Reading) -> ActorHistory:
            row = rows.actor(reading.moment, wanted)
            if row is None:
                raise unknown_actor(reading.moment, wanted)
            delayed = rows.delayed(reading.moment)
            newest = rows.newest(reading.moment, row.id, most + 1, reading.now)
            undue = rows.undue(reading.moment, row.id, most, reading.now) if row.id in delayed else []
            (view,) = reading.actors([row], delayed)
            return ActorHistory(
                database=self.location,
                read=reading.now,
                actor=view,
                state=reading.state(row.id, wanted),
                messages=reading.messages([*reversed(newest[:most]), *undue]),
                more=len(newest) > most,
                failures=reading.failures("actor", row.id, wanted),
            )

        return self._read(query)

    # messages ---------------------------------------------------------------------------------------------------------

    def message(self, id: str, *, limit: int | None = 200) -> MessageHistory:
        """A message with its journal, what came of it, and the messages it caused.

        Raises:
            UnknownMessage: There is no such message, or it is no longer kept; the error names those most like it.
        """
        most = _bounded(limit)

        def query(reading: Reading) -> MessageHistory:
            found = rows.message(reading.moment, id, reading.now)
            if found is None:
                raise unknown_message(reading.moment, id)
            row, _ = found
            page = min(most, _PAGE)
            steps = reading.steps(rows.records(reading.moment, row.seq, page + 1), row.id)
            caused, complete = reading.caused(row.seq)
            return MessageHistory(
                database=self.location,
                read=reading.now,
                message=reading.messages([found])[0],
                wait=reading.waits([found])[row.seq] if row.is_head else None,
                steps=steps[:page],
                more=len(steps) > page,
                failures=reading.failures("message", row.seq, Address(row.kind, row.key)),
                caused=caused,
                caused_complete=complete,
            )

        history = self._read(query)
        first = len(history.steps)
        if history.more and most > first:
            rest, more = _collect(
                lambda count, found: self._steps(history.message, count, first + len(found)), most - first
            )
            history = evolve(history, steps=(*history.steps, *rest), more=more)
        return history

    def _steps(self, of: MessageView, count: int, offset: int) -> list[StepView]:
        return self._read(
            lambda reading: list(reading.steps(rows.records(reading.moment, of.seq, count, offset), of.id))
        )

    def dead(self, *, error: str | None = None, limit: int | None = 50) -> DeadLetters:
        """The dead letters, those first that died last.

        Args:
            error: Only those whose error is of this class or of one below it: `builtins.ValueError`, or `ValueError`.
            limit: How many at most.
        """

        def query(reading: Reading) -> DeadLetters:
            total = rows.dead_count(reading.moment, error)
            return DeadLetters(self.location, reading.now, (), more=False, total=total)

        letters = self._read(query)
        messages, more = _collect(lambda count, found: self._dead(error, count, found), limit)
        return evolve(letters, messages=tuple(messages), more=more)

    def _dead(self, error: str | None, count: int, found: list[MessageView]) -> list[MessageView]:
        after = (found[-1].finished or 0.0, found[-1].seq) if found else None
        return self._read(
            lambda reading: list(reading.messages(rows.dead(reading.moment, error, count, after, reading.now)))
        )

    # supervision ------------------------------------------------------------------------------------------------------

    def tree(self, *, limit: int | None = 50) -> TreeView:
        """The supervision tree: of each supervisor up to `limit` children, and those that supervise or do not run."""
        return self._read(lambda reading: reading.tree(_bounded(limit)))


def _collect(fetch: Callable[[int, list[T]], list[T]], limit: int | None) -> tuple[list[T], bool]:
    """Fetch page by page, up to a limit, and say whether there is more. `fetch` gets a count and what was found."""
    found: list[T] = []
    most = _bounded(limit)
    while True:
        wanted = min(_PAGE, most - len(found))
        page = fetch(wanted + 1, found)
        found.extend(page[:wanted])
        if len(page) <= wanted:
            return found, False
        if len(found) == most:
            return found, True


def _bounded(limit: int | None) -> int:
    """A limit as databases take it."""
    return _ALL if limit is None else min(max(limit, 0), _ALL)
