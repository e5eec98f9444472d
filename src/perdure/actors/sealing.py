"""Sealing what actors store, and opening what they read: each value for its place (see `storage.seal`).

Where a system has no seal, nothing of this is called on the way in, and nothing but a look at how a text begins on the
way out: what another system sealed must not be taken for an object without members.

A turn that cannot open what its journal holds is parked: with other keys it goes on, and a failure would spend its
attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from perdure.actors.watching import Terminated
from perdure.errors import PerdureError, TamperedError, UnknownKeyError
from perdure.storage.failure import decode_failure, decode_query_failure, encode_failure
from perdure.storage.seal import Demanded, open_failure, opened
from perdure.storage.seal_identity import (
    answer_of,
    arguments_of,
    failure_of,
    no_answer_of,
    query_of,
    record_of,
    result_of,
    start_of,
    state_of,
)
from perdure.storage.seal_text import MARKS, NO_STATE

if TYPE_CHECKING:
    from perdure.actors.actor import ActorSpec
    from perdure.actors.handler import Query, Signature
    from perdure.actors.port import Outgoing
    from perdure.actors.segments import Segments
    from perdure.storage.codec import Codec
    from perdure.storage.records import Address, Answered, Mail, OpenQuery, Outcome, Record, Snapshot
    from perdure.storage.seal import Seal

SEAL_ERRORS = (TamperedError, UnknownKeyError)


# messages -------------------------------------------------------------------------------------------------------------


def close_message(seal: Seal, message: Outgoing, id_: str) -> str:
    """A message's arguments as they are stored.

    Raises:
        UnsignedError: The store demands signatures, there is no seal, and the message would have something pickled.
    """
    signature = message.handler.signature
    if isinstance(seal, Demanded):
        state = message.cls.__perdure__.state
        what = signature.what
        seal.admit({
            f"the arguments of {what}": signature.arguments,
            f"the reply of {what}": signature.reply,
            f"the state of {message.cls.__name__}": state,
        })  # fmt: skip
    identity = arguments_of(id_, message.to, message.handler.name)
    return seal.close(message.args, identity, signature.arguments, compared=True)


def open_arguments(seal: Seal | None, mail: Mail, actor: Address, signature: Signature) -> str:
    """A message's arguments as they were encoded. Raises `TamperedError`, `UnknownKeyError` or `DecodingError`."""
    codec = signature.arguments
    # the store itself writes, in the clear, who ended
    notice = list(codec.annotations.values()) == [Terminated]
    return opened(seal, mail.args, arguments_of(mail.id, actor, mail.handler), codec, plain=notice)


def open_reply(seal: Seal | None, outcome: Outcome, id_: str, codec: Codec[Any] | None) -> Any:  # noqa: ANN401  # by the handler's annotation
    """The reply in a message's successful outcome; a plain JSON value without a codec."""
    stored = outcome.result or "null"
    if seal is not None or stored.startswith(MARKS):
        stored = opened(seal, stored, result_of(id_), codec)
    return msgspec.json.decode(stored) if codec is None else codec.decode(stored)


# queries between processes --------------------------------------------------------------------------------------------


def close_query(seal: Seal, arguments: str, id_: str, to: Address, query: Query) -> str:
    """A query's arguments as they travel. Raises `UnsignedError`."""
    if isinstance(seal, Demanded):
        seal.admit({f"the reply of {query.signature.what}": query.signature.reply})
    return seal.close(arguments, query_of(id_, to, query.name), query.signature.arguments)


def open_query(seal: Seal | None, asked: OpenQuery, query: Query) -> str:
    """A query's arguments as they were encoded. Raises `TamperedError` or `UnknownKeyError`."""
    return opened(seal, asked.args, query_of(asked.id, asked.to, asked.name), query.signature.arguments)


def close_answer(seal: Seal | None, answer: str, id_: str, query: Query) -> str:
    """An answer as it travels. Raises `UnsignedError`."""
    return answer if seal is None else seal.close(answer, answer_of(id_), query.signature.reply)


def close_no_answer(seal: Seal | None, error: str, id_: str) -> str:
    """Why there is none, as it travels."""
    return error if seal is None else seal.close_failure(error, no_answer_of(id_))


def open_answer(seal: Seal | None, answered: Answered, query: Query) -> str:
    """The answer as it was encoded; raises what the query raised."""
    if answered.result is None:
        stored = open_failure(seal, answered.error, no_answer_of(answered.id))
        raise decode_query_failure(stored, query.signature.what)
    return opened(seal, answered.result, answer_of(answered.id), query.signature.reply)


# state ----------------------------------------------------------------------------------------------------------------


def close_state(seal: Seal, state: str, actor: Address, spec: ActorSpec, *, compared: bool = False) -> str:
    """State as it is stored."""
    if state == NO_STATE:
        return state
    if isinstance(seal, Demanded):
        seal.admit({f"the state of {spec.cls.__name__}": spec.state})
    return seal.close(state, state_of(actor, spec.version), spec.state, compared=compared)


def open_state(seal: Seal | None, snapshot: Snapshot, actor: Address, spec: ActorSpec) -> str:
    """State as it was encoded, by the version of the class that wrote it."""
    if snapshot.state == NO_STATE:
        return snapshot.state
    return opened(seal, snapshot.state, state_of(actor, snapshot.version), spec.state)


# failures -------------------------------------------------------------------------------------------------------------


def close_error(seal: Seal | None, error: BaseException, message: str | None, actor: Address) -> str:
    """An exception as it is stored: of a message's turn, or of the actor."""
    stored = encode_failure(error)
    return (
        stored
        if seal is None
        else seal.close_failure(stored, start_of(actor) if message is None else failure_of(message))
    )


def open_error(seal: Seal | None, outcome: Outcome, id_: str) -> PerdureError:
    """The error that a caller gets for a message that did not succeed."""
    stored = open_failure(seal, outcome.error, failure_of(id_))
    return decode_failure(outcome.status, stored, f"message '{id_}'")


# journals -------------------------------------------------------------------------------------------------------------


def cannot_open(turn: Segments, error: PerdureError) -> NoReturn:
    """Park the turn: something of its journal cannot be opened."""
    turn.park(str(error))
    turn.check()
    raise error


def admit_step(seal: Seal, name: str, codec: Codec[Any]) -> None:
    """Refuse a step before it begins whose result could not be stored. Raises `UnsignedError`."""
    if isinstance(seal, Demanded):
        seal.admit({f"the result of step '{name}'": codec})


def close_result(turn: Segments, key: str, text: str, codec: Codec[Any] | None = None) -> str:
    """What an operation of a turn gave, as its journal keeps it."""
    seal = turn.seat.seal
    return text if seal is None else seal.close(text, record_of(turn.mail.id, key), codec)


def open_result(turn: Segments, record: Record, codec: Codec[Any] | None = None) -> str:
    """What an operation of a turn gave, as it was encoded."""
    seal, stored = turn.seat.seal, record.result or "null"
    if seal is None and not stored.startswith(MARKS):
        return stored
    try:
        return opened(seal, stored, record_of(turn.mail.id, record.key), codec)
    except SEAL_ERRORS as error:
        cannot_open(turn, error)


def open_step_error(turn: Segments, record: Record) -> str | None:
    """Why a step failed."""
    try:
        return open_failure(turn.seat.seal, record.error, failure_of(turn.mail.id))
    except SEAL_ERRORS as error:
        cannot_open(turn, error)
