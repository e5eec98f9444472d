"""The writes about messages that have ended: removed in time, sent again, or put away by hand."""

from __future__ import annotations

import math

from msgspec import Struct


class Purge(Struct, frozen=True, gc=False):
    """Removal of handled messages, below their cursor: ended before `history`, or `ids` if the id was chosen.

    No more than `limit`, of the next `looks` outcomes `after` a message. What ended after `recent` stays in any case.
    """

    history: float
    ids: float
    keep: int
    limit: int = 1000
    after: int = 0
    looks: int = 10_000
    recent: float = math.inf


class Purged(Struct, frozen=True, gc=False):
    """How many messages were removed, and after which one to look on; none where what follows is too young."""

    removed: int
    after: int | None


class Resend(Struct, frozen=True, gc=False):
    """A dead letter, named by its id, that goes to the end of its mailbox as the same message.

    Its attempts, deaths and latest start are forgotten. Its journal is kept, without the steps whose errors its handler
    let out the last time: they begin anew, and what was complete is not done again. Refused with `NoSuchMessage`,
    `NotADeadLetter`, or `ActorStopped` if nobody will ever handle it.
    """

    message: str


class Forget(Struct, frozen=True, gc=False):
    """Dead letters, named by their ids, that are removed with all that belongs to them; other messages stay."""

    messages: tuple[str, ...]
