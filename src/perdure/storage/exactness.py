"""Whether JSON would bring a value back as it is: one check per annotation, compiled once into closures.

msgspec writes a subclass as its base, NaN as null, and drops keys and attributes that no field names. Each would
change the value behind the user's back, so each is refused first, with the path to it. This runs for every message
and every state, hence the care: `type(v) is int` instead of `isinstance`, and whole lists of scalars looked at by
`set(map(type, values))`, in C. A check returns nothing and raises `Inexact`.
"""

import datetime as dt
import decimal
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

Check: TypeAlias = Callable[[Any], None]

LEAST, MOST = -(2**63), 2**64 - 1
"""Integers that msgspec carries in one machine word; wider ones are tried out."""

WHOLE_FLOAT = 2**53
"""Integers up to here are exact as floats."""


_KEY_LETTERS = 60


class Inexact(Exception):
    """A value is not what its annotation brings back. The path is gathered while this travels outwards."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.steps: list[str] = []

    def inside(self, step: str) -> typing.Self:
        """The same, one step further out."""
        self.steps.append(step)
        return self

    @property
    def path(self) -> str:
        """From the whole value to the wrong part, such as `.meta["x"][3]`."""
        return "".join(reversed(self.steps))


def other_type(value: object, expected: type[Any], remedy: str = "") -> Inexact:
    """The value's class is not exactly the annotated one."""
    found, wanted = type(value).__name__, expected.__name__
    if isinstance(value, expected) and expected is not object:
        return Inexact(
            f"{found} is a subclass of the annotated {wanted} and would come back as a plain {wanted}",
            remedy or f"Convert it to {wanted}, or annotate {found}.",
        )
    return Inexact(
        f"{wanted} is annotated, but this is {found}", remedy or f"Convert it to {wanted}, or annotate {found}."
    )


def key_step(key: object) -> str:
    """How a key is written in a path; a long one is cut."""
    text = f'"{key}"' if isinstance(key, str) else repr(key)
    return f"[{text if len(text) <= _KEY_LETTERS else text[:_KEY_LETTERS] + '...'}]"


# scalars --------------------------------------------------------------------------------------------------------------


def _int(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is not int:
        raise other_type(value, int)
    if not LEAST <= value <= MOST:
        _wide(value)


def _wide(value: int) -> None:
    try:
        same = msgspec.json.decode(msgspec.json.encode(value)) == value
    except (ValueError, OverflowError, msgspec.MsgspecError):
        same = False
    if not same:
        raise Inexact("the integer is too wide for JSON", "Store it as str or bytes.")


def _float(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is float:
        if not math.isfinite(value):
            raise Inexact(f"{value} has no JSON, which would make it null", "Store None in its place, or leave it out.")
    elif type(value) is not int:
        raise other_type(value, float)
    elif not -WHOLE_FLOAT <= value <= WHOLE_FLOAT and not _is_whole_float(value):
        raise Inexact(f"the integer {value} is not exact as the annotated float", "Annotate int, or round it.")


def _is_whole_float(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _str(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is not str:
        raise other_type(value, str)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Inexact(
                "the text holds a lone surrogate, which UTF-8 cannot say",
                "Decode it with errors='replace', or store bytes.",
            ) from error


def _decimal(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is not decimal.Decimal:
        raise other_type(value, decimal.Decimal)
    if value.is_nan():
        raise Inexact(
            f"Decimal {value} does not equal itself and would not come back equal", "Store None in its place."
        )


def _datetime(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is not dt.datetime:
        raise other_type(value, dt.datetime)
    if value.tzinfo is not dt.UTC:
        _moment(value)


def _time(value: Any) -> None:  # noqa: ANN401  # any value may be offered
    if type(value) is not dt.time:
        raise other_type(value, dt.time)
    _moment(value)


def _moment(value: dt.datetime | dt.time) -> None:
    """ISO 8601 keeps the local time and the offset, not the zone's name nor which of two equal hours is meant."""
    if value.tzinfo is None:
        if value.fold:
            raise Inexact("fold=1 on a time without zone would be lost", "Give it a zone, or store it in UTC.")
        return
    offset = value.utcoffset()
    if offset is None:
        raise Inexact("the time zone gives no offset here", "Store a datetime with a date, or in UTC.")
    if offset % dt.timedelta(minutes=1):
        raise Inexact(f"the offset {offset} is not whole minutes, which ISO 8601 cannot say", "Store it in UTC.")


CAREFUL: Mapping[type[Any], Check] = {
    int: _int,
    float: _float,
    str: _str,
    decimal.Decimal: _decimal,
    dt.datetime: _datetime,
    dt.time: _time,
}
"""Scalars of which some values are lost or changed."""


def exactly(cls: type[Any]) -> Check:
    """The check of a class whose every value is exact."""

    def check(value: object) -> None:
        if type(value) is not cls:
            raise other_type(value, cls)

    return check


# many scalars at once -------------------------------------------------------------------------------------------------

Sweep: TypeAlias = Callable[[Collection[Any]], bool]
"""True if all values are surely exact; else they are looked at one by one."""


def _all_int(values: Collection[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) >= LEAST and max(values) <= MOST


def _all_float(values: Collection[Any]) -> bool:
    return set(map(type, values)) == {float} and all(map(math.isfinite, values))


def all_str(values: Collection[Any]) -> bool:
    """A sweep over texts: exact strings, all ASCII."""
    return set(map(type, values)) == {str} and all(map(str.isascii, values))


def sweep_of(cls: type[Any]) -> Sweep | None:
    """The sweep over values of this scalar class, if there is one."""
    if cls in CAREFUL:
        return {int: _all_int, float: _all_float, str: all_str}.get(cls)
    only = {cls}
    return lambda values: set(map(type, values)) == only


# anything -------------------------------------------------------------------------------------------------------------

_PLAIN = frozenset({bool, types.NoneType})
_JSON_REMEDY = (
    "Under Any only JSON values are stored: None, bool, int, float, str, list, dict. Convert it, or annotate its type."
)


def anything(value: Any) -> None:  # noqa: ANN401  # this is the check of Any
    """The check of `Any`."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # the class of Any is any class
    if kind in _PLAIN:
        return
    if kind is dict:
        if not all_str(value):
            _text_keys(value)
        each_value(value, anything)
    elif kind is list:
        each_item(value, anything)
    elif kind is str:
        _str(value)
    elif kind is int:
        if not LEAST <= value <= MOST:
            _wide(value)
    elif kind is float:
        _float(value)
    else:
        raise Inexact(f"{kind.__name__} is not a JSON value", _JSON_REMEDY)


def _text_keys(table: dict[Any, Any]) -> None:
    for key in table:
        try:
            _str(key)
        except Inexact as error:
            error.reason = f"as a key: {error.reason}"
            error.remedy = "JSON has only text as keys: convert it, or annotate the key's type."
            raise error.inside(key_step(key))  # noqa: B904  # the same error, further out


def each_item(values: Iterable[Any], check: Check) -> None:
    """Check what is in a list."""
    index = -1
    try:
        for index, item in enumerate(values):  # noqa: B007  # the error says where
            check(item)
    except Inexact as error:
        raise error.inside(f"[{index}]")  # noqa: B904  # the same error, further out


def each_value(table: dict[Any, Any], check: Check) -> None:
    """Check the values of a dict."""
    key: object = None
    try:
        for key, value in table.items():  # noqa: B007  # the error says where
            check(value)
    except Inexact as error:
        raise error.inside(key_step(key))  # noqa: B904  # the same error, further out
