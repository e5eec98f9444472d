r"""How a sealed value lies in the database: as JSON, like every other, that names its key and says what it holds.

    {"$signed":"j1f0c93ab.<43 letters>","value":{"amount":3}}      what it holds stays readable with any tool
    {"$encrypted":"p1f0c93ab.<base64 of nonce, ciphertext, tag>"}
                   │└ the key's id
                   └ j: JSON throughout; p: some of it is pickled

It is taken apart by position. Nothing looks into a value, not even a JSON parser, before its seal was verified. So a
store must give texts back letter by letter.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from perdure.storage.seal_keys import ID_LETTERS

Scheme: TypeAlias = Literal["signed", "encrypted"]
Holding: TypeAlias = Literal["j", "p"]

MARKS = ('{"$signed":"', '{"$encrypted":"')
"""How sealed values begin, and nothing else that a sealing system writes: no name of an argument or field does."""

NO_STATE = "{}"
"""State where nothing differs from the class: it says no more than a missing row, so it is never sealed."""

_MAC_LETTERS = 43
_ID = rf"([jp])([0-9a-f]{{{ID_LETTERS}}})\."
_SIGNED = re.compile(rf'\{{"\$signed":"{_ID}([A-Za-z0-9_-]{{{_MAC_LETTERS}}})","value":')
_ENCRYPTED = re.compile(rf'\{{"\$encrypted":"{_ID}([A-Za-z0-9+/]+=*)"\}}')


class Sealed(NamedTuple):
    """The parts of a sealed text. `body` is the signature, or all that is encrypted; `value` what was signed."""

    scheme: Scheme
    holding: Holding
    key: str
    body: str
    value: str = ""


def parse(text: str) -> Sealed | None:
    """The parts of a sealed text; none if it is not one, to the letter."""
    found = _SIGNED.match(text)
    if found is not None and text.endswith("}"):
        return Sealed("signed", _holding(found[1]), found[2], found[3], text[found.end() : -1])
    found = _ENCRYPTED.fullmatch(text)
    if found is not None:
        return Sealed("encrypted", _holding(found[1]), found[2], found[3])
    return None


def _holding(letter: str) -> Holding:
    return "p" if letter == "p" else "j"


def signed_text(holding: Holding, key: str, mac: str, value: str) -> str:
    """A signed value."""
    return f'{{"$signed":"{holding}{key}.{mac}","value":{value}}}'


def encrypted_text(holding: Holding, key: str, body: str) -> str:
    """An encrypted value."""
    return f'{{"$encrypted":"{holding}{key}.{body}"}}'


def may_be_same(one: str, other: str) -> bool:
    """Whether two stored texts stand for one value, as far as can be told without keys.

    Under one key, the texts of one value in one place are equal where a store compares them. Under two keys, or if only
    one is sealed, they say nothing about each other.
    """
    return one == other or (_head(one) != _head(other))


def may_be_same_state(one: str | None, other: str) -> bool:
    """The same of what an actor was spawned with. None is nothing, like `{}`, which is never sealed."""
    one = one or NO_STATE
    return one == other or (NO_STATE not in (one, other) and may_be_same(one, other))


def _head(text: str) -> tuple[str, str] | None:
    sealed = parse(text) if text.startswith(MARKS) else None
    return None if sealed is None else (sealed.scheme, sealed.key)
