"""Stored values as people may see them: sealed ones opened where there are the keys.

Without keys, what is signed is shown as it lies there, unverified, and what is encrypted as `<encrypted, 412 B>`. With
them (the `perdure` command takes them from `PERDURE_KEYS`), a value that was not sealed for its place is shown as
`<tampered, 412 B>`, whatever it says.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from perdure.console.views import Failure, Stored
from perdure.errors import MissingExtraError, TamperedError, UnknownKeyError
from perdure.storage.seal import Reader, open_failure
from perdure.storage.seal_text import MARKS, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.storage.seal_identity import Identity


class Lens:
    """What makes values of stored texts, with these keys."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._reader = Reader(keys) if keys else None

    def stored(self, text: str | None, identity: Identity | None, codec: str = "json") -> Stored | None:
        """A value; `place` is none where it is not known whose it is."""
        return None if text is None else self.value(text, identity, codec)

    def value(self, text: str, identity: Identity | None, codec: str = "json") -> Stored:
        """A value."""
        sealed = parse(text) if text.startswith(MARKS) else None
        if sealed is None:
            return Stored(text, codec)
        if self._reader is not None and identity is not None:
            try:
                return Stored(self._reader.open(text, identity), codec)
            except TamperedError:
                return Stored(text, "tampered")
            except (UnknownKeyError, MissingExtraError):
                pass
        return Stored(sealed.value, codec) if sealed.scheme == "signed" else Stored(text, "encrypted")

    def failure(self, text: str | None, identity: Identity | None) -> Failure | None:
        """A failure."""
        if self._reader is not None and identity is not None:
            with suppress(TamperedError, UnknownKeyError, MissingExtraError):
                text = open_failure(self._reader, text, identity)
        return Failure.parse(text)
