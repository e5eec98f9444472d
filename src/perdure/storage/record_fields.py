"""Which fields a user's class has: read from dataclasses, attrs classes, Structs, TypedDicts and NamedTuples."""

import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import attrs
import msgspec
import typing_extensions

from perdure.errors import EncodingError

Family: TypeAlias = Literal["dataclass", "attrs", "struct", "typeddict", "namedtuple"]
"""The kinds of classes whose fields are known."""

_STATEFUL = (str, bytes, bytearray, int, float, complex, list, dict, set, frozenset, tuple, BaseException, type)
"""Bases that hold something beside the fields."""


@attrs.frozen
class Field:
    """One field of a record.

    Attributes:
        name: The name in Python.
        wire_name: The name in JSON.
        annotation: What it holds, resolved, type variables replaced.
        missing: Makes the value where the stored record lacks the field, from the half-made object; None if required.
        optional: The field may be absent from a complete value (TypedDict only).
    """

    name: str
    wire_name: str
    annotation: object
    missing: Callable[[Any], object] | None = None
    optional: bool = False


def family(cls: type[Any]) -> Family | None:
    """The family of this class; None if its fields are not known."""
    if typing_extensions.is_typeddict(cls):
        return "typeddict"
    if issubclass(cls, msgspec.Struct):
        return "struct"
    bases: tuple[type[Any], ...] = cls.__mro__
    if tuple in bases and hasattr(cls, "_fields"):
        return "namedtuple"
    if issubclass(cls, _STATEFUL):
        return None
    if attrs.has(cls):
        return "attrs"
    return "dataclass" if dataclasses.is_dataclass(cls) else None


def read_fields(cls: type[Any], arguments: tuple[object, ...]) -> list[Field]:
    """The fields of a class, in its order; `arguments` are those of a generic alias.

    Raises:
        EncodingError: An annotation cannot be resolved, or a field cannot be restored.
    """
    hints = _hints(cls, arguments)
    readers: dict[str | None, Callable[[type[Any], Mapping[str, object]], Iterator[Field]]] = {
        "dataclass": _dataclass_fields,
        "attrs": _attrs_fields,
        "struct": _struct_fields,
        "typeddict": _typeddict_fields,
        "namedtuple": _namedtuple_fields,
    }
    return list(readers[family(cls)](cls, hints))


def other_slots(cls: type[Any], names: Collection[str]) -> frozenset[str]:
    """The slots of a class that are none of its fields."""
    slots: set[str] = set()
    for base in cls.__mro__:
        own: str | Iterable[str] = vars(base).get("__slots__", ())
        slots.update([own] if isinstance(own, str) else own)
    return frozenset(slots) - {"__dict__", "__weakref__"} - frozenset(names)


def _constant(value: object) -> Callable[[Any], object]:
    return lambda _made: value


def _made_by(factory: Callable[[], object]) -> Callable[[Any], object]:
    return lambda _made: factory()


_FACTORY: Any = attrs.Factory  # a class; its stub calls it a function


def _dataclass_fields(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar) or hint is dataclasses.InitVar:
            raise EncodingError(
                cls.__qualname__,
                f"{name!r} is an InitVar, which is gone once the object is made, so it cannot be made again",
                "Make it a field, or store another class.",
            )
    for field in dataclasses.fields(cls):
        missing = None
        if field.default is not dataclasses.MISSING:
            missing = _constant(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            missing = _made_by(field.default_factory)
        yield Field(field.name, field.name, hints[field.name], missing)


def _attrs_fields(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for attribute in attrs.fields(cls):
        name = attribute.name
        if name.startswith("_"):
            raise EncodingError(
                cls.__qualname__,
                f"field {name!r} is private, and attrs names its argument {attribute.alias!r}: it would be lost",
                f"Call the field {name.lstrip('_')!r}, or make the class a dataclass.",
            )
        missing = None
        default: Any = attribute.default
        if isinstance(default, _FACTORY):
            missing = default.factory if default.takes_self else _made_by(default.factory)
        elif default is not attrs.NOTHING:
            missing = _constant(default)
        yield Field(name, name, hints.get(name, attribute.type or Any), missing)


def _struct_fields(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for field in msgspec.structs.fields(cls):
        missing = None
        if field.default is not msgspec.NODEFAULT:
            missing = _constant(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            missing = _made_by(field.default_factory)
        yield Field(field.name, field.encode_name, hints[field.name], missing)


def _typeddict_fields(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for name, hint in hints.items():
        # Under `from __future__ import annotations` __required_keys__ misses these marks (CPython gh-97727).
        marks = _marks(hint)
        required = typing_extensions.Required in marks or (
            typing_extensions.NotRequired not in marks and name in cls.__required_keys__
        )
        yield Field(name, name, hint, None, not required)


def _marks(hint: object) -> set[object]:
    found: set[object] = set()
    while (origin := typing.get_origin(hint)) in QUALIFIERS or origin is typing.Annotated:
        found.add(origin)
        hint = typing.get_args(hint)[0]
    return found


def _namedtuple_fields(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for name in cls._fields:
        missing = _constant(cls._field_defaults[name]) if name in cls._field_defaults else None
        yield Field(name, name, hints.get(name, Any), missing)


QUALIFIERS = {typing.Required, typing.NotRequired, typing.Final, typing_extensions.ReadOnly}
"""Marks around an annotation that say nothing about the value."""


def _hints(cls: type[Any], arguments: tuple[object, ...]) -> dict[str, object]:
    """The resolved annotations of a class, with the type variables of generic bases replaced."""
    try:
        # The class itself by name: one defined in a function may well name itself.
        hints = typing_extensions.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise EncodingError(
            cls.__qualname__,
            f"an annotation cannot be resolved: {error}",
            "Define or import the name at the top of the module, not under TYPE_CHECKING or in a function.",
        ) from error
    bound = dict(_bound_variables(cls, arguments))
    if not bound:
        return hints
    if family(cls) == "typeddict":  # its annotations hold those of its bases, so nobody knows whose they were
        everywhere = {variable: given for variables in bound.values() for variable, given in variables.items()}
        return {name: substitute(hint, everywhere) for name, hint in hints.items()}
    owners = {name: base for base in reversed(cls.__mro__) for name in own_annotations(base)}
    return {name: substitute(hint, bound.get(owners.get(name, cls), {})) for name, hint in hints.items()}


def resolved_alias(alias: Any, value: object) -> object:  # noqa: ANN401  # annotations have no common type
    """What a type alias stands for, with the names that are written as strings in it looked up where it was made.

    Raises:
        EncodingError: A name in it is not there.
    """
    names = vars(sys.modules.get(getattr(alias, "__module__", None) or "", typing))
    # get_type_hints looks names up in the annotations of something, so there must be something.
    carrier = type("alias", (), {"__annotations__": {"value": value}})
    try:
        return typing_extensions.get_type_hints(carrier, names, {alias.__name__: alias}, include_extras=True)["value"]
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise EncodingError(
            str(alias), f"the alias cannot be resolved: {error}", "Define the names in it at the top of its module."
        ) from error


def own_annotations(cls: type[Any]) -> Mapping[str, object]:
    """The annotations written in the body of this class, as they are there."""
    return typing_extensions.get_annotations(cls, format=typing_extensions.Format.FORWARDREF)


def _bound_variables(cls: type[Any], arguments: tuple[object, ...]) -> Iterator[tuple[type[Any], dict[object, object]]]:
    """For a class and each generic base: what its type variables stand for."""
    parameters: tuple[object, ...] = getattr(cls, "__parameters__", ())
    mine = dict(zip(parameters, arguments, strict=False))
    if mine:
        yield cls, mine
    bases: tuple[object, ...] = vars(cls).get("__orig_bases__", cls.__bases__)
    for base in bases:
        origin = typing.get_origin(base)
        if origin is not None and origin not in (typing.Generic, typing.Protocol):
            yield from _bound_variables(origin, tuple(substitute(given, mine) for given in typing.get_args(base)))
        elif isinstance(base, type) and base is not object:
            yield from _bound_variables(base, ())


def substitute(hint: Any, bound: Mapping[object, object]) -> object:  # noqa: ANN401  # subscripting is what it is for
    """The annotation with type variables replaced."""
    if isinstance(hint, TypeVar):
        return bound.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not bound or not parameters or (isinstance(hint, type) and not typing.get_origin(hint)):
        return hint
    alias: Any = hint
    return alias[tuple(bound.get(one, one) for one in parameters)]
