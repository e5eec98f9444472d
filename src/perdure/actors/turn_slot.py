"""A turn's slot under the limit of its kind.

    waits in line ──► runs ──► waits for replies and time alone: others have the slot ──► waits in line ──► runs ──► …

What counts is a handler that runs, or that waits for something of its own. So actors under one limit may ask each
other, however small it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from perdure.actors.flight import wake

if TYPE_CHECKING:
    from perdure.actors.limit import Limit
    from perdure.actors.slots import Place, Slots
    from perdure.actors.turn import Turn

_AGAIN_SECONDS = 0.1


class TurnSlot:
    """Holds a turn's slot, and lends it to others."""

    def __init__(self, turn: Turn, limit: Limit, slots: Slots) -> None:
        self.limit = limit
        self._turn = turn
        self._slots = slots
        self._place: Place | None = None
        self._resting = 0
        self._timer: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"<slot of {self._turn!r}: {self._place!r}>"

    async def take(self) -> None:
        """Wait in line, to begin."""
        self._place = self._slots.enter(self.limit, self._turn.mail.seq, begins=True)
        if not self._place.holds:
            await self._turn.wait(self._place.future)

    def leave(self) -> None:
        """The turn is over."""
        place, self._place = self._place, None
        if place is not None:
            place.leave()
        if self._timer is not None:
            self._timer.cancel()

    def rest(self) -> None:
        """Something of the turn waits for a reply or for time; perhaps all of it does."""
        self._resting += 1
        if self._timer is None:
            self._timer = self._slots.loop.call_soon(self._look)

    def _look(self) -> None:
        """Lend the slot if the whole turn waits; if it may come to that, look again."""
        self._timer = None
        turn, place = self._turn, self._place
        if place is None or not place.holds or not self._resting or turn.ended:
            return
        if turn.in_flight() == self._resting and turn.handout.quiet and turn.idle():
            self._place = None
            place.leave()
        else:
            self._timer = self._slots.loop.call_later(_AGAIN_SECONDS, self._look)

    async def resume(self) -> None:
        """What waited goes on, once the turn has a slot again."""
        self._resting -= 1
        turn = self._turn
        if _is_over(turn):
            return
        if self._place is None:
            self._place = self._slots.enter(self.limit, turn.mail.seq, begins=False)
        place = self._place
        if place.holds:
            return
        mine: asyncio.Future[None] = self._slots.loop.create_future()
        place.future.add_done_callback(lambda _: wake(mine))
        try:
            await turn.wait(mine)
        except asyncio.CancelledError:
            if not _is_over(turn):
                place.insist()  # the handler's own code cancels it a second time, and goes on
            raise


def _is_over(turn: Turn) -> bool:
    return turn.stopped is not None or turn.ended
