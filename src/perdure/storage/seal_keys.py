"""Keys of seals: what is derived from one, which is named by what, and how they are given in the environment.

A secret is never used itself. Each use has a key of its own, derived with HMAC-SHA256 under a label, so that one secret
may sign in one system and encrypt in another, and so that the id that names it says nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import TYPE_CHECKING

from perdure.errors import SealKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LEAST_BYTES = 32
ID_LETTERS = 8
VARIABLE = "PERDURE_KEYS"
_MAKE_ONE = "Make one with: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"


class Key:
    """What is derived from one secret: each but the id makes HMAC-SHA256s of what it is given.

    Attributes:
        id: Names it in what it sealed; eight hexadecimal digits.
        sign: Makes signatures.
        encrypt: Makes the keys that encrypt, of which every place has its own.
        nonce: Makes nonces where equal values are to be equal when they are encrypted.
        digest: Makes digests that nobody without it can try guesses on.
    """

    __slots__ = ("digest", "encrypt", "id", "nonce", "sign")

    def __init__(self, secret: bytes) -> None:
        self.id = _derived(secret, "id")[: ID_LETTERS // 2].hex()
        self.sign = _maker(secret, "sign")
        self.encrypt = _maker(secret, "encrypt")
        self.nonce = _maker(secret, "nonce")
        self.digest = _maker(secret, "digest")

    def __repr__(self) -> str:
        return f"<key {self.id}>"


def _derived(secret: bytes, use: str) -> bytes:
    return hmac.digest(secret, f"perdure seal 1: {use}".encode(), "sha256")


def _maker(secret: bytes, use: str) -> Callable[[bytes], bytes]:
    """HMAC-SHA256 under a derived key; set up once, which is more than half of the work."""
    begun = hmac.new(_derived(secret, use), digestmod="sha256")

    def make(value: bytes) -> bytes:
        made = begun.copy()
        made.update(value)
        return made.digest()

    return make


def key_ring(keys: Iterable[bytes], owner: str) -> dict[str, Key]:
    """Keys by their ids, in the order they were given.

    Raises:
        SealKeyError: There is none, or one is not bytes, too short, or named like another.
    """
    if isinstance(keys, bytes | str):
        raise SealKeyError(f"{owner}: keys are a list, the one that writes first. Give [key].")
    ring: dict[str, Key] = {}
    secrets: dict[str, bytes] = {}
    for index, secret in enumerate(keys):
        if not isinstance(secret, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever the caller has
            raise SealKeyError(f"{owner}: key {index} is {type(secret).__name__}, not bytes. {_MAKE_ONE}")
        if len(secret) < LEAST_BYTES:
            raise SealKeyError(
                f"{owner}: key {index} has {len(secret)} bytes; at least {LEAST_BYTES} random ones are needed. "
                f"{_MAKE_ONE}"
            )
        key = Key(secret)
        if secrets.setdefault(key.id, secret) != secret:
            raise SealKeyError(f"{owner}: two keys share the id {key.id}, which is chance. Make another one.")
        ring.setdefault(key.id, key)
    if not ring:
        raise SealKeyError(f"{owner}: there is no key. {_MAKE_ONE}")
    return ring


def environment_keys(variable: str = VARIABLE) -> list[bytes]:
    """The keys in an environment variable, the one that writes first: base64, with commas or white space between.

    The `perdure` command reads `PERDURE_KEYS` alike.

    Raises:
        SealKeyError: The variable is not set, or holds what is not base64 or too short.
    """
    words = os.environ.get(variable, "").replace(",", " ").split()
    if not words:
        raise SealKeyError(f"{variable} is not set, or empty. Set it to keys in base64. {_MAKE_ONE}")
    keys: list[bytes] = []
    for index, word in enumerate(words):
        try:
            keys.append(base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True))
        except (binascii.Error, ValueError):
            # what it holds is not shown: it may be most of a key
            raise SealKeyError(f"{variable}: key {index} is not base64. {_MAKE_ONE}") from None
    key_ring(keys, variable)
    return keys
