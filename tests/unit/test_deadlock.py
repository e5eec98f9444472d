"""Cycles of asks: found, told to the one who closed them, and nothing else taken for one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.deadlock import deadlocked
from perdure.storage.records import Address, OpenAsk


def actor(key: str) -> Address:
    """An actor by its key."""
    return Address("Actor", key)


def graph(*edges: str) -> list[OpenAsk]:
    """Asks written as `ab`: a waits for b; each is a second younger than the one before. Message n is a's head."""
    return [
        OpenAsk(actor(edge[0]), actor(edge[1]), ord(edge[0]), f"ask#{number}", float(number))
        for number, edge in enumerate(edges)
    ]


def failing(asks: list[OpenAsk], me: str) -> dict[str, str]:
    """The asks that this actor's head turn must give up, each with its cycle as letters."""
    waiting = {ask.key for ask in asks}
    found = deadlocked(asks, actor(me), ord(me), waiting)
    return {key: "".join(step.removeprefix("Actor/") for step in path) for key, path in found}


@pytest.mark.parametrize(
    ("edges", "youngest", "path"),
    [
        (("ab", "ba"), "b", "bab"),
        (("ba", "ab"), "a", "aba"),
        (("ab", "bc", "ca"), "c", "cabc"),
        (("bc", "ca", "ab"), "a", "abca"),
        (("ax", "ay", "ab", "bx", "ba"), "b", "bab"),
        (("aa",), "a", "aa"),
    ],
)
def test_the_youngest_ask_gives_up(edges: tuple[str, ...], youngest: str, path: str) -> None:
    """A deadlock is broken once, by the one who closed it, and names all who are in it."""
    asks = graph(*edges)
    assert list(failing(asks, youngest).values()) == [path]
    for other in {ask.caller.key for ask in asks} - {youngest}:
        assert failing(asks, other) == {}


@pytest.mark.parametrize("edges", [(), ("ab",), ("ab", "bc"), ("ab", "ac", "bd", "cd"), ("bc", "cb")])
def test_no_cycle_through_me(edges: tuple[str, ...]) -> None:
    """Whoever merely waits goes on waiting, also for others who are in a deadlock."""
    assert failing(graph(*edges), "a") == {}


def test_answered_asks_are_left() -> None:
    """An ask whose reply has come meanwhile is not given up."""
    asks = graph("ab", "ba")
    assert list(deadlocked(asks, actor("b"), ord("b"), set[str]())) == []


def test_asks_of_another_turn_are_left() -> None:
    """A turn gives up its own asks only, not those of one that ran before it."""
    asks = graph("ab", "ba")
    assert list(deadlocked(asks, actor("b"), 999, {"ask#1"})) == []


def test_two_cycles_of_one_turn() -> None:
    """A turn that asks two actors in vain hears it of both."""
    assert failing(graph("ba", "ca", "ab", "ac"), "a") == {"ask#2": "aba", "ask#3": "aca"}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=14, unique=True))
def test_every_deadlock_is_broken(pairs: list[tuple[str, str]]) -> None:
    """Whatever waits for whatever: nobody is left waiting in a circle, and no ask was given up that was on none."""
    asks = graph(*(f"{caller}{callee}" for caller, callee in pairs))
    given_up = {key: path for me in "abcdef" for key, path in failing(asks, me).items()}
    left = [ask for ask in asks if ask.key not in given_up]
    assert not _has_cycle({(ask.caller.key, ask.callee.key) for ask in left})
    edges = {(ask.caller.key, ask.callee.key) for ask in asks}
    for path in given_up.values():
        assert path[0] == path[-1]
        assert all(edge in edges for edge in itertools.pairwise(path))


def _has_cycle(edges: set[tuple[str, str]]) -> bool:
    """Whether something is left after taking away, again and again, whoever waits for nobody."""
    while edges:
        callers = {caller for caller, _ in edges}
        kept = {(caller, callee) for caller, callee in edges if callee in callers}
        if kept == edges:
            return True
        edges = kept
    return False
