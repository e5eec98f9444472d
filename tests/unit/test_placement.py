"""Which process runs which actors: its imported classes, and its tags."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import Actor, ActorSystem, Child, OneForOne, Supervisor, handler
from perdure.actors.names import kinds
from perdure.errors import ActorDefinitionError
from perdure.storage.records import NodeRecord
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.writes import Beat
from perdure.supervision.alarm import Alarm, unrunnable
from perdure.warning_types import UnknownKindWarning
from tests.unit.crashing import host_of
from tests.unit.observing import until


class Render(Actor, kind="placement.render", needs={"gpu"}):
    frames: int = 0

    @handler
    async def draw(self) -> int:
        self.frames += 1
        return self.frames


class Plain(Actor, kind="placement.plain"):
    @handler
    async def relay(self, key: str) -> int:
        return await self.system.get(Render, key).draw()


class Studio(Supervisor, kind="placement.studio", strategy=OneForOne()):
    def children(self) -> Iterator[Child[Actor]]:
        yield Child(Plain, "desk")
        yield Child(Render, "wall")


def kinds_in(system: ActorSystem) -> set[str]:
    """The kinds of the actors that a system has in memory."""
    return {activation.spec.kind for activation in host_of(system).activations.values()}


async def test_an_actor_runs_where_its_needs_are_met(tmp_path: Path) -> None:
    """Whoever sends need not know where the GPU is; mail waits for it, and wakes it."""
    async with ActorSystem(tmp_path / "a.db") as without:
        receipt = await without.get(Render, "r").draw.tell()
        assert kinds_in(without) == set()
        async with ActorSystem(tmp_path / "a.db", tags={"gpu", "big"}) as with_:
            assert await receipt.result(timeout=20) == 1
            assert await without.get(Render, "r").draw() == 2
            assert await without.get(Plain, "p").relay("r") == 3
            assert kinds_in(with_) == {"placement.render"}
            assert kinds_in(without) == {"placement.plain"}


async def test_a_supervised_actor_is_left_to_who_may_run_it(tmp_path: Path) -> None:
    """A tree stands although one of its members belongs on another machine."""
    async with ActorSystem(tmp_path / "a.db", root=Studio) as system:
        receipt = await system.get(Render, "wall").draw.tell()
        await until(lambda: "placement.plain" in kinds_in(system))
        assert "placement.render" not in kinds_in(system)
        async with ActorSystem(tmp_path / "a.db", tags=["gpu"]):
            assert await receipt.result(timeout=20) == 1


async def test_nobody_has_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail that no process can handle is told of, with what is missing."""
    monkeypatch.setattr("perdure.supervision.nodes._UNKNOWN_AFTER_SECONDS", 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with ActorSystem(tmp_path / "a.db", tags={"cpu"}) as system:
            await system.get(Render, "r").draw.tell()
            await until(lambda: any(each.category is UnknownKindWarning for each in caught))
    (told,) = [each for each in caught if each.category is UnknownKindWarning]
    assert "'placement.render', which needs gpu, and no live process has it" in str(told.message)
    assert "ActorSystem(tags=['gpu'])" in str(told.message)


async def test_no_alarm_for_what_another_process_runs(tmp_path: Path) -> None:
    """A process without a class does not cry at mail that one with it is about to take."""
    alone, running = SQLiteStore(tmp_path / "a.db"), SQLiteStore(tmp_path / "a.db")
    await alone.open(NodeRecord("alone", 1, "here", "3.11", "0", 1.0), lambda _: False)
    await running.open(NodeRecord("running", 1, "here", "3.11", "0", 1.0, kinds=("absent",)), lambda _: False)
    alarm = Alarm(alone, lambda _: None)
    await alarm.ring([("absent", 1)])
    await asyncio.sleep(0)  # warnings are errors here
    await running.write([Beat(0, draining=True)])
    await alarm.ring([("absent", 1)])
    with pytest.warns(UnknownKindWarning, match="'absent', which no imported module defines"):
        await asyncio.sleep(0)
    await running.close()
    await alone.close()


def test_what_nobody_can_run() -> None:
    """The alarm says what is missing, and keeps quiet where another process may."""
    assert "no imported module" in unrunnable(None, [set()])
    assert unrunnable(set(), [set()]) == ""
    assert unrunnable({"a"}, [set(), {"a", "b"}]) == ""
    assert "needs a, b" in unrunnable({"b", "a"}, [{"a"}, {"b"}])  # each alone is not enough


@pytest.mark.parametrize("wrong", ["gpu", b"gpu", [1], [""], ["a\0"], 3, None])
def test_needs_and_tags_are_names(wrong: Any, tmp_path: Path) -> None:  # noqa: ANN401  # any mistake
    """A typing mistake does not become an actor that nobody runs."""
    with pytest.raises(ActorDefinitionError, match="needs="):
        type("Wrong", (Actor,), {"__module__": __name__}, needs=wrong)
    with pytest.raises(ActorDefinitionError, match="tags="):
        ActorSystem(tmp_path / "a.db", tags=wrong)
    assert "Wrong" not in kinds
