"""Why a turn stops before its handler has returned.

They reach the handler as cancellations, so that `except Exception` does not swallow them; perdure calls made in
`finally` then write nothing.
"""

from __future__ import annotations

import asyncio

LOOK_SECONDS = 0.02
"""How often whoever stops a handler looks whether it has."""

STUBBORN_SECONDS = 1.0
"""How long after its time a handler that was cancelled is waited for, before it is left behind."""


class TurnStopped(asyncio.CancelledError):
    """The turn goes no further here; nothing that its handler does now is written."""


class Evicted(TurnStopped):
    """The turn waits long, and comes back when what it waits for arrives."""


class Drained(TurnStopped):
    """The system is closing; the turn goes on where it is opened again."""


class Parked(TurnStopped):
    """The turn's code does not match its journal."""


class Expired(TurnStopped):
    """The turn ran past its handler's timeout."""


class Blocked(TurnStopped):
    """The turn blocked the event loop for too long, which is a failure of its actor."""


class Lost(TurnStopped):
    """The activation no longer owns its actor, or its commit failed."""
