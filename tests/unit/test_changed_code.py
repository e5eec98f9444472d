"""Code that changed under a running turn: it goes on if its journal still fits, and parks if not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import ActorSystem, step
from tests.unit.observing import until
from tests.unit.shapes import SHAPES, Runner, Shape, begin, blocking, effect, forget, go_on, pauses, ran


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's world outside."""
    forget()


async def _status(path: Path) -> str:
    async with ActorSystem(path) as system:
        receipt = system.receipt("m", Runner.run)

        async def settled() -> bool:
            return await receipt.status() not in {"pending", "running", "waiting"}

        await until(settled)
        return await receipt.status()


def _steps_of(*names: str) -> Shape:
    async def one_after_the_other(self: Runner) -> str:
        return "".join([await effect(name) for name in names])

    return one_after_the_other


@pytest.mark.parametrize(
    "after",
    [("a", "changed", "stay"), ("a",), ("changed", "b", "stay")],
    ids=["other arguments", "a step removed", "first changed"],
)
async def test_changed_code_parks(tmp_path: Path, after: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that no longer fits its journal is never guessed at: the turn parks, and goes on when the code is mended."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", _steps_of("a", "b", "stay"))
    await begin(tmp_path / "a.db", "changing", steps=3)
    count = len(ran)
    monkeypatch.setitem(SHAPES, "changing", _steps_of(*after))
    assert await _status(tmp_path / "a.db") == "parked"
    assert len(ran) == count
    monkeypatch.setitem(SHAPES, "changing", _steps_of("a", "b", "stay"))
    assert await go_on(tmp_path / "a.db") == "ABSTAY"
    assert len(ran) == count + 1


async def test_added_step_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of another name may be added anywhere before a deployment."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", _steps_of("a", "b", "stay"))
    await begin(tmp_path / "a.db", "changing", steps=3)

    async def added(self: Runner) -> str:
        return await blocking("n") + await _steps_of("a", "b", "stay")(self)

    monkeypatch.setitem(SHAPES, "changing", added)
    assert await go_on(tmp_path / "a.db") == "nnABSTAY"
    assert ran.count("m:effect#1") == ran.count("m:effect#2") == 1


async def test_step_moved_into_a_task_parks_or_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.wait_for makes a task on one Python and none on another: nothing is run twice for it."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", _steps_of("a", "b", "stay"))
    await begin(tmp_path / "a.db", "changing", steps=3)
    count = len(ran)

    async def in_tasks(self: Runner) -> str:
        return "".join([await asyncio.create_task(effect(name)) for name in ("a", "b", "stay")])

    monkeypatch.setitem(SHAPES, "changing", in_tasks)
    assert await _status(tmp_path / "a.db") == "parked"
    assert len(ran) == count


async def test_renamed_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed step keeps its journal through aliases=."""
    pauses["stay"] = 60
    monkeypatch.setitem(SHAPES, "changing", _steps_of("a", "stay"))
    await begin(tmp_path / "a.db", "changing", steps=2)
    renamed = step(effect, name="renamed", aliases=["effect"])

    async def new(self: Runner) -> str:
        return await renamed("a") + await renamed("stay")

    monkeypatch.setitem(SHAPES, "changing", new)
    assert await go_on(tmp_path / "a.db") == "ASTAY"
    assert ran.count("m:effect#1") == 1
