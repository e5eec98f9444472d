"""Serving: until a signal comes, or somebody drains; and whose signals are handled."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import pytest
from fastapi import FastAPI

from perdure import Actor, ActorSystem, handler
from perdure.errors import SystemClosedError
from perdure.signals import Signals
from tests.unit.crashing import host_of


class Hand(Actor, kind="serving.hand"):
    total: int = 0

    @handler
    async def add(self, number: int) -> int:
        self.total += number
        return self.total


async def test_serving_ends_when_somebody_drains(tmp_path: Path) -> None:
    """An application may have a door of its own for it; signals are handled as before afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with ActorSystem(tmp_path / "a.db") as system:
        serving = asyncio.ensure_future(system.serve())
        await asyncio.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) != before[0]
        await system.drain()
        await asyncio.wait_for(serving, 20)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_signal_drains_what_serves(tmp_path: Path) -> None:
    """In any program, not only in `perdure run`."""
    async with ActorSystem(tmp_path / "a.db") as system:
        await system.get(Hand, "x").add(1)
        serving = asyncio.ensure_future(system.serve())
        await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 20)
        assert host_of(system).activations == {}


async def test_cancelled_serving_leaves_the_system_as_it_is(tmp_path: Path) -> None:
    """Whoever runs it in a task group may end it; handlers are put back."""
    before = signal.getsignal(signal.SIGTERM)
    async with ActorSystem(tmp_path / "a.db") as system:
        serving = asyncio.ensure_future(system.serve())
        await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert signal.getsignal(signal.SIGTERM) == before
        assert await system.get(Hand, "x").add(1) == 1


def test_serving_in_another_thread(tmp_path: Path) -> None:
    """No signal is handled there, and none taken from the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def main() -> None:
        async with ActorSystem(tmp_path / "a.db") as system:
            serving = asyncio.ensure_future(system.serve())
            await asyncio.sleep(0.01)
            seen.append(signal.getsignal(signal.SIGTERM))
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(10)
    assert seen == [before]


async def test_inside_a_framework_signals_are_left_alone(tmp_path: Path) -> None:
    """A web server has handlers of its own; a system in its lifespan does not touch them, and drains as it leaves."""
    before = signal.getsignal(signal.SIGTERM)
    app = FastAPI()
    async with ActorSystem(tmp_path / "a.db") as app.state.system:
        await app.state.system.drain()
        assert signal.getsignal(signal.SIGTERM) == before


def test_signals_within_others_are_those(tmp_path: Path) -> None:
    """A program that handles them from its beginning to its end keeps doing so while it serves."""
    with Signals() as outer:
        with Signals.current() as inner:
            assert inner is outer
        assert signal.getsignal(signal.SIGTERM) == outer._handle  # noqa: SLF001  # it is the one that is installed
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) != outer._handle  # noqa: SLF001  # as above: nobody else can tell


async def test_a_system_that_is_open_is_not_adjusted(tmp_path: Path) -> None:
    """Nobody moves the database under actors that run; before that, whoever runs it may."""
    system = ActorSystem(tmp_path / "a.db")
    system.adjust(target=tmp_path / "b.db", drain=3)
    async with system:
        assert await system.get(Hand, "x").add(1) == 1
        with pytest.raises(SystemClosedError):
            system.adjust(drain=1)
    assert not (tmp_path / "a.db").exists()
