"""From an annotation to its shape: the one reading of annotations in perdure's storage.

What has no shape is not closed (`NotClosed`), and the codec takes cloudpickle for it.
"""

import collections.abc
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import typing_extensions

from perdure.errors import EncodingError
from perdure.storage.extension import extension_for
from perdure.storage.pydantic_model import is_pydantic
from perdure.storage.record_fields import QUALIFIERS, family, read_fields, resolved_alias, substitute
from perdure.storage.shapes import (
    SCALARS,
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
)


class NotClosed(Exception):
    """The annotation names something whose parts are not known: a verdict for the codec, never the user's error."""


_ALIASES = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType))

_BUILTIN: Mapping[Any, type[Any]] = {
    collections.abc.Collection: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
}
"""Abstract collections, and the builtin that such a value must be, because it is restored as that."""


def shape_of(annotation: object) -> Shape:
    """The shape of a resolved annotation.

    Raises:
        NotClosed: A part of it is not a closed type.
        EncodingError: It names something that cannot be resolved or restored.
    """
    return _Reader().read(annotation)


class _Reader:
    """One reading of an annotation. It remembers what it is inside of, because types may contain themselves."""

    def __init__(self) -> None:
        self._records: dict[object, Record] = {}
        self._names: dict[object, Name] = {}

    def read(self, annotation: Any) -> Shape:  # noqa: ANN401  # annotations have no common type
        if annotation is Any:
            return Anything()
        extension = extension_for(annotation)
        if extension is not None:
            return Foreign(extension)
        if isinstance(annotation, str | typing.ForwardRef):
            raise EncodingError(
                str(annotation), "the annotation is a string that was not resolved", "Import what it names."
            )
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(annotation, origin, typing.get_args(annotation))
        if isinstance(annotation, type):
            return self._class(annotation)
        return self._special(annotation)

    def _special(self, annotation: Any) -> Shape:  # noqa: ANN401  # annotations have no common type; one case each
        if annotation is None:
            return Scalar(types.NoneType)
        if annotation is typing_extensions.LiteralString:
            return Scalar(str)
        if isinstance(annotation, typing.NewType | typing_extensions.NewType):
            return self.read(annotation.__supertype__)
        if isinstance(annotation, TypeVar):
            constraints, bound = annotation.__constraints__, annotation.__bound__
            return self._union(constraints) if constraints else self.read(Any if bound is None else bound)
        if isinstance(annotation, _ALIASES):
            return self._alias(annotation, annotation.__value__)
        raise NotClosed(annotation)

    def _class(self, cls: type[Any]) -> Shape:
        cls = _BUILTIN.get(cls, cls)
        if cls in SCALARS:
            return Scalar(cls)
        if cls in _CONTAINERS:
            return _CONTAINERS[cls](self, ())
        return _enumeration(cls) if issubclass(cls, enum.Enum) else self._record(cls, cls, ())

    def _generic(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Shape:  # noqa: ANN401, PLR0911  # annotations have no common type
        if origin is typing.Annotated:
            shape = self.read(arguments[0])
            metas = tuple(one for one in arguments[1:] if isinstance(one, msgspec.Meta))
            return Scalar(shape.cls, metas) if isinstance(shape, Scalar) and metas else shape
        if origin in QUALIFIERS:
            return self.read(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is typing.Literal or origin is typing_extensions.Literal:
            return Choice(arguments)
        if isinstance(origin, _ALIASES):
            bound = dict(zip(origin.__type_params__, arguments, strict=True))
            return self._alias(annotation, substitute(origin.__value__, bound))
        origin = _BUILTIN.get(origin, origin)
        if origin in _CONTAINERS:
            return _CONTAINERS[origin](self, arguments)
        if isinstance(origin, type):
            return self._record(origin, annotation, arguments)
        raise NotClosed(annotation)

    def _alias(self, alias: object, value: object) -> Shape:
        if alias in self._names:
            return self._names[alias]
        name = self._names[alias] = Name(alias)
        name.target = self.read(resolved_alias(alias, value))
        del self._names[alias]
        return name.target

    def _union(self, arguments: Iterable[object]) -> Shape:
        members: list[Shape] = []
        for shape in map(self.read, arguments):
            members.extend(shape.members if isinstance(shape, Either) else [shape])
        return _merged(members)

    def _record(self, cls: type[Any], annotation: object, arguments: tuple[object, ...]) -> Shape:
        if is_pydantic(cls):
            return Model(cls)
        known = self._records.get(annotation)
        if known is not None:
            return known
        kind = family(cls)
        if kind is None:
            raise NotClosed(annotation)
        record = self._records[annotation] = Record(cls, annotation, kind)
        record.fields = tuple((field, self.read(field.annotation)) for field in read_fields(cls, arguments))
        return record


def _merged(members: list[Shape]) -> Shape:
    """One shape for the members of a union: doubles dropped, literals gathered, all swallowed by `Any`."""
    scalars = {member.cls for member in members if isinstance(member, Scalar)}
    chosen = [value for member in members if isinstance(member, Choice) for value in member.values]
    kept: dict[object, Shape] = {}
    for member in members:
        if not isinstance(member, Choice):
            kept.setdefault(_identity(member), member)
    values = tuple(value for value in chosen if type(value) not in scalars)
    if values:
        kept["literal"] = Choice(values)
    if any(isinstance(member, Anything) for member in kept.values()):
        # A reference beside Any stays a member, for the union to be refused: its string would come back as a string.
        kept = {key: member for key, member in kept.items() if isinstance(member, Anything | Foreign)}
    return next(iter(kept.values())) if len(kept) == 1 else Either(tuple(kept.values()))


def _identity(shape: Shape) -> object:
    match shape:
        case Scalar() | Enumeration() | Model():
            return shape.cls
        case Record():
            return shape.annotation
        case Anything():
            return Any
        case _:
            return id(shape)


def _enumeration(cls: type[enum.Enum]) -> Shape:
    values: set[type[Any]] = {type(member.value) for member in cls}
    if issubclass(cls, enum.Flag):
        return Enumeration(cls, int, flag=True)
    if values in ({str}, {int}):
        return Enumeration(cls, values.pop(), flag=False)
    raise NotClosed(cls)


def _array(reader: _Reader, arguments: tuple[object, ...]) -> Shape:
    return Array(list, reader.read(arguments[0] if arguments else Any))


def _tuple(reader: _Reader, arguments: tuple[object, ...]) -> Shape:
    match arguments:
        case ():
            # `tuple` is any tuple. `tuple[()]`, the empty one, has no arguments either and is the poorer reading.
            return Array(tuple, Anything())
        case (item, end) if end is Ellipsis:
            return Array(tuple, reader.read(item))
        case _:
            return Row(tuple(map(reader.read, arguments)))


def _set(reader: _Reader, arguments: tuple[object, ...]) -> Shape:
    return Bag(set, reader.read(arguments[0] if arguments else Any))


def _frozenset(reader: _Reader, arguments: tuple[object, ...]) -> Shape:
    return Bag(frozenset, reader.read(arguments[0] if arguments else Any))


def _dict(reader: _Reader, arguments: tuple[object, ...]) -> Shape:
    key, value = arguments or (str, Any)
    return Table(Scalar(str) if key is Any else reader.read(key), reader.read(value))


_CONTAINERS: Mapping[Any, Callable[[_Reader, tuple[object, ...]], Shape]] = {
    list: _array,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    dict: _dict,
}
