"""Counting what a turn has in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
