"""Compiles a shape into its check: see `exactness` for what is checked and why."""

import functools
import inspect
import typing
from typing import Any

from perdure.errors import EncodingError
from perdure.storage.exactness import (
    CAREFUL,
    Check,
    Inexact,
    Sweep,
    anything,
    each_item,
    each_value,
    exactly,
    key_step,
    other_type,
    sweep_of,
)
from perdure.storage.pydantic_model import lift_model, lower_model
from perdure.storage.record_fields import other_slots
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
    members_of,
)

# Any to the type checkers, which otherwise take what was compared with them for a dict of nobody knows what.
_DICT: type[Any] = dict
_TUPLE: type[Any] = tuple


class Checker:
    """Compiles shapes into checks, each once; shapes inside themselves find the check that is being made."""

    def __init__(self) -> None:
        self._made: dict[int, Check] = {}

    def check(self, shape: Shape) -> Check:
        """The check for this shape."""
        known = self._made.get(id(shape))
        if known is not None:
            return known

        # Until the check exists, what contains itself gets a way to it.
        def later(value: object) -> None:
            self._made[id(shape)](value)

        self._made[id(shape)] = later
        made = self._made[id(shape)] = self._compile(shape)
        return made

    def _compile(self, shape: Shape) -> Check:  # noqa: C901, PLR0911, PLR0912  # one case for each shape
        match shape:
            case Scalar():
                return CAREFUL.get(shape.cls) or exactly(shape.cls)
            case Anything():
                return anything
            case Choice():
                return _choice(shape)
            case Enumeration():
                return exactly(shape.cls)
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
                return _model(shape)
            case Foreign():
                return _foreign(shape)
            case Name():
                return self.check(typing.cast(Shape, shape.target))

    def _array(self, shape: Array) -> Check:
        cls, check, sweep = shape.cls, self.check(shape.item), _sweep(shape.item)

        def check_array(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not cls:
                raise other_type(value, cls)
            if value and not (sweep and sweep(value)):
                each_item(value, check)

        return check_array

    def _bag(self, shape: Bag) -> Check:
        cls, check, sweep = shape.cls, self.check(shape.item), _sweep(shape.item)

        def check_bag(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not cls:
                raise other_type(value, cls)
            if value and not (sweep and sweep(value)):
                for item in value:
                    try:
                        check(item)
                    except Inexact as error:
                        raise error.inside(key_step(item))  # noqa: B904  # the same error, further out

        return check_bag

    def _row(self, shape: Row) -> Check:
        checks = tuple(map(self.check, shape.items))

        def check_row(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not _TUPLE:
                raise other_type(value, _TUPLE)
            if len(value) != len(checks):
                raise Inexact(
                    f"a tuple of {len(checks)} is annotated, but this has {len(value)}",
                    "Pass as many, or annotate tuple[X, ...].",
                )
            for index, check in enumerate(checks):
                try:
                    check(value[index])
                except Inexact as error:
                    raise error.inside(f"[{index}]")  # noqa: B904  # the same error, further out

        return check_row

    def _table(self, shape: Table) -> Check:
        check_key, sweep_keys = self.check(shape.key), _sweep(shape.key)
        check, sweep = self.check(shape.value), _sweep(shape.value)

        def check_table(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not _DICT:
                raise other_type(value, _DICT)
            if not value:
                return
            if not (sweep_keys and sweep_keys(value)):
                for key in value:
                    try:
                        check_key(key)
                    except Inexact as error:
                        error.reason = f"as a key: {error.reason}"
                        raise error.inside(key_step(key))  # noqa: B904  # the same error, further out
            if not (sweep and sweep(value.values())):
                each_value(value, check)

        return check_table

    def _either(self, shape: Either) -> Check:
        by_type: dict[type[Any], Check] = {}
        others: list[Check] = []
        members = members_of(shape)
        for member in members:
            types = exact_types(member)
            if types is None:
                others.append(self.check(member))
            for cls in types or ():
                # An int is exact under `int`, and only else under `float`.
                if cls not in by_type or (isinstance(member, Scalar) and cls is member.cls):
                    by_type[cls] = self.check(member)
        names = " | ".join(_name(member) for member in members)

        def check_either(value: object) -> None:
            check = by_type.get(type(value))
            if check is not None:
                check(value)
            elif others:
                others[0](value)
            else:
                raise Inexact(
                    f"{names} is annotated, but this is {type(value).__name__}",
                    "Convert it to one of these exactly, or annotate its class.",
                )

        return check_either

    def _record(self, shape: Record) -> Check:
        if shape.family == "typeddict":
            return self._typed_dict(shape)
        cls = shape.cls
        pairs = tuple((field.name, self.check(inner)) for field, inner in shape.fields)
        own = frozenset(field.name for field, _ in shape.fields)
        keeps_dict = cls.__dictoffset__ != 0
        lost = other_slots(cls, own) if shape.family == "dataclass" else ()
        in_dict = 0 if shape.family == "namedtuple" else len(own)

        def check_record(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not cls:
                raise other_type(value, cls)
            if keeps_dict and len(value.__dict__) != in_dict:
                _only_fields(value, own)
            for slot in lost:
                if hasattr(value, slot):
                    raise _lost_attribute(value, slot)
            name = ""
            try:
                for name, check in pairs:  # the error says where
                    check(getattr(value, name))
            except Inexact as error:
                raise error.inside(f".{name}")  # noqa: B904  # the same error, further out

        return check_record

    def _typed_dict(self, shape: Record) -> Check:
        checks = {field.name: self.check(inner) for field, inner in shape.fields}
        required = frozenset(field.name for field, _ in shape.fields if not field.optional)

        def undeclared(_: object) -> None:
            raise Inexact(f"{shape.cls.__name__} has no such key, and it would be lost", "Declare it, or leave it out.")

        def check_typed_dict(value: Any) -> None:  # noqa: ANN401  # any value may be offered
            if type(value) is not _DICT:
                raise other_type(value, _DICT)
            if not required <= value.keys():
                missing = ", ".join(sorted(required - value.keys()))
                raise Inexact(f"{missing} is missing from {shape.cls.__name__}", "Add it, or mark it NotRequired.")
            for key, inner in value.items():
                try:
                    checks.get(key, undeclared)(inner)
                except Inexact as error:
                    raise error.inside(key_step(key))  # noqa: B904  # the same error, further out

        return check_typed_dict


def _sweep(shape: Shape) -> Sweep | None:
    return sweep_of(shape.cls) if isinstance(shape, Scalar | Enumeration) else None


def _choice(shape: Choice) -> Check:
    allowed = frozenset((type(value), value) for value in shape.values)
    types = {type(value) for value in shape.values}
    names = ", ".join(map(repr, shape.values))

    def check_choice(value: object) -> None:
        if type(value) not in types or (type(value), value) not in allowed:
            raise Inexact(
                f"one of {names} is annotated, but this is {value!r}", "Pass one of them, or widen the Literal."
            )

    return check_choice


def _foreign(shape: Foreign) -> Check:
    wire = shape.extension.wire

    def check_foreign(value: object) -> None:
        try:
            wire(value)
        except EncodingError as error:
            raise Inexact(error.reason, error.remedy) from error

    return check_foreign


def _model(shape: Model) -> Check:
    cls = shape.cls

    def check_model(value: object) -> None:
        if type(value) is not cls:
            raise other_type(value, cls)
        # What a model writes is its own affair (excluded fields, private attributes), so the outcome is looked at.
        if lift_model(cls, lower_model(value)) != value:
            raise Inexact(
                f"this {cls.__name__} does not come back equal from its own JSON",
                "Take out what it loses: excluded and private attributes, non-finite floats, subclasses.",
            )

    return check_model


def _only_fields(value: object, own: frozenset[str]) -> None:
    """Refuse attributes that no field declares; what a cached_property keeps is computed again."""
    for name in vars(value):
        if name in own or name == "__orig_class__":
            continue
        if not isinstance(inspect.getattr_static(type(value), name, None), functools.cached_property):
            raise _lost_attribute(value, name)


def _lost_attribute(value: object, name: str) -> Inexact:
    return Inexact(
        f"the attribute {name!r} is no field of {type(value).__name__} and would be lost",
        "Declare it as a field, or keep it elsewhere.",
    )


def _name(shape: Shape) -> str:
    match shape:
        case Choice():
            return f"Literal[{', '.join(map(repr, shape.values))}]"
        case Foreign():
            return "a reference"
        case _:
            return " | ".join(sorted(cls.__name__ for cls in exact_types(shape) or ()))
