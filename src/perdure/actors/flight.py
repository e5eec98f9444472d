"""An operation of a turn, while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from perdure.actors.segments import Segments


class Flight:
    """Counts one operation while it runs."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Segments) -> None:
        self._turn = turn

    def __enter__(self) -> None:
        self._turn.flying(1)

    def __exit__(self, *error: object) -> None:
        self._turn.flying(-1)


def wake(future: asyncio.Future[None]) -> None:
    """Have whoever waits go on, if anybody still does."""
    if not future.done():
        future.set_result(None)


def retrieve(future: asyncio.Future[Any]) -> None:
    """Whoever submitted does not wait; the activation hears of the failure by itself."""
    if not future.cancelled():
        future.exception()
