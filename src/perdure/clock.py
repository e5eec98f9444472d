"""Where perdure takes its time from: the machine, or a test."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

Seconds: TypeAlias = float | timedelta
"""A duration: seconds as a number, or a `timedelta`."""


class Clock(Protocol):
    """A source of wall-clock time. Implementations must never run backwards within one process."""

    def now(self) -> datetime:
        """The present, with a timezone."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.fromtimestamp(time.time(), UTC)


def seconds(duration: Seconds) -> float:
    """A duration as seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
