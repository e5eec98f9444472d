"""How nodes share a limit: nobody more than there is, nobody without for ever."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest

from perdure.storage.allotment import ROUND_SECONDS, allot, kept, shares, slice_seconds, usable_seconds
from perdure.storage.limit_writes import Slot


def test_fair_shares() -> None:
    """What one does not want is the others', and nobody has more than he wants."""
    assert shares(8, {"a": 100, "b": 100}, 0) == {"a": 4, "b": 4}
    assert shares(8, {"a": 1, "b": 100, "c": 3}, 0) == {"a": 1, "b": 4, "c": 3}
    assert shares(8, {"a": 1, "b": 2}, 0) == {"a": 1, "b": 2}
    assert shares(8, {"a": 0, "b": 20}, 0) == {"a": 0, "b": 8}


def test_what_does_not_divide_goes_round() -> None:
    """With more nodes than slots, everybody's turn comes."""
    seen = [shares(1, {"a": 5, "b": 5, "c": 5}, at * ROUND_SECONDS) for at in range(3)]
    assert sorted(node for given in seen for node, number in given.items() if number) == ["a", "b", "c"]


def test_a_node_alone_keeps_what_it_has() -> None:
    """No commit is needed at every turn where nobody competes."""
    found = allot(8, Slot("a", 5, 0), 0, [], 0)
    assert (found.has, found.share) == (5, None)


def test_an_idle_node_gives_up_what_another_wants() -> None:
    """And no more than that."""
    found = allot(8, Slot("a", 8, 0), 0, [Slot("b", 0, 3)], 0)
    assert found.has == 5


def test_what_is_in_use_stays() -> None:
    """A slot is given back when whoever uses it has ended, and not before; then down to the fair share."""
    other = Slot("b", 0, 10)
    assert allot(8, Slot("a", 8, 20), 8, [other], 0).has == 8
    found = allot(8, Slot("a", 8, 20), 6, [other], 0)
    assert (found.has, found.share) == (6, 4)


def test_a_smaller_limit_shrinks_what_nodes_have() -> None:
    """Of eight that may be only five, what is free goes at once, even where nobody else wants any."""
    assert allot(5, Slot("a", 8, 8), 3, [], 0).has == 5
    assert allot(5, Slot("a", 8, 8), 7, [], 0).has == 7


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_there_is(seed: int) -> None:
    """Whatever nodes want, use, and give back, they never have more together, and get all that they want of it."""
    draw = random.Random(seed)  # the same cases every time
    capacity = draw.randint(1, 9)
    nodes = {name: Slot(name, 0, 0) for name in "abcd"[: draw.randint(2, 4)]}
    uses = dict.fromkeys(nodes, 0)
    now = 0.0
    for _ in range(300):
        now += draw.random() * 3
        name = draw.choice(list(nodes))
        uses[name] = draw.randint(0, nodes[name].has)
        wants = uses[name] + draw.choice((0, 0, 1, 5, 20))
        others = [slot for slot in nodes.values() if slot.node != name]
        found = allot(capacity, Slot(name, nodes[name].has, wants), uses[name], others, now)
        assert found.has >= uses[name]
        nodes[name] = Slot(name, found.has, min(wants, capacity))
        assert sum(slot.has for slot in nodes.values()) <= capacity
    for _ in range(2 * len(nodes)):  # once nothing is in use, and nobody changes his mind
        for name, slot in nodes.items():
            others = [other for other in nodes.values() if other.node != name]
            nodes[name] = Slot(name, allot(capacity, slot, 0, others, now).has, slot.wants)
    due = shares(capacity, {name: slot.wants for name, slot in nodes.items()}, now)
    assert all(slot.has >= due[name] for name, slot in nodes.items())


@pytest.mark.parametrize("per", [0.01, 0.1, 1, 1.7, 5, 60, 3600, 86_400])
@pytest.mark.parametrize("rate", [1, 7])
def test_never_more_starts_than_the_rate(per: float, rate: int) -> None:
    """Within any `per` seconds no more begin than the rate says, though a grant may be used a little later."""
    draw = random.Random(per)  # the same cases every time
    seconds, slices, usable = slice_seconds(per), kept(per), usable_seconds(per)
    counted: dict[int, int] = {}
    begun: deque[float] = deque()
    now = 1_000_000_000.0
    for _ in range(2_000):
        now += draw.random() * per / rate
        present = math.floor(now / seconds)
        if sum(number for at, number in counted.items() if at >= present - slices) < rate:
            counted[present] = counted.get(present, 0) + 1
            begun.append(now + draw.random() * usable)
    times = sorted(begun)
    assert len(times) > 3 * rate
    for at, first in enumerate(times[:-rate]):
        assert times[at + rate] - first >= per


@pytest.mark.parametrize("per", [0.001, 0.01, 0.3, 1, 60, 86_400])
def test_few_slices_are_kept(per: float) -> None:
    """A limit of ten thousand an hour has no more rows than one of ten."""
    assert 1 <= kept(per) <= 500
    assert kept(per) * slice_seconds(per) >= per + usable_seconds(per) - 1e-6
