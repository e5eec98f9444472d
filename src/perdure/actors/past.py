"""What an attempt finds in its journal: what stays, what begins anew, and what perhaps nobody will ask for again.

A step whose error got out begins anew, and may succeed this time. Then nobody comes by again where the handler went on
with the error, as in `except: await undo(); raise`, or comes with other arguments. So what was begun there has position
`LEFT`: whoever asks for the same gets its result, nobody has to, and who asks for something else has the next key.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.storage.records import Record

RESULTS = frozenset({"step", "ask", "receipt", "sleep"})
"""Kinds of record that hand a result to the handler."""

LEFT = 0
"""The position of what rests on an error that got out; and, with the status 'cancelled', of what begins anew."""

UNTAKEN = -1
"""The position of a result that was complete, but whoever waited for it was cancelled before it went on with it."""

_AT_ONCE_SECONDS = 0.25


def decided(records: Sequence[Record]) -> list[Record]:
    """Without what begins anew: what had failed, and what was cancelled if nothing at all was begun since.

    Nobody may cancel that again, as where a failure did that is gone by now. What was begun in another task may rest on
    it as well as what followed it in its own: the journal does not show what tasks tell each other.
    """
    last = max((record.started for record in records), default=0.0)
    return [r for r in records if r.status != "cancelled" or (r.position != LEFT and last >= (r.finished or 0.0))]


def cancelled_beside(records: Iterable[Record], failed: Sequence[Record]) -> list[Record]:
    """What was cancelled as one of those failed whose errors got out, or before anything followed the error."""
    kept = list(records)
    ends = [record.finished for record in failed if record.finished is not None]
    last = max((record.started for record in kept), default=0.0)
    found: list[Record] = []
    for record in kept:
        finished = record.finished
        if record.status == "cancelled" and finished is not None:
            during = [end for end in ends if record.started <= end <= finished]
            # later, it was something else that cancelled it, while the error waited to be raised
            if during and (finished < max(during) + _AT_ONCE_SECONDS or last < finished):
                found.append(record)
    return found


def carried(error: BaseException) -> list[BaseException]:
    """An error, those in it if it is a group, and those it came of."""
    found: dict[int, BaseException] = {}
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in found:
            continue
        found[id(each)] = each
        if isinstance(each, BaseExceptionGroup):
            pending.extend(cast("BaseExceptionGroup[BaseException]", each).exceptions)
        pending.extend((each.__cause__, each.__context__))
    return [*found.values()]


def rest_on(records: Iterable[Record], anew: Sequence[Record], amid: Sequence[Record]) -> list[Record]:
    """What rests on an error that got out: where it was raised, around, or in a newer task.

    Args:
        records: All of them.
        anew: Those that begin anew. What was begun after one had ended rests on it.
        amid: Those begun where the handler went on with an error of its own. They rest on it, and what came after them.
    """
    kept = list(records)
    begun: dict[str, float] = {}
    for record in kept:
        if record.position != LEFT:  # of a task that had the same number in an attempt before
            path = _scope_of(record)
            begun[path] = min(begun.get(path, inf), record.started)
    ends: dict[str, float] = {}
    failed = [(one.key, one.finished) for one in anew if one.finished is not None]
    for key, end in (*failed, *((one.key, one.started) for one in amid)):
        for path in _around(key):
            ends[path] = min(ends.get(path, inf), end)
    gone = {record.key for record in anew}
    first = ends.get("", inf)  # every path begins there
    return [
        each
        for each in kept
        if each.key not in gone
        and (each.started >= ends.get(path := _scope_of(each), inf) or begun.get(path, inf) >= first)
    ]


def _around(key: str) -> list[str]:
    """The paths of the scopes that a key is in."""
    return ["", *(key[: at + 1] for at, character in enumerate(key) if character == "/")]


def _scope_of(record: Record) -> str:
    """The path in a record's key (see `scope.py`)."""
    path, counted, ordinal = record.key.rpartition(f"{record.name}#")
    return path if counted and ordinal.isdigit() else record.key.partition(f"{record.name}:")[0]
