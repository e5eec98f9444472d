"""The server's time, as a process can know it that has to ask for it over a network.

    before ──► the server reads its clock ──► after

Both ends are on this process's monotonic clock, which nobody sets. Wherever between them the server's was read, by now
its time is at least what it read and what has passed since `after`. That is the time perdure goes by: what is due is
never early by the server's clock, and late by no more than an answer takes. Each further reading either agrees, or
makes the time anew: a quicker answer bounds it better, and one of the clocks may run slower, or have been set.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger("perdure.storage")
NOTICED_SECONDS = 1.0
"""How far the machine's clock may be from the server's before somebody is told."""


class ServerClock:
    """The time of a server. May be used by many threads.

    Args:
        name: Of the database, for people.
        machine: The machine's own time, in seconds since the Unix epoch: the best there is before the first reading.
        ticks: Seconds that pass, from anywhere on.
    """

    def __init__(self, name: str, machine: Callable[[], float], ticks: Callable[[], float]) -> None:
        self._name = name
        self._machine = machine
        self._ticks = ticks
        self._offset: float | None = None
        self._is_off = False

    def __repr__(self) -> str:
        return f"<ServerClock of {self._name}, {self.ahead:+.3f} s ahead>"

    def now(self) -> float:
        """The server's time, in seconds since the Unix epoch."""
        offset = self._offset
        return self._machine() if offset is None else self._ticks() + offset

    @property
    def known(self) -> bool:
        """Whether it has been read."""
        return self._offset is not None

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of the machine's."""
        return self.now() - self._machine()

    def compare(self, read: Callable[[], float]) -> None:
        """Have the server's clock read."""
        before = self._ticks()
        read_there = read()
        after = self._ticks()
        least, most = read_there - after, read_there - before
        if self._offset is None or not least <= self._offset <= most:
            self._offset = least
        self._tell(most - least)

    def _tell(self, uncertain_by: float) -> None:
        """Say so if the machine's clock is not right, or right again."""
        ahead = self.ahead
        is_off = abs(ahead) > NOTICED_SECONDS + uncertain_by
        if is_off and not self._is_off:
            _LOG.warning(
                "%s: this machine's clock is %.1f s %s the server's. perdure goes by the server's; the times in logs, "
                "and those that your code takes from the machine, do not agree with it. Set the clock, by NTP.",
                self._name, abs(ahead), "behind" if ahead > 0 else "ahead of",
            )  # fmt: skip
        self._is_off = is_off
