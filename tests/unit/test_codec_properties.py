"""Round trips of values that nobody thought of."""

import dataclasses
import datetime as dt
import decimal
import enum
import typing as t
import uuid
from collections.abc import Callable

import attrs
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import EncodingError
from perdure.storage.codec import codec_for
from perdure.storage.record_codec import RecordCodec


class Suit(enum.Enum):
    HEARTS = "h"
    SPADES = "s"


@dataclasses.dataclass
class Leaf:
    n: int
    names: list[str]
    at: dt.datetime | None = None


@attrs.define
class Knot:
    leaves: dict[int, Leaf]
    suits: frozenset[Suit]
    pair: tuple[float, decimal.Decimal]


class Corner(t.NamedTuple):
    x: int
    leaf: Leaf


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MOMENTS = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=-9, minutes=30))))
LEAVES = st.builds(Leaf, st.integers(), st.lists(TEXT), st.none() | MOMENTS.filter(lambda moment: not moment.fold))
SCALARS: list[tuple[t.Any, st.SearchStrategy[t.Any]]] = [
    (str, TEXT),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False)),
    (dt.date, st.dates()),
    (dt.timedelta, st.timedeltas()),
    (Suit, st.sampled_from(Suit)),
]
KNOTS = st.builds(
    Knot,
    st.dictionaries(st.integers(-(2**63), 2**63), LEAVES),
    st.frozensets(st.sampled_from(Suit)),
    st.tuples(SCALARS[2][1], SCALARS[6][1]),
)
JSON: st.SearchStrategy[t.Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | SCALARS[2][1] | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT.filter(lambda key: key != "$cloudpickle"), inner),
)


def _wider(inner: tuple[t.Any, st.SearchStrategy[t.Any]]) -> list[tuple[t.Any, st.SearchStrategy[t.Any]]]:
    annotation, values = inner
    return [
        (list[annotation], st.lists(values)),
        (dict[str, annotation], st.dictionaries(TEXT, values)),
        (tuple[annotation, int], st.tuples(values, st.integers())),
        (tuple[annotation, ...], st.lists(values).map(tuple)),
        (annotation | None, st.none() | values),
    ]


_FLAT = [*SCALARS, (Leaf, LEAVES), (Knot, KNOTS), (Corner, st.builds(Corner, st.integers(), LEAVES)), (t.Any, JSON)]
_HASHABLE = [
    *((frozenset[one], st.frozensets(values)) for one, values in SCALARS),
    *((dict[one, int], st.dictionaries(values, st.integers())) for one, values in SCALARS),
]
_ONE = [wide for inner in [*_FLAT, *_HASHABLE] for wide in _wider(inner)]
ANNOTATED = st.sampled_from([*_FLAT, *_HASHABLE, *_ONE, *(wide for inner in _ONE for wide in _wider(inner))])


@given(st.data())
def test_every_closed_value_comes_back(data: st.DataObject) -> None:
    """Whatever is accepted is restored equal, with the same bytes when it is stored again."""
    annotation, values = data.draw(ANNOTATED)
    value = data.draw(values)
    codec = codec_for(annotation)
    raw = codec.encode(value)
    back = codec.decode(raw)
    assert codec.name == "json"
    assert back == value
    assert repr(back) == repr(value) or "set" in repr(value)
    assert codec.encode(back) == raw


ANY_OBJECT: st.SearchStrategy[t.Any] = st.recursive(
    st.one_of(*(values for _, values in _FLAT), st.floats(), st.text(), st.none(), st.complex_numbers()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)


@given(st.sampled_from(_FLAT + _ONE), ANY_OBJECT)
def test_any_object_is_restored_equal_or_refused(typed: tuple[t.Any, st.SearchStrategy[t.Any]], value: object) -> None:
    """There is no third way, in which something else comes back."""
    codec = codec_for(typed[0])
    try:
        raw = codec.encode(value)
    except EncodingError:
        return
    back = codec.decode(raw)
    assert back == value
    assert type(back) is type(value) or (type(value), type(back)) == (int, float)


@given(st.integers() | st.text() | st.booleans() | st.floats(), st.integers() | st.text(st.characters()) | st.none())
def test_values_in_order_are_written_like_values_by_name(n: object, text: object) -> None:
    """A plain call has a short way to its text; what it refuses, and how, is the same."""
    record = RecordCodec({"n": int, "text": str})

    def tried(write: Callable[[], str]) -> str:
        try:
            return write()
        except EncodingError as error:
            return repr(error)

    by_name = tried(lambda: record.text({"n": n, "text": text}, "it"))
    assert tried(lambda: record.text_in_order((n, text), "it")) == by_name
