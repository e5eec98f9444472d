"""The `--json` documents: a view's attributes are its keys, and stored values are embedded as the JSON they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import attrs

from perdure.console.views import Stored
from perdure.storage.records import Address

if TYPE_CHECKING:
    from attrs import AttrsInstance


def render_json(view: AttrsInstance) -> str:
    """A view as one JSON document, in ASCII: no byte of it can upset a terminal."""
    return json.dumps(plain(view), indent=2)


def plain(value: Any) -> Any:  # noqa: ANN401  # whatever views hold
    """A view, or a part of one, as plain JSON values."""
    if isinstance(value, Stored):
        return value.value()
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in cast(Iterable[Any], value)]
    if attrs.has(value.__class__):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(value.__class__)}
    return value
