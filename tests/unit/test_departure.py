"""In which order the members of trees leave a node."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from perdure import OneForAll, OneForOne, RestForOne, Strategy
from perdure.actors.departure import Departure
from perdure.storage.records import Address, ChildSpec, Member

ROOT, FIRST, INNER, A, B, LAST = 1, 2, 3, 4, 5, 6
NAMES = {ROOT: "root", FIRST: "first", INNER: "inner", A: "a", B: "b", LAST: "last"}
TIED = [OneForAll(), RestForOne()]


def member(actor: int, supervisor: int | None, *, declared: bool = True) -> Member:
    """A member of the tree, which runs."""
    to = Address("any", NAMES.get(actor, str(actor)))
    return Member(actor, to, supervisor, ChildSpec(), declared, "running", "ready", None, None)


TREE = [
    member(ROOT, None),
    member(FIRST, ROOT),
    member(INNER, ROOT),
    member(A, INNER),
    member(B, INNER),
    member(LAST, ROOT),
]


def departure(strategy: Strategy, members: list[Member] | None = None) -> Departure:
    """The departure of a tree whose supervisors have one strategy."""
    return Departure(members or TREE, lambda one: strategy if one.actor in {ROOT, INNER} else None)


def all_that_go(order: Departure, here: set[int], busy: Iterable[int] = ()) -> list[int]:
    """Who leaves, one after the other, while the busy ones stay so."""
    gone: list[int] = []
    while found := [actor for actor in order.next(here, set(busy)) if actor not in gone]:
        gone.append(found[0])
        order.stopped(found[0])
    return gone


@pytest.mark.parametrize("strategy", [OneForOne(), *TIED])
def test_a_tree_leaves_in_reverse_start_order(strategy: Strategy) -> None:
    """Nobody loses an elder, or a supervisor, that it still needs."""
    assert all_that_go(departure(strategy), set(NAMES)) == [LAST, B, A, INNER, FIRST, ROOT]


def test_one_is_asked_at_a_time() -> None:
    """An elder does not even begin to stop before its younger sibling has."""
    order = departure(OneForOne())
    assert list(order.next(set(NAMES), set())) == [LAST]


def test_a_busy_sibling_holds_nobody_up_where_nothing_ties_them() -> None:
    """One long step keeps its own supervisors here, and no other actor of the tree."""
    assert all_that_go(departure(OneForOne()), set(NAMES), [B]) == [LAST, A, FIRST]


@pytest.mark.parametrize("strategy", TIED)
def test_a_busy_sibling_holds_its_elders_up_where_they_are_tied(strategy: Strategy) -> None:
    """In a group that restarts together the younger may need the elder until it is done."""
    assert all_that_go(departure(strategy), set(NAMES), [B]) == [LAST]


def test_the_children_of_a_pool_leave_together() -> None:
    """Nothing orders what was started at run time, so a slow one holds no other up; declared ones come after."""
    pool = [member(ROOT, None), member(FIRST, ROOT), *(member(n, ROOT, declared=False) for n in (10, 11, 12))]
    order = departure(OneForOne(), pool)
    here = {one.actor for one in pool}
    assert sorted(order.next(here, set())) == [10, 11, 12]
    for actor in (10, 11, 12):
        assert FIRST not in order.next(here, set())
        order.stopped(actor)
    assert FIRST in order.next(here, set())


def test_who_is_in_no_tree_leaves_at_once() -> None:
    """An actor that nobody supervises waits for nobody, unless it is busy."""
    assert sorted(departure(OneForAll()).next({20, 21, 22}, {21})) == [20, 22]


def test_a_member_that_is_not_here_holds_nobody_up() -> None:
    """Who went meanwhile by itself is not waited for."""
    order = departure(OneForOne())
    assert all_that_go(order, {ROOT, FIRST}) == [FIRST, ROOT]
