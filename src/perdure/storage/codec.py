"""How values become JSON and come back, decided by annotations."""

import base64
import functools
import hashlib
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import cloudpickle
import msgspec

from perdure.errors import DecodingError, EncodingError
from perdure.storage.extension import Extension as Extension
from perdure.storage.extension import extension_for
from perdure.storage.extension import register_extension as register_extension

T = TypeVar("T")
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Codec(Generic[T]):
    def __init__(self, annotation: object) -> None:
        self._extension = extension_for(annotation)
        if self._extension is None and typing.get_origin(annotation) in (typing.Union, types.UnionType):
            for a in typing.get_args(annotation):
                self._extension = self._extension or extension_for(a)
        self._decoder: Any = None
        if self._extension is None and annotation not in (inspect.Parameter.empty, object):
            try:
                self._decoder = msgspec.json.Decoder(annotation)
            except TypeError:
                self._decoder = None
        self.name = "json" if self._extension or self._decoder else f"cloudpickle@{_PYTHON}"

    def encode(self, value: T, path: str = "value") -> bytes:
        try:
            if self._extension is not None:
                return msgspec.json.encode(None if value is None else self._extension.wire(value))
            if self._decoder is not None:
                raw = msgspec.json.encode(value)
            else:
                text = base64.b64encode(cloudpickle.dumps(value)).decode()
                raw = msgspec.json.encode({"$cloudpickle": text, "python": _PYTHON})
            self.decode(raw)
        except EncodingError:
            raise
        except Exception as error:
            raise EncodingError(path, str(error), "Annotate it otherwise.") from error
        return raw

    def decode(self, raw: bytes | str) -> T:
        try:
            if self._extension is not None:
                text = msgspec.json.decode(raw)
                return None if text is None else self._extension.unwire(text)
            if self._decoder is not None:
                return self._decoder.decode(raw)
            return cloudpickle.loads(base64.b64decode(msgspec.json.decode(raw)["$cloudpickle"]))
        except Exception as error:
            raise DecodingError("value", str(error), "Annotate it otherwise.") from error


@functools.cache
def codec_for(annotation: object) -> Codec[Any]:
    return Codec(annotation)


class RecordCodec:
    def __init__(self, fields: Mapping[str, object]) -> None:
        self._codecs = {name: codec_for(annotation) for name, annotation in fields.items()}
        pickled = any(codec.name != "json" for codec in self._codecs.values())
        self.name = f"json+cloudpickle@{_PYTHON}" if pickled else "json"

    def encode(self, values: Mapping[str, object], path: str = "") -> dict[str, bytes]:
        prefix = path and path + "."
        return {name: self._codecs[name].encode(value, prefix + name) for name, value in values.items()}

    def encode_changed(
        self, values: Mapping[str, object], known: Mapping[str, bytes], path: str = ""
    ) -> dict[str, bytes]:
        return self.encode(values, path)

    def decode(self, text: str | bytes) -> dict[str, Any]:
        return {n: self._codecs[n].decode(raw) for n, raw in split(text).items() if n in self._codecs}


def join(fields: Mapping[str, bytes]) -> str:
    return msgspec.json.encode({name: msgspec.Raw(raw) for name, raw in fields.items()}).decode()


def split(text: str | bytes) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items()}


def _hook(value: object) -> object:
    extension = extension_for(type(value))
    if extension is None:
        raise TypeError
    return extension.wire(value)


def digest(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes | None:
    try:
        raw = msgspec.json.encode([args, dict(kwargs)], enc_hook=_hook, order="deterministic")
    except Exception:
        return None
    return hashlib.sha256(raw).digest()
