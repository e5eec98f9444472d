"""Nodes of the deployment tests: `perdure run` in processes of their own, told to stop, and heard."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from perdure import ActorSystem
from tests.acceptance.torture.facts import Fact, read_facts

ROOT = Path(__file__).parents[3]
APP = "tests.acceptance.deploying.app"
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.01


class RunningNode:
    """One `perdure run`, on the database `app.db` of its directory unless another one is its target."""

    def __init__(self, directory: Path, place: str, *options: str, target: str | None = None) -> None:
        self._log = directory / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "perdure", "run", f"{APP}:{place}", "--log-format", "json", *options],
                stderr=log,
                cwd=ROOT,
                env={
                    **os.environ,
                    "DEPLOYING": str(directory),
                    "DEPLOYING_ON": target or str(directory / "app.db"),
                    "PYTHONPATH": str(ROOT / "src"),
                },
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it logged as JSON."""
        *lines, _ = self._log.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def text(self) -> str:
        """Everything it said."""
        return self._log.read_text(encoding="utf-8")

    def said(self, event: str) -> dict[str, Any]:
        """Wait until it has said something; what that was."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.said_all(event)):
            waits = time.monotonic() < deadline and self.process.poll() is None
            assert waits, f"not {event}: {self.text()[-3000:]}"
            time.sleep(_POLL_SECONDS)
        return found[0]

    def said_all(self, event: str) -> list[dict[str, Any]]:
        """What it said of one kind."""
        return [line for line in self.lines() if line.get("event") == event]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """See to it that nothing of it is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.asynccontextmanager
async def node(directory: Path, place: str = "make", *options: str) -> AsyncGenerator[RunningNode]:
    """A node that is ready, and gone when the block ends."""
    running = RunningNode(directory, place, *options)
    try:
        await asyncio.to_thread(running.said, "ready")
        yield running
    finally:
        running.kill()


@contextlib.asynccontextmanager
async def client(directory: Path) -> AsyncGenerator[ActorSystem]:
    """A system that sends and waits, and runs no actor: one that has drained."""
    async with ActorSystem(directory / "app.db") as system:
        await system.drain()
        yield system


def facts(directory: Path, event: str) -> list[Fact]:
    """What the nodes of a directory did, of one kind."""
    return [fact for fact in read_facts(directory / "ledger") if fact.event == event]
