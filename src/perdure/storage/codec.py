"""How values become JSON and come back: what a row holds is decided by annotations, never by the data in it.

A closed annotation (see `annotations`) is typed JSON, readable with any SQLite tool and safe to load. Anything else is
cloudpickle inside JSON, with the Python version that wrote it. Every value is looked at first (`exactness`), then
encoded, then decoded back once, so that what cannot come back fails at the caller and nothing is written:

    value ──check──> exact ──lower──> what msgspec writes ──> bytes ──> read ──lift──> value

Two freedoms are taken. An int under `float` comes back as a float; and of a time zone its offset is kept, not its name:
a datetime in Europe/Vienna comes back as the same instant at the same local time, at +02:00.
"""

import base64
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs
import cloudpickle
import msgspec

from perdure.errors import DecodingError, EncodingError
from perdure.storage.annotations import NotClosed, shape_of
from perdure.storage.checks import Checker
from perdure.storage.conversion import Converter
from perdure.storage.exactness import Check, Inexact
from perdure.storage.extension import Extension, register_extension, register_wire, wire_of
from perdure.storage.shadow import runs_user_code
from perdure.storage.shapes import Anything, Choice, Enumeration, Scalar, reachable

__all__ = [
    "Codec",
    "Extension",
    "Parts",
    "codec_for",
    "digest",
    "register_extension",
    "register_wire",
]

T = TypeVar("T")

_SURE = frozenset({str, int, float, bool, types.NoneType})
"""Scalars that come back as they are whenever their check lets them through."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_MARK = b'{"$cloudpickle":'
PICKLE_MARK = _MARK.decode()
"""How a pickled value begins in JSON."""

_write = msgspec.json.Encoder().encode


@attrs.frozen
class Parts:
    """What a closed codec does one after the other, for those who do it to many values at once.

    Attributes:
        check: Raises `Inexact` if a value would not come back as it is.
        lower: Turns a value into what msgspec writes; None if it is that already.
        read: The type that msgspec reads.
        lift: Turns what msgspec read into a value; None if it is that already.
        sure: Whether what passed `check` comes back as it is, so that nothing needs to be read to prove it.
    """

    check: Check
    lower: Callable[[Any], Any] | None
    read: Any
    lift: Callable[[Any], Any] | None
    sure: bool


class Codec(Generic[T]):
    """Reads and writes the values of one annotation. Get one from `codec_for`.

    Attributes:
        parts: What it does, step by step; none if user code takes part in it.
        sure: See `Parts`.
    """

    pickles = False
    """Whether values are written as pickles."""

    __slots__ = (
        "_annotation",
        "_check",
        "_lift",
        "_lower",
        "_may_be_nan",
        "_read",
        "_runs_user_code",
        "_simple",
        "parts",
        "sure",
    )

    def __init__(self, annotation: object) -> None:
        shape = shape_of(annotation)
        wire = Converter().wire(shape)
        self._annotation = annotation
        self._check = Checker().check(shape)
        self._lower = wire.lower
        self._lift = wire.lift
        self._read: Callable[[bytes | str], Any] = _decoder(annotation, wire.read)
        parts = tuple(reachable(shape))
        self._runs_user_code = any(map(runs_user_code, parts))
        self.sure = isinstance(shape, Scalar) and shape.cls in _SURE and not shape.constraints
        self.parts = None if self._runs_user_code else Parts(self._check, wire.lower, wire.read, wire.lift, self.sure)
        # what is never a JSON object can bear no mark of a pickle, and without user code one reading proves it
        self._simple = isinstance(shape, Scalar | Choice | Enumeration) and wire.lift is None
        self._may_be_nan = any(
            isinstance(part, Anything) or (isinstance(part, Scalar) and part.cls is float) for part in parts
        )

    def __repr__(self) -> str:
        return f"<{self.name} codec of {_spelled(self._annotation)}>"

    @property
    def name(self) -> str:
        """What a row is marked with: `json`, or `cloudpickle@3.11` with the running Python."""
        return "json"

    @property
    def annotation(self) -> object:
        """What this codec was made for."""
        return self._annotation

    def unpickles(self, text: str) -> bool:
        """Whether reading this text would load a pickle."""
        del text
        return self.pickles

    def encode(self, value: T, path: str = "value") -> bytes:
        """The value as a JSON document in UTF-8.

        Args:
            value: What to store. It is looked at exactly: an instance of a subclass is refused, for instance.
            path: What the value is called in errors, such as `args.document`.

        Raises:
            EncodingError: The value, or what its path names in it, would not come back as it is.
        """
        try:
            self._check(value)
            if self.sure:
                return _write(value)
            raw = self._bytes(value)
            self._prove(raw)
        except Exception as error:  # hooks and properties of the user's classes run in here
            raise self._refusal(value, path, error) from error
        return raw

    def decode(self, raw: bytes | str) -> T:
        """The value in a JSON document.

        Raises:
            DecodingError: The document does not fit the annotation.
        """
        try:
            return self._read(raw) if self._simple else self._value(raw)
        except DecodingError:
            raise
        except Exception as error:
            if self._simple:
                self._refuse_mark(raw)
            raise DecodingError(
                f"the stored {_spelled(self._annotation)}",
                str(error) or type(error).__name__,
                "Bring the annotation back, give a new field a default, or migrate with version= on the class.",
            ) from error

    def encode_changed(self, value: T, known: bytes | None, path: str) -> bytes:
        """Like `encode`, but a value whose bytes are the known ones is not proved again.

        NaN and null have the same bytes, so what holds null, and may hold NaN, is looked at always.
        """
        try:
            raw = self._bytes(value)
            if raw != known:
                self._check(value)
                if not self.sure:
                    self._prove(raw)
            elif self._may_be_nan and b"null" in raw:
                self._check(value)
        except Exception:  # noqa: BLE001  # encoding again tells what is wrong
            return self.encode(value, path)
        return raw

    def _bytes(self, value: T) -> bytes:
        lower = self._lower
        return _write(value if lower is None else lower(value))

    def _refuse_mark(self, raw: bytes | str) -> None:
        """Refuse what is marked as a pickle."""
        if raw.startswith(PICKLE_MARK) if isinstance(raw, str) else raw.startswith(_MARK):
            raise DecodingError(
                f"the stored {_spelled(self._annotation)}",
                "the code declares a codec of json, but the row holds cloudpickle",
                "Bring the annotation back to what wrote it, or migrate the row; data alone is never unpickled.",
            )

    def _value(self, raw: bytes | str) -> T:
        self._refuse_mark(raw)
        lift = self._lift
        return self._read(raw) if lift is None else lift(self._read(raw))  # type: ignore[no-any-return]  # by the annotation

    def _prove(self, raw: bytes) -> None:
        """Decode back; what the user's hooks made of it must encode the same."""
        if self._simple:
            self._read(raw)
            return
        value = self._value(raw)
        if self._runs_user_code:
            again = self._bytes(value)
            # Other bytes may still be the same value: 1 under `float` has become 1.0.
            if again != raw and msgspec.json.decode(again) != msgspec.json.decode(raw):
                raise Inexact(
                    f"it comes back as {again.decode()[:200]}, not as {raw.decode()[:200]}",
                    "__post_init__ must leave a complete object as it is.",
                )

    def _refusal(self, value: T, path: str, error: Exception) -> EncodingError:
        if isinstance(error, Inexact):
            return EncodingError(path + error.path, error.reason, error.remedy)
        if isinstance(error, RecursionError):
            return EncodingError(path, "it contains itself, or is nested too deep for JSON", "Refer to parts by a key.")
        if isinstance(error, EncodingError):
            return EncodingError(path, error.reason, error.remedy)
        return EncodingError(
            path,
            f"{type(value).__name__} could not be brought back from JSON: {str(error) or type(error).__name__}",
            "Make it a value that its own class accepts.",
        )


class _Pickle(msgspec.Struct, rename={"pickled": "$cloudpickle"}):
    """How pickled bytes lie in JSON."""

    pickled: str
    python: str


_read_pickle = msgspec.json.Decoder(_Pickle).decode


class _PickleCodec(Codec[T]):
    """Values of which only their own classes know the parts."""

    pickles = True
    __slots__ = ()

    def __init__(self, annotation: object) -> None:
        self._annotation = annotation
        self.parts = None
        self._simple = self.sure = False

    @property
    def name(self) -> str:
        return f"cloudpickle@{PYTHON}"

    def encode(self, value: T, path: str = "value") -> bytes:
        try:
            raw = self._bytes(value)
            self._value(raw)
        except Exception as error:
            raise EncodingError(
                path,
                f"{type(value).__name__} cannot be pickled and brought back: {str(error) or type(error).__name__}",
                "Leave out what belongs to this process (files, locks, clients), or annotate a closed type.",
            ) from error
        return raw

    def encode_changed(self, value: T, known: bytes | None, path: str) -> bytes:
        """Like `encode`, but bytes that are known have been loaded once already."""
        try:
            raw = self._bytes(value)
        except Exception:  # noqa: BLE001  # encoding again tells what is wrong
            return self.encode(value, path)
        return raw if raw == known else self.encode(value, path)

    def _bytes(self, value: T) -> bytes:
        pickled: bytes = cloudpickle.dumps(value)  # pyright: ignore[reportUnknownMemberType]  # it has no type information
        return _write(_Pickle(base64.b64encode(pickled).decode(), PYTHON))

    def _value(self, raw: bytes | str) -> T:
        try:
            read = _read_pickle(raw)
        except msgspec.ValidationError:
            raise DecodingError(
                f"the stored {_spelled(self._annotation)}",
                f"the code declares {self.name}, but the row holds json",
                "Bring the annotation back to what wrote it, or migrate the row.",
            ) from None
        if read.python != PYTHON:
            raise DecodingError(
                f"the stored {_spelled(self._annotation)}",
                f"it was written by cloudpickle@{read.python}, and the code declares {self.name}",
                "Run it under that Python, or annotate closed types there first; pickles do not cross versions.",
            )
        return cloudpickle.loads(base64.b64decode(read.pickled))  # type: ignore[no-any-return]  # by the annotation


def codec_for(annotation: object) -> Codec[Any]:
    """The codec of a resolved annotation; `inspect.Parameter.empty`, the missing one, is cloudpickle.

    Raises:
        EncodingError: The annotation names what cannot be resolved, restored or told apart.
    """
    try:
        return _codec_for(annotation)
    except TypeError as error:
        if isinstance(error, EncodingError):
            raise
        return _make_codec(annotation)  # an Annotated with unhashable metadata


def _make_codec(annotation: object) -> Codec[Any]:
    if annotation is inspect.Parameter.empty:
        return _PickleCodec(object)
    try:
        return Codec(annotation)
    except NotClosed:
        return _PickleCodec(annotation)


_codec_for = functools.cache(_make_codec)


def digest(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes | None:
    """SHA-256 of the arguments of a call, equal for equal arguments in every process; None where JSON cannot tell.

    No annotation is asked, so that functions without any have one too.
    """
    try:
        raw = _write_sorted([args, dict(kwargs)])
    except Exception:  # noqa: BLE001  # whatever is wrong with a value, it has no digest
        return None
    return hashlib.sha256(raw).digest()


def _lowered(value: object) -> object:
    """What msgspec does not know: a reference or receipt, or a pydantic model."""
    text = wire_of(value)
    if text is not None:
        return text
    dump = getattr(type(value), "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} has no JSON")
    return dump(value, mode="json")


_write_sorted = msgspec.json.Encoder(enc_hook=_lowered, order="deterministic").encode


def _decoder(annotation: object, read: Any) -> Callable[[bytes | str], Any]:  # noqa: ANN401  # a type made at run time
    try:
        return msgspec.json.Decoder(read).decode
    except (TypeError, ValueError) as error:
        raise EncodingError(
            _spelled(annotation), f"JSON cannot be read as this: {error}", "Annotate it otherwise."
        ) from error


def _spelled(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
