"""The other processes of the tests of clients and of queries.

    python -m tests.acceptance.asking MODE DATABASE [ARGUMENT]

Each says one line for everything it was told to do, and is told by lines.
"""

# ruff: noqa: T201 - it speaks to who started it

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from perdure import Actor, ActorSystem, Limits, Rejected, handler, query, sleep, step
from tests.acceptance.waking import ROOT, heard, say, told

__all__ = ["heard", "other", "say"]


@step
async def work(seconds: float) -> str:
    """A step that runs for a while."""
    await asyncio.sleep(seconds)
    return "worked"


class Till(Actor, kind="asking.till"):
    total: int = 0
    seen: list[int] = []
    stage: str = "idle"

    @handler
    async def add(self, n: int) -> int:
        self.total += n
        self.seen.append(n)
        return self.total

    @handler
    async def toil(self, seconds: float) -> str:
        """A turn with a long step in its midst."""
        self.stage = "toiling"
        self.stage = await work(seconds)
        return self.stage

    @handler
    async def rest(self, seconds: float) -> None:
        """A turn that waits long after its first step."""
        self.stage = await work(0)
        self.total += 100
        await sleep(seconds)
        self.stage = "rested"

    @handler
    async def misfit(self) -> None:
        """A turn that parks in any process but the one that began it."""
        self.stage = "never seen"
        await work(0 if os.environ.get("BEGINS") else 0.1)
        await sleep(600)

    @query
    async def value(self) -> int:
        return self.total

    @query
    async def now(self) -> str:
        return self.stage

    @query
    async def where(self, *, slowly: float = 0.0) -> int:
        """In which process it is."""
        await asyncio.sleep(slowly)
        return os.getpid()

    @query
    async def refuse(self, how: str) -> None:
        raise Rejected("closed") if how == "rejected" else ValueError(how)

    @query
    async def much(self, size: int) -> str:
        return "x" * size


@contextlib.contextmanager
def other(
    mode: str, database: Path, argument: str = "", *, module: str = "tests.acceptance.asking", **environment: str
) -> Generator[subprocess.Popen[str]]:
    """Another process, that is gone when the block ends."""
    command = [sys.executable, "-m", module, mode, str(database), argument]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def worker(database: Path, key: str = "", **environment: str) -> AsyncGenerator[subprocess.Popen[str]]:
    """A process that runs tills, and has one in memory if a key is given."""
    with other("serve", database, key, **environment) as process:
        assert await heard(process) == "up"
        yield process


async def serve(database: str, key: str) -> None:
    """Run tills, until told to leave."""
    async with ActorSystem(database, limits=Limits(evict_after=0.2)) as system:
        if key:
            await system.get(Till, key).add(0)
        print("up", flush=True)
        await told()


async def ask(database: str, argument: str) -> None:
    """Be a client: add to a till so often, at once, and say how long each took, in milliseconds."""
    key, many = argument.split("/")
    async with ActorSystem.client(database) as system:
        till = system.get(Till, key)
        print("up", flush=True)
        await told()

        async def one() -> float:
            begin = time.perf_counter()
            await till.add(1)
            return (time.perf_counter() - begin) * 1e3

        took = [await one() for _ in range(int(many))]
        print(*took, flush=True)
        await told()


MODES = {"serve": serve, "ask": ask}

if __name__ == "__main__":
    asyncio.run(MODES[sys.argv[1]](*sys.argv[2:4]))
