"""What a system does for callers outside any turn: messages that are sent, replies that are awaited, receipts."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, cast

from perdure.actors.names import kinds
from perdure.actors.outcomes import removed
from perdure.actors.port import decoding_port
from perdure.actors.receipt import Receipt, Status
from perdure.actors.sealing import close_message, open_error, open_reply
from perdure.errors import ActorFailed, MessageTooLarge, PerdureError
from perdure.storage.committer import settle
from perdure.storage.records import Envelope, Outcome
from perdure.storage.writes import Append, Appended, Committed, Existing

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.actors.activation import Activation
    from perdure.actors.handler import Query
    from perdure.actors.names import IdSource
    from perdure.actors.outcomes import Outcomes
    from perdure.actors.port import Outgoing, Port
    from perdure.actors.ref import Reference
    from perdure.actors.slots import Slots
    from perdure.actors.turn import Turn
    from perdure.limits import Limits
    from perdure.storage.codec import Codec
    from perdure.storage.committer import Committer, Told
    from perdure.storage.records import Found
    from perdure.storage.seal import Seal
    from perdure.storage.store import Store
    from perdure.storage.writes import Monitor, Settled, Write


class Sending:
    """The half of a host that serves callers outside."""

    store: Store
    committer: Committer
    limits: Limits
    loop: asyncio.AbstractEventLoop
    ids: IdSource
    outcomes: Outcomes
    slots: Slots
    seal: Seal | None
    activations: dict[int, Activation]

    def __init__(self) -> None:
        self.timestamp: Callable[[], float] = time.time
        self._told: Told = self._appended  # bound once, not at every message

    @abstractmethod
    def deliver(self, appended: Appended) -> None:
        """Give a committed message to its mailbox, if it is here."""

    @abstractmethod
    def committed(self, committed: Committed) -> None:
        """Let out what a commit released."""

    @abstractmethod
    async def query(self, ref: Reference, query: Query, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """See `Port.query`."""

    @abstractmethod
    def seek(self, turn: Turn) -> None:
        """See `Port.seek`."""

    def envelope(
        self, message: Outgoing, id_: str, *, chain: tuple[str, ...] = (), cause: int | None = None, ask: bool = False
    ) -> Envelope:
        """A message as it is stored. Raises `MessageTooLarge`.

        `timeout` is the latest start of a tell; of an ask it bounds the caller's wait, and the message does not expire.
        """
        size = len(message.args)
        if size > self.limits.message_bytes:
            raise MessageTooLarge(
                f"'{message.handler.name}' to {message.to} is {size} bytes; {self.limits.message_bytes} is the limit. "
                "Store the data elsewhere and send its name, or raise Limits(message_bytes=…)."
            )
        now = self.timestamp()
        options, spec = message.options, message.cls.__perdure__
        due = options.due if options.due is not None and options.due > now else None
        expires = None if options.timeout is None or ask else now + options.timeout
        args, codec = message.args, message.handler.signature.arguments.name
        if self.seal is not None:
            args = close_message(self.seal, message, id_)
        return Envelope(
            id_, message.to, message.handler.name, args, codec, now, options.id is not None, cause, chain, due, expires,
            bool(spec.required), spec.mailbox_limit if cause is None else None,
        )  # fmt: skip

    def _append(self, message: Outgoing, id_: str, told: Told, *, ask: bool) -> asyncio.Future[Any]:
        if asyncio.get_running_loop() is not self.loop:
            self.committer.check_loop()
        future: asyncio.Future[Any] = self.loop.create_future()
        self.committer.submit(Append(self.envelope(message, id_, ask=ask), ask), told, future)
        return future

    def _appended(self, write: Write, settled: Settled | PerdureError, future: asyncio.Future[Any] | None) -> None:
        if isinstance(settled, Appended):
            self.deliver(settled)
        settle(write, settled, future)

    def tell(self, message: Outgoing) -> tuple[str, asyncio.Future[Any]]:
        """See `Port.tell`."""
        id_ = message.options.id or self.ids.next()
        return id_, self._append(message, id_, self._told, ask=False)

    def _asked(self, write: Write, settled: Settled | PerdureError, future: asyncio.Future[Any] | None) -> None:
        if future is not None and isinstance(settled, Appended) and settled.place.epoch is not None:
            # It will be answered here, so whoever asked need not wake before that.
            self.deliver(settled)
            if not future.done():
                self.outcomes.expect(settled.mail.seq, settled.mail.id, future)
        else:
            self._appended(write, settled, future)

    async def ask(self, message: Outgoing) -> object:
        """See `Port.ask`."""
        timeout = message.options.timeout
        end = None if timeout is None else self.loop.time() + timeout
        id_ = message.options.id or self.ids.next()
        future = self._append(message, id_, self._asked if end is None else self._told, ask=True)
        try:
            settled: Outcome | Appended | Existing = await future
        except BaseException:
            self.outcomes.forget(future)  # cancelled, or its coroutine closed
            raise
        codec = message.handler.signature.reply
        if isinstance(settled, Outcome):
            return self._open(settled, id_, codec)
        receipt: Receipt[Any] = Receipt(id_, codec, self)
        if isinstance(settled, Existing):
            outcome = settled.outcome or await self.outcomes.wait(settled.seq, receipt, end, local=False)
        else:
            local = settled.place.epoch is not None
            outcome = await self.outcomes.wait(settled.mail.seq, receipt, end, local=local)
        return self._open(outcome, id_, codec)

    def _open(self, outcome: Outcome, id_: str, codec: Codec[Any] | None) -> object:
        """The reply in an outcome, or its error raised; a plain JSON value where nobody knows the codec."""
        if outcome.status != "succeeded":
            raise open_error(self.seal, outcome, id_)
        if codec is not None and codec.sure:  # nothing in it could want to know its system
            return open_reply(self.seal, outcome, id_, codec)
        token = decoding_port.set(cast("Port", self))
        try:
            return open_reply(self.seal, outcome, id_, codec)
        finally:
            decoding_port.reset(token)

    async def _look_up(self, id_: str) -> Found:
        self.committer.check_loop()
        found = await self.store.find(id_)
        if found is None:
            raise removed(id_)
        return found

    async def result(self, receipt: Receipt[Any], timeout: float | None) -> object:
        """See `Port.result`."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        found = await self._look_up(receipt.id)
        if found.outcome is None and found.life == "failed":
            raise ActorFailed(
                f"{found.actor} has failed: {found.reason}. '{receipt.id}' waits until it is restarted: "
                f"perdure restart {found.actor}"
            )
        outcome = found.outcome or await self.outcomes.wait(found.seq, receipt, end, local=False)
        known = kinds[found.actor.kind].__perdure__ if found.actor.kind in kinds else None
        handler = known.by_stored_name.get(found.handler) if known is not None else None
        found_codec = handler.signature.reply if handler is not None else None
        return self._open(outcome, receipt.id, receipt.codec or found_codec)

    async def status(self, id_: str) -> Status:
        """See `Port.status`."""
        found = await self._look_up(id_)
        if found.outcome is not None:
            return found.outcome.status
        if found.number != found.cursor + 1:
            return "pending"
        for activation in self.activations.values():
            turn = activation.turn
            if turn is not None and turn.mail.seq == found.seq:
                return "waiting" if turn.waits_durably() else "running"
        if found.status in ("waiting", "parked"):
            return cast("Status", found.status)
        return "running" if found.executing else "pending"

    async def watch(self, note: Monitor) -> None:
        """See `Port.watch`."""
        self.committed(cast("Committed", await self.committer.write(note)))
