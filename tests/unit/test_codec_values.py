"""Which values are stored as they are, and which are refused with the path to what would be lost."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import sys
import typing as t
import uuid
import zoneinfo
from collections.abc import Mapping, Sequence

import attrs
import msgspec
import pytest
import typing_extensions as te

from perdure.errors import EncodingError
from perdure.storage.codec import codec_for

T = t.TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass
class Counted:
    words: list[str]
    _private: int = 3
    total: int = dataclasses.field(init=False, default=0)
    kinds: t.ClassVar[int] = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    name: str
    kids: "tuple[Tree, ...]" = ()
    seen: "set[str]" = dataclasses.field(default_factory=set[str])


@attrs.define
class Page:
    title: str
    meta: dict[str, t.Any] = attrs.Factory(dict[str, t.Any])
    size: int = attrs.field(init=False, default=7)
    rank: int = attrs.field(default=1, alias="order", validator=attrs.validators.ge(0))


@attrs.define
class Private:
    _x: int = 1


class Slotted:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class OnSlots(Slotted):
    x: int


def _hiding() -> OnSlots:
    value = OnSlots(1)
    value.hidden = 2
    return value


@attrs.frozen(cache_hash=True)
class Hashed:
    x: int

    @functools.cached_property
    def double(self) -> int:
        return self.x * 2


class GenericMovie(t.TypedDict, t.Generic[T]):
    name: T


class NumberedMovie(GenericMovie[int]):
    year: int


class Movie(t.TypedDict):
    name: str
    year: t.NotRequired[int]


class Pair(t.NamedTuple):
    left: int
    right: str = "r"


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str
    homes: set[Colour] = set()


@dataclasses.dataclass
class Box(t.Generic[T]):
    inside: T


@dataclasses.dataclass
class IntBox(Box[int]):
    more: Box[str]


UserId = t.NewType("UserId", int)
Json = te.TypeAliasType("Json", "None | int | str | list[Json] | dict[str, Json]")  # noqa: RUF036  # as people write it

UTC = dt.UTC
WRONG: t.Any = b"wrong"
ACCEPTED: list[tuple[t.Any, t.Any]] = [
    (str, "Grüße 🎈"),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (int, 2**70),
    (float, 1.5),
    (float, -0.0),
    (bool, True),
    (None, None),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"x")),
    (uuid.UUID, uuid.UUID(int=7)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (dt.datetime, dt.datetime(2024, 2, 29, 1, 2, 3, 456789)),  # noqa: DTZ001  # naive is the case
    (dt.datetime, dt.datetime(2024, 1, 1, tzinfo=UTC)),
    (dt.datetime, dt.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna"))),
    (dt.date, dt.date(1, 1, 1)),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Right, Right.READ | Right.WRITE),
    (t.Literal["a", 1, None], 1),  # noqa: PYI061  # as people write it
    (t.Literal[True], True),
    (t.Literal[Colour.RED], Colour.RED),
    (t.Literal["a"] | str, "z"),  # noqa: PYI051  # as people write it
    (int | float, 1),
    (int | float, 1.0),
    (int | str | None, None),
    (t.Optional[Point], Point(1)),  # noqa: UP045  # the old spelling
    (list, [1, "a", [None]]),
    (dict, {"a": {}}),
    (tuple, (1, "a")),
    (set, {1, "a", None}),
    (t.Any, {"a": [1, 2.5, True]}),
    (list[int], []),
    (list[int | None], [None, 3]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2)),
    (set[int], {3, 1, 2}),
    (frozenset[tuple[int, str]], frozenset({(1, "a"), (0, "b")})),
    (set[frozenset[int]], {frozenset({1}), frozenset({2})}),
    (dict[int, str], {1: "a"}),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[tuple[int, int], str], {(1, 2): "a"}),
    (dict[bool, str], {True: "t"}),
    (dict[int | str, int], {1: 1, "1": 2}),
    (dict[float, int], {1.5: 1}),
    (dict[dt.date, set[int]], {dt.date(2024, 1, 1): {2, 1}}),
    (Sequence[int], [1]),
    (Mapping[str, int], {"a": 1}),
    (t.Annotated[int, "note"], 3),
    (t.Annotated[int, msgspec.Meta(ge=0)], 3),
    (UserId, UserId(4)),
    (Json, {"a": [1, None, {"b": []}]}),
    (list[Json | None], [["a"], None]),
    (Point, Point(1, 2.0)),
    (Counted, Counted(["a"], 9)),
    (Tree, Tree("a", (Tree("b", seen={"y", "x"}),))),
    (Page, Page("t", {"x": [1]}, order=4)),
    (Movie, {"name": "m"}),
    (Movie, {"name": "m", "year": 1}),
    (Pair, Pair(1)),
    (OnSlots, OnSlots(1)),
    (Hashed, Hashed(1)),
    (NumberedMovie, {"name": 1, "year": 2}),
    (list[Pair], [Pair(1, "x")]),
    (Cat | Dog, Dog("d", {Colour.RED, Colour.BLUE})),
    (Cat | Dog | None, Cat("c")),
    (Box[int], Box[int](3)),
    (Box[set[int]], Box({1})),
    (IntBox, IntBox(1, Box("x"))),
    (dict[str, Box[Pair]], {"a": Box(Pair(1))}),
]


@pytest.mark.parametrize(("annotation", "value"), ACCEPTED, ids=range(len(ACCEPTED)))
def test_accepted_values_come_back_as_they_were(annotation: object, value: object) -> None:
    """What was stored is what is read, with the same classes, and stays byte for byte the same when stored again."""
    codec = codec_for(annotation)
    raw = codec.encode(value)
    back = codec.decode(raw)
    assert codec.name == "json"
    assert back == value
    assert type(back) is type(value)
    assert codec.encode(back) == raw == codec.encode_changed(value, raw, "value")
    assert codec.decode(raw.decode()) == value
    msgspec.json.decode(raw)


class Text(str):
    __slots__ = ()


def _cycle() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


def _with_extra() -> Point:
    point = Point(1)
    vars(point)["extra"] = 3
    return point


REFUSED: list[tuple[t.Any, t.Any, str, str]] = [
    (int, True, "", "bool"),
    (float, True, "", "bool"),
    (float, math.nan, "", "null"),
    (float, math.inf, "", "null"),
    (float, 2**53 + 1, "", "not exact"),
    (int, 10**5000, "", "too wide"),
    (int, "1", "", "str"),
    (str, Text("a"), "", "subclass"),
    (str, Colour.RED, "", "Colour"),
    (str, "\ud800", "", "surrogate"),
    (list[str], ["a", "\ud800"], "[1]", "surrogate"),
    (dict[str, int], {"\ud800": 1}, '["\ud800"]', "key"),
    (list[int], (1,), "", "tuple"),
    (tuple[int, ...], [1], "", "list"),
    (tuple[int, str], (1,), "", "has 1"),
    (list[int], [1, 2, True], "[2]", "bool"),
    (dict[str, int], collections.OrderedDict(a=1), "", "subclass"),
    (dict[str, list[int]], collections.defaultdict(list), "", "subclass"),
    (dict[str, int], {1: 1}, "[1]", "key"),
    (dict[str, list[float]], {"x": [1.0, math.nan]}, '["x"][1]', "null"),
    (t.Any, {"x": [1, 2, 3, (1,)]}, '["x"][3]', "not a JSON value"),
    (t.Any, {1: 2}, "[1]", "key"),
    (t.Any, math.nan, "", "null"),
    (t.Any, Point(1), "", "Point"),
    (t.Any, _cycle(), "", "contains itself"),
    (t.Any, {"$cloudpickle": "", "python": "3.11"}, "", "cloudpickle"),
    (list, [{1}], "[0]", "not a JSON value"),
    (set[float], {math.inf}, "[inf]", "null"),
    (Sequence[int], (1,), "", "tuple"),
    (decimal.Decimal, decimal.Decimal("NaN"), "", "NaN"),
    (dt.date, dt.datetime(2024, 1, 1, tzinfo=UTC), "", "subclass"),
    (dt.datetime, dt.datetime(2024, 1, 1, fold=1), "", "fold"),  # noqa: DTZ001  # naive is the case
    (dt.datetime, dt.datetime(1890, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna")), "", "whole minutes"),
    (t.Literal["a", 1], True, "", "one of"),
    (t.Literal["a"], "b", "", "one of"),
    (Colour, "red", "", "str"),
    (int | None, 1.5, "", "float"),
    (Cat | Dog, Point(1), "", "Point"),
    (t.Annotated[int, msgspec.Meta(ge=0)], -1, "", ">= 0"),
    (Point, Point3(1), "", "subclass"),
    (Point, Point(WRONG), ".x", "bytes"),
    (Point, _with_extra(), "", "'extra'"),
    (Counted, Counted(["a", WRONG]), ".words[1]", "bytes"),
    (Page, Page("t", {"x": [1, 2, 3, {4}]}), '.meta["x"][3]', "set"),
    (Movie, {"name": "m", "z": 1}, '["z"]', "no such key"),
    (Movie, {}, "", "missing"),
    (OnSlots, _hiding(), "", "'hidden'"),
    (NumberedMovie, {"name": "a", "year": 2}, '["name"]', "str"),
    (Pair, Pair(WRONG), ".left", "bytes"),
    (Pair, (1, "a"), "", "tuple"),
    (Tree, Tree("a", (Tree("b", seen={WRONG}),)), ".kids[0].seen[b'wrong']", "bytes"),
]


@pytest.mark.parametrize(("annotation", "value", "path", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_values_that_would_change_are_refused_with_their_path(
    annotation: object, value: object, path: str, reason: str
) -> None:
    """Nothing is lost silently: the caller learns which part cannot be stored, before anything is written."""
    codec = codec_for(annotation)
    for known in (None, b""):
        with pytest.raises(EncodingError) as caught:
            codec.encode(value, "args.it") if known is None else codec.encode_changed(value, known, "args.it")
        assert caught.value.path == "args.it" + path
        assert reason in caught.value.reason
        assert caught.value.remedy


if t.TYPE_CHECKING:
    from fractions import Fraction


@dataclasses.dataclass
class Dangling:
    x: "Fraction"


@dataclasses.dataclass
class WithInitVar:
    x: int
    y: dataclasses.InitVar[int]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Point | Page, "told apart"),
        (list[int] | tuple[int, ...], "told apart"),
        (set[int] | list[int], "told apart"),
        (str | dt.datetime, "told apart"),
        (Colour | str, "told apart"),
        (Cat | Pair, "told apart"),
        (dict[str, int] | Point, "told apart"),
        (Private, "private"),
        (list[Private], "private"),
        (Dangling, "resolved"),
        (WithInitVar, "InitVar"),
        ("Point", "not resolved"),
        (list["Point"], "not resolved"),
    ],
    ids=str,
)
def test_annotations_that_cannot_be_kept_are_refused_at_once(annotation: object, reason: str) -> None:
    """A message that could not be read back is found when its handler is defined, not when a row is lost."""
    with pytest.raises(EncodingError, match=reason):
        codec_for(annotation)


@dataclasses.dataclass
class Growing:
    x: int

    def __post_init__(self) -> None:
        self.x += 1


@dataclasses.dataclass
class Settled:
    x: float
    double: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.double = self.x * 2


def test_a_hook_that_changes_what_was_stored_is_found_out() -> None:
    """A __post_init__ that is not at rest would change the state at every restart."""
    with pytest.raises(EncodingError, match="comes back as"):
        codec_for(Growing).encode(Growing(1))
    assert codec_for(Settled).decode(codec_for(Settled).encode(Settled(1))) == Settled(1)


def test_what_an_object_keeps_for_itself_is_not_stored() -> None:
    """A cached property and a cached hash are worked out again, and do not break the object that came back."""
    value = Hashed(2)
    assert (value.double, hash(value)) == (4, hash(Hashed(2)))
    raw = codec_for(Hashed).encode(value)
    back = codec_for(Hashed).decode(raw)
    assert raw == b'{"x":2}'
    assert (back.double, hash(back)) == (4, hash(value))


def test_nan_is_not_taken_for_a_known_null() -> None:
    """A state whose bytes did not change is not proved again, and still NaN cannot pass for None."""
    codec = codec_for(float | None)
    with pytest.raises(EncodingError, match="null"):
        codec.encode_changed(math.nan, b"null", "total")
    assert codec.encode_changed(None, b"null", "total") == b"null"


def test_equal_sets_have_equal_bytes() -> None:
    """A set that did not change is not written again, however its hashes fell in this process."""
    names = [f"name{number}" for number in range(100)]
    assert codec_for(set[str]).encode(set(names)) == codec_for(set[str]).encode({*names[50:], *names[:50]})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_type_statements_are_read_through() -> None:
    """A `type` statement names an annotation and changes nothing about it."""
    scope: dict[str, t.Any] = {}
    exec("type Names[X] = list[X] | None\ntype Json = dict[str, Json] | list[Json | None] | int", scope)
    names = codec_for(scope["Names"][int])
    assert names.decode(names.encode([1])) == [1]
    json = codec_for(scope["Json"])
    assert json.decode(json.encode({"a": [1, None, {}]})) == {"a": [1, None, {}]}
