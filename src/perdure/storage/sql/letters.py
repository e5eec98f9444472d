"""Dead letters on SQLite: tried again, or removed for good.

    dead ──► Resend ──► pending, at the end of its mailbox: the same message, with its journal
      └────► Forget ──► gone, and its id with it

Both are rare, so they work on the tables directly, after the rows that wait have been put down.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perdure.errors import ActorStopped, NoSuchMessage, NotADeadLetter
from perdure.storage.records import Mail
from perdure.storage.sql.rare import remove
from perdure.storage.sql.rows import RENEW
from perdure.storage.writes import Appended

if TYPE_CHECKING:
    from perdure.errors import PerdureError
    from perdure.storage.history_writes import Forget, Resend
    from perdure.storage.sql.batch import Transaction
    from perdure.storage.sql.connection import Connection

_MESSAGE = """
SELECT seq, actor, handler, args, codec, sent, cause, chain, status
FROM message LEFT JOIN outcome ON outcome.message = seq WHERE id = ?
"""
_ESCAPED = "SELECT escaped FROM failure WHERE message = ? ORDER BY seq DESC LIMIT 1"
# What it did since its last failure stays done, even under a key that had escaped an earlier one. What was cancelled as
# it failed begins anew, too.
_RENEW_ESCAPED = f"""
{RENEW} message = ? AND status IN ('failed', 'cancelled') AND key IN (SELECT value FROM texts(?) AS escaped)
"""  # noqa: S608  # constant statement


def resend(transaction: Transaction, write: Resend) -> Appended | PerdureError:
    """Settle a dead letter that is tried again."""
    transaction.flush()
    connection = transaction.connection
    found = connection.fetch(_MESSAGE, write.message)
    if found and transaction.hold([found[0][1]]):
        found = connection.fetch(_MESSAGE, write.message)
    if not found:
        return NoSuchMessage(
            f"message '{write.message}': there is no such message, or it is no longer kept. perdure dead lists those "
            "that can be sent again."
        )
    ((seq, actor, handler, args, codec, sent, cause, chain, status),) = found
    if status != "dead":
        return NotADeadLetter(
            f"message '{write.message}': {'has not ended yet' if status is None else f'ended as {status}'}, and is no "
            "dead letter; only those are sent again. Send another message, under another id."
        )
    row = transaction.row(actor)
    if row is None or row.status == "stopped":
        return ActorStopped(
            f"message '{write.message}': {row.address if row else 'its actor'} has stopped, and handles nothing any "
            f"more. Send it to another key, or remove it: perdure dead purge {write.message}"
        )
    row.tail += 1
    transaction.touch(row)
    if row.owner is None and row.status == "ready":
        transaction.own(row)
    _reopen(connection, seq, row.tail, transaction.now)
    transaction.reread([(seq, write.message)])
    chain = tuple(json.loads(chain or "[]"))
    mail = Mail(seq, row.tail, write.message, handler, args, codec, sent, cause, chain, past=True)
    return Appended(transaction.place(row), mail)


def _reopen(connection: Connection, seq: int, number: int, now: float) -> None:
    """Have a message not ended, with its attempts to come and its finished steps behind it."""
    connection.execute("UPDATE message SET number = ?, expires = NULL WHERE seq = ?", number, seq)
    connection.execute("DELETE FROM outcome WHERE message = ?", seq)
    connection.execute(
        "UPDATE turn SET attempts = 0, blame = 0, suspect = 0, executing = NULL, retry_at = NULL, since = ? \
         WHERE message = ?",
        now, seq,
    )  # fmt: skip
    for (escaped,) in connection.fetch(_ESCAPED, seq):
        connection.execute(_RENEW_ESCAPED, seq, json.loads(escaped or "[]"))


def forget(transaction: Transaction, write: Forget) -> int:
    """Settle dead letters that are removed for good."""
    transaction.flush()
    sql = "SELECT seq, message.id, actor FROM texts(?) AS wanted CROSS JOIN message ON message.id = wanted.value \
           JOIN outcome ON outcome.message = seq WHERE status = 'dead'"
    found = transaction.connection.fetch(sql, list(write.messages))
    if transaction.hold({actor for _, _, actor in found}):
        found = transaction.connection.fetch(sql, list(write.messages))
    letters = [(seq, id_) for seq, id_, _ in found]
    removed = remove(transaction.connection, [seq for seq, _ in letters])
    transaction.reread(letters)
    return removed
