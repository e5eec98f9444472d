"""Asks that can never be answered: a cycle in the wait-for graph.

Cycles that a call chain shows are refused at once, where the ask is made. Those from separate roots (A asks B while B
asks A) are looked for once an ask is a second old. The youngest ask on a cycle closed it, so that one fails, and only
its own caller decides that. Whoever waits for a receipt's result in a turn waits like one who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from perdure.storage.records import Address, OpenAsk


def deadlocked(
    asks: Sequence[OpenAsk], me: Address, message: int, waiting: Container[str]
) -> Iterator[tuple[str, list[str]]]:
    """Keys of this turn's own asks that are the youngest on a cycle, each with the path around it."""
    edges: dict[Address, list[OpenAsk]] = {}
    for ask in asks:
        edges.setdefault(ask.caller, []).append(ask)
    for ask in asks:
        if ask.caller == me and ask.message == message and ask.key in waiting:
            path = _path(edges, ask.callee, me, youngest=ask.started)
            if path is not None:
                yield ask.key, [str(me), *map(str, path)]


def _path(
    edges: dict[Address, list[OpenAsk]], start: Address, end: Address, *, youngest: float
) -> list[Address] | None:
    """A way from `start` to `end` over asks that are not younger, if there is one."""
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop()
        if path[-1] == end:
            return path
        for ask in edges.get(path[-1], ()):
            if ask.callee not in seen and ask.started <= youngest:
                seen.add(ask.callee)
                paths.append([*path, ask.callee])
    return None
