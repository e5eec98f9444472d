"""What JSON is written from and read to, where that is not the user's own type.

msgspec reads and writes most types itself. The rest is converted on the way: a reference to the string that its
extension gives, a set to a sorted list (so that equal states have equal bytes), a NamedTuple to an object (so that
fields come and go by name), and every class that has such a thing inside to a *shadow*: a Struct of the same fields.
"""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import msgspec

from perdure.storage.pydantic_model import is_root_model, lift_model, lower_model
from perdure.storage.shadow import is_native, shadow_of
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
    exact_types,
    is_text_key,
    members_of,
)
from perdure.storage.unions import raw_types, refuse_ambiguous, union_of

Step: TypeAlias = Callable[[Any], Any]

_write = msgspec.json.Encoder().encode

_ORDERED = (str, int, float, bytes)
"""Scalars that Python sorts in one way and cheaply; others are sorted by their JSON."""


@attrs.frozen
class Wire:
    """How a shape travels.

    Attributes:
        read: The type that msgspec reads.
        lower: Turns a value into what msgspec writes; None if msgspec writes it as it is.
        lift: Turns what msgspec read into a value; None if it is the value.
        decoded: The classes of what `lift` takes.
    """

    read: Any
    lower: Step | None = None
    lift: Step | None = None
    decoded: frozenset[type[Any]] = frozenset()


class Converter:
    """Finds the wire of shapes, each once."""

    def __init__(self) -> None:
        self._made: dict[int, Wire] = {}
        self._open: set[int] = set()

    def wire(self, shape: Shape) -> Wire:
        """The wire of this shape.

        Raises:
            EncodingError: It holds a union whose members look alike in JSON.
        """
        here = id(shape)
        if here in self._made:
            return self._made[here]
        if here in self._open:
            return self._inner(shape)
        self._open.add(here)
        made = self._made[here] = self._compile(shape)
        self._open.discard(here)
        return made

    def _inner(self, shape: Shape) -> Wire:
        """A shape inside itself: msgspec reads it as plain JSON, and it is converted when its turn comes."""

        def lower(value: object) -> object:
            outer = self._made[id(shape)]
            return value if outer.lower is None else outer.lower(value)

        def lift(raw: object) -> object:
            outer = self._made[id(shape)]
            read = _from_json(raw, outer.read)
            return read if outer.lift is None else outer.lift(read)

        return Wire(Any, lower, lift, raw_types(shape))

    def _compile(self, shape: Shape) -> Wire:  # noqa: C901, PLR0911, PLR0912  # one case for each shape
        match shape:
            case Scalar():
                return Wire(typing.Annotated[(shape.cls, *shape.constraints)] if shape.constraints else shape.cls)
            case Anything():
                return Wire(Any)
            case Choice():
                return _choice(shape)
            case Enumeration():
                return _enumeration(shape)
            case Array():
                return self._array(shape)
            case Bag():
                return self._bag(shape)
            case Row():
                return self._row(shape)
            case Table():
                return self._table(shape)
            case Either():
                return self._either(shape)
            case Record():
                return self._record(shape)
            case Model():
                cls = shape.cls
                read = Any if is_root_model(cls) else dict[str, Any]
                return Wire(read, lower_model, functools.partial(lift_model, cls), raw_types(shape))
            case Foreign():
                return Wire(str, shape.extension.wire, shape.extension.unwire, frozenset({str}))
            case Name():
                return self.wire(typing.cast(Shape, shape.target))

    def _array(self, shape: Array) -> Wire:
        item, cls = self.wire(shape.item), shape.cls
        if item.lower is None and item.lift is None:
            return Wire(_of(list, item.read) if cls is list else _of(tuple, item.read, ...))
        lower, lift = item.lower or _same, item.lift or _same
        if cls is list:
            return Wire(
                _of(list, item.read),
                lambda value: [*map(lower, value)],
                lambda raw: [*map(lift, raw)],
                frozenset({list}),
            )
        return Wire(
            _of(list, item.read),
            lambda value: [*map(lower, value)],
            lambda raw: tuple(map(lift, raw)),
            frozenset({list}),
        )

    def _bag(self, shape: Bag) -> Wire:
        item, cls = self.wire(shape.item), shape.cls
        if isinstance(shape.item, Scalar) and shape.item.cls in _ORDERED:
            return Wire(_of(list, item.read), sorted, cls, frozenset({list}))
        lower, lift = item.lower or _same, item.lift or _same
        return Wire(
            _of(list, item.read),
            lambda value: sorted(map(lower, value), key=_write),
            lambda raw: cls(map(lift, raw)),
            frozenset({list}),
        )

    def _row(self, shape: Row) -> Wire:
        items = [self.wire(item) for item in shape.items]
        read = _of(tuple, *(item.read for item in items))
        if all(item.lower is None and item.lift is None for item in items):
            return Wire(read)
        lowers = [item.lower or _same for item in items]
        lifts = [item.lift or _same for item in items]
        return Wire(
            read,
            lambda value: tuple(step(one) for step, one in zip(lowers, value, strict=True)),
            lambda raw: tuple(step(one) for step, one in zip(lifts, raw, strict=True)),
            frozenset({tuple}),
        )

    def _table(self, shape: Table) -> Wire:
        key, value = self.wire(shape.key), self.wire(shape.value)
        plain = all(step is None for step in (key.lower, key.lift, value.lower, value.lift))
        if is_text_key(shape.key) and plain:
            return Wire(_of(dict, key.read, value.read))
        lower_key, lift_key = key.lower or _same, key.lift or _same
        lower, lift = value.lower or _same, value.lift or _same
        if is_text_key(shape.key):
            return Wire(
                _of(dict, key.read, value.read),
                lambda table: {lower_key(k): lower(v) for k, v in table.items()},
                lambda raw: {lift_key(k): lift(v) for k, v in raw.items()},
                frozenset({dict}),
            )
        return Wire(
            _of(list, _of(tuple, key.read, value.read)),
            lambda table: [(lower_key(k), lower(v)) for k, v in table.items()],
            lambda raw: {lift_key(k): lift(v) for k, v in raw},
            frozenset({list}),
        )

    def _either(self, shape: Either) -> Wire:
        members = members_of(shape)
        refuse_ambiguous(members)
        wires = [self.wire(member) for member in members]
        lowers, rest = _lowers(members, wires)
        direct = {cls: wire.lift for wire in wires if wire.lift and wire.read is Any for cls in wire.decoded}
        lifts = {cls: wire.lift for wire in wires if wire.lift and wire.read is not Any for cls in wire.decoded}
        read = union_of(wire.read for wire in wires if wire.read is not Any)
        if not lowers and not lifts and not direct and rest is None:
            return Wire(read)

        def lower(value: object) -> object:
            return lowers.get(type(value), rest or _same)(value)

        def lift(raw: object) -> object:
            return lifts.get(type(raw), _same)(raw)

        def lift_apart(raw: object) -> object:
            step = direct.get(type(raw))
            return lift(_from_json(raw, read)) if step is None else step(raw)

        decoded = raw_types(shape).union(*(wire.decoded for wire in wires))
        return Wire(Any, lower, lift_apart, decoded) if direct else Wire(read, lower, lift, decoded)

    def _record(self, shape: Record) -> Wire:
        if is_native(shape):
            return Wire(shape.annotation)
        shadow = shadow_of(shape, [(field, self.wire(inner)) for field, inner in shape.fields])
        return Wire(shadow.struct, shadow.lower, shadow.lift, frozenset({shadow.struct}))


def _of(container: type[Any], *arguments: Any) -> Any:  # noqa: ANN401  # annotations have no common type
    """`list[item]`, for items that type checkers cannot know."""
    return types.GenericAlias(container, arguments)


def _same(value: Any) -> Any:  # noqa: ANN401  # identity
    return value


def _from_json(raw: object, read: Any) -> Any:  # noqa: ANN401  # the type is known at run time
    return msgspec.convert(raw, read, builtin_types=(), str_keys=True)


def _lowers(members: tuple[Shape, ...], wires: list[Wire]) -> tuple[Mapping[type[Any], Step], Step | None]:
    """How values of a union are lowered: by their class, and else as the one extension in it."""
    by_type: dict[type[Any], Step] = {}
    rest: Step | None = None
    for member, wire in zip(members, wires, strict=True):
        types = exact_types(member)
        if types is None:
            rest = wire.lower
        for cls in types or ():
            by_type[cls] = wire.lower or _same
    return ({}, None) if rest is None and all(step is _same for step in by_type.values()) else (by_type, rest)


def _choice(shape: Choice) -> Wire:
    types = {type(value) for value in shape.values}
    if types <= {str, int, type(None)}:
        return Wire(typing.Literal[shape.values])
    allowed = frozenset((type(value), value) for value in shape.values)

    def lift(raw: object) -> object:
        if (type(raw), raw) not in allowed:
            raise ValueError(f"{raw!r} is none of {', '.join(map(repr, shape.values))}")
        return raw

    return Wire(union_of(types), None, lift, frozenset(types))


def _enumeration(shape: Enumeration) -> Wire:
    if shape.flag:
        return Wire(int, lambda member: member.value, shape.cls, frozenset({int}))
    return Wire(shape.cls)
