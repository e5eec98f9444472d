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
    """What writes and reads all fields of a record at once; whatever it raises, some field is wrong."""

    def __init__(self, fields: Mapping[str, Parts]) -> None:
        self.checks = {name: parts.check for name, parts in fields.items()}
        self.lowers = {name: parts.lower for name, parts in fields.items() if parts.lower is not None}
        self.lifts = {name: parts.lift for name, parts in fields.items() if parts.lift is not None}
        self.sure = all(parts.sure for parts in fields.values())
        self.order = list(self.checks.values())
        # what msgspec writes fastest: no dict has to be made of the values
        self.row = msgspec.defstruct("Row", list(fields), gc=False) if self.sure else None
        record = _typed_dict("Record", {name: NotRequired[parts.read] for name, parts in fields.items()})
        self.read: Callable[[str | bytes], dict[str, Any]] = msgspec.json.Decoder(record).decode

    def lower(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as msgspec writes them."""
        return {name: self.lowers[name](v) if name in self.lowers else v for name, v in values.items()}

    def lift(self, read: dict[str, Any]) -> dict[str, Any]:
        """Values of what msgspec read."""
        for name, lift in self.lifts.items():
            if name in read:
                read[name] = lift(read[name])
        return read


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
        self.name = "+".join(["json", *pickled])
        """`json` if every field is, else `json+cloudpickle@3.11`."""
        self._pickled = frozenset(name for name, codec in self._codecs.items() if codec.pickles)
        self.pickles = bool(self._pickled)
        """Whether any field is written as a pickle."""
        parts = {name: codec.parts for name, codec in self._codecs.items() if codec.parts is not None}
        self._whole = _Whole(parts) if len(parts) == len(self._codecs) else None

    @property
    def annotations(self) -> dict[str, object]:
        """What each name is annotated with."""
        return {name: codec.annotation for name, codec in self._codecs.items()}

    def unpickles(self, text: str) -> bool:
        """Whether reading this text would load a pickle. Raises `DecodingError` if it is no JSON object."""
        return self.pickles and not self._pickled.isdisjoint(split(text))

    def text(self, values: Mapping[str, object], path: str = "") -> str:
        """The values as one JSON object.

        Args:
            values: Any of the fields, by name.
            path: What the whole is called in errors, such as `args`.

        Raises:
            EncodingError: A value would not come back as it is, or is no field.
        """
        whole = self._whole
        if whole is not None:
            try:
                for name, value in values.items():
                    whole.checks[name](value)
                raw = _write(whole.lower(values) if whole.lowers else values)
                read = whole.read(raw)
                if whole.lifts:
                    whole.lift(read)
                text = raw.decode()
                if PICKLE_MARK not in text:  # which would be refused when it is read
                    return text
            except Exception:  # noqa: BLE001, S110  # field by field, below, tells what is wrong
                pass
        return join(self.encode(values, path))

    def text_in_order(self, values: tuple[object, ...], path: str = "") -> str:
        """Like `text`, of values for all fields in their order."""
        whole = self._whole
        if whole is not None and whole.row is not None:
            try:
                for check, value in zip(whole.order, values):  # noqa: B905  # a keyword costs as much as the loop
                    check(value)
                return _write(whole.row(*values)).decode()
            except Exception:  # noqa: BLE001, S110  # field by field, below, tells what is wrong
                pass
        return self.text(dict(zip(self._codecs, values, strict=True)), path)

    def encode(self, values: Mapping[str, object], path: str = "") -> dict[str, bytes]:
        """Each value as JSON; see `text`."""
        prefix = path and f"{path}."
        return {name: self._codec(name, prefix).encode(value, prefix + name) for name, value in values.items()}

    def encode_changed(
        self, held: Mapping[str, object], known: Mapping[str, bytes], path: str
    ) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Every field as JSON, and those whose bytes are not the ones in `known`.

        Fields whose bytes are known are not looked at and decoded again. Raises `KeyError` if `held` lacks a field, and
        `EncodingError`.
        """
        encoded: dict[str, bytes] = {}
        changed: dict[str, bytes] = {}
        for name, codec in self._codecs.items():
            before = known.get(name)
            encoded[name] = raw = codec.encode_changed(held[name], before, f"{path}.{name}")
            if raw != before:
                changed[name] = raw
        return encoded, changed

    def decode(self, text: str) -> dict[str, Any]:
        """The values in a JSON object: names that are no fields are passed over, absent ones stay absent.

        Raises:
            DecodingError: The text is no JSON object, or a value does not fit its annotation.
        """
        whole = self._whole
        if whole is not None and (whole.sure or PICKLE_MARK not in text):
            try:
                return whole.lift(whole.read(text)) if whole.lifts else whole.read(text)
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
