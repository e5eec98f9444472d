"""One node as the tests play it: an open store, and short words for the writes that most tests need."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

from attrs import define, field

from perdure.storage.records import Address, Envelope, Found, Loaded, NodeRecord, Outcome, Record
from perdure.storage.store import Store
from perdure.storage.writes import (
    Append,
    Appended,
    Claim,
    Claimed,
    Committed,
    End,
    Placed,
    Release,
    Segment,
    Send,
    Settled,
    Spawn,
    Write,
)
from perdure.testing.conformance.places import Place

T = TypeVar("T")

SENT = 1_000_000_000.0
"""When the tests' messages are sent."""

LATER = 4_000_000_000.0
"""A time that no run of the tests reaches."""

DONE = Outcome("succeeded", "1")

_numbers = count(1)


def want(type_: type[T], settled: object) -> T:
    """What became of a write, which must be this."""
    assert isinstance(settled, type_), settled
    return settled


def wants(type_: type[T], settled: Sequence[object]) -> list[T]:
    """What became of writes, which must all be this."""
    return [want(type_, one) for one in settled]


def till(key: str) -> Address:
    """An actor of the kind that most tests use."""
    return Address("Till", key)


def message(key: str = "a", *, kind: str = "Till", **fields: Any) -> Envelope:  # noqa: ANN401  # any field of an envelope
    """A message as its sender makes it. With `id=`, the sender chose that id."""
    given: dict[str, Any] = {"handler": "add", "args": '{"n":1}', "codec": "json", "sent": SENT, **fields}
    if "id" in given:
        given.setdefault("chosen", True)
    else:
        given["id"] = f"made-{next(_numbers)}"
    return Envelope(to=Address(kind, key), **given)


def spawn(key: str, initial: str = '{"coins":5}', *, kind: str = "Till") -> Spawn:
    """An actor's beginning."""
    return Spawn(Address(kind, key), 1, "json", initial, SENT)


def segment(of: Appended, **parts: Any) -> Segment:  # noqa: ANN401  # any part of a segment
    """What the turn of a message did, under the epoch that the message came with."""
    return Segment(of.place.actor, want(int, of.place.epoch), of.mail.seq, **parts)


def ended(of: Appended, outcome: Outcome = DONE, *, finished: float = SENT + 2, stop: bool = False) -> Segment:
    """A turn's last segment."""
    return segment(of, end=End(of.mail.number, outcome, SENT + 1, finished, stop=stop))


def asks(of: Appended, envelope: Envelope, key: str = "ask#1", due: float | None = None) -> Segment:
    """A segment that asks another actor."""
    return segment(of, records=[Record(key, "ask", "Till.add", SENT, due=due)], sends=[Send(envelope, key)])


def sleeps(of: Appended, due: float, key: str = "sleep#1") -> Segment:
    """A segment that begins to sleep."""
    return segment(of, records=[Record(key, "sleep", "sleep", SENT, due=due)])


@define(eq=False)
class Node:
    """An open store, and the id it was opened under. It runs every kind but those in `foreign`."""

    store: Store
    id: str
    foreign: set[str] = field(factory=set[str])

    async def write(self, *batch: Write) -> list[Settled]:
        """Commit one transaction."""
        return await self.store.write(batch)

    async def settle(self, write: Write) -> Settled:
        """Commit one write."""
        (settled,) = await self.write(write)
        return settled

    async def append(self, key: str = "a", **fields: Any) -> Appended:  # noqa: ANN401  # any field of an envelope
        """Accept a message."""
        return want(Appended, await self.settle(Append(message(key, **fields))))

    async def commit(self, part: Segment) -> Committed:
        """Commit what a turn did."""
        return want(Committed, await self.settle(part))

    async def finish(self, of: Appended, outcome: Outcome = DONE, *, stop: bool = False) -> Committed:
        """End a message."""
        return await self.commit(ended(of, outcome, stop=stop))

    async def claim(self, key: str, *, kind: str = "Till") -> Placed:
        """Own one actor."""
        (place,) = want(Claimed, await self.settle(Claim(only=Address(kind, key)))).actors
        return place

    async def release(self, of: Appended, *, waiting: bool = False) -> bool:
        """Give an actor back; with `waiting`, this message's turn waits for something durable."""
        release = Release(of.place.actor, want(int, of.place.epoch), of.mail.seq if waiting else None)
        return want(bool, await self.settle(release))

    async def look(self, actor: int, mail: int = 100) -> Loaded:
        """Read an actor."""
        (loaded,) = await self.store.load([actor], mail)
        return loaded

    async def find(self, id_: str) -> Found:
        """Look up a message that must be there."""
        return want(Found, await self.store.find(id_))

    async def outcome(self, of: Appended) -> Outcome | None:
        """How a message ended, if it has."""
        return (await self.find(of.mail.id)).outcome

    async def records(self, actor: int) -> dict[str, Record]:
        """The journal of an actor's open turn."""
        return {record.key: record for record in (await self.look(actor)).records}


async def started(store: Store, name: str | None = None) -> Node:
    """Open a store as a new node."""
    node = Node(store, name or f"node-{next(_numbers)}")
    record = NodeRecord(node.id, 1, "here", "3.11", "0", SENT)
    await store.open(record, lambda kind: kind not in node.foreign)
    return node


@asynccontextmanager
async def on(place: Place) -> AsyncGenerator[Node]:
    """A node over a place, while it is needed."""
    node = await started(place.store())
    try:
        yield node
    finally:
        await node.store.close()
