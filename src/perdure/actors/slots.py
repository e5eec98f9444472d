"""The limits that a node's turns and steps are under: who waits here, and what the node has of each.

    enter ──► waits in line ──► has a slot, and may begin ──► leave
                   │ the node lacks slots or starts             │ others want some
                   └──────────────► Demand, Granted ◄───────────┘

Slots belong to the node and stay with it, so a node that nobody competes with writes nothing while turns and steps come
and go. Whoever goes on after a wait comes before those that are to begin; each of the two lines is first come, first
served. A slot is only ever given from what the database has granted, and while a demand is under way, which may give
some back, none beyond those that it says are in use; nor beyond the node's fair share while others are short of theirs.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING

from perdure.actors.flight import wake
from perdure.errors import PerdureError, SystemClosedError
from perdure.storage.allotment import allot, usable_seconds
from perdure.storage.limit_writes import Demand, Grants, Slot, Want
from perdure.warning_types import LimitWarning

if TYPE_CHECKING:
    from perdure.actors.host import Host
    from perdure.actors.limit import Limit
    from perdure.storage.limit_writes import Granted, LimitState
    from perdure.storage.writes import Settled, Write

_LOG = logging.getLogger("perdure.actors")
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_LONGEST_SECONDS = 60.0
_SHOWN = 1_000


class Place:
    """A turn's or a step's place under a limit: in line, then with a slot, then nowhere.

    Attributes:
        future: Ends when it has a slot.
        message: Whose turn it is.
        begins: Whether it is to begin, which a rate counts, and does not go on after a wait.
        holds: Whether it has a slot.
        waits: Whether it is in line.
    """

    __slots__ = ("_line", "begins", "future", "holds", "message", "waits")

    def __init__(self, line: Line, message: int, *, begins: bool) -> None:
        self._line = line
        self.future: asyncio.Future[None] = line.loop.create_future()
        self.message = message
        self.begins = begins
        self.holds = False
        self.waits = True

    def __repr__(self) -> str:
        return f"<Place of {self.message} under {self._line!r}, {'with' if self.holds else 'without'} a slot>"

    def leave(self) -> None:
        """Give the slot to others, or leave the line. Safe to call twice."""
        self._line.left(self)

    def insist(self) -> None:
        """Go on without waiting any longer; it counts all the same."""
        if self.waits:
            self._line.forced(self)


class Line:
    """A limit on one node."""

    def __init__(self, slots: Slots, limit: Limit) -> None:
        self.loop = slots.loop
        self.limit = limit
        self.name = limit.name
        self.defined = self.allowance = limit.allowance
        self.has = self.uses = self.wanted = 0
        self.share: int | None = None
        self.forced_demand = False
        self._slots = slots
        self._asked: Want | None = None
        self._tried: tuple[int, int] | None = None
        self._starts = 0
        self._asked_at = self._usable_until = self._again_at = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._on: deque[Place] = deque()
        self._new: deque[Place] = deque()
        self._shown: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<Line of '{self.name}': {self.uses} of {self.has} slots in use, {self.waits} wait>"

    @property
    def waits(self) -> int:
        """How many wait."""
        return len(self._on) + len(self._new)

    # whoever comes and goes -------------------------------------------------------------------------------------------

    def entered(self, place: Place) -> None:
        """Somebody waits for a slot."""
        (self._new if place.begins else self._on).append(place)
        self._admit()
        if not place.holds:
            self._slots.ask_soon()

    def left(self, place: Place) -> None:
        """Somebody does not need his slot, or does not wait, any more."""
        if place.holds:
            place.holds = False
            self.uses -= 1
            self._admit()
        elif place.waits:
            place.waits = False
            (self._new if place.begins else self._on).remove(place)
            place.future.cancel()
        if self.share is not None:
            self._slots.ask_soon()

    def forced(self, place: Place) -> None:
        """Somebody waits no longer, and goes on all the same."""
        self._on.remove(place)
        self._give(place)

    def _admit(self) -> None:
        """Give slots to those who come first."""
        while self._has_room():
            if self._on:
                self._give(self._on.popleft())
            elif self._new and self._may_start():
                self._starts -= 1
                self._give(self._new.popleft())
            else:
                break

    def _give(self, place: Place) -> None:
        place.waits, place.holds = False, True
        self.uses += 1
        wake(place.future)

    def _has_room(self) -> bool:
        if self.allowance.concurrent is None:
            return True
        most = self.has if self.share is None else min(self.has, self.share)
        return self.uses < (most if self._asked is None else min(most, self._asked.uses))

    def _may_start(self) -> bool:
        if self.allowance.rate is None:
            return True
        return self._starts > 0 and self.loop.time() < self._usable_until

    # what the node has ------------------------------------------------------------------------------------------------

    def wants(self) -> bool:
        """Whether it is worth while to ask the database."""
        if self._asked is not None:
            return False
        if self.forced_demand:
            return True
        needs = self._needs()
        if self.allowance.concurrent is not None:
            if needs > max(self.has, self.wanted):
                return True
            spare = self.share is not None and self.has > max(self.uses, min(self.share, needs))
            if spare and (self.uses, needs) != self._tried:
                return True
        lacks_starts = self._new and not self._on and self._has_room() and not self._may_start()
        return bool(lacks_starts) and self.loop.time() >= self._again_at

    def _needs(self) -> int:
        needs = self.uses + self.waits
        return needs if self.allowance.concurrent is None else min(needs, self.allowance.concurrent)

    def _waiting(self) -> tuple[int, ...]:
        return tuple(place.message for place in islice(chain(self._on, self._new), _SHOWN))

    def ask(self) -> Want:
        """What it wants; it is told what became of that."""
        self.forced_demand = False
        self._tried = (self.uses, self._needs())
        self._asked = Want(self.name, self.defined, self.uses, self.waits, len(self._new), self._waiting())
        self._asked_at = self.loop.time()
        return self._asked

    def granted(self, granted: Granted) -> bool:
        """Take what was granted; whether another definition than this node's is in force now."""
        asked, self._asked = self._asked, None
        changed = granted.allowance not in (self.allowance, self.defined)
        self.allowance, self.has, self.share = granted.allowance, granted.has, granted.share
        self.wanted = 0 if asked is None else asked.uses + asked.waits
        if self.allowance.concurrent is not None:
            self.wanted = min(self.wanted, self.allowance.concurrent)
        self._shown = () if asked is None else asked.waiting
        self._starts = granted.starts
        self._usable_until = self._asked_at + usable_seconds(granted.allowance.per)
        self._ask_again(0.0 if granted.again is None else min(granted.again, _LONGEST_SECONDS))
        self._admit()
        return changed

    def _ask_again(self, seconds: float) -> None:
        """Ask for no start before so many seconds are over, and then at once."""
        if self._again is not None:
            self._again.cancel()
        self._again_at = self.loop.time() + seconds
        self._again = self.loop.call_later(seconds, self._slots.ask_soon) if seconds > 0 else None

    def refused(self) -> None:
        """What was asked may have been granted or not: what is in use stays so, and nothing more."""
        self._asked = None
        self.has = min(self.has, self.uses)
        self.wanted = self._starts = 0
        self.forced_demand = True

    def look(self, state: LimitState, me: str, now: float) -> None:
        """Compare what it has with what the others want."""
        if self._asked is not None:
            return
        mine = next((slot.has for slot in state.slots if slot.node == me), 0)
        if state.allowance != self.allowance or mine != self.has:
            self.forced_demand = True
        elif state.allowance.concurrent is not None:
            others = [slot for slot in state.slots if slot.node != me]
            slot = Slot(me, self.has, self._needs())
            found = allot(state.allowance.concurrent, slot, self.uses, others, now)
            self.share = found.share
            self.forced_demand = self.forced_demand or found.has != self.has

    @property
    def is_watched(self) -> bool:
        """Whether there is something that the others, or people, may wait for."""
        return bool(self.waits or self._shown or self.share is not None)

    def show(self) -> None:
        """Have people see who waits."""
        self.forced_demand = self.forced_demand or self._waiting() != self._shown


class Slots:
    """The limits of one node."""

    def __init__(self, host: Host) -> None:
        self.loop = host.loop
        self._host = host
        self._lines: dict[str, Line] = {}
        self._asked: list[Line] = []
        self._coming = False
        self._timer: asyncio.TimerHandle | None = None
        self._warned: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Slots: {list(self._lines.values())}>"

    def enter(self, limit: Limit, message: int, *, begins: bool) -> Place:
        """A place under a limit, of a turn or of a step in it."""
        line = self.line(limit)
        place = Place(line, message, begins=begins)
        line.entered(place)
        return place

    def line(self, limit: Limit) -> Line:
        """A limit, as this node knows it."""
        line = self._lines.get(limit.name)
        if line is None:
            line = self._lines[limit.name] = Line(self, limit)
        return line

    @property
    def is_asking(self) -> bool:
        """Whether a demand is under way."""
        return bool(self._asked)

    def ask_soon(self) -> None:
        """Ask the database for what is wanted, with whatever else is wanted in this pass of the loop."""
        if not self._coming:
            self._coming = True
            self.loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._coming = False
        if self._asked or self._host.left.is_set():
            return  # one at a time: the answer asks again
        lines = sorted((line for line in self._lines.values() if line.wants()), key=lambda line: line.name)
        if not lines:
            return
        self._asked = lines
        try:
            self._host.committer.submit(Demand(tuple(line.ask() for line in lines)), self._told)
        except SystemClosedError:
            self._refused()

    def _told(self, _: Write, settled: Settled | PerdureError, __: object) -> None:
        if not isinstance(settled, Grants):
            self._refused()
            self.loop.call_later(_RETRY_SECONDS, self.ask_soon)
            return
        lines, self._asked = self._asked, []
        for line, granted in zip(lines, settled.granted, strict=True):
            if line.granted(granted):
                self._warn(line)
            if self._lines.get(line.name) is not line:
                # It was granted to this node under its new identity; what it had wanted as the old one is over.
                self.line(line.limit).forced_demand = True
        self._watch()
        self.ask_soon()

    def _refused(self) -> None:
        lines, self._asked = self._asked, []
        for line in lines:
            line.refused()

    def _warn(self, line: Line) -> None:
        if (line.name, str(line.allowance)) in self._warned:
            return
        self._warned.add((line.name, str(line.allowance)))
        text = (
            f"limit '{line.name}' is {line.defined} here, and {line.allowance} in a process that was started later, "
            "which is what counts. Have all processes run the same code."
        )
        self.loop.call_soon(warnings.warn, text, LimitWarning)

    # others -----------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look again soon, while anybody waits for anybody."""
        if self._timer is None and any(line.is_watched for line in self._lines.values()):
            self._timer = self.loop.call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if self._host.left.is_set() or self._host.closing:
            return
        for line in self._lines.values():
            line.show()
        self._host.spawn_task(self._look_aside(), "perdure looks at limits")
        self._watch()

    async def _look_aside(self) -> None:
        try:
            await self.look()
        except PerdureError as error:
            _LOG.error("limits could not be looked at, and will be: %s", error)

    async def look(self) -> None:
        """Notice what the others have and want. Raises `StorageError`."""
        names = [line.name for line in self._lines.values() if line.has or line.is_watched]
        if not names:
            return
        now = self._host.timestamp()
        for state in await self._host.store.limits(names):
            if state.name in self._lines:
                self._lines[state.name].look(state, self._host.node, now)
        self.ask_soon()

    def buried(self) -> None:
        """This node was taken for dead: it has nothing any more, and its turns are lost."""
        self._lines = {}
