"""Which value of the database a text is: what its seal is bound to, so that it is good in no other identity.

Names that stay the same when a database is copied, or an actor goes to another node: ids of messages, addresses of
actors, keys of journals; never numbers of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from perdure.storage.records import Address

Identity: TypeAlias = tuple[str, ...]
"""What the text is, in one word, then the names that make it this one."""

_SPELLED = {
    "arguments": "the arguments of message '{0}' to {1}/{2}.{3}",
    "state": "the state of {0}/{1}, version {2}",
    "result": "the result of message '{0}'",
    "changes": "the changes of message '{0}'",
    "record": "the result of '{1}' in the journal of message '{0}'",
    "failure": "the failure of message '{0}'",
    "query": "the arguments of query '{0}' to {1}/{2}.{3}",
    "answer": "the answer to query '{0}'",
    "no answer": "why there is no answer to query '{0}'",
    "start": "a failure of {0}/{1} to start",
}


def arguments_of(message: str, to: Address, handler: str) -> Identity:
    """A message's arguments: they are good for this receiver and handler."""
    return ("arguments", message, to.kind, to.key, handler)


def state_of(actor: Address, version: int) -> Identity:
    """An actor's state, and what it was spawned with, as this version of its class wrote them."""
    return ("state", actor.kind, actor.key, str(version))


def result_of(message: str) -> Identity:
    """What a message's handler returned; the asker's journal holds the same."""
    return ("result", message)


def changes_of(message: str) -> Identity:
    """The fields that a message's turn changed."""
    return ("changes", message)


def record_of(message: str, key: str) -> Identity:
    """What a step, or another operation of the turn itself, gave."""
    return ("record", message, key)


def failure_of(message: str) -> Identity:
    """What went wrong in a message's turn."""
    return ("failure", message)


def start_of(actor: Address) -> Identity:
    """What went wrong in starting an actor, where no message is to blame."""
    return ("start", actor.kind, actor.key)


def query_of(query: str, to: Address, name: str) -> Identity:
    """A query's arguments on their way to another process."""
    return ("query", query, to.kind, to.key, name)


def answer_of(query: str) -> Identity:
    """A query's answer on its way back."""
    return ("answer", query)


def no_answer_of(query: str) -> Identity:
    """What went wrong in a query, on its way back."""
    return ("no answer", query)


def spelled(identity: Identity) -> str:
    """The place in words."""
    what, *names = identity
    return _SPELLED[what].format(*names)
