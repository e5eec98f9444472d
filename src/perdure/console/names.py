"""Names that people type: addresses of actors and ids of messages, and what to suggest for wrong ones."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from perdure.console import rows
from perdure.console.database import known_text
from perdure.errors import ActorError, NoSuchMessage
from perdure.storage.records import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.console.database import Moment

_LIKENESS = 0.5  # of two names, where 1 is equality: "r1" and "r2" are as alike as that


class _UnknownNameError(ActorError):
    """The database knows nothing of that name. `near` are the known ones most like it."""

    near: tuple[str, ...]

    def __init__(self, text: str, near: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.near = tuple(near)


class UnknownActor(_UnknownNameError):
    """There is no such actor in the database."""


class UnknownMessage(_UnknownNameError, NoSuchMessage):
    """There is no such message in the database, or it is no longer kept."""


def parse_address(text: str) -> Address:
    """`Kind/key` as an address; the key may hold further slashes."""
    kind, _, key = known_text(text).partition("/")
    return Address(kind, key)


def unknown_actor(moment: Moment, address: Address) -> UnknownActor:
    """The error for an actor that is not there."""
    kinds = rows.kinds(moment)
    if not kinds:
        return UnknownActor(f"actor '{_plain(address)}': this database has no actors yet.")
    if not address.key:
        return _not_an_address(moment, address.kind, kinds)
    if address.kind in kinds:
        near = [f"{address.kind}/{key}" for key in _close(address.key, rows.keys(moment, address.kind))]
        return _unknown_actor(address, f"there is no such {address.kind}", near, f"perdure ps --kind {address.kind}")
    near = [kind for kind in _close(address.kind, kinds) if rows.actor(moment, Address(kind, address.key))]
    same_key = [f"{kind}/{address.key}" for kind in near] or rows.addresses_with_key(moment, address.key)
    known = same_key or [f"{kind}/…" for kind in _close(address.kind, kinds)]
    return _unknown_actor(address, f"there is no kind '{address.kind}'", known, "perdure ps")


def _not_an_address(moment: Moment, name: str, kinds: Sequence[str]) -> UnknownActor:
    if name in kinds:
        near = [f"{name}/{key}" for key in rows.keys(moment, name)[:3]]
    else:
        near = rows.addresses_with_key(moment, name)
    return _unknown_actor(Address(name, ""), "an actor is named as Kind/key", near, "perdure ps")


def _unknown_actor(address: Address, cause: str, near: Sequence[str], listing: str) -> UnknownActor:
    return UnknownActor(f"actor '{_plain(address)}': {cause}. {_suggest(near)}{listing} lists those there are.", near)


def _plain(address: Address) -> str:
    return str(address) if address.key else address.kind


def unknown_message(moment: Moment, id_: str) -> UnknownMessage:
    """The error for a message that is not there."""
    if rows.actor(moment, parse_address(id_)) is not None:
        return UnknownMessage(f"message '{id_}': is an actor, not a message. See it with: perdure show {id_}", [id_])
    near = _close(id_, rows.ids(moment))
    cause = "there is no such message; those handled long ago are no longer kept"
    return UnknownMessage(
        f"message '{id_}': {cause}. {_suggest(near)}perdure show Kind/key lists an actor's messages.", near
    )


def _close(name: str, known: Sequence[str]) -> list[str]:
    """The known names most like one: those that begin with it, then those that look like it."""
    begin = [it for it in known if name and it.startswith(name)]
    return list(dict.fromkeys([*begin, *difflib.get_close_matches(name, known, n=3, cutoff=_LIKENESS)]))[:3]


def _suggest(near: Sequence[str]) -> str:
    return f"Did you mean {' or '.join(near)}? " if near else ""
