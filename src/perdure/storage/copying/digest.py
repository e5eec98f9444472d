"""What a table holds, as one number that both databases give alike: neither drivers nor collations have a part in it.

Each row is spelled in bytes, as MessagePack, which tells types and lengths, and hashed; a table is the sum of its rows.
So the order in which a database gives them does not matter, and no two rows cancel out, for their keys differ.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perdure.storage.copying.tables import Row

_MODULUS = 1 << 256


@frozen
class Content:
    """What a table holds. `digest` is 64 hexadecimal digits."""

    rows: int
    digest: str


class Digest:
    """Adds up rows as they pass."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def __repr__(self) -> str:
        return f"<Digest of {self._rows} rows>"

    @property
    def content(self) -> Content:
        """What has passed so far."""
        return Content(self._rows, f"{self._sum % _MODULUS:064x}")

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, which are counted as they pass."""
        spell = msgspec.msgpack.Encoder().encode
        for row in rows:
            self._sum += int.from_bytes(sha256(spell(row)).digest(), "big")
            self._rows += 1
            yield row


def content(rows: Iterable[Row]) -> Content:
    """What these rows are."""
    digest = Digest()
    for _ in digest.over(rows):
        pass
    return digest.content
