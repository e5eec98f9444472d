"""A clock that only a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Hands:
    """See `Clock`."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """What it shows."""
        return self.at

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)
