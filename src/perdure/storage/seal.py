"""Seals: what is put around encoded values, so that others who can write or read the database cannot make or see them.

    value ──codec──> text ──seal.close──> text in the database ──seal.open──> text ──codec──> value
                                                                 └ refused here, before anything is decoded

A seal is about texts and places, and knows nothing of types; codecs are chosen by annotations and know nothing of keys.
(Temporal splits its payload codecs from its converters likewise. Unlike theirs, a seal is told the identity, so that a
value is good in no other: temporalio/features#434.)

What is sealed is preceded by a header, a JSON array of the scheme and the identity's names. JSON says where each name
ends, so no two identities and values run into one text.
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
import os
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from perdure.errors import MissingExtraError, TamperedError, UnknownKeyError, UnsignedError
from perdure.storage.failure import failure_fields
from perdure.storage.seal_identity import spelled
from perdure.storage.seal_keys import key_ring
from perdure.storage.seal_text import MARKS, encrypted_text, parse, signed_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.storage.seal_identity import Identity
    from perdure.storage.seal_keys import Key
    from perdure.storage.seal_text import Holding, Scheme, Sealed

_NONCE_BYTES = 12
_DIGEST_BYTES = 32
_HIDDEN = ("text", "args", "traceback")
_header = msgspec.json.Encoder().encode


class Written(Protocol):
    """What a seal asks of a codec."""

    @property
    def pickles(self) -> bool:
        """Whether it writes pickles."""
        ...

    def unpickles(self, text: str) -> bool:
        """Whether reading this text would load a pickle."""
        ...


class Seal:
    """What `Signed` and `Encrypted` have in common. Both read what the other wrote under the same keys."""

    def __init__(self, keys: Sequence[bytes], *, accepts_plain: bool) -> None:
        self._keys = key_ring(keys, type(self).__name__)
        self._key = next(iter(self._keys.values()))
        self._accepts_plain = accepts_plain

    def __repr__(self) -> str:
        return f"<{type(self).__name__} by {', '.join(self._keys)}>"

    # writing ----------------------------------------------------------------------------------------------------------

    def close(self, text: str, identity: Identity, codec: Written | None = None, *, compared: bool = False) -> str:
        """A text as it is stored at a identity.

        Args:
            text: What the codec wrote.
            identity: Where it will lie.
            codec: What wrote it; none for plain JSON.
            compared: Whether the store compares it with what lies there, so that equal values must look equal.

        Raises:
            UnsignedError: It is not sealed by this, and may not lie there so.
        """
        raise NotImplementedError

    def close_failure(self, stored: str, identity: Identity) -> str:
        """A failure as it is stored: with its type in the clear, by which it is judged and found."""
        del identity
        return stored

    def close_digest(self, digest: bytes) -> bytes:
        """A digest of arguments as it is stored."""
        return digest

    # reading ----------------------------------------------------------------------------------------------------------

    def open(self, text: str, identity: Identity, codec: Written | None = None, *, plain: bool = False) -> str:
        """The text that was sealed for this identity.

        Args:
            text: What is stored.
            identity: Where it lies.
            codec: What will read it; none for plain JSON.
            plain: Whether perdure itself writes unsealed JSON there.

        Raises:
            TamperedError: It was not sealed, or not for this identity, or was changed.
            UnknownKeyError: It is sealed under another key.
        """
        sealed = parse(text)
        if sealed is None:
            self._admit_plain(text, identity, codec, plain=plain)
            return text
        value = self._opened(sealed, identity)
        if sealed.holding == "j" and codec is not None and codec.unpickles(value):
            why = "it was sealed as JSON, and the code would unpickle it"
            raise TamperedError(spelled(identity), why, "Bring the annotation back to what wrote it.")
        return value

    def open_failure(self, stored: str | None, identity: Identity) -> str | None:
        """A failure as it was before `close_failure`. Raises as `open` does."""
        return open_failure(self, stored, identity)

    def same_digest(self, stored: bytes, digest: bytes) -> bool:
        """Whether a stored digest is of these arguments; true where that cannot be told any more."""
        if len(stored) == _DIGEST_BYTES:
            return stored == digest
        key = self._keys.get(stored[:-_DIGEST_BYTES].hex())
        return key is None or hmac.compare_digest(stored, _keyed_digest(key, digest))

    def _needs(self, text: str, codec: Written | None) -> bool:
        """Whether a text that is not sealed is refused."""
        raise NotImplementedError

    def _admit_plain(self, text: str, identity: Identity, codec: Written | None, *, plain: bool) -> None:
        if text.startswith(MARKS):
            raise _broken(identity)
        if self._accepts_plain or not self._needs(text, codec):
            return
        if plain and (codec is None or not codec.unpickles(text)):
            return
        raise TamperedError(
            spelled(identity),
            f"it is not sealed, as {type(self).__name__} demands",
            "Somebody without the keys wrote it, or it is from before: then open the system with accepts_plain=True "
            "until it is worked off.",
        )

    def _opened(self, sealed: Sealed, identity: Identity) -> str:
        key = self._keys.get(sealed.key)
        if key is None:
            raise _unknown(sealed.key, identity, f"the keys here are {', '.join(self._keys)}")
        header = _head(sealed.scheme, sealed.holding, identity)
        if sealed.scheme == "signed":
            mac = _mac(key, header, sealed.value.encode(errors="surrogatepass"))
            if not hmac.compare_digest(mac, sealed.body):
                raise _broken(identity)
            return sealed.value
        return _decrypted(key, header, sealed.body, identity)


class Signed(Seal):
    """Has nothing unpickled that was not written by this application: ``ActorSystem(target, seal=Signed(keys))``.

    Whoever can write to the database could otherwise have any program run by whoever reads a pickle from it. With this,
    arguments, results, state and steps' results that are stored with cloudpickle carry an HMAC-SHA256 over what they
    are (of which message, actor, or step) and what they hold, and are refused before decoding where it is not right.
    It adds 76 bytes to a value. All of it stays readable in the database.

    It does not prevent: that an older value of the same row is put back (an actor's state as it was yesterday); that
    rows are removed, reordered, or ended; that errors, which are text for people, and notices that an actor ended are
    invented. Whoever has the keys, or can change the program, can do anything.

    Args:
        keys: At least 32 random bytes each. The first one signs, all of them verify. To rotate, give every process the
            new key as a second one, then put it first, and take the old one away once nothing bears its id any more.
        everything: Sign what is stored as JSON, too, so that nobody else can say anything to an actor.
        accepts_plain: Also read what is not signed, as a database from before has it; until then nothing is safer.

    Raises:
        SealKeyError: A key is missing, too short, or not bytes.
    """

    def __init__(self, keys: Sequence[bytes], *, everything: bool = False, accepts_plain: bool = False) -> None:
        super().__init__(keys, accepts_plain=accepts_plain)
        self._everything = everything

    def close(self, text: str, identity: Identity, codec: Written | None = None, *, compared: bool = False) -> str:
        """See `Seal.close`."""
        del compared  # the signature of a value in a place is always the same
        pickled = codec is not None and codec.pickles
        if not (self._everything or pickled or text.startswith(MARKS)):
            return text
        holding: Holding = "p" if pickled else "j"
        mac = _mac(self._key, _head("signed", holding, identity), text.encode())
        return signed_text(holding, self._key.id, mac, text)

    def _needs(self, text: str, codec: Written | None) -> bool:
        return self._everything or (codec is not None and codec.unpickles(text))


class Encrypted(Seal):
    """Hides what is stored, and has only this application write it: ``ActorSystem(target, seal=Encrypted(keys))``.

    Arguments, results, state, steps' results, and what errors say are encrypted with AES-256-GCM, as what they are (of
    which message, actor, or step): put into another place they are refused, before decoding. Each place has a key of
    its own, derived from yours, and each value a random nonce, so there is no number of messages after which keys wear
    out. Needs ``pip install 'perdure[encryption]'``.

    What stays readable: kinds and keys of actors, ids of messages, names of handlers and steps, journal keys, types of
    errors, times, status, counts, and how long a value is. Do not put secrets into keys and ids. A value becomes a
    third longer, and 67 bytes.

    What `Signed` does not prevent is not prevented here.

    Args:
        keys: As of `Signed`.
        accepts_plain: Also read what is not encrypted, as a database from before has it, written by whomever.

    Raises:
        SealKeyError: A key is missing, too short, or not bytes.
        MissingExtraError: The package ``cryptography`` is not installed.
    """

    def __init__(self, keys: Sequence[bytes], *, accepts_plain: bool = False) -> None:
        super().__init__(keys, accepts_plain=accepts_plain)
        _aes()

    def close(self, text: str, identity: Identity, codec: Written | None = None, *, compared: bool = False) -> str:
        """See `Seal.close`."""
        key = self._key
        holding: Holding = "p" if codec is not None and codec.pickles else "j"
        header, value = _head("encrypted", holding, identity), text.encode()
        # What is compared lies in a place that is written once, so equal texts in it tell nothing to anybody.
        made = key.nonce(header + value) if compared else os.urandom(_NONCE_BYTES)
        nonce = made[:_NONCE_BYTES]
        body = nonce + _cipher(key, header).encrypt(nonce, value, header)
        return encrypted_text(holding, key.id, base64.b64encode(body).decode())

    def close_failure(self, stored: str, identity: Identity) -> str:
        """See `Seal.close_failure`."""
        fields: dict[str, Any] = json.loads(stored)
        hidden = {name: fields.pop(name) for name in _HIDDEN if name in fields}
        fields["text"] = "encrypted"
        fields["sealed"] = self.close(json.dumps(hidden, ensure_ascii=False), identity)
        return json.dumps(fields, ensure_ascii=False)

    def close_digest(self, digest: bytes) -> bytes:
        """See `Seal.close_digest`: without the key, guesses at short arguments could be tried on it."""
        return digest if len(digest) != _DIGEST_BYTES else _keyed_digest(self._key, digest)

    def _needs(self, text: str, codec: Written | None) -> bool:
        del text, codec
        return True


class Reader(Seal):
    """Opens what either scheme sealed, for people, who see what is plain as well."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(keys, accepts_plain=True)

    def _needs(self, text: str, codec: Written | None) -> bool:
        del text, codec
        return False


class Demanded(Seal):
    """Stands where a store demands signatures and the system has no seal: pickles are refused, both ways."""

    def __init__(self, location: str) -> None:
        self._keys = {}
        self._accepts_plain = False
        self._remedy = (
            f"Others can write to {location}, and a pickle runs whatever program is in it. Annotate closed types, or "
            "sign: ActorSystem(…, seal=Signed(keys))."
        )

    def __repr__(self) -> str:
        return "<no seal, where one is demanded>"

    def close(self, text: str, identity: Identity, codec: Written | None = None, *, compared: bool = False) -> str:
        """See `Seal.close`."""
        del compared
        self.admit({spelled(identity): codec})
        return text

    def admit(self, codecs: Mapping[str, Written | None]) -> None:
        """Refuse what would be pickled. Raises `UnsignedError`."""
        for what, codec in codecs.items():
            if codec is not None and codec.pickles:
                raise UnsignedError(what, "would be stored with cloudpickle, unsigned", self._remedy)

    def _admit_plain(self, text: str, identity: Identity, codec: Written | None, *, plain: bool) -> None:
        del plain
        if self._needs(text, codec):
            raise TamperedError(spelled(identity), "it is pickled and not signed", self._remedy)

    def _needs(self, text: str, codec: Written | None) -> bool:
        return codec is not None and codec.unpickles(text)


def opened(
    seal: Seal | None, text: str, identity: Identity, codec: Written | None = None, *, plain: bool = False
) -> str:
    """The text that was sealed for this place; `Seal.open`, also where there is no seal.

    Raises:
        UnknownKeyError: It is sealed, and there is no seal, or not by its key.
        TamperedError: See `Seal.open`.
    """
    if seal is not None:
        return seal.open(text, identity, codec, plain=plain)
    sealed = parse(text)
    if sealed is not None:
        raise _unknown(sealed.key, identity, "no keys were given")
    return text


def open_failure(seal: Seal | None, stored: str | None, identity: Identity) -> str | None:
    """A failure as it was before `Seal.close_failure`; as it is, where there is no seal. Raises as `Seal.open` does."""
    if seal is None or not stored or '"sealed"' not in stored:
        return stored
    fields = failure_fields(stored)
    inner = fields.pop("sealed", None)
    if not isinstance(inner, str):
        return stored
    hidden: dict[str, Any] = json.loads(seal.open(inner, identity))
    return json.dumps({**fields, **hidden}, ensure_ascii=False)


# the cryptography -----------------------------------------------------------------------------------------------------


def _head(scheme: Scheme, holding: Holding, identity: Identity) -> bytes:
    return _header(("perdure seal 1", scheme, holding, *identity))


def _mac(key: Key, header: bytes, value: bytes) -> str:
    """A signature, as 43 letters that are compared as such: of other letters for the same bytes none is right."""
    return base64.urlsafe_b64encode(key.sign(header + value)).rstrip(b"=").decode()


def _keyed_digest(key: Key, digest: bytes) -> bytes:
    return bytes.fromhex(key.id) + key.digest(digest)


@functools.cache
def _aes() -> Any:  # noqa: ANN401  # the class of an optional package
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # only where it is asked for
    except ImportError as error:
        raise MissingExtraError(
            f"encrypted values need the package cryptography ({error}). Install it: pip install 'perdure[encryption]'"
        ) from error
    return AESGCM


def _cipher(key: Key, header: bytes) -> Any:  # noqa: ANN401  # the class of an optional package
    """AES-256-GCM under the key of one identity: random nonces never meet, however many values there are."""
    return _aes()(key.encrypt(header))


def _decrypted(key: Key, header: bytes, body: str, identity: Identity) -> str:
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raise _broken(identity) from None
    if len(raw) < _NONCE_BYTES or base64.b64encode(raw).decode() != body:
        raise _broken(identity)
    cipher = _cipher(key, header)
    try:
        return cast("bytes", cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], header)).decode()
    except Exception:  # noqa: BLE001  # InvalidTag, or ValueError for what is too short: none says more to anybody
        raise _broken(identity) from None


def _broken(identity: Identity) -> TamperedError:
    return TamperedError(
        spelled(identity),
        "its seal does not fit: it was altered, or sealed for another place",
        "Find out who can write to the database, and restore the row from a backup.",
    )


def _unknown(key: str, identity: Identity, here: str) -> UnknownKeyError:
    error = UnknownKeyError(
        spelled(identity),
        f"it is sealed under the key {key}, and {here}",
        "Give that key, too: ActorSystem(…, seal=Signed([new, old])) or Encrypted([new, old]).",
    )
    error.key = key
    return error
