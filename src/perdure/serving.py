"""Serving: a system runs until it is told to stop, then drains.

ready ──► SIGTERM | SIGINT ──► drains ──► drained
                                 └── again ──► hurries ──► drained
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from perdure.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perdure.actors.host import Host

_LOG = logging.getLogger("perdure.serving")
_SAY_SECONDS = 5.0


async def serve(host: Host, database: str, ending: asyncio.Event) -> None:
    """Serve until a signal comes, or the system is drained or closed by somebody else.

    Args:
        host: The actors.
        database: Where they are, for people.
        ending: Set once the system closes.
    """
    with Signals.current() as signals:
        signals.attach()
        signals.patience = host.limits.drain
        adopted = len(host.activations)
        _LOG.info(
            "ready: node %s on %s, %d actors adopted", host.node, database, adopted,
            extra={"event": "ready", "node": host.node, "database": database, "adopted": adopted},
        )  # fmt: skip
        if await _first(ending.wait(), host.left.wait(), signals.wait(1)) == 0:
            return
        leaving = host.leave(host.limits.drain, patiently=True)
        _say_begin(host, signals)
        await _first(_hurry(host, signals), _progress(host), asyncio.shield(leaving))
        await leaving
        _say_end(host)


async def _first(*waiting: Awaitable[object]) -> int:
    """Wait for the first of several, and give the others up; its place. Raises what it raises."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next((place for place, task in enumerate(tasks) if not task.cancelled()), -1)


async def _hurry(host: Host, signals: Signals) -> None:
    """Cut the drain short when a second signal comes; goes on until it is cancelled."""
    await signals.wait(2)
    signals.hurried = True
    _LOG.warning("%s again: turns are cancelled where they are. Once more ends the process at once", signals.name)
    _ = host.leave(0, patiently=True)
    await asyncio.Event().wait()


async def _progress(host: Host) -> None:
    """Say now and then what is waited for; goes on until it is cancelled."""
    while host.leaving is not None:
        await asyncio.sleep(_SAY_SECONDS)
        count, left = host.leaving.under_way(), host.leaving.seconds_left
        _LOG.info("draining: %d turns are on their way to a durable point, and have %.0f s more", count, left)


def _say_begin(host: Host, signals: Signals) -> None:
    if host.leaving is not None:
        count, seconds = host.leaving.under_way(), host.leaving.seconds_left
        why = signals.name if signals.count else "drain()"
        _LOG.info(
            "%s: draining; waiting for %d turns to come to a durable point, at most %.0f s. Send it again to hurry",
            why, count, seconds,
            extra={"event": "draining", "turns": count, "seconds": round(seconds, 3)},
        )  # fmt: skip


def _say_end(host: Host) -> None:
    if host.leaving is not None:
        one = host.leaving
        _LOG.info(
            "drained in %.1f s: %d actors released, %d turns cut off, %d handlers left behind",
            one.seconds, one.released, one.cut, one.left,
            extra={"event": "drained", "released": one.released, "cut": one.cut, "left": one.left},
        )  # fmt: skip
