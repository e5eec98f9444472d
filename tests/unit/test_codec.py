"""Codecs as their callers use them: references inside everything, records, evolution, pickles and digests."""

import dataclasses
import inspect
import sys
import threading
import timeit
import typing as t
from collections.abc import Callable

import attrs
import msgspec
import pytest

from perdure.errors import DecodingError, EncodingError
from perdure.storage.codec import codec_for, digest, register_extension, register_wire
from perdure.storage.record_codec import RecordCodec, join, split

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PICKLE = f"cloudpickle@{PYTHON}"


@attrs.define
class Counter:
    """Stands for an actor class: an attrs class that msgspec would write as an object."""

    total: int = 0


@attrs.frozen
class Handle:
    """Stands for a reference."""

    key: str


class _CounterExtension:
    def wire(self, value: object) -> str:
        if not isinstance(value, Handle):
            raise EncodingError("reference", f"{value!r} is no reference", "Pass one.")
        return value.key

    def unwire(self, text: str) -> Handle:
        return Handle(text)


register_extension(lambda annotation: _CounterExtension() if annotation is Counter else None)
register_wire(Handle, lambda handle: handle.key)


@dataclasses.dataclass
class Team:
    lead: Counter
    crew: list[Counter]
    deputy: Counter | None = None
    seats: int = dataclasses.field(init=False, default=3)


@attrs.define
class Company:
    teams: dict[str, Team]
    founder: Counter | int = 0
    names: list[str] = attrs.Factory(lambda self: list(self.teams), takes_self=True)


class Entry(t.TypedDict):
    who: Counter
    note: t.NotRequired[str]


class Place(t.NamedTuple):
    who: Counter
    rank: int = 1


class Wrapped(msgspec.Struct, tag=True, frozen=True):
    who: Counter = msgspec.field(name="holder")


class Bare(msgspec.Struct, tag=True):
    count: int


def _no_branches() -> "list[Branch]":
    return []


@dataclasses.dataclass(frozen=True)
class Branch:
    who: Counter
    kids: "list[Branch]" = dataclasses.field(default_factory=_no_branches)
    up: "Branch | int | None" = None


# To a type checker a reference is the actor; here nothing says so.
H: t.Any = Handle("a")
HANDLES: list[tuple[t.Any, t.Any]] = [
    (Counter, H),
    (list[Counter], [H]),
    (Counter | None, None),
    (Counter | int, H),
    (t.Annotated[Counter, "reference"], H),
    (dict[Counter, set[Counter]], {H: {H, Handle("b")}}),
    (tuple[Counter, ...], (H, H)),
    (tuple[int, Counter] | None, (1, H)),
    (Team, Team(H, [H])),
    (Company, Company({"x": Team(H, [], H)}, H)),
    (Entry, {"who": H}),
    (Place, Place(H)),
    (Wrapped | Bare, Wrapped(H)),
    (list[Wrapped | Bare], [Bare(1), Wrapped(H)]),
    (Branch, Branch(H, [Branch(H)], up=Branch(H, up=4))),
]


@pytest.mark.parametrize(("annotation", "value"), HANDLES, ids=range(len(HANDLES)))
def test_references_are_stored_as_strings_wherever_they_are(annotation: object, value: object) -> None:
    """An actor's name survives inside any message and any state, and the actor itself is never written."""
    codec = codec_for(annotation)
    raw = codec.encode(value)
    assert codec.name == "json"
    assert codec.decode(raw) == value
    assert codec.encode(codec.decode(raw)) == raw
    assert b"total" not in raw


def test_what_is_no_reference_is_refused_with_its_path() -> None:
    """A live actor never ends up in a row, however deep it was put."""
    with pytest.raises(EncodingError) as caught:
        codec_for(Company).encode(Company({"x": Team(H, [H, t.cast(t.Any, Counter())])}), "args.company")
    assert caught.value.path == 'args.company.teams["x"].crew[1]'
    with pytest.raises(EncodingError, match="told apart"):
        codec_for(Counter | str)
    with pytest.raises(EncodingError, match="told apart"):
        codec_for(Counter | t.Any)


# records --------------------------------------------------------------------------------------------------------------


def test_a_record_is_one_object_and_back() -> None:
    """Arguments lie in the row as one readable JSON object."""
    record = RecordCodec({"n": int, 'odd "name"': list[str], "who": Counter})
    fields = record.encode({"n": 3, 'odd "name"': ["ä"], "who": H}, "args")
    text = join(fields)
    assert text == '{"n":3,"odd \\"name\\"":["ä"],"who":"a"}'
    assert split(text) == split(text.encode()) == fields
    assert record.decode(text) == {"n": 3, 'odd "name"': ["ä"], "who": H}
    assert record.name == "json"
    assert join({}) == "{}"


def test_names_come_and_go() -> None:
    """Adding and removing a field or an argument loses no stored row."""
    assert RecordCodec({"b": int, "c": int}).decode('{"a": 1, "b": 2}') == {"b": 2}


def test_errors_in_a_record_name_the_field() -> None:
    """The caller learns which argument it was."""
    record = RecordCodec({"n": int, "xs": list[int]})
    with pytest.raises(EncodingError) as caught:
        record.encode({"n": 1, "xs": [1, "2"]}, "args")
    assert caught.value.path == "args.xs[1]"
    with pytest.raises(EncodingError, match="no such field"):
        record.encode({"m": 1})
    with pytest.raises(DecodingError, match=r"^n, the stored int"):
        record.decode('{"n": "1"}')
    with pytest.raises(DecodingError):
        record.decode("[]")


def test_unchanged_fields_keep_their_bytes() -> None:
    """A large state of which one field changed is proved for that field only."""
    record = RecordCodec({"n": int, "o": object, "xs": set[str]})
    values: dict[str, object] = {"n": 1, "o": 1j, "xs": {"b", "a"}}
    known = record.encode(values)
    assert record.encode_changed(values, known, "state") == (known, {})
    assert record.encode_changed({**values, "n": 2}, known, "state") == ({**known, "n": b"2"}, {"n": b"2"})
    with pytest.raises(EncodingError) as caught:
        record.encode_changed({**values, "n": True}, known, "state")
    assert caught.value.path == "state.n"


# evolution ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class New:
    kept: int
    added: list[int] = dataclasses.field(default_factory=list[int])


@dataclasses.dataclass
class NewShadowed:
    kept: int
    added: set[int] = dataclasses.field(default_factory=set[int])
    half: float = 0.5


class NewTuple(t.NamedTuple):
    kept: int
    added: str = "new"


@attrs.define
class NewAttrs:
    kept: int
    who: Counter | None = None


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(New, New(1)), (NewShadowed, NewShadowed(1)), (NewTuple, NewTuple(1)), (NewAttrs, NewAttrs(1))],
    ids=range(4),
)
def test_stored_classes_load_after_their_fields_changed(annotation: type[t.Any], expected: object) -> None:
    """A new field with a default and a removed one need no ceremony."""
    assert codec_for(annotation).decode(b'{"gone":[1],"kept":1}') == expected
    with pytest.raises(DecodingError, match="kept"):
        codec_for(annotation).decode(b"{}")


# pickles --------------------------------------------------------------------------------------------------------------


class Sparse(t.TypedDict, total=False):
    note: str


class Opaque:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)


@dataclasses.dataclass
class HoldsOpaque:
    opaque: Opaque


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Opaque, Opaque(1)),
        (list[Opaque], [Opaque(1)]),
        (HoldsOpaque, HoldsOpaque(Opaque(1))),
        (object, {1, (2, 3)}),
        (inspect.Parameter.empty, 1j),
        (complex, 1j),
        (type[int], int),
    ],
    ids=range(7),
)
def test_what_is_not_closed_is_pickled(annotation: object, value: object) -> None:
    """Any value that Python can pickle may be state, and the row says which Python it needs."""
    codec = codec_for(annotation)
    raw = codec.encode(value)
    assert codec.name == PICKLE
    assert msgspec.json.decode(raw)["python"] == PYTHON
    assert codec.decode(raw) == value
    assert RecordCodec({"x": annotation, "n": int}).name == f"json+{PICKLE}"


def test_lambdas_are_pickled_by_value() -> None:
    """A function without a name to import it by is stored whole."""
    codec = codec_for(Callable[[int], int])
    add: Callable[[int], int] = lambda x: x + 1  # noqa: E731  # a lambda is the case
    assert codec.decode(codec.encode(add))(1) == 2


def test_what_cannot_be_pickled_is_refused_with_its_path() -> None:
    """A lock in the state is found at the commit, not at the restart."""
    with pytest.raises(EncodingError) as caught:
        codec_for(object).encode(threading.Lock(), "state.lock")
    assert caught.value.path == "state.lock"


@pytest.mark.parametrize("annotation", [t.Any, dict[str, t.Any], New, Sparse], ids=str)
def test_a_pickle_in_a_row_is_never_loaded_because_the_row_says_so(annotation: object) -> None:
    """Whoever can write rows cannot run code, where the code declares typed JSON."""
    raw = codec_for(object).encode(1j)
    with pytest.raises(DecodingError, match=r"declares a codec of json, but the row holds cloudpickle"):
        codec_for(annotation).decode(raw)


@pytest.mark.parametrize("raw", [b"3", b"{}", b'{"python":"3.11"}', b"[1]", b'{"$cloudpickle":1,"python":"x"}'])
def test_json_where_a_pickle_is_declared_is_refused(raw: bytes) -> None:
    """A changed annotation is told from a damaged row."""
    with pytest.raises(DecodingError, match=rf"declares {PICKLE}, but the row holds json"):
        codec_for(object).decode(raw)


def test_a_pickle_of_another_python_is_refused() -> None:
    """A new Python does not guess at the old one's pickles."""
    raw = codec_for(object).encode(1).replace(PYTHON.encode(), b"3.9")
    with pytest.raises(DecodingError, match=r"cloudpickle@3\.9"):
        codec_for(object).decode(raw)


# digests --------------------------------------------------------------------------------------------------------------


def test_equal_arguments_have_equal_digests() -> None:
    """A replay is checked against what was really asked, whatever the order of sets and keys."""
    names = [f"n{number}" for number in range(50)]
    one = digest((1, {"a": 1, "b": 2}, set(names)), {"x": H, "y": 2})
    other = digest((1, {"b": 2, "a": 1}, {*names[25:], *names[:25]}), {"y": 2, "x": H})
    assert one is not None
    assert len(one) == 32
    assert one == other
    assert one != digest((2, {"a": 1, "b": 2}, set(names)), {"x": H, "y": 2})
    assert digest((Handle("a"),), {}) != digest((Handle("b"),), {})


def test_arguments_without_json_have_no_digest() -> None:
    """Where nothing can be compared, nothing is claimed."""
    assert digest((object(),), {}) is None
    assert digest((), {"x": open}) is None


# speed ----------------------------------------------------------------------------------------------------------------


@attrs.define
class Article:
    title: str
    score: float
    tags: list[str]
    meta: dict[str, t.Any]


def test_speed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The cost of exactness is seen by whoever works here (`-s`); machines differ, so none is demanded."""
    record, state = RecordCodec({"n": int}), codec_for(list[Article])
    articles = [Article(f"article {n}" * 3, n / 3, ["a", "b"], {"n": n, "deep": [1, {"x": None}]}) for n in range(95)]
    raw = state.encode(articles)
    values = {"n": 3}

    def microseconds(action: Callable[[], object], times: int) -> float:
        return min(timeit.repeat(action, number=times, repeat=5)) / times * 1e6

    lines = {
        "add(n: int)": microseconds(lambda: record.encode(values, "args"), 5000),
        f"{len(raw)} bytes of nested state": microseconds(lambda: state.encode(articles), 20),
        "the same, unchanged": microseconds(lambda: state.encode_changed(articles, raw, "state"), 20),
    }
    with capsys.disabled():
        print(*(f"\n{name}: {took:.1f} µs" for name, took in lines.items()))  # noqa: T201  # it prints


def test_what_looks_like_a_pickle_is_refused_where_it_is_written() -> None:
    """Data that bears the mark of a pickle fails at its sender, and does not park whoever receives it."""
    for annotation in (dict[str, str], dict[str, t.Any], t.Any):
        with pytest.raises(EncodingError, match="cloudpickle") as caught:
            RecordCodec({"it": annotation}).text({"it": {"$cloudpickle": "x"}}, "args")
        assert caught.value.path == "args.it"
    quoted = RecordCodec({"it": str}).text({"it": '{"$cloudpickle":'}, "args")
    assert RecordCodec({"it": str}).decode(quoted) == {"it": '{"$cloudpickle":'}
