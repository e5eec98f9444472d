"""A system belongs to the event loop that opened it: nothing of it may be touched from another, in another thread."""

from __future__ import annotations

from perdure.errors import SystemClosedError


def elsewhere() -> SystemClosedError:
    """What whoever runs in another loop than a system's own is told."""
    return SystemClosedError(
        "the system was opened in another event loop, and cannot be used in this one. Use it in the loop that "
        "entered `async with ActorSystem(...)`, or open one in each."
    )
