"""Names that outlive processes: keys, ids and kinds."""

from __future__ import annotations

import os
import unicodedata
from itertools import count
from typing import TYPE_CHECKING

from perdure.errors import ActorDefinitionError, KeyFormatError, KindError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.actors.actor import Actor

_MAX_BYTES = 255

kinds: dict[str, type[Actor]] = {}
"""Every actor class of this process, by its durable name and its aliases."""


def check_name(name: object, what: str) -> str:
    """A key or id as given, if it is one that every system can keep; raises `KeyFormatError`."""
    if not isinstance(name, str):
        raise KeyFormatError(f"{what} {name!r} is a {type(name).__name__}. Use a str.")
    if name.isascii() and name.isprintable() and 0 < len(name) <= _MAX_BYTES:
        return name
    if not name:
        raise KeyFormatError(f"{what} is empty. Use 1 to {_MAX_BYTES} bytes of text.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise KeyFormatError(f"{what} {name!r} holds a lone surrogate. Use text that UTF-8 can write.") from None
    if size > _MAX_BYTES:
        raise KeyFormatError(f"{what} '{name[:40]}…' has {size} bytes; {_MAX_BYTES} is the limit. Use a shorter one.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise KeyFormatError(f"{what} {name!r} holds a control character. Leave it out.")
    if not unicodedata.is_normalized("NFC", name):
        raise KeyFormatError(
            f"{what} {name!r} is not in Unicode's NFC form, so two spellings would be two things. "
            "Normalise it with unicodedata.normalize('NFC', …)."
        )
    return name


def check_tags(tags: Iterable[str], what: str) -> frozenset[str]:
    """Tags as a set; raises `ActorDefinitionError` unless each is a name that every process can be given."""
    if isinstance(tags, str | bytes) or not hasattr(tags, "__iter__"):
        raise ActorDefinitionError(f'{what}{tags!r} is no set of tags. Write a set: {{"gpu"}}.')
    found = list(tags)
    for tag in found:
        try:
            check_name(tag, "tag")
        except KeyFormatError as error:
            raise ActorDefinitionError(f"{what}{found!r}: {error}") from error
    return frozenset(found)


def register_kind(cls: type[Actor], kind: str, aliases: tuple[str, ...]) -> None:
    """Give a class its durable names. The same module defining it again, as in a notebook, replaces it."""
    for name in (kind, *aliases):
        check_name(name, "kind")
        if "/" in name:
            raise KindError(
                f"kind '{name}' of {cls.__qualname__} holds a '/', which parts kind from key. Leave it out."
            )
        other = kinds.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise KindError(
                f"kind '{name}' is both {other.__module__}.{other.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}. Give one of them another kind=."
            )
    for name in (kind, *aliases):
        kinds[name] = cls


class IdSource:
    """Ids that are unique in the deployment, short, and ascending within a process."""

    def __init__(self) -> None:
        # 80 random bits a process make a collision of two processes a matter of 10^12 of them.
        self.prefix = os.urandom(10).hex()
        self._numbers = count(1)

    def next(self) -> str:
        """A new id."""
        return f"{self.prefix}-{next(self._numbers):x}"


def near(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name most like this one, or nothing."""
    import difflib  # noqa: PLC0415  # only when something went wrong

    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
