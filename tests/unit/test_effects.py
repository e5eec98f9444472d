"""In tests, a handler that does something outside of a step is named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure import Actor, ActorSystem, DeadLetterError, EffectWarning, Retry, handler, step


def _connect(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert folder


def _make_by_a_library(folder: Path) -> None:
    tempfile.mkdtemp(dir=folder)


EFFECTS: dict[str, Callable[[Path], object]] = {
    "opened '{}/a' for writing": lambda folder: (folder / "a").write_text("x"),
    "opened '{}/b' for writing": lambda folder: os.close(os.open(folder / "b", os.O_CREAT | os.O_WRONLY)),
    "made the folder '{}/c'": lambda folder: (folder / "c").mkdir(),
    "removed '{}/there'": lambda folder: (folder / "there").unlink(),
    "moved '{}/there'": lambda folder: (folder / "there").rename(folder / "d"),
    "removed the folder '{}/empty'": lambda folder: (folder / "empty").rmdir(),
    "cut '{}/there'": lambda folder: os.truncate(folder / "there", 0),
    "connected to ('127.0.0.1', ": _connect,
    "started the program ": lambda _: subprocess.run([sys.executable, "--version"], check=True),
    "made the folder '{}/tmp": _make_by_a_library,
}


@step
async def within_a_step(name: str, folder: str) -> None:
    """Where it belongs."""
    EFFECTS[name](Path(folder))


@step
def in_a_thread(name: str, folder: str) -> None:
    """Where it belongs, too."""
    EFFECTS[name](Path(folder))


class Careless(Actor, kind="effects.careless", retry=Retry(1)):
    @handler
    async def do(self, name: str, folder: str) -> None:
        EFFECTS[name](Path(folder))

    @handler
    async def take_care(self, name: str, folder: str) -> None:
        await within_a_step(name, folder)

    @handler
    async def take_care_in_a_thread(self, name: str, folder: str) -> None:
        await in_a_thread(name, folder)

    @handler
    async def read(self, folder: str) -> str:
        return (Path(folder) / "there").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file and a folder in it."""
    (tmp_path / "there").write_text("x", "utf-8")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", EFFECTS)
async def test_an_effect_outside_a_step_is_spoken_of(folder: Path, name: str) -> None:
    """With the actor, the handler, what it did and where, and what to do instead."""
    async with ActorSystem(":memory:") as system:
        with pytest.warns(EffectWarning) as said:
            await system.get(Careless, "c").do(name, str(folder))
    text = str(said[0].message)
    assert text.startswith(f"effects.careless/c: 'do' {name.format(folder)}"[:100])
    assert f" outside a step, at {__file__}:" in text
    assert "@step" in text


@pytest.mark.parametrize("name", EFFECTS)
async def test_an_effect_in_a_step_is_as_it_should_be(folder: Path, name: str) -> None:
    """Nothing is said of it, wherever the step runs; nor of what is only read, or done outside of any actor."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", EffectWarning)
        async with ActorSystem(":memory:") as system:
            ref = system.get(Careless, "c")
            assert await ref.read(str(folder)) == "x"
            await ref.take_care(name, str(folder))
            again = folder / "again"
            again.mkdir()
            (again / "there").write_text("x", "utf-8")
            (again / "empty").mkdir()
            await ref.take_care_in_a_thread(name, str(again))


async def test_an_effect_that_is_an_error_does_not_happen(folder: Path) -> None:
    """Where warnings are errors, as they should be in tests, the handler hears of it before it is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", EffectWarning)
        async with ActorSystem(":memory:") as system:
            receipt = await system.get(Careless, "c").do.tell("removed '{}/there'", str(folder))
            with pytest.raises(DeadLetterError, match="EffectWarning"):
                await receipt.result(timeout=20)
    assert (folder / "there").exists()


def test_a_loop_that_is_debugged_tells_of_them(tmp_path: Path) -> None:
    """Without any test, too; and one that is not says nothing."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    for options, times in (((), 0), (("-X", "dev"), 1)):
        done = subprocess.run(
            [sys.executable, *options, program], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stderr.count("EffectWarning: effects.writer/w: 'write' opened 'note' for writing") == times


PROGRAM = """
import asyncio
from pathlib import Path

from perdure import Actor, ActorSystem, handler

class Writer(Actor, kind="effects.writer"):
    @handler
    async def write(self) -> None:
        Path("note").write_text("x")

async def main():
    async with ActorSystem(":memory:") as system:
        for _ in range(3):
            await system.get(Writer, "w").write()

asyncio.run(main())
"""
