"""A sealed value opens where it was sealed, as it was sealed, under keys that are known; and nowhere else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from functools import partial

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Encrypted, SealKeyError, Signed, TamperedError, UnknownKeyError, UnsignedError, environment_keys
from perdure.errors import DecodingError, StorageError
from perdure.storage.codec import codec_for
from perdure.storage.record_codec import RecordCodec
from perdure.storage.records import Address
from perdure.storage.seal import Demanded, Seal, opened
from perdure.storage.seal_identity import (
    Identity,
    arguments_of,
    changes_of,
    failure_of,
    record_of,
    result_of,
    spelled,
    start_of,
    state_of,
)
from perdure.storage.seal_text import may_be_same, may_be_same_state

OLD, NEW = b"o" * 32, b"n" * 40
HERE = record_of("m1", "fetch#1")


class Anything:
    """Of no closed type."""


PICKLES = codec_for(Anything)
ALL: list[Seal] = [Signed([OLD], everything=True), Encrypted([OLD])]

texts = st.one_of(
    st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=9), lambda it: st.lists(it, max_size=3)).map(
        lambda value: msgspec.json.encode(value).decode()
    ),
    st.just('{"$signed":"x"}'),
    st.just('{"$encrypted":"x"}'),
)
names = st.text(max_size=6)
addresses = st.builds(Address, names, names)
identities = st.one_of(
    st.builds(arguments_of, names, addresses, names),
    st.builds(state_of, addresses, st.integers(0, 3)),
    st.builds(result_of, names),
    st.builds(changes_of, names),
    st.builds(record_of, names, names),
    st.builds(failure_of, names),
    st.builds(start_of, addresses),
)


@pytest.mark.parametrize("seal", ALL, ids=repr)
@given(text=texts, identity=identities)
def test_what_is_sealed_opens(seal: Seal, text: str, identity: Identity) -> None:
    """Whatever is stored comes back to the letter, and any SQLite tool reads it as JSON."""
    for compared in (False, True):
        stored = seal.close(text, identity, compared=compared)
        assert json.loads(stored)
        assert seal.open(stored, identity) == text
        assert opened(seal, stored, identity) == text


@pytest.mark.parametrize("seal", ALL, ids=repr)
@given(text=texts, one=identities, other=identities)
def test_a_value_moved_to_another_row_is_refused(seal: Seal, text: str, one: Identity, other: Identity) -> None:
    """What was said to one actor cannot be said to another, nor a result be made an argument."""
    stored = seal.close(text, one)
    if one != other:
        with pytest.raises(TamperedError, match=re.escape(spelled(other))):
            seal.open(stored, other)


@pytest.mark.parametrize("seal", ALL, ids=repr)
@settings(max_examples=200)
@given(text=texts, draw=st.data())
def test_any_changed_letter_is_refused(seal: Seal, text: str, draw: st.DataObject) -> None:
    """There is no letter of a sealed value that another could change, not even one that decodes alike."""
    stored = seal.close(text, HERE)
    at = draw.draw(st.integers(0, len(stored) - 1))
    letter = draw.draw(st.characters(codec="ascii").filter(lambda it: it != stored[at]))
    with pytest.raises((TamperedError, UnknownKeyError)):
        seal.open(stored[:at] + letter + stored[at + 1 :], HERE)


@pytest.mark.parametrize("seal", ALL, ids=repr)
@given(text=texts, end=st.integers(0, 60), more=st.text(max_size=5))
def test_a_cut_or_longer_value_is_refused(seal: Seal, text: str, end: int, more: str) -> None:
    """Nothing is taken off or added."""
    stored = seal.close(text, HERE)
    for other in (stored[: max(0, len(stored) - 1 - end)], stored + more + " "):
        with pytest.raises((TamperedError, UnknownKeyError)):
            seal.open(other, HERE)


def test_names_do_not_run_into_each_other() -> None:
    """Two identities whose names are one text when put together are still two."""
    for seal in ALL:
        stored = seal.close("1", record_of("ab", "c"))
        with pytest.raises(TamperedError):
            seal.open(stored, record_of("a", "bc"))


def test_keys_rotate() -> None:
    """A new key writes while the old one still reads; without the old one, its id is named."""
    makers: list[Callable[[list[bytes]], Seal]] = [partial(Signed, everything=True), Encrypted]
    for made in makers:
        before, during, after = made([OLD]), made([NEW, OLD]), made([NEW])
        old, new = before.close("1", HERE), during.close("1", HERE)
        assert during.open(old, HERE) == "1"
        assert during.open(new, HERE) == after.open(new, HERE) == "1"
        with pytest.raises(UnknownKeyError, match=r"sealed under the key [0-9a-f]{8}") as refused:
            after.open(old, HERE)
        assert refused.value.key in repr(before)
        assert isinstance(refused.value, DecodingError | StorageError)


def test_one_scheme_reads_the_other() -> None:
    """A database changes over from one to the other without a stop."""
    signed, encrypted = Signed([OLD], everything=True), Encrypted([OLD])
    assert encrypted.open(signed.close("1", HERE), HERE) == "1"
    assert signed.open(encrypted.close("1", HERE), HERE) == "1"


def test_a_key_is_not_told_by_its_id_or_repr() -> None:
    """Logs and databases say nothing of a key."""
    secret = b"0123456789abcdef0123456789abcdef"
    for seal in (Signed([secret], everything=True), Encrypted([secret])):
        shown = repr(seal) + seal.close("1", HERE)
        assert secret.decode() not in shown
        assert secret.hex()[:8] not in shown


@pytest.mark.parametrize(
    ("keys", "says"),
    [([], "no key"), ([b"short"], "5 bytes"), (["x" * 40], "not bytes"), (b"x" * 40, r"\[key\]")],
    ids=["none", "short", "text", "no list"],
)
def test_bad_keys_are_refused_at_once(keys: list[bytes], says: str) -> None:
    """A key that protects nothing is found out when the program starts, and not in an audit."""
    for made in (Signed, Encrypted):
        with pytest.raises(SealKeyError, match=says) as refused:
            made(keys)
        assert made.__name__ in str(refused.value)
        assert "python -c" in str(refused.value) or "[key]" in str(refused.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program and the `perdure` command are given the same keys in one way; a bad one is not shown."""
    both = f"{base64.b64encode(NEW).decode()}, {base64.urlsafe_b64encode(OLD).decode()}\n"
    monkeypatch.setenv("PERDURE_KEYS", both)
    assert environment_keys() == [NEW, OLD]
    monkeypatch.setenv("SHOP_KEYS", "hunter2!")
    with pytest.raises(SealKeyError, match="SHOP_KEYS") as refused:
        environment_keys("SHOP_KEYS")
    assert "hunter2" not in str(refused.value)
    monkeypatch.delenv("PERDURE_KEYS")
    with pytest.raises(SealKeyError, match="not set"):
        environment_keys()


def test_signed_alone_leaves_json_as_it_is() -> None:
    """Typed JSON is safe to load, so it stays as it was, and a database that has only that needs nothing."""
    seal = Signed([OLD])
    assert seal.close("[1]", HERE, codec_for(list[int])) == "[1]"
    assert seal.open("[1]", HERE, codec_for(list[int])) == "[1]"


def test_nothing_unsigned_is_unpickled() -> None:
    """However a pickle is spelled in JSON, without a signature it is not loaded."""
    seal = Signed([OLD])
    record = RecordCodec({"a": int, "b": Anything})
    pickled = PICKLES.encode(Anything()).decode()
    for spelling in (pickled, pickled.replace("$", "\\u0024"), " " + pickled, pickled.replace(":", " : ", 1)):
        with pytest.raises(TamperedError, match="not sealed"):
            seal.open(spelling, HERE, PICKLES)
        for name in ("b", "\\u0062"):
            with pytest.raises(TamperedError, match="not sealed"):
                seal.open(f'{{"a":1,"{name}":{spelling}}}', HERE, record)
    assert seal.open('{"a":1}', HERE, record) == '{"a":1}'  # a field that came later
    assert seal.open(seal.close(pickled, HERE, PICKLES), HERE, PICKLES) == pickled


def test_what_was_signed_as_json_is_never_unpickled() -> None:
    """Data that looks like a pickle stays data, whatever annotation the code has later."""
    seal = Signed([OLD], everything=True)
    stored = seal.close('{"b":{"$cloudpickle":"gASVAAA="}}', HERE, RecordCodec({"b": dict[str, str]}))
    with pytest.raises(TamperedError, match="would unpickle"):
        seal.open(stored, HERE, RecordCodec({"b": Anything}))


def test_plain_values_are_read_only_where_that_is_asked_for() -> None:
    """A database from before can be taken over, and then closed again."""
    for strict, lenient in (
        (Signed([OLD], everything=True), Signed([OLD], everything=True, accepts_plain=True)),
        (Encrypted([OLD]), Encrypted([OLD], accepts_plain=True)),
    ):
        with pytest.raises(TamperedError, match="accepts_plain"):
            strict.open("1", HERE)
        assert lenient.open("1", HERE) == "1"
        with pytest.raises(TamperedError):
            lenient.open('{"$signed":"j00000000.","value":1}', HERE)


def test_without_keys_a_sealed_value_is_not_taken_for_an_empty_one() -> None:
    """Opening a sealed database without its keys resets no state."""
    for seal in ALL:
        with pytest.raises(UnknownKeyError, match="no keys were given"):
            opened(None, seal.close("{}", HERE), HERE)
    assert opened(None, '{"$signed":"my own"}', HERE) == '{"$signed":"my own"}'


def test_where_signatures_are_demanded_pickles_are_refused() -> None:
    """A store that others can write to takes and gives no pickle without a signature."""
    seal = Demanded("postgresql://db/agents")
    assert seal.close("1", HERE, codec_for(int)) == seal.open("1", HERE, codec_for(int)) == "1"
    with pytest.raises(UnsignedError, match=r"journal of message 'm1'.*postgresql://db/agents.*Signed\(keys\)"):
        seal.close(PICKLES.encode(Anything()).decode(), HERE, PICKLES)
    with pytest.raises(TamperedError, match="pickled and not signed"):
        seal.open(PICKLES.encode(Anything()).decode(), HERE, PICKLES)
    with pytest.raises(UnknownKeyError):
        seal.open(ALL[0].close("1", HERE), HERE)


def test_equal_values_are_seen_to_be_equal_only_where_they_are_compared() -> None:
    """An id that is used again is found out; a state that comes back looks new."""
    seal = Encrypted([OLD])
    assert seal.close("1", HERE, compared=True) == seal.close("1", HERE, compared=True)
    assert seal.close("1", HERE, compared=True) != seal.close("2", HERE, compared=True)
    assert seal.close("1", HERE) != seal.close("1", HERE)
    rotated = Encrypted([NEW]).close("1", HERE, compared=True)
    one, two = seal.close("1", HERE, compared=True), seal.close("2", HERE, compared=True)
    assert may_be_same(one, rotated)
    assert may_be_same("1", one)
    assert not may_be_same(one, two)
    assert not may_be_same("1", "2")
    assert may_be_same_state(None, "{}")
    assert not may_be_same_state(None, one)
    assert not may_be_same_state("{}", one)
    assert may_be_same_state(one, rotated)


def test_digests_cannot_be_guessed_and_outlive_a_rotation() -> None:
    """A journal says nothing of short arguments, and a turn that was begun under an old key goes on."""
    digest = b"d" * 32
    old, both = Encrypted([OLD]), Encrypted([NEW, OLD])
    stored = old.close_digest(digest)
    assert digest not in stored
    assert old.close_digest(stored) == stored
    assert both.same_digest(stored, digest)
    assert not both.same_digest(stored, b"e" * 32)
    assert both.same_digest(digest, digest)
    assert not both.same_digest(digest, b"e" * 32)
    assert Encrypted([NEW]).same_digest(stored, b"e" * 32)  # it cannot tell; what it guards cannot be opened either


def test_sizes_are_as_documented() -> None:
    """Nobody is surprised by the growth of a database."""
    for length in (0, 1, 100, 1000):
        text = f'"{"x" * length}"'
        assert len(Signed([OLD], everything=True).close(text, HERE)) - len(text) == 76
        assert len(Encrypted([OLD]).close(text, HERE)) <= len(text) * 4 / 3 + 67


def test_a_failure_keeps_its_type_in_the_clear() -> None:
    """Dead letters are found by their error; what it says is nobody's business."""
    seal = Encrypted([OLD])
    plain = json.dumps(
        {"type": "a.Bad", "text": "card 1234", "lineage": ["a.Bad"], "args": ["1234"], "traceback": "1234"}
    )
    stored = seal.close_failure(plain, failure_of("m1"))
    assert "1234" not in stored
    assert json.loads(stored)["type"] == "a.Bad"
    moved = json.dumps({**json.loads(stored), "status": "dead"})
    assert json.loads(seal.open_failure(moved, failure_of("m1")) or "")["args"] == ["1234"]
    with pytest.raises(TamperedError):
        seal.open_failure(stored, failure_of("m2"))
