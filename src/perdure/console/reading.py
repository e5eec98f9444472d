"""One open read transaction, and the views that its rows make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from perdure.console import rows, supervised
from perdure.console.lens import Lens
from perdure.console.nodes import node_view
from perdure.console.views import (
    ActorView,
    Did,
    Failure,
    FailureView,
    MemberView,
    MessageRef,
    MessageView,
    StateView,
    StepView,
    TreeView,
)
from perdure.console.why import Place, why
from perdure.storage.records import Address
from perdure.storage.seal_identity import arguments_of, changes_of, failure_of, record_of, result_of, start_of, state_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from perdure.console.rows import ActorRow, Content, MessageRow, RecordRow
    from perdure.console.supervised import MemberRow
    from perdure.console.views import MemberState, NodeView, Wait
    from perdure.storage.seal_identity import Identity

_DIGEST_DIGITS = 8
_FAILURES = {"actor": 10, "message": 200}
_HELD = 50
_EVERYONE = 2**62


class Reading:
    """Views of one moment."""

    def __init__(self, connection: sqlite3.Connection, database: Path, now: float, lens: Lens | None = None) -> None:
        self.connection = connection
        self.now = now
        self._lens = lens or Lens()
        self._database = database
        self._nodes: dict[str, NodeView | None] = {}

    # nodes and actors -------------------------------------------------------------------------------------------------

    def nodes(self) -> tuple[NodeView, ...]:
        """The processes that have not left."""
        found = [node_view(self._database, row) for row in rows.nodes(self.connection)]
        self._nodes.update((node.id, node) for node in found)
        return tuple(found)

    def _node(self, id_: str | None) -> NodeView | None:
        if id_ is None:
            return None
        if id_ not in self._nodes:
            self._nodes[id_] = None
            for row in rows.nodes(self.connection, [id_]):
                self._nodes[id_] = node_view(self._database, row)
        return self._nodes[id_]

    def actor(self, row: ActorRow, delayed: int) -> ActorView:
        """An actor and why its mailbox waits."""
        head = rows.head(self.connection, row, self.now) if row.cursor < row.tail else None
        return ActorView(
            address=Address(row.kind, row.key),
            status=row.status,
            reason=row.reason,
            owner=self._node(row.owner),
            epoch=row.epoch,
            mail=row.tail - row.cursor,
            delayed=delayed,
            handled=row.cursor,
            created=row.created,
            parent=self._address(row.parent),
            wait=self.wait(*head) if head else None,
            life=row.life,
            restart_at=row.restart_at,
            supervisor=self._address(row.supervisor),
        )

    def _address(self, actor: int | None) -> Address | None:
        row = None if actor is None else rows.actor_numbered(self.connection, actor)
        return None if row is None else Address(row.kind, row.key)

    def failures(self, of: Literal["actor", "message"], number: int, actor: Address) -> tuple[FailureView, ...]:
        """The newest failures of an actor or of a message, oldest first."""
        found = supervised.failures(self.connection, of, number, _FAILURES[of])
        return tuple(
            FailureView(at, message, attempt, self._failure(error, message, actor) or Failure("", ""), decision)
            for at, message, attempt, error, decision in found
        )

    def _failure(self, stored: str | None, message: str | None, actor: Address) -> Failure | None:
        return self._lens.failure(stored, start_of(actor) if message is None else failure_of(message))

    def state(self, actor: int, address: Address) -> StateView | None:
        """An actor's state; none before its first turn that changed it."""
        found = rows.snapshot(self.connection, actor)
        if found is None:
            return None
        version, codec, state, initial = found
        identity = state_of(address, version)
        return StateView(
            version, codec, self._lens.value(state, identity, codec), self._lens.stored(initial, identity, codec)
        )

    # messages ---------------------------------------------------------------------------------------------------------

    def wait(self, row: MessageRow, content: Content) -> Wait:
        """Why a mailbox does not move on from the message at its head."""
        begun = self.steps(rows.begun(self.connection, row.seq), row.id)
        failure = self._lens.failure(content.failure, failure_of(row.id))
        limits = rows.limits(self.connection, row.seq, row.owner)
        return why(self.ref(row), self._place(row), row.reason, failure, begun, self.now, limits)

    def _place(self, row: MessageRow) -> Place:
        owner = self._node(row.owner)
        owned: Literal["no", "live", "gone"] = "no" if row.owner is None else "gone"
        if owner is not None and owner.live is not False:
            owned = "live"
        return Place(
            row.outcome, row.number, row.cursor, row.actor_status, owned, row.retry_at, row.steps, row.waits, row.life,
            row.restart_at,
        )  # fmt: skip

    def ref(self, row: MessageRow) -> MessageRef:
        """A message in few words."""
        return MessageRef(row.id, Address(row.kind, row.key), row.handler, self._place(row).state(self.now))

    def refs(self, seqs: Iterable[int | None]) -> dict[int, MessageRef]:
        """Messages in few words, by their numbers."""
        found = rows.places(self.connection, {seq for seq in seqs if seq is not None}, self.now)
        return {seq: self.ref(row) for seq, row in found.items()}

    def messages(self, found: Sequence[tuple[MessageRow, Content]]) -> tuple[MessageView, ...]:
        """Messages with what they did and what came of them."""
        did = rows.did(self.connection, [row.seq for row, _ in found])
        causes = self.refs(content.cause for _, content in found)
        return tuple(
            self._message(row, content, causes, [Did(*counted) for counted in did.get(row.seq, ())])
            for row, content in found
        )

    def _message(
        self, row: MessageRow, content: Content, causes: dict[int, MessageRef], did: Collection[Did]
    ) -> MessageView:
        ref = self.ref(row)
        # The outcome has the start of the run that ended; what an earlier run did is in the journal.
        started = min((it for it in (content.started, content.begun) if it is not None), default=None)
        return MessageView(
            seq=row.seq,
            id=row.id,
            actor=ref.actor,
            number=row.number,
            handler=row.handler,
            args=self._lens.value(content.args, arguments_of(row.id, ref.actor, row.handler), content.codec),
            state=ref.state,
            sent=content.sent,
            due=content.due,
            expires=content.expires,
            started=started,
            finished=content.finished,
            seconds=_between(started, content.finished),
            result=self._lens.stored(content.result, result_of(row.id)),
            error=self._lens.failure(content.error or content.failure, failure_of(row.id)),
            cause=None if content.cause is None else causes.get(content.cause),
            chain=tuple(json.loads(content.chain or "[]")),
            attempts=content.attempts,
            blame=content.blame,
            retry_at=row.retry_at,
            changes=self._lens.stored(content.changes, changes_of(row.id)),
            did=tuple(did),
        )

    # supervision ------------------------------------------------------------------------------------------------------

    def tree(self, limit: int | None) -> TreeView:
        """The supervision tree, with so many children of each supervisor."""
        below: dict[int | None, list[MemberRow]] = {}
        for row in supervised.children(self.connection, _EVERYONE if limit is None else limit):
            below.setdefault(row.supervisor, []).append(row)
        sizes = supervised.family_sizes(self.connection)
        members: list[MemberView] = []
        coming: list[tuple[int, Address | None, MemberRow]] = [
            (0, None, row) for row in reversed(supervised.tops(self.connection))
        ]
        while coming:
            depth, supervisor, row = coming.pop()
            young = below.pop(row.id, [])
            one = _member(row, depth, supervisor, sizes.get(row.id, 0) - len(young))
            members.append(one)
            coming.extend((depth + 1, one.address, child) for child in reversed(young))
        others, held_count = supervised.alone(self.connection)
        held = tuple(_member(row, 0, None, 0) for row in supervised.held_alone(self.connection, _HELD))
        return TreeView(str(self._database), self.now, tuple(members), others, held, held_count)

    # journals ---------------------------------------------------------------------------------------------------------

    def steps(self, found: Sequence[RecordRow], message: str) -> tuple[StepView, ...]:
        """Rows of a message's journal, with the messages they wait for."""
        targets = self.refs(row.target for row in found)
        return tuple(self._step(row, targets, message) for row in found)

    def _step(self, row: RecordRow, targets: dict[int, MessageRef], message: str) -> StepView:
        target = None if row.target is None else targets.get(row.target)
        result: Identity | None = record_of(message, row.key)
        failure: Identity | None = failure_of(message)
        if row.kind in {"ask", "receipt"}:  # then they are those of the message that was waited for
            result = None if target is None else result_of(target.id)
            failure = None if target is None else failure_of(target.id)
        return StepView(
            key=row.key,
            kind=row.kind,
            name=row.name,
            status=row.status,
            attempt=row.attempt,
            position=row.position,
            digest=row.digest.hex()[:_DIGEST_DIGITS] if row.digest is not None else None,
            started=row.started,
            finished=row.finished,
            seconds=_between(row.started, row.finished),
            result=self._lens.stored(row.result, result),
            error=self._lens.failure(row.error, failure),
            target=target,
            due=row.due,
        )


def _member(row: MemberRow, depth: int, supervisor: Address | None, hidden: int) -> MemberView:
    return MemberView(
        depth=depth,
        address=Address(row.kind, row.key),
        supervisor=supervisor,
        restart=row.restart,
        declared=bool(row.declared),
        significant=bool(row.significant),
        state=_state(row),
        reason=row.reason,
        restart_at=row.restart_at,
        restarts=row.restarts,
        counted=row.counted,
        failures=row.failures,
        hidden=hidden,
    )


def _state(row: MemberRow) -> MemberState:
    if row.status == "stopped" or row.life == "terminated":
        return "stopped"
    return row.life


def _between(started: float | None, finished: float | None) -> float | None:
    return None if started is None or finished is None else max(0.0, finished - started)
