"""Supervisors start their children in order, and a start that fails leaves nothing running."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import ActorSystem, Child, ChildError, StartError, Supervisor
from perdure.errors import ActorDefinitionError
from tests.supervision.family import Worker, broken, crew, events, workers


async def test_children_start_in_order(tmp_path: Path) -> None:
    """What a child needs of its elders is there when it starts."""
    async with ActorSystem(tmp_path / "a.db", root=crew(*workers("a", "b", "c"))):
        assert events == ["+root", "+a", "+b", "+c"]


async def test_children_start_before_their_supervisor_takes_messages(tmp_path: Path) -> None:
    """What is asked of a supervisor is done when its declared children run."""
    inner = crew(*workers("a", "b"))
    async with ActorSystem(tmp_path / "a.db") as system:
        supervisor = system.get(inner, "inner")
        await asyncio.gather(*(supervisor.start_child(Child(Worker, key)) for key in "cd"))
        assert events == ["+inner", "+a", "+b", "+c", "+d"]
        assert (await supervisor.count_children()).active == 4


async def test_a_supervisor_that_was_never_begun_has_no_children(tmp_path: Path) -> None:
    """A question begins nothing: whoever looks before anything was begun sees nothing, not an error."""
    inner = crew(*workers("a", "b"))
    async with ActorSystem(tmp_path / "a.db") as system:
        assert await system.get(inner, "inner").which_children() == []
        assert (await system.get(inner, "inner").count_children()).specs == 0
    assert events == []


async def test_nested_supervisors_start_depth_first(tmp_path: Path) -> None:
    """A branch of the tree is complete before the next one begins."""
    inner = crew(*workers("a", "b"))
    async with ActorSystem(tmp_path / "a.db", root=crew(*workers("first"), Child(inner, "inner"), *workers("last"))):
        assert events == ["+root", "+first", "+inner", "+a", "+b", "+last"]


async def test_a_start_that_fails_stops_what_had_started(tmp_path: Path) -> None:
    """Half a tree never runs: the start fails, and says whose fault it is."""
    broken["c"] = 1
    with pytest.raises(StartError, match="worker/c"):
        async with ActorSystem(tmp_path / "a.db", root=crew(*workers("a", "b", "c", "d"))):
            pass
    assert events == ["+root", "+a", "+b", "!c", "-b", "-a", "-root"]


async def test_a_start_that_fails_deep_in_the_tree_fails_the_whole_start(tmp_path: Path) -> None:
    """A branch that does not start takes the tree with it, in reverse order."""
    broken["b"] = 1
    inner = crew(*workers("a", "b"))
    root = crew(*workers("first"), Child(inner, "inner"), *workers("last"))
    with pytest.raises(StartError, match="worker/b"):
        async with ActorSystem(tmp_path / "a.db", root=root):
            pass
    assert events == ["+root", "+first", "+inner", "+a", "!b", "-a", "-inner", "-first", "-root"]


async def test_a_start_that_failed_succeeds_next_time(tmp_path: Path) -> None:
    """Nobody has to clean up after a start that failed."""
    root = crew(*workers("a", "b"))
    broken["b"] = 1
    with pytest.raises(StartError):
        async with ActorSystem(tmp_path / "a.db", root=root):
            pass
    events.clear()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        assert events == ["+root", "+a", "+b"]
        assert await system.get(Worker, "b").add(1) == 1


async def test_declared_children_are_known_by_key(tmp_path: Path) -> None:
    """A child without a key would be another one at every start, so it is refused."""
    with pytest.raises(StartError, match="key"):
        async with ActorSystem(tmp_path / "a.db", root=crew(Child(Worker))):
            pass


async def test_a_child_declared_twice(tmp_path: Path) -> None:
    """Two children of one key would be one actor that is started twice, so they are refused."""
    with pytest.raises(StartError, match="twice"):
        async with ActorSystem(tmp_path / "a.db", root=crew(*workers("a", "b", "a"))):
            pass
    assert "+a" not in events


async def test_children_that_cannot_be_told(tmp_path: Path) -> None:
    """A mistake in `children()` fails the start by name, and with it whoever starts that supervisor."""

    class Wrong(Supervisor, kind="starting.wrong"):
        def children(self) -> list[Child[Worker]]:
            raise LookupError("no list")

    root = crew()
    async with ActorSystem(tmp_path / "a.db", root=root) as system:
        with pytest.raises(ChildError, match="LookupError: no list"):
            await system.get(root, "root").start_child(Child(Wrong, "wrong"))
        assert (await system.get(root, "root").count_children()).specs == 0


async def test_children_begin_with_their_first_state(tmp_path: Path) -> None:
    """A declared child has the state it was declared with, once."""
    root = crew(Child(Worker, "a", total=5))
    for expected in (6, 7):
        async with ActorSystem(tmp_path / "a.db", root=root) as system:
            assert await system.get(Worker, "a").add(1) == expected


async def test_a_permanent_child_cannot_be_significant() -> None:
    """A child that never ends for good cannot end its supervisor; that is said where it is written."""
    with pytest.raises(ActorDefinitionError, match="permanent"):
        Child(Worker, "a").options(significant=True)


@pytest.mark.parametrize("wrong", [{"restart": "sometimes"}, {"shutdown": -1}, {"shutdown": "soon"}], ids=str)
async def test_wrong_child_options(wrong: dict[str, object]) -> None:
    """A child that could not be supervised is refused where it is declared, by name."""
    with pytest.raises(ActorDefinitionError, match=next(iter(wrong))):
        workers("a", **wrong)


async def test_a_supervisor_without_children_runs(tmp_path: Path) -> None:
    """A pool may begin empty."""

    class Pool(Supervisor, kind="starting.pool"):
        pass

    async with ActorSystem(tmp_path / "a.db", root=Pool) as system:
        assert await system.get(Pool, "root").which_children() == []
