"""What happens in the model of ownership: the steps of senders, of places, of nodes and of activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from tests.model.explorer import Step
from tests.model.ownership import (
    NO_EARLY_REPLY,
    NOBODY,
    TRUE_ANSWER,
    Activation,
    Answer,
    Bounds,
    Process,
    Row,
    Rule,
    World,
    Write,
    broken_state,
    broken_transaction,
    disown,
    kept,
    marked,
    release,
    settle,
)

Steps: TypeAlias = Iterator[Step[World]]

ALL: Final = frozenset(Rule)
FULL: Final = Bounds()
OF_OFFERS: Final = ("take", "decline", "withdraw")
OF_TURNS: Final = ("segment", "end", "release", "park", "offer")


class Ownership:
    """The model, with the rules that it keeps."""

    def __init__(self, rules: frozenset[Rule] = ALL, bounds: Bounds = FULL, *, symmetric: bool = False) -> None:
        self.rules = rules
        self.symmetric = symmetric
        self.bounds = bounds
        # Looked up, a lost answer is the answer or a failure, which are there anyway.
        self.guesses = not {Rule.LOST_NOT_FAILED, Rule.LOST_NOT_DONE} <= rules

    def first(self) -> World:
        """Two nodes have begun; nobody has sent anything."""
        nodes = ("live", "live") + ("",) * (2 * self.bounds.lives - 2)
        messages, failures, *_, offers, withdrawals = self.bounds
        return World(Row(), nodes, (Process(0), Process(1)), messages, failures, offers, withdrawals)

    def canonical(self, state: World) -> World:
        """Of two states that differ in nothing but which place is which, the same one, if symmetry is to be used.

        It is not where somebody is to read the trace: names would change half-way.
        """
        first, second = state.places
        if not self.symmetric or _rank(state, first, 0) <= _rank(state, second, 1):
            return state
        row, nodes = state.row, state.nodes
        return state._replace(
            row=row._replace(owner=_other(row.owner), offered=_other(row.offered)),
            nodes=tuple(nodes[name ^ 1] for name in range(len(nodes))),
            places=(_renamed(second), _renamed(first)),
        )

    def broken(self, state: World) -> str | None:
        """The property that a state breaks."""
        return broken_state(state)

    def done(self, state: World) -> bool:
        """Every message is handled; or nobody is left who could, or the bounds hide what would follow."""
        appending = any(write.kind == "append" for process in state.places for write in process.queue)
        handled = state.unsent == 0 and not appending and state.row.cursor == state.row.tail
        gone = all(process.name == NOBODY and process.life + 1 == self.bounds.lives for process in state.places)
        return handled or gone or state.row.epoch >= self.bounds.epochs

    def steps(self, state: World) -> Steps:
        """What may happen next."""
        if state.row.epoch >= self.bounds.epochs:
            return
        yield from self.outside(state)
        for place, process in enumerate(state.places):
            if process.name == NOBODY:
                yield from self.down(state, place, process)
                continue
            yield from self.life(state, place, process)
            yield from self.committer(state, place, process)
            yield from self.submitting(state, place, process)
            if process.activation is not None:
                yield from self.activation(state, place, process, process.activation)

    # senders, and whoever is asked ------------------------------------------------------------------------------------

    def outside(self, w: World) -> Steps:
        """A process that runs no actor appends; the reply to the first message's ask arrives."""
        row = w.row
        if w.unsent:
            more = row._replace(tail=row.tail + 1)
            yield Step(
                ("a client appends",),
                w._replace(row=marked(more) if row.owner == NOBODY else more, unsent=w.unsent - 1),
            )
        if row.ask == "open":
            row = row._replace(ask="answered", waiting=row.waiting and Rule.REPLY_WAKES not in self.rules)
            yield Step(("the ask's reply arrives",), w._replace(row=marked(row) if row.owner == NOBODY else row))

    # places and nodes -------------------------------------------------------------------------------------------------

    def down(self, w: World, place: int, process: Process) -> Steps:
        """A process starts where one was."""
        life = process.life + 1
        if life < self.bounds.lives:
            name = place + 2 * life if Rule.NEW_IDENTITY in self.rules else place
            nodes = (*w.nodes[:name], "live", *w.nodes[name + 1 :])
            yield Step(("a process starts in place", place), put(w._replace(nodes=nodes), place, Process(name, life)))

    def life(self, w: World, place: int, process: Process) -> Steps:
        """A node dies, leaves, buries another, or notices that it was buried."""
        me, ended = process.name, Process(NOBODY, process.life)
        if w.nodes[me] != "live":
            yield Step(("node", me, "notices that it was buried, and stops"), put(w, place, ended))
        for name, status in enumerate(w.nodes):
            if status == "live" and name != me:
                alive = any(other.name == name for other in w.places)
                if not alive or w.failures:
                    what = ("node", me, "buries node", name, "which lives" if alive else "")
                    yield Step(what, gone(self.rules, w, name, failed=alive), alive)
        if w.failures:
            killed = put(w._replace(failures=w.failures - 1), place, ended)
            yield Step(("node", me, "is killed"), killed, failure=True)
            if not process.queue and w.nodes[me] == "live":
                left = gone(self.rules, w, me, failed=True)
                yield Step(("node", me, "leaves"), put(left, place, ended), failure=True)

    # the committer ----------------------------------------------------------------------------------------------------

    def submitting(self, w: World, place: int, process: Process) -> Steps:
        """A sender sends through this node; its sweep finds an actor with mail that nobody has."""
        if len(process.queue) >= self.bounds.queue:
            return
        if w.unsent:
            sent = put(w, place, queued(process, Write("append")))
            yield Step(("node", process.name, "is given a message"), sent._replace(unsent=w.unsent - 1))
        yield from self.offered(w, place, process)
        if (
            w.row.marked
            and not kept(self.rules, w.row, process.name, w.nodes)
            and all(write.kind != "claim" for write in process.queue)
        ):
            yield Step(("node", process.name, "would claim"), put(w, place, queued(process, Write("claim"))))

    def offered(self, w: World, place: int, process: Process) -> Steps:
        """A node finds what it is offered, or that what it has offered is not taken."""
        row, me = w.row, process.name
        free = row.owner == NOBODY or Rule.TAKE_UNOWNED not in self.rules
        if row.offered == NOBODY or not free or any(write.kind in OF_OFFERS for write in process.queue):
            return
        if row.offered == me:
            for kind in ("take", "decline"):
                yield Step(("node", me, "would", kind), put(w, place, queued(process, Write(kind))))
        elif w.withdrawals:
            withdrawn = put(w, place, queued(process, Write("withdraw", to=row.offered)))
            yield Step(("node", me, "would withdraw"), withdrawn._replace(withdrawals=w.withdrawals - 1), failure=True)

    def committer(self, w: World, place: int, process: Process) -> Steps:
        """The first write of the queue is committed, or fails; then whoever submitted it is told."""
        if not process.queue:
            return
        me, write, answer = process.name, process.queue[0], process.answer
        if answer is not None:
            yield from self.told(w, place, process, write, answer)
            return
        row, answer = settle(self.rules, w.row, me, write, w.nodes)
        broken = broken_transaction(w.row, row, me, write)
        done = put(w._replace(row=row), place, process._replace(answer=answer))
        yield Step(("node", me, "commits:", write.kind, write.number), done, broken=broken)
        if w.failures:
            fewer = w._replace(failures=w.failures - 1)
            failed = put(fewer, place, process._replace(answer=Answer("failed")))
            yield Step(("node", me, "cannot commit:", write.kind, write.number), failed, failure=True)
            if self.guesses:
                lost = answer._replace(lost=True)
                after = put(fewer._replace(row=row), place, process._replace(answer=lost))
                yield Step(("node", me, "commits, unanswered:", write.kind), after, failure=True)
                after = put(fewer, place, process._replace(answer=lost._replace(durable=False)))
                yield Step(("node", me, "loses its connection:", write.kind), after, failure=True)

    def told(self, w: World, place: int, process: Process, write: Write, answer: Answer) -> Steps:
        """Whoever submitted a write hears what became of it; a lost answer is looked up first."""
        rest = process._replace(queue=process.queue[1:], answer=None)
        for said in self.heard(answer):
            lie = (said == "failed" and answer.durable) or (said in ("done", "no") and not answer.durable)
            what = ("node", process.name, "is told:", write.kind, write.number, said)
            broken = TRUE_ANSWER if lie else None
            if write.kind in OF_TURNS:
                after = put(w, place, rest if write.orphan else self.turn_told(rest, write, said))
            else:
                again = write.kind == "append" and said in ("failed", "fenced")
                after = put(w._replace(unsent=w.unsent + again), place, self.take_told(rest, write, said, answer.epoch))
            yield Step(what, after, broken=broken)

    def heard(self, answer: Answer) -> Iterator[str]:
        """What a committer takes an answer for."""
        if not answer.lost:
            yield answer.said
            return
        yield answer.said if answer.durable else "failed"
        if Rule.LOST_NOT_FAILED not in self.rules and answer.durable:
            yield "failed"
        if Rule.LOST_NOT_DONE not in self.rules and not answer.durable:
            yield answer.said

    def take_told(self, process: Process, write: Write, said: str, epoch: int) -> Process:
        """An append or a claim is settled: the actor comes into memory if it is this node's."""
        if said != "done":
            return process
        if not epoch:
            hopes = write.kind == "append" and Rule.APPEND_MARKS not in self.rules
            return queued(process, Write("claim this")) if hopes else process
        stale = process.activation
        if stale is not None and (stale.epoch == epoch or Rule.STALE_DROPPED not in self.rules):
            return process
        return orphaned(process, Activation(epoch))

    def turn_told(self, process: Process, write: Write, said: str) -> Process:
        """A write of the activation is settled: it goes on, leaves, or is lost."""
        activation = process.activation
        if activation is None or said == "fenced":
            return orphaned(process, None)
        anew = orphaned(process, Activation(activation.epoch))
        if write.kind in ("release", "park", "offer"):
            if said == "done":  # a future has its result, and who awaits it runs later
                return process._replace(activation=activation._replace(leaving=True))
            lost = write.kind == "park" or (write.kind == "offer" and said == "failed")
            return anew if lost else process
        if said == "failed" and Rule.VOIDED in self.rules:
            return anew
        if write.kind == "segment":
            stage = "begun" if said == "failed" else "goes on"
            return process._replace(activation=activation._replace(stage=stage))
        return process

    # activations ------------------------------------------------------------------------------------------------------

    def activation(self, w: World, place: int, process: Process, a: Activation) -> Steps:
        """An actor in memory is loaded, begins a turn, or leaves."""
        who, row = ("node", process.name, "epoch", a.epoch), w.row
        if a.leaving:
            yield Step((*who, "leaves memory"), put(w, place, orphaned(process, None)))
        if a.stage == "loading":
            known = a._replace(stage="idle", number=row.cursor, state=row.state) if row.epoch == a.epoch else None
            yield Step((*who, "loads" if known else "finds it gone"), put(w, place, process._replace(activation=known)))
        elif a.stage == "idle":
            most = a.number + 1 + (Rule.EXPECTED_NUMBER not in self.rules)
            for number in range(a.number + 1, min(most, row.tail) + 1):
                stage = "goes on" if number == 1 and row.ask else "begun"  # what was asked is in the journal
                begun = process._replace(activation=a._replace(stage=stage, number=number))
                yield Step((*who, "begins message", number), put(w, place, begun))
            yield from self.leaving(w, place, process, a, "release")
            yield from self.offering(w, place, process, a)
        elif a.stage != "evicted":
            yield from self.turn(w, place, process, a)

    def turn(self, w: World, place: int, process: Process, a: Activation) -> Steps:
        """A turn writes a segment and waits for it, waits for its reply, or ends."""
        who, waits = ("node", process.name, "epoch", a.epoch), a.number == 1 and a.stage == "goes on"
        room = len(process.queue) < self.bounds.queue
        if a.stage == "begun" and room:
            asks = queued(process, Write("segment", a.epoch, a.number))._replace(activation=a._replace(stage="asks"))
            yield Step((*who, "message", a.number, "writes a segment"), put(w, place, asks))
        if a.stage in ("begun", "goes on") and room and not (waits and w.row.ask != "answered"):
            state = (*a.state, a.number)
            ends = queued(process, Write("end", a.epoch, a.number, state))
            after = put(w, place, ends._replace(activation=a._replace(stage="idle", state=state)))
            early = Rule.REPLY_AFTER not in self.rules and a.number not in w.row.ended
            yield Step((*who, "message", a.number, "ends"), after, broken=NO_EARLY_REPLY if early else None)
        if waits or (a.number == 1 and a.stage == "asks" and Rule.RELEASE_ORDERED not in self.rules):
            yield from self.leaving(w, place, process, a, "park")

    def leaving(self, w: World, place: int, process: Process, a: Activation, kind: str) -> Steps:
        """An idle actor, or one that waits, is given back."""
        who, write = ("node", process.name, "epoch", a.epoch), Write(kind, a.epoch)
        if Rule.RELEASE_ORDERED not in self.rules:
            row, answer = release(self.rules, w.row, process.name, write)
            if answer.said == "done":
                yield Step((*who, kind, "s at once"), put(w._replace(row=row), place, orphaned(process, None)))
        elif len(process.queue) < self.bounds.queue and not any(write.kind in OF_TURNS for write in process.queue):
            if kind == "park":
                a = a._replace(stage="evicted")
            elif a.number < w.row.tail:
                return
            yield Step((*who, "would", kind), put(w, place, queued(process, write)._replace(activation=a)))

    def offering(self, w: World, place: int, process: Process, a: Activation) -> Steps:
        """An idle actor is offered to the node in the other place, whether there is mail or not."""
        to = w.places[1 - place].name
        busy = len(process.queue) >= self.bounds.queue or any(write.kind in OF_TURNS for write in process.queue)
        if w.offers and to != NOBODY and not busy:
            offers = put(w, place, queued(process, Write("offer", a.epoch, to=to)))
            yield Step(("node", process.name, "epoch", a.epoch, "would offer"), offers._replace(offers=w.offers - 1))


def put(world: World, place: int, process: Process) -> World:
    """The world with another process in a place."""
    first, second = world.places
    return world._replace(places=(process, second) if place == 0 else (first, process))


def gone(rules: frozenset[Rule], world: World, name: int, *, failed: bool) -> World:
    """The world after a node was buried, or has left, which is the same to all others: one transaction."""
    row = disown(rules, world.row) if world.row.owner == name else world.row
    nodes = (*world.nodes[:name], "gone", *world.nodes[name + 1 :])
    return world._replace(row=row, nodes=nodes, failures=world.failures - failed)


def queued(process: Process, write: Write) -> Process:
    """A write goes to the end of the queue."""
    return process._replace(queue=(*process.queue, write))


def orphaned(process: Process, activation: Activation | None) -> Process:
    """An activation is given up, for another or none; what it has submitted stays in the queue."""
    queue = tuple(write._replace(orphan=True) if write.kind in OF_TURNS else write for write in process.queue)
    return process._replace(queue=queue, activation=activation)


def _rank(world: World, process: Process, place: int) -> tuple[object, ...]:
    """What orders two places: everything about them but their names."""
    _, life, activation, queue, answer = process
    owns = process.name == world.row.owner
    return (owns, life, process.name == NOBODY, queue, answer is None, answer or (), activation is None,
            activation or (), world.nodes[place::2], world.row.owner % 2 == place)  # fmt: skip


def _renamed(process: Process) -> Process:
    queue = tuple(write._replace(to=_other(write.to)) for write in process.queue)
    return process._replace(name=_other(process.name), queue=queue)


def _other(node: int) -> int:
    """The node of the same life in the other place."""
    return node if node == NOBODY else node ^ 1
