"""Who gives how many actors to whom: decided from what is known, without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Limits
from perdure.storage.records import Peer
from perdure.supervision.balance import CALM, Movable, Scales, choose, differ, shares

TOLERANCE = 0.2


def peer(id_: str, load: int = 0, *, beats: int = 1, kinds: str = "k", tags: str = "", takes: bool = True) -> Peer:
    """Another node; kinds and tags are letters."""
    return Peer(id_, beats, load, frozenset(tags), frozenset(kinds), takes)


@pytest.mark.parametrize(
    ("load", "other", "expected"),
    [
        (0, 0, False),
        (100, 100, False),
        (100, 81, False),
        (100, 80, False),
        (100, 79, True),
        (79, 100, False),
        (2, 1, False),  # given one, it would be the other way round
        (2, 0, True),
        (1, 0, False),
        (10, 8, False),
        (10, 7, True),
    ],
)
def test_what_differs(load: int, other: int, expected: bool) -> None:  # noqa: FBT001  # a column of the table
    """Less than a fifth is left alone, and so is what giving would not make better."""
    assert differ(load, other, TOLERANCE) is expected


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ({"a": 500, "b": 500, "c": 0}, {"a": {"c": 166}, "b": {"c": 166}}),
        ({"a": 90, "b": 0, "c": 0}, {"a": {"b": 30, "c": 30}}),
        ({"a": 100, "b": 100, "c": 85}, {}),
        ({"a": 2, "b": 2, "c": 0}, {"b": {"c": 1}}),  # not both, or they would have to go back
        ({"a": 9, "b": 0}, {"a": {"b": 4}}),
        ({"a": 1, "b": 0}, {}),
        ({"a": 5}, {}),
        ({"a": 3, "b": 1, "c": 1, "d": 1, "e": 1}, {"a": {"b": 1}}),
        ({"a": 3, "b": 3, "c": 1, "d": 1, "e": 1}, {"b": {"c": 1}, "a": {"d": 1}}),
    ],
)
def test_shares(loads: dict[str, int], expected: dict[str, dict[str, int]]) -> None:
    """Everybody decides alone from the same counts, and together it is right."""
    decided = {me: shares(me, loads, loads.keys() - {me}, TOLERANCE) for me in loads}
    assert {me: given for me, given in decided.items() if given} == expected


@pytest.mark.parametrize(("in_vain", "expected"), [(0, {}), (1, {"c": 1}), (2, {"c": 1})])
def test_the_lighter_one_gives_if_the_heavier_cannot(in_vain: int, expected: dict[str, int]) -> None:
    """Where what the heaviest node has must stay, the next one does not wait for it for ever."""
    assert shares("a", {"a": 4, "b": 6, "c": 2}, ["c"], TOLERANCE, in_vain) == expected


def test_only_who_is_able_is_given_something() -> None:
    """A node without the class, or one that was offered something just now, gets nothing; the others no more for it."""
    loads = {"a": 90, "b": 0, "c": 0}
    assert shares("a", loads, ["c"], TOLERANCE) == {"c": 30}
    assert shares("a", loads, [], TOLERANCE) == {}


def test_one_look_is_not_enough() -> None:
    """Whoever has just come, or just lost something, is not stormed at once."""
    scales = Scales(TOLERANCE)
    assert [scales.look(100, [peer("p", 0, beats=beats)]) for beats in (1, 2, 3)] == [False, False, True]
    assert scales.look(100, [peer("p", 90, beats=4)]) is False
    assert scales.look(100, [peer("p", 0, beats=5)]) is False
    assert scales.look(100, [peer("p", 0, beats=6)]) is True


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (peer("p", 0, beats=3), True),
        (peer("p", 0, beats=2), True),  # heartbeats are not in step
        (peer("p", 90, beats=3), False),
        (peer("p", 0, beats=3, takes=False), False),  # a client, or it drains
        (peer("q", 0, beats=3), False),  # another one
    ],
)
def test_a_lighter_node_is_noticed_at_the_second_look(last: Peer, expected: bool) -> None:  # noqa: FBT001  # a column of the table
    """It lives, runs something, stays, and is still much lighter."""
    scales = Scales(TOLERANCE)
    scales.look(100, [peer("p", 0, beats=1)])
    scales.look(100, [peer("p", 0, beats=2)])
    assert scales.look(100, [last]) is expected
    assert (last in scales.takers) is (expected or last.load == 90)


def test_who_gives_no_sign_of_life_is_given_nothing() -> None:
    """It may be dead, and found so soon; one that has just come has given none yet."""
    scales = Scales(TOLERANCE)
    assert [scales.look(100, [peer("p", 0, beats=1)]) for _ in range(6)] == [False] * 6
    looks = [scales.look(100, [peer("p", 0, beats=2)]) for _ in range(6)]
    assert looks == [False, True, True, False, False, False]
    assert scales.takers == []


def test_alone_nothing_is_uneven() -> None:
    """A process without others never counts anything."""
    scales = Scales(TOLERANCE)
    assert not any(scales.look(1_000, []) for _ in range(5))


@pytest.mark.parametrize(
    ("movable", "takers", "expected"),
    [
        ([("k", "")], [peer("p", takes=False)], {}),
        ([("k", "")], [peer("p", kinds="x")], {}),
        ([("k", "g")], [peer("p")], {}),
        ([("k", "g")], [peer("p", tags="gh")], {"p": [0]}),
        ([("k", "gz")], [peer("p", tags="gh")], {}),
        ([("k", ""), ("x", ""), ("k", "")], [peer("p", kinds="k")], {"p": [0, 2]}),
        ([("k", "")] * 4, [peer("p")], {"p": [0, 1]}),  # no more than its share
        ([("k", "")] * 4, [peer("p"), peer("q")], {"p": [1, 3], "q": [0, 2]}),
        ([("k", "")] * 9, [peer("p"), peer("q"), peer("r")], {"p": [2, 5], "q": [1, 4], "r": [0, 3]}),
        ([("k", "")], [peer("unwanted")], {}),
    ],
)
def test_whom_to_give(movable: list[tuple[str, str]], takers: list[Peer], expected: dict[str, list[int]]) -> None:
    """Only to those that have the class and the tags, and in the order in which the actors are missed least."""
    wanted = dict.fromkeys("pqr", 2)
    actors = [Movable(number, kind, frozenset(needs)) for number, (kind, needs) in enumerate(movable)]
    assert choose(actors, {node: wanted[node] for node in wanted}, takers, 100) == expected


def test_a_few_at_a_time() -> None:
    """However much is wanted, no other write waits for a large one."""
    actors = [Movable(number, "k") for number in range(100)]
    assert choose(actors, {"p": 90}, [peer("p")], 32) == {"p": list(range(32))}


@pytest.mark.parametrize("wrong", [0, -0.2, 0.001, 1.5, float("nan")])
def test_what_may_be_tolerated(wrong: float) -> None:
    """A typing mistake does not have actors go to and fro for ever."""
    with pytest.raises(ValueError, match=r"imbalance=.*between 0\.01 and 1"):
        Limits(imbalance=wrong)
    assert [Limits(imbalance=right).imbalance for right in (0.01, 1)] == [0.01, 1]


class Deployment:
    """Nodes that all decide at once, from the same counts: the worst that can happen."""

    def __init__(self, nodes: Mapping[str, tuple[str, Mapping[str, int]]], most: int) -> None:
        self.peers = {node: peer(node, kinds=kinds) for node, (kinds, _) in nodes.items()}
        self.actors: dict[str, list[Movable]] = {}
        self.moves: Counter[int] = Counter()
        number = 0
        for node, (kinds, held) in nodes.items():
            self.actors[node] = []
            for kind in kinds:
                for _ in range(held.get(kind, 0)):
                    number += 1
                    self.actors[node].append(Movable(number, kind))
        self.most = most

    def loads(self) -> dict[str, int]:
        """How many each has."""
        return {node: len(held) for node, held in self.actors.items()}

    def round(self, tolerance: float) -> int:
        """Everybody gives once; how many moved."""
        loads = self.loads()
        moves: list[tuple[str, str, int]] = []
        for me, held in self.actors.items():
            takers = [each for each in self.peers.values() if each.id != me]
            able = {each.id for each in takers if any(one.may_run_on(each) for one in held)}
            chosen = choose(held, shares(me, loads, able, tolerance), takers, self.most)
            moves += [(me, to, actor) for to, actors in chosen.items() for actor in actors]
        for source, to, actor in moves:
            (one,) = [one for one in self.actors[source] if one.actor == actor]
            self.actors[source].remove(one)
            self.actors[to].append(one)
            self.moves[actor] += 1
        return len(moves)

    def settle(self, rounds: int) -> int:
        """Give until nobody gives any more; how many rounds that took."""
        for number in range(rounds):
            if not self.round(TOLERANCE if number == 0 else TOLERANCE * CALM):
                return number
        raise AssertionError(f"it goes on and on: {self.loads()}")


@given(loads=st.lists(st.integers(0, 300), min_size=1, max_size=7), most=st.integers(4, 64))
def test_all_alike_they_come_to_a_balance(loads: list[int], most: int) -> None:
    """Where everybody runs everything, nobody has a fifth more than another in the end, and nothing swings."""
    deployment = Deployment({f"n{number}": ("k", {"k": load}) for number, load in enumerate(loads)}, most)
    mean = sum(loads) / len(loads)
    surplus = sum(max(0.0, load - mean) for load in loads)
    deployment.settle(400)
    after = deployment.loads()
    assert not any(differ(a, b, TOLERANCE) for a in after.values() for b in after.values())
    assert sum(deployment.moves.values()) <= 2 * surplus + len(loads) ** 2
    assert max(deployment.moves.values(), default=0) <= len(loads)
    assert deployment.settle(2) == 0  # and it stays


@given(
    nodes=st.lists(
        st.tuples(
            st.sets(st.sampled_from("xyz")).map("".join), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 80))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_with_different_kinds_they_come_to_rest(nodes: list[tuple[str, dict[str, int]]]) -> None:
    """Nobody gets what he does not run; nothing goes round; whoever could take more of something has enough."""
    deployment = Deployment({f"n{number}": node for number, node in enumerate(nodes)}, 32)
    deployment.settle(600)
    after = deployment.loads()
    for node, held in deployment.actors.items():
        assert {one.kind for one in held} <= deployment.peers[node].kinds
        for other, load in after.items():
            if any(one.may_run_on(deployment.peers[other]) for one in held):
                rank = sum((each, name) > (after[node], node) for name, each in after.items())
                assert not differ(after[node], load, TOLERANCE) or (after[node] - load < len(after) and rank > 0)


@given(loads=st.lists(st.integers(0, 1000), min_size=2, max_size=6))
def test_no_round_makes_it_worse(loads: list[int]) -> None:
    """The heaviest never gets heavier, and the lightest never lighter."""
    deployment = Deployment({f"n{number}": ("k", {"k": load}) for number, load in enumerate(loads)}, 10_000)
    for _ in range(20):
        before = deployment.loads().values()
        deployment.round(TOLERANCE)
        after = deployment.loads().values()
        assert max(after) <= max(before)
        assert min(after) >= min(before)
