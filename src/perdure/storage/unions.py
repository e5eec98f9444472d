"""Whether the members of a union can be told apart by what they are in JSON."""

import enum
import itertools
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from perdure.errors import EncodingError
from perdure.storage.pydantic_model import is_root_model
from perdure.storage.shapes import (
    Anything,
    Array,
    Bag,
    Choice,
    Either,
    Enumeration,
    Foreign,
    Model,
    Name,
    Record,
    Row,
    Scalar,
    Shape,
    Table,
    is_text_key,
    members_of,
)

Kind: TypeAlias = Literal["null", "true or false", "integer", "number", "string", "array", "object"]

_SCALAR_KINDS: dict[type[Any], frozenset[Kind]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"true or false"}),
    int: frozenset({"integer"}),
    float: frozenset({"integer", "number"}),
}

_EVERYTHING: frozenset[Kind] = frozenset({"null", "true or false", "integer", "number", "string", "array", "object"})

_NOTHING: frozenset[Kind] = frozenset()

_RAW: dict[Kind, type[Any]] = {
    "null": type(None), "true or false": bool, "integer": int, "number": float,
    "string": str, "array": list, "object": dict,
}  # fmt: skip


def refuse_ambiguous(members: Sequence[Shape]) -> None:
    """Check the members of a union.

    Raises:
        EncodingError: Two of them look alike in JSON.
    """
    has_int = any("integer" in kinds(member) for member in members if not _is_float(member))
    for one, other in itertools.combinations(members, 2):
        # Where int is a member too, a float is what has a point: JSON keeps 1 and 1.0 apart.
        drop: frozenset[Kind] = (
            frozenset({"integer"}) if has_int and (_is_float(one) or _is_float(other)) else frozenset()
        )
        shared = (kinds(one) & kinds(other)) - drop
        if shared and not (_is_tagged(one) and _is_tagged(other)):
            what = " and ".join(sorted(shared))
            raise EncodingError(
                f"{describe(one)} | {describe(other)}",
                f"the members of this union cannot be told apart, since both are stored as {what}",
                "Use one of them, put each in a field of its own, or make them msgspec Structs with tag=True.",
            )


def kinds(shape: Shape) -> frozenset[Kind]:  # noqa: C901, PLR0911  # one case for each shape
    """What this shape is in JSON."""
    match shape:
        case Scalar():
            return _SCALAR_KINDS.get(shape.cls, frozenset({"string"}))
        case Choice():
            return _NOTHING.union(*(_kinds_of_class(type(value)) for value in shape.values))
        case Enumeration():
            return frozenset({"string" if shape.value is str else "integer"})
        case Array() | Bag() | Row():
            return frozenset({"array"})
        case Table():
            return frozenset({"object" if is_text_key(shape.key) else "array"})
        case Record():
            return frozenset({"array", "object"} if _is_array_like(shape) else {"object"})
        case Model():
            return _EVERYTHING - {"null"} if is_root_model(shape.cls) else frozenset({"object"})
        case Foreign():
            return frozenset({"string"})
        case Either():
            return _NOTHING.union(*map(kinds, members_of(shape)))
        case Name():
            return _EVERYTHING if shape.target is None else kinds(shape.target)
        case Anything():
            return _EVERYTHING


def union_of(types: Iterable[Any]) -> Any:  # noqa: ANN401  # annotations have no common type
    """The union of types that are known at run time only."""
    return typing.Union[tuple(types)]  # noqa: UP007  # `|` takes no tuple


def raw_types(shape: Shape) -> frozenset[type[Any]]:
    """The classes of plain JSON values that this shape is read from."""
    return frozenset(_RAW[kind] for kind in kinds(shape))


def _kinds_of_class(cls: type[Any]) -> frozenset[Kind]:
    if issubclass(cls, enum.Enum):
        return frozenset({"integer"} if all(type(member.value) is int for member in cls) else {"string"})
    return _SCALAR_KINDS.get(cls, frozenset({"string"}))


def _is_float(shape: Shape) -> bool:
    return isinstance(shape, Scalar) and shape.cls is float


def _is_tagged(shape: Shape) -> bool:
    return isinstance(shape, Record) and shape.family == "struct" and shape.cls.__struct_config__.tag is not None


def _is_array_like(shape: Record) -> bool:
    return shape.family == "struct" and shape.cls.__struct_config__.array_like


def describe(shape: Shape) -> str:  # noqa: PLR0911  # one case for each shape
    """The shape in a few words, for messages."""
    match shape:
        case Choice():
            return f"Literal[{', '.join(map(repr, shape.values))}]"
        case Foreign():
            return "a reference or receipt"
        case Anything():
            return "Any"
        case Row():
            return "tuple"
        case Table():
            return "dict"
        case Either() | Name():
            return "union"
        case _:
            return shape.cls.__name__
