"""Exceptions as JSON, in the journal and in outcomes.

    {"type": "perdure.errors.Rejected", "text": "sold out", "args": ["sold out"], "lineage": [...], "traceback": "..."}

What comes back is chosen by code: a class of `perdure.errors`, or a subclass of `Rejected` that some module of this
process defines. A type that is not known here comes back as its nearest known base, text unchanged.
"""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure import errors
from perdure.errors import (
    DeadLetterError,
    DeadlockError,
    MessageCancelled,
    MessageExpired,
    PerdureError,
    QueryError,
    Rejected,
    StepError,
    StuckError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.storage.records import OutcomeStatus

_TRACEBACK_CHARACTERS = 16_000
_TEXT_CHARACTERS = 4_000


def type_name(type_: type[BaseException]) -> str:
    """Qualified name of an exception class, as it is stored."""
    return f"{type_.__module__}.{type_.__qualname__}"


def encode_failure(error: BaseException, *, with_traceback: bool = True) -> str:
    """An exception as JSON, cut to a bounded length."""
    stored: dict[str, Any] = {
        "type": type_name(type(error)),
        "text": _clean(str(error))[:_TEXT_CHARACTERS],
        "lineage": [type_name(base) for base in type(error).__mro__ if issubclass(base, BaseException)],
    }
    if isinstance(error, StepError):
        stored["lineage"] += error.lineage  # found by what went wrong in the step, too
    args = _plain(error)
    if args is not None:
        stored["args"] = args
    if isinstance(error, StuckError) and error.stack:
        stored["traceback"] = _clean(error.stack)[-_TRACEBACK_CHARACTERS:]
    elif with_traceback and error.__traceback__ is not None:
        stored["traceback"] = _clean("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:]
    return json.dumps(stored, ensure_ascii=False)


def failure_fields(stored: str | None) -> dict[str, Any]:
    """A stored failure's members; empty for none."""
    if not stored:
        return {}
    fields: object = json.loads(stored)
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def told_failure(status: OutcomeStatus, stored: str | None) -> str:
    """A failure as the journal of whoever awaited it keeps it: with the outcome, which tells how to raise it."""
    fields = failure_fields(stored)
    fields.pop("traceback", None)
    return json.dumps({**fields, "status": status}, ensure_ascii=False)


def outcome_status(stored: str | None) -> OutcomeStatus:
    """The outcome that a stored failure tells of: a rejection, unless it says otherwise."""
    return cast("OutcomeStatus", str(failure_fields(stored).get("status", "rejected")))


def decode_failure(status: OutcomeStatus, stored: str | None, subject: str) -> PerdureError:
    """The error that a caller gets for an outcome that is not a success."""
    fields = failure_fields(stored)
    text = str(fields.get("text", "")) or status
    if status == "cancelled":
        return MessageCancelled(f"{subject} was cancelled")
    if status == "expired":
        return MessageExpired(f"{subject} expired: {text}")
    if status == "dead":
        return DeadLetterError(
            f"{subject} is a dead letter ({fields.get('type', 'unknown cause')}: {text}). See it with perdure dead."
        )
    return _known(str(fields.get("type", "")), text, fields)


def query_failure(error: Exception, what: str) -> PerdureError:
    """What a query raises for what its code raised: errors of perdure are themselves."""
    if isinstance(error, PerdureError):
        return error
    name, lineage = type_name(type(error)), [type_name(base) for base in type(error).__mro__[:-1]]
    return QueryError(f"{what} raised {type(error).__name__}: {error}", error_type=name, lineage=lineage)


def decode_query_failure(stored: str | None, what: str) -> PerdureError:
    """The same for what was raised in another process, with its traceback there as a note."""
    fields = failure_fields(stored)
    name, text = str(fields.get("type", "")), str(fields.get("text", ""))
    lineage = [str(base) for base in fields.get("lineage", ())]
    if type_name(PerdureError) in lineage and name != type_name(QueryError):
        error = _known(name, text, fields)
    else:
        error = QueryError(f"{what} raised {name.rpartition('.')[2]}: {text}", error_type=name, lineage=lineage)
    if fields.get("traceback"):
        error.add_note(f"where it was answered:\n{fields['traceback']}")
    return error


def _known(name: str, text: str, fields: dict[str, Any]) -> PerdureError:
    own = getattr(errors, name.removeprefix("perdure.errors."), None)
    if own is DeadlockError:
        return DeadlockError([str(actor) for actor in fields.get("args", [])])
    type_: type[PerdureError] = Rejected
    if isinstance(own, type) and issubclass(own, PerdureError):
        type_ = own
    for candidate in _subclasses(Rejected):
        if type_name(candidate) == name:
            type_ = candidate
    # As pickle does: restore without running __init__, whose signature only the class's author knows.
    error = type_.__new__(type_)
    error.args = tuple(fields.get("args", [text]))
    return error


def _subclasses(type_: type[Rejected]) -> Iterator[type[Rejected]]:
    for subclass in type_.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _plain(error: BaseException) -> list[Any] | None:
    """The exception's arguments where they are plain JSON values."""
    args: list[Any] = list(error.path) if isinstance(error, DeadlockError) else list(error.args)
    try:
        return args if msgspec.json.decode(msgspec.json.encode(args)) == args else None
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None


def storable(text: str) -> str:
    """What people read, as any database takes it outside of JSON: PostgreSQL keeps no NUL."""
    return _clean(text).replace("\0", "\\x00")


def _clean(text: str) -> str:
    """Text without lone surrogates, which no database takes."""
    return text.encode(errors="backslashreplace").decode()
