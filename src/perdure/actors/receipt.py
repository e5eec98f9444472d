"""Receipts: the proof that a message was accepted, and the way back to its outcome, from any process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

from perdure.actors.names import check_name
from perdure.actors.port import decoding_port
from perdure.actors.scope import forbid_in_step, here
from perdure.clock import Seconds, seconds
from perdure.errors import EncodingError, NotInTurnError
from perdure.storage.codec import Codec, codec_for, register_extension, register_wire

if TYPE_CHECKING:
    from perdure.actors.port import Port

R_co = TypeVar("R_co", covariant=True)

Status: TypeAlias = Literal[
    "pending", "running", "waiting", "parked", "succeeded", "rejected", "cancelled", "expired", "dead"
]
"""Where a message stands: the first four are on the way, the others are its outcome."""


class Receipt(Generic[R_co]):
    """A message that was accepted. Travels in messages and state as the message's id."""

    __slots__ = ("_codec", "_id", "_port")

    def __init__(self, id_: str, codec: Codec[Any] | None, port: Port | None) -> None:
        self._id = id_
        self._codec = codec
        self._port = port

    def __repr__(self) -> str:
        return f"<receipt {self._id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Receipt) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._id,)

    @property
    def id(self) -> str:
        """The message's id."""
        return self._id

    async def result(self, timeout: Seconds | None = None) -> R_co:
        """Wait until the message has ended and give what its handler returned.

        Args:
            timeout: How long to wait; for ever without it.

        Raises:
            Rejected: The handler refused.
            DeadLetterError: The message ran out of attempts.
            MessageExpired: It was not started in time, or ran too long.
            AskTimeout: The wait ended; the message goes on.
            DeadlockError: In a turn: the result could never come.
        """
        wait = None if timeout is None else seconds(timeout)
        scope = here()
        if scope is not None:
            return cast("R_co", await scope.turn.await_receipt(scope, self, wait))
        forbid_in_step(f"a wait for {self!r}")
        return cast("R_co", await self._need_port().result(self, wait))

    async def status(self) -> Status:
        """Where the message stands."""
        return await self._need_port().status(self._id)

    @property
    def codec(self) -> Codec[Any] | None:
        """How the reply is stored, if the receipt knows."""
        return self._codec

    def _need_port(self) -> Port:
        port = self._port or decoding_port.get()
        if port is None:
            raise NotInTurnError(f"{self!r} belongs to no system here. Use system.receipt({self._id!r}, Cls.handler).")
        return port


def _restore(id_: str) -> Receipt[Any]:
    return Receipt(id_, None, decoding_port.get())


class _ReceiptExtension:
    """How a receipt is stored: as its id. What its reply is decoded to comes from the annotation."""

    def __init__(self, reply: object) -> None:
        self._reply = reply

    def wire(self, value: object) -> str:
        if not isinstance(value, Receipt):
            raise EncodingError("receipt", f"{value!r} is not a receipt", "Pass what `tell` returned.")
        return cast("Receipt[Any]", value).id  # type: ignore[redundant-cast]  # pyright takes it for unknown

    def unwire(self, text: str) -> Receipt[Any]:
        port = decoding_port.get()
        codec = None if self._reply is Any else codec_for(self._reply)
        return Receipt(check_name(text, "message id"), codec, port)


def _receipt_extension(annotation: object) -> _ReceiptExtension | None:
    if annotation is Receipt:
        return _ReceiptExtension(Any)
    if get_origin(annotation) is Receipt:
        return _ReceiptExtension(get_args(annotation)[0])
    return None


register_extension(_receipt_extension)
register_wire(Receipt, lambda receipt: receipt.id)
