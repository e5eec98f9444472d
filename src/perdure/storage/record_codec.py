"""Named values as one JSON object: a handler's arguments, an actor's state.

Where every field is closed and none runs code of the user's, the whole record is written and read in one call, and only
if that goes wrong field by field, which tells what is wrong. Every message goes through here three times.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, cast

import msgspec
from typing_extensions import TypedDict

from perdure.errors import DecodingError, EncodingError
from perdure.storage.codec import PICKLE_MARK, Codec, Parts, codec_for

_write = msgspec.json.Encoder().encode
_typed_dict = cast("Callable[[str, dict[str, Any]], Any]", TypedDict)  # made at run time: no checker knows its fields


class _Whole:
    """All fields of a record at once."""

    def __init__(self, fields: Mapping[str, Parts]) -> None:
        self._checks = {name: parts.check for name, parts in fields.items()}
        self._lowers = {name: parts.lower for name, parts in fields.items() if parts.lower is not None}
        self._lifts = {name: parts.lift for name, parts in fields.items() if parts.lift is not None}
        record = _typed_dict("Record", {name: NotRequired[parts.read] for name, parts in fields.items()})
        self._read: Callable[[str | bytes], dict[str, Any]] = msgspec.json.Decoder(record).decode

    def write(self, values: Mapping[str, Any]) -> str:
        """The record, checked and decoded back once; whatever it raises, some field is wrong."""
        checks = self._checks
        for name, value in values.items():
            checks[name](value)
        if self._lowers:
            values = {name: self._lowers[name](v) if name in self._lowers else v for name, v in values.items()}
        raw = _write(values)
        self.read(raw)
        return raw.decode()

    def read(self, raw: str | bytes) -> dict[str, Any]:
        """The record; whatever it raises, some field is wrong."""
        values = self._read(raw)
        for name, lift in self._lifts.items():
            if name in values:
                values[name] = lift(values[name])
        return values


class RecordCodec:
    """Reads and writes named values: a handler's arguments, an actor's state.

    Args:
        fields: What each name is annotated with, resolved.

    Raises:
        EncodingError: As `codec_for` does.
    """

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._codecs = {name: codec_for(annotation) for name, annotation in fields.items()}
        pickled = sorted({codec.name for codec in self._codecs.values()} - {"json"})
        self._name = "+".join(["json", *pickled])
        parts = {name: codec.parts for name, codec in self._codecs.items() if codec.parts is not None}
        self._whole = _Whole(parts) if len(parts) == len(self._codecs) else None

    @property
    def name(self) -> str:
        """`json` if every field is, else `json+cloudpickle@3.11`."""
        return self._name

    def text(self, values: Mapping[str, object], path: str = "") -> str:
        """The values as one JSON object.

        Args:
            values: Any of the fields, by name.
            path: What the whole is called in errors, such as `args`.

        Raises:
            EncodingError: A value would not come back as it is, or is no field.
        """
        if self._whole is not None:
            try:
                return self._whole.write(values)
            except Exception:  # noqa: BLE001, S110  # field by field, below, tells what is wrong
                pass
        return join(self.encode(values, path))

    def encode(self, values: Mapping[str, object], path: str = "") -> dict[str, bytes]:
        """Each value as JSON; see `text`."""
        prefix = path and f"{path}."
        return {name: self._codec(name, prefix).encode(value, prefix + name) for name, value in values.items()}

    def encode_changed(
        self, values: Mapping[str, object], known: Mapping[str, bytes], path: str = ""
    ) -> dict[str, bytes]:
        """Like `encode`, but values whose bytes are those in `known` are not looked at and decoded again."""
        prefix = path and f"{path}."
        encoded: dict[str, bytes] = {}
        for name, value in values.items():
            encoded[name] = self._codec(name, prefix).encode_changed(value, known.get(name), prefix + name)
        return encoded

    def decode(self, text: str) -> dict[str, Any]:
        """The values in a JSON object: names that are no fields are passed over, absent ones stay absent.

        Raises:
            DecodingError: The text is no JSON object, or a value does not fit its annotation.
        """
        if self._whole is not None and PICKLE_MARK not in text:
            try:
                return self._whole.read(text)
            except Exception:  # noqa: BLE001, S110  # field by field, below, tells what is wrong
                pass
        decoded: dict[str, Any] = {}
        for name, raw in split(text).items():
            codec = self._codecs.get(name)
            if codec is not None:
                try:
                    decoded[name] = codec.decode(raw)
                except DecodingError as error:
                    raise DecodingError(f"{name}, {error.what}", error.reason, error.remedy) from error
        return decoded

    def _codec(self, name: str, prefix: str) -> Codec[Any]:
        codec = self._codecs.get(name)
        if codec is None:
            names = ", ".join(self._codecs) or "none"
            raise EncodingError(
                prefix + name, f"there is no such field; the fields are {names}", "Declare it, or leave it out."
            )
        return codec


def join(fields: Mapping[str, bytes]) -> str:
    """One JSON object from encoded values."""
    return "{" + ",".join([f"{_quoted(name)}:{raw.decode()}" for name, raw in fields.items()]) + "}"


def split(text: str | bytes) -> dict[str, bytes]:
    """The encoded values in one JSON object: the reverse of `join`.

    Raises:
        DecodingError: The text is no JSON object.
    """
    try:
        return {name: bytes(raw) for name, raw in _read_raws(text).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodingError(
            "the stored record", str(error), "Restore the row from a backup; it is no JSON object."
        ) from error


_read_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@functools.lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return _write(name).decode()
