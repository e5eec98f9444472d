"""A Struct that stands in for a user's class where msgspec cannot read and write that class itself."""

import functools
import typing
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import msgspec

from perdure.storage.record_fields import Field, other_slots
from perdure.storage.shapes import (
    Bag,
    Choice,
    Enumeration,
    Foreign,
    Model,
    Name,
    Record,
    Shape,
    Table,
    is_text_key,
    reachable,
)
from perdure.storage.unions import union_of


@attrs.frozen
class Shadow:
    """The Struct, and the ways from the user's object to it and back."""

    struct: type[msgspec.Struct]
    lower: Callable[[Any], Any]
    lift: Callable[[Any], Any]


class WireLike(Protocol):
    """How the value of a field travels: a `Wire` of `conversion`, which imports this module."""

    @property
    def read(self) -> Any:  # noqa: ANN401  # annotations have no common type
        """The type that msgspec reads."""
        ...

    @property
    def lower(self) -> Callable[[Any], Any] | None:
        """Turns a value into what msgspec writes."""
        ...

    @property
    def lift(self) -> Callable[[Any], Any] | None:
        """Turns what msgspec read into a value."""
        ...


def is_native(record: Record) -> bool:
    """Whether msgspec alone reads and writes this class as perdure means it, with all that is inside."""
    if any(map(_needs_conversion, reachable(record))):
        return False
    try:
        msgspec.json.Decoder(record.annotation)
    except (TypeError, NameError, AttributeError, NotImplementedError):
        return False  # a newer or stranger annotation than msgspec reads: the shadow has plainer ones
    return True


def _needs_conversion(shape: Shape) -> bool:
    match shape:
        case Foreign() | Bag() | Model() | Name():
            return True
        case Enumeration():
            return shape.flag
        case Choice():
            return not {type(value) for value in shape.values} <= {str, int, type(None)}
        case Table():
            return not is_text_key(shape.key)
        case Record():
            return shape.family == "namedtuple" or _is_generic(shape) or _writes_more(shape)
        case _:
            return False


def _is_generic(record: Record) -> bool:
    """`Box[int](1)` leaves `__orig_class__` on the object, which msgspec would write."""
    return record.annotation is not record.cls or bool(getattr(record.cls, "__parameters__", ()))


def _writes_more(record: Record) -> bool:
    """What msgspec writes is all of an object's slots and `__dict__`, with what a cached_property left there."""
    cls = record.cls
    if record.family in ("dataclass", "attrs") and other_slots(cls, [field.name for field, _ in record.fields]):
        return True
    return any(isinstance(one, functools.cached_property) for base in cls.__mro__ for one in vars(base).values())


def runs_user_code(shape: Shape) -> bool:
    """Whether restoring this runs code of the user's that may change what was stored."""
    hooks = ("__post_init__", "__attrs_post_init__")
    return isinstance(shape, Record) and (any(hasattr(shape.cls, hook) for hook in hooks))


def shadow_of(record: Record, wires: Sequence[tuple[Field, WireLike]]) -> Shadow:
    """Make the stand-in for a class from the wires of its fields."""
    names = [f"f{number}" for number in range(len(wires))]
    tag = record.cls.__struct_config__ if record.family == "struct" else None
    # Every field may be missing: which may really be is the user's class to say, when the object is made.
    struct = msgspec.defstruct(
        record.cls.__name__,
        [
            (name, union_of([wire.read, msgspec.UnsetType]), msgspec.UNSET)
            for name, (_, wire) in zip(names, wires, strict=True)
        ],
        rename={name: field.wire_name for name, (field, _) in zip(names, wires, strict=True)},
        tag=tag and tag.tag,
        tag_field=tag and tag.tag_field,
    )
    lowers = [(field.name, wire.lower) for field, wire in wires]
    lifts = [(name, field, wire.lift) for name, (field, wire) in zip(names, wires, strict=True)]
    reads: Callable[[Any, str, object], Any] = _item if record.family == "typeddict" else getattr
    lower = functools.partial(_lower, struct, reads, lowers)
    make = {"dataclass": _make_bare, "attrs": _make_attrs}.get(record.family, _make_by_name)
    return Shadow(struct, lower, functools.partial(make, record.cls, lifts))


_ATTRS_HASH = "_attrs_cached_hash"

_Lift: typing.TypeAlias = tuple[str, Field, Callable[[Any], Any] | None]


def _lower(
    struct: type[msgspec.Struct],
    read: Callable[[Any, str, object], Any],
    fields: Sequence[tuple[str, Callable[[Any], Any] | None]],
    value: Any,  # noqa: ANN401  # the user's object
) -> msgspec.Struct:
    values = [(lower, read(value, name, msgspec.UNSET)) for name, lower in fields]
    return struct(*[one if lower is None or one is msgspec.UNSET else lower(one) for lower, one in values])


def _item(value: dict[str, Any], name: str, missing: object) -> object:
    return value.get(name, missing)


def _make_by_name(cls: type[Any], fields: Sequence[_Lift], raw: msgspec.Struct) -> object:
    """Structs, TypedDicts and NamedTuples are made by calling them, and know their own defaults."""
    given: dict[str, object] = {}
    for name, field, lift in fields:
        one = getattr(raw, name)
        if one is not msgspec.UNSET:
            given[field.name] = one if lift is None else lift(one)
        elif field.missing is None and not field.optional:
            raise _missing(field)
    return cls(**given)


def _make_bare(cls: type[Any], fields: Sequence[_Lift], raw: msgspec.Struct) -> object:
    """As msgspec does: without `__init__`, which may convert what was stored, but with the hook after it."""
    made: Any = object.__new__(cls)
    for name, field, lift in fields:
        one = getattr(raw, name)
        if one is msgspec.UNSET:
            if field.missing is None:
                raise _missing(field)
            one = field.missing(made)
        elif lift is not None:
            one = lift(one)
        object.__setattr__(made, field.name, one)  # frozen classes forbid the ordinary way
    after = getattr(made, "__post_init__", None)
    if after is not None:
        after()
    return made


def _make_attrs(cls: type[Any], fields: Sequence[_Lift], raw: msgspec.Struct) -> object:
    made = _make_bare(cls, fields, raw)
    after = getattr(made, "__attrs_post_init__", None)
    if after is not None:
        after()
    if hasattr(cls, _ATTRS_HASH):
        object.__setattr__(made, _ATTRS_HASH, None)  # `cache_hash=True`: attrs looks here, and its __init__ was not run
    attrs.validate(made)  # type: ignore[arg-type]  # an attrs class, chosen at run time
    return made


def _missing(field: Field) -> ValueError:
    return ValueError(f"the stored value lacks the required field {field.wire_name!r}")
