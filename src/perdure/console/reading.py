"""One moment of a database, and the views that its rows make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from perdure.console import rows, supervised
from perdure.console.caused import MEMBERS, tree
from perdure.console.lens import Lens
from perdure.console.views import (
    ActorView,
    Did,
    Failure,
    FailureView,
    MemberView,
    MessageRef,
    MessageView,
    NodeView,
    StateView,
    StepView,
    TreeView,
)
from perdure.console.why import Place, why
from perdure.storage.records import Address
from perdure.storage.seal_identity import arguments_of, changes_of, failure_of, record_of, result_of, start_of, state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from perdure.console.database import Moment
    from perdure.console.rows import ActorRow, Content, MessageRow, RecordRow
    from perdure.console.supervised import MemberRow
    from perdure.console.views import Caused, MemberState, Wait
    from perdure.storage.seal_identity import Identity

_DIGEST_DIGITS = 8
_FAILURES = {"actor": 10, "message": 200}
_HELD = 50


class Reading:
    """Views of one moment of the database that people know by a name."""

    def __init__(self, moment: Moment, database: str, now: float, lens: Lens | None = None) -> None:
        self.moment = moment
        self.now = now
        self._lens = lens or Lens()
        self._database = database
        self._nodes: dict[str, NodeView | None] = {}

    # nodes and actors -------------------------------------------------------------------------------------------------

    def nodes(self) -> tuple[NodeView, ...]:
        """The processes that have not left."""
        return self._learn(rows.nodes(self.moment))

    def know(self, nodes: Iterable[str | None]) -> None:
        """Read what is not known yet of some processes, all at once."""
        unknown = sorted({node for node in nodes if node is not None and node not in self._nodes})
        if unknown:
            self._nodes.update(dict.fromkeys(unknown))
            self._learn(rows.nodes(self.moment, unknown))

    def _learn(self, found: Sequence[tuple[Any, ...]]) -> tuple[NodeView, ...]:
        live = self.moment.live([id_ for id_, *_, status in found if status == "live"])
        nodes = tuple(
            NodeView(id_, pid, host, python, version, started, status, live.get(id_, False))
            for id_, pid, host, python, version, started, status in found
        )
        self._nodes.update((node.id, node) for node in nodes)
        return nodes

    def node(self, id_: str | None) -> NodeView | None:
        """A process that has an actor."""
        if id_ is None:
            return None
        self.know([id_])
        return self._nodes[id_]

    def actors(self, found: Sequence[ActorRow], delayed: Mapping[int, int]) -> list[ActorView]:
        """Actors and why their mailboxes wait; how many messages of each are not yet due."""
        self.know(row.owner for row in found)
        heads = rows.heads(self.moment, [row.id for row in found if row.cursor < row.tail], self.now)
        waits = self.waits(heads)
        wait_of = {Address(head.kind, head.key): waits[head.seq] for head, _ in heads}
        near = (number for row in found for number in (row.parent, row.supervisor) if number is not None)
        addresses = rows.addresses(self.moment, near)
        return [
            ActorView(
                address=Address(row.kind, row.key),
                status=row.status,
                reason=row.reason,
                owner=self.node(row.owner),
                epoch=row.epoch,
                mail=row.tail - row.cursor,
                delayed=delayed.get(row.id, 0),
                handled=row.cursor,
                created=row.created,
                parent=None if row.parent is None else addresses.get(row.parent),
                wait=wait_of.get(Address(row.kind, row.key)),
                life=row.life,
                restart_at=row.restart_at,
                supervisor=None if row.supervisor is None else addresses.get(row.supervisor),
            )
            for row in found
        ]

    def failures(self, of: Literal["actor", "message"], number: int, actor: Address) -> tuple[FailureView, ...]:
        """The newest failures of an actor or of a message, oldest first."""
        found = supervised.failures(self.moment, of, number, _FAILURES[of])
        return tuple(
            FailureView(at, message, attempt, self._failure(error, message, actor) or Failure("", ""), decision)
            for at, message, attempt, error, decision in found
        )

    def _failure(self, stored: str | None, message: str | None, actor: Address) -> Failure | None:
        return self._lens.failure(stored, start_of(actor) if message is None else failure_of(message))

    def state(self, actor: int, address: Address) -> StateView | None:
        """An actor's state; none before its first turn that changed it."""
        found = rows.snapshot(self.moment, actor)
        if found is None:
            return None
        version, codec, state, initial = found
        identity = state_of(address, version)
        return StateView(
            version, codec, self._lens.value(state, identity, codec), self._lens.stored(initial, identity, codec)
        )

    # messages ---------------------------------------------------------------------------------------------------------

    def waits(self, heads: Sequence[tuple[MessageRow, Content]]) -> dict[int, Wait]:
        """Why mailboxes do not move on from the messages at their heads, by the numbers of those."""
        begun = rows.begun(self.moment, [row.seq for row, _ in heads])
        limits = rows.limits(self.moment, [row for row, _ in heads])
        targets = self.refs(record.target for records in begun.values() for record in records)
        return {
            row.seq: why(
                self.ref(row),
                self._place(row),
                row.reason,
                self._lens.failure(content.failure, failure_of(row.id)),
                [self._step(record, targets, row.id) for record in begun.get(row.seq, ())],
                self.now,
                limits[row.seq],
            )
            for row, content in heads
        }

    def _place(self, row: MessageRow) -> Place:
        owner = self.node(row.owner)
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
        found = rows.places(self.moment, {seq for seq in seqs if seq is not None}, self.now)
        self.know(row.owner for row in found.values())
        return {seq: self.ref(row) for seq, row in found.items()}

    def messages(self, found: Sequence[tuple[MessageRow, Content]]) -> tuple[MessageView, ...]:
        """Messages with what they did and what came of them."""
        did = rows.did(self.moment, [row.seq for row, _ in found])
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

    def caused(self, seq: int) -> tuple[tuple[Caused, ...], bool]:
        """What a message caused, and whether that is all."""
        found = rows.caused(self.moment, seq, MEMBERS + 1)
        shown = found[:MEMBERS]
        known = self.refs([seq, *(number for number, _, _ in shown)])
        return tree(seq, shown, known), len(found) <= MEMBERS

    # supervision ------------------------------------------------------------------------------------------------------

    def tree(self, limit: int) -> TreeView:
        """The supervision tree, with so many children of each supervisor."""
        below: dict[int | None, list[MemberRow]] = {}
        for row in supervised.children(self.moment, limit):
            below.setdefault(row.supervisor, []).append(row)
        sizes = supervised.family_sizes(self.moment)
        members: list[MemberView] = []
        coming: list[tuple[int, Address | None, MemberRow]] = [
            (0, None, row) for row in reversed(supervised.tops(self.moment))
        ]
        while coming:
            depth, supervisor, row = coming.pop()
            young = below.pop(row.id, [])
            one = _member(row, depth, supervisor, sizes.get(row.id, 0) - len(young))
            members.append(one)
            coming.extend((depth + 1, one.address, child) for child in reversed(young))
        others, held_count = supervised.alone(self.moment)
        held = tuple(_member(row, 0, None, 0) for row in supervised.held_alone(self.moment, _HELD))
        return TreeView(self._database, self.now, tuple(members), others, held, held_count)

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
