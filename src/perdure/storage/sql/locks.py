"""Whose rows a batch is about: what is locked first where several transactions write at once (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from perdure.storage.offer_writes import Offer, Withdraw
from perdure.storage.writes import (
    Adopt,
    Append,
    Begin,
    Claim,
    Declare,
    Monitor,
    Order,
    Release,
    Segment,
    Spawn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perdure.storage.records import Address
    from perdure.storage.writes import Write


@define
class Named:
    """What the writes of a batch name: actors by address and by id, messages by id, messages that end."""

    addresses: set[Address] = field(factory=set["Address"])
    actors: set[int] = field(factory=set[int])
    ids: list[str] = field(factory=list[str])
    ends: list[int] = field(factory=list[int])


def named(batch: Sequence[Write], *, thorough: bool) -> Named:
    """What a batch names; `thorough`: generated ids as well, which are not looked up otherwise."""
    found = Named()
    for write in batch:
        if isinstance(write, Append):
            found.addresses.add(write.envelope.to)
            if write.envelope.chosen or thorough:
                found.ids.append(write.envelope.id)
        elif type(write) in _NAME:
            _NAME[type(write)](found, write)
    return found


def _segment(found: Named, write: Segment) -> None:
    found.actors.add(write.actor)
    found.addresses.update(send.envelope.to for send in write.sends)
    found.addresses.update(spawn.to for spawn in write.spawns)
    found.ids += [send.envelope.id for send in write.sends]
    found.ids += [watch.id for watch in write.watches]
    for note in write.monitors:
        found.addresses |= {note.actor, note.watcher}
    if write.end is not None:
        found.ends.append(write.message)
    if write.order is not None:
        _order(found, write.order)


def _order(found: Named, write: Order) -> None:
    for actors in (write.restart, write.terminate, write.fail, write.end, write.discard):
        found.actors.update(actors)
    if write.about is not None:
        found.actors.add(write.about)
    found.actors.update(one.supervisor for one in write.remaining)


def _claim(found: Named, write: Claim) -> None:
    if write.only is not None:
        found.addresses.add(write.only)


def _adopt(found: Named, write: Adopt) -> None:
    found.actors.add(write.supervisor)
    found.addresses.add(write.child.to)


def _declare(found: Named, write: Declare) -> None:
    found.actors.add(write.supervisor)
    found.addresses.update(spawn.to for spawn, _ in write.children)


def _monitor(found: Named, write: Monitor) -> None:
    found.addresses |= {write.actor, write.watcher}


def _actor(found: Named, write: Release | Begin) -> None:
    found.actors.add(write.actor)


def _offer(found: Named, write: Offer) -> None:
    found.actors.update(actor for actor, _ in write.actors)


def _withdraw(found: Named, write: Withdraw) -> None:
    found.actors.update(write.actors)


def _spawn(found: Named, write: Spawn) -> None:
    found.addresses.add(write.to)


_NAME: dict[type, Callable[..., None]] = {
    Segment: _segment,
    Order: _order,
    Claim: _claim,
    Adopt: _adopt,
    Declare: _declare,
    Monitor: _monitor,
    Release: _actor,
    Offer: _offer,
    Withdraw: _withdraw,
    Begin: _actor,
    Spawn: _spawn,
}
