"""What an annotation says about a value, as a graph of small records.

`annotations` makes a shape from an annotation, `exactness` turns it into a check, `conversion` into the types that
JSON is written from and read to. Only closed types have a shape: those whose values JSON can carry and bring back.
"""

import datetime as dt
import decimal
import enum
import types
import uuid
from collections.abc import Iterator
from typing import Any, TypeAlias

import attrs
import msgspec

from perdure.storage.extension import Extension
from perdure.storage.record_fields import Family, Field


@attrs.frozen(eq=False)
class Scalar:
    """A value that is one JSON scalar."""

    cls: type[Any]
    constraints: tuple[msgspec.Meta, ...] = ()


@attrs.frozen(eq=False)
class Anything:
    """`Any`: whatever JSON itself can say."""


@attrs.frozen(eq=False)
class Choice:
    """`Literal[...]`."""

    values: tuple[object, ...]


@attrs.frozen(eq=False)
class Enumeration:
    """An enum, stored by its value; `flag` if members can be combined."""

    cls: type[enum.Enum]
    value: type[str] | type[int]
    flag: bool


@attrs.frozen(eq=False)
class Array:
    """A list, or a tuple of any length."""

    cls: type[Any]
    item: "Shape"


@attrs.frozen(eq=False)
class Bag:
    """A set or frozenset."""

    cls: type[Any]
    item: "Shape"


@attrs.frozen(eq=False)
class Row:
    """A tuple with a type at each place."""

    items: tuple["Shape", ...]


@attrs.frozen(eq=False)
class Table:
    """A dict."""

    key: "Shape"
    value: "Shape"


@attrs.frozen(eq=False)
class Either:
    """A union."""

    members: tuple["Shape", ...]


@attrs.define(eq=False)
class Record:
    """A class whose fields are known. `fields` are filled after it exists: a record may contain itself."""

    cls: type[Any]
    annotation: object
    family: Family
    fields: tuple[tuple[Field, "Shape"], ...] = ()


@attrs.frozen(eq=False)
class Model:
    """A pydantic model, which reads and writes itself."""

    cls: Any


@attrs.frozen(eq=False)
class Foreign:
    """A type of a higher layer, such as a reference."""

    extension: Extension


@attrs.define(eq=False)
class Name:
    """A recursive `type X = ...`, where it names itself."""

    alias: object
    target: "Shape | None" = None


Shape: TypeAlias = (
    Scalar | Anything | Choice | Enumeration | Array | Bag | Row | Table | Either | Record | Model | Foreign | Name
)

SCALARS: frozenset[type[Any]] = frozenset(
    {
        str, int, float, bool, types.NoneType, bytes, bytearray, uuid.UUID, decimal.Decimal,
        dt.datetime, dt.date, dt.time, dt.timedelta, msgspec.UnsetType,
    }
)  # fmt: skip
"""Types whose values are one JSON scalar."""


def children(shape: Shape) -> tuple[Shape, ...]:  # noqa: PLR0911  # one case for each shape
    """The shapes directly inside this one."""
    match shape:
        case Array() | Bag():
            return (shape.item,)
        case Row():
            return shape.items
        case Table():
            return (shape.key, shape.value)
        case Either():
            return shape.members
        case Record():
            return tuple(inner for _, inner in shape.fields)
        case Name():
            return () if shape.target is None else (shape.target,)
        case _:
            return ()


def members_of(union: Either) -> tuple[Shape, ...]:
    """The members of a union, with those of unions that are inside it by name, each once."""
    found: dict[int, Shape] = {}
    open_: list[Shape] = list(reversed(union.members))
    while open_:
        one = open_.pop()
        if id(one) in found:
            continue
        found[id(one)] = one
        if isinstance(one, Either | Name):
            open_.extend(reversed(children(one)))
    return tuple(one for one in found.values() if not isinstance(one, Either | Name))


def exact_types(shape: Shape) -> frozenset[type[Any]] | None:  # noqa: PLR0911  # one case for each shape
    """The classes that values of this shape have exactly; None if that is not known from the class."""
    match shape:
        case Scalar():
            return frozenset({int, float} if shape.cls is float else {shape.cls})
        case Choice():
            return frozenset(type(value) for value in shape.values)
        case Row():
            return frozenset({tuple})
        case Table():
            return frozenset({dict})
        case Record():
            return frozenset({dict if shape.family == "typeddict" else shape.cls})
        case Enumeration() | Array() | Bag() | Model():
            return frozenset({shape.cls})
        case _:
            return None


def reachable(shape: Shape) -> Iterator[Shape]:
    """This shape and all inside it, each once."""
    seen: set[int] = set()
    open_: list[Shape] = [shape]
    while open_:
        one = open_.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            open_.extend(children(one))


def is_text_key(shape: Shape) -> bool:
    """Whether dicts with such keys are JSON objects; others are stored as lists of pairs."""
    match shape:
        case Scalar():
            return shape.cls not in {bool, types.NoneType, bytearray, msgspec.UnsetType}
        case Enumeration():
            return not shape.flag
        case Choice():
            return {type(value) for value in shape.values} in ({str}, {int})
        case Foreign():
            return True
        case _:
            return False
