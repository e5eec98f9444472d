"""The other process of the wake-up tests: `python -m tests.acceptance.waking MODE DATABASE [ARGUMENT]`.

It says one line for everything it was told to do, and is told by lines.
"""

# ruff: noqa: SLF001, T201 - it looks at its sockets, and speaks to who started it

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

from perdure import Actor, ActorSystem, handler
from perdure.storage.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]


class Echo(Actor, kind="waking.echo"):
    handled: int = 0

    @handler
    async def hear(self, sent: float) -> list[float]:
        """How many were handled with this one, and how many seconds after it was sent."""
        self.handled += 1
        return [self.handled, time.time() - sent]

    @handler
    async def ask(self, key: str) -> float:
        """Ask another one."""
        (count, _) = await self.system.get(Echo, key).hear(time.time())
        return count


@contextlib.contextmanager
def other(mode: str, database: Path, argument: str = "") -> Generator[subprocess.Popen[str]]:
    """Another process, that is gone when the block ends."""
    command = [sys.executable, "-m", "tests.acceptance.waking", mode, str(database), argument]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def heard(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    assert line, f"it ended with {process.wait(10)}"
    return line.strip()


def say(process: subprocess.Popen[str], word: str = "") -> None:
    """Tell a process something."""
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


async def told() -> str:
    """What this process is told next."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def serve(system: ActorSystem, key: str) -> None:
    """Have an actor, measure this process when told so, and leave when told so."""
    await system.get(Echo, key).hear(time.time())
    print("up", flush=True)
    while word := await told():
        before = time.process_time()
        await asyncio.sleep(float(word))
        print(time.process_time() - before, flush=True)


async def crowd(system: ActorSystem, key: str) -> None:
    """Be one of many, each with an actor that every other one asks."""
    mine, many = map(int, key.split("/"))
    await system.get(Echo, str(mine)).hear(time.time())
    print("up", flush=True)
    await told()
    others = [system.get(Echo, str(n)) for n in range(many) if n != mine]
    for _ in range(5):
        await asyncio.gather(*(each.hear(time.time()) for each in others))
    print("asked", flush=True)
    await told()
    (count, _) = await system.get(Echo, str(mine)).hear(time.time())
    print(int(count), flush=True)
    await told()


async def fork(system: ActorSystem, key: str) -> None:
    """Fork a child, which keeps nothing of this process's sockets, and outlives it."""
    store = system._store
    assert isinstance(store, SQLiteStore)
    assert store._presence is not None
    await system.get(Echo, key).hear(time.time())
    print("up", flush=True)
    await told()  # another process has come meanwhile
    await asyncio.sleep(0.2)
    wakes = store._presence.wakes
    descriptors = [line.socket.fileno() for line in [*wakes._lines.values(), *wakes._calls]]
    assert wakes._listener is not None
    descriptors.append(wakes._listener.fileno())
    child = os.fork()
    if child == 0:
        left = 0
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                left += 1
        os.write(1, f"{len(descriptors)} {left}\n".encode())
        time.sleep(30)  # noqa: ASYNC251  # the loop is the parent's
        os._exit(0)
    await told()
    print(child, flush=True)
    await told()


MODES = {"serve": serve, "crowd": crowd, "fork": fork}


async def main(mode: str, database: str, argument: str) -> None:
    """Be the other process."""
    async with ActorSystem(database) as system:
        await MODES[mode](system, argument)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
