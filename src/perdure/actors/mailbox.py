"""An actor's mailbox in memory: the beginning of what is on disk, in the order of its dense numbers."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from typing import TYPE_CHECKING

from perdure.errors import FencedError, StorageError
from perdure.warning_types import DuplicateWorkWarning

if TYPE_CHECKING:
    from perdure.actors.host import Host
    from perdure.storage.records import Address, Grown, Loaded, Mail
    from perdure.storage.writes import Placed

MAILBOX_IN_MEMORY = 1_000


class Mailbox:
    """The mail of one activation.

    Attributes:
        cursor: Number of the last message that has ended, in memory.
        tail: Highest number known to be in the mailbox.
    """

    def __init__(self, host: Host, place: Placed) -> None:
        self.host = host
        self.actor = place.actor
        self.address: Address = place.to
        self.epoch = place.epoch or 0
        self.cursor = 0
        self.tail = 0
        self._mailbox: deque[Mail] = deque()
        self.given = False
        """It goes to another node once its turn is over: no other begins here."""
        self._left_over: dict[tuple[str, str], int] = {}
        self._loaded: asyncio.Event = asyncio.Event()
        if place.fresh:
            self._loaded.set()

    @property
    def has_next(self) -> bool:
        """Whether there is a message to handle here."""
        return self.cursor < self.tail and not self.given

    @property
    def is_loaded(self) -> bool:
        """Whether what is in memory is what lies on disk."""
        return self._loaded.is_set()

    @property
    def waiting(self) -> list[int]:
        """The messages that are in memory and not handled yet."""
        return [mail.seq for mail in self._mailbox]

    def _fill(self, loaded: Loaded) -> None:
        """Take what the store has."""
        self.cursor = loaded.cursor
        self.tail = max(self.tail, loaded.tail)
        numbered = {mail.number: mail for mail in (*loaded.mail, *self._mailbox) if mail.number > loaded.cursor}
        self._mailbox = deque(numbered[number] for number in sorted(numbered))
        for mail in self._mailbox:
            self._compare(mail)

    def _accept(self, mail: Mail) -> None:
        """Take a message that is on disk; what does not fit in memory is read from there later."""
        if self._left_over:
            self._compare(mail)
        mailbox, number = self._mailbox, mail.number
        self.tail = max(self.tail, number)
        if mailbox:
            follows = number == mailbox[-1].number + 1 and len(mailbox) < MAILBOX_IN_MEMORY
        else:  # before it is loaded, nobody knows where its mail begins
            follows = number == self.cursor + 1 or not self._loaded.is_set()
        if follows:
            mailbox.append(mail)

    def _accept_all(self, grown: Grown) -> None:
        for mail in grown.mail:
            self._accept(mail)
        self.tail = max(self.tail, grown.tail)  # the rest is read when its turn comes

    def _take(self) -> Mail | None:
        """The next message, if it is in memory."""
        mailbox, wanted = self._mailbox, self.cursor + 1
        while mailbox:
            mail = mailbox.popleft()
            if mail.number == wanted:
                return mail
            if mail.number > wanted:
                mailbox.appendleft(mail)
                return None
        return None

    async def _read_on(self) -> Mail:
        """The next message from disk, where there is more than memory holds.

        Raises:
            FencedError: Another node has the actor by now, and may have handled it.
        """
        wanted = self.cursor + 1
        self._mailbox = deque(await self.host.store.mail(self.actor, self.cursor, MAILBOX_IN_MEMORY))
        if not self._mailbox or self._mailbox[0].number != wanted:
            if any(loaded.epoch != self.epoch for loaded in await self.host.store.load([self.actor], 0)):
                raise FencedError(f"{self.address}: was taken from this node while it read its mailbox")
            raise StorageError(
                f"{self.address}: message number {wanted} is missing in its mailbox. This is a bug; run no further."
            )
        return self._mailbox.popleft()

    def _compare(self, mail: Mail) -> None:
        """Warn of a message from outside that repeats, without an id, what an earlier process left unfinished."""
        if mail.cause is not None:
            return
        content = (mail.handler, mail.args)
        if not mail.id.startswith(self.host.ids.prefix):
            if mail.sent < self.host.started:  # or it is another process's, beside this one
                self._left_over[content] = mail.number
        elif self._left_over.get(content, 0) > self.cursor:
            text = (
                f"'{mail.handler}' to {self.address} was sent again, and an earlier process left the same message "
                f"unfinished: both will be handled. Give work an id: with .options(id=…) a second start rejoins it."
            )
            # Where warnings are errors, this one is not to end what delivers mail.
            self.host.loop.call_soon(warnings.warn, text, DuplicateWorkWarning)
