"""The processes of the tests of limits: `limited DATABASE LEDGER NAME COUNT SECONDS LEASE [stays]`.

Each sends itself so many messages, whose steps and turns write their beginnings and ends into one ledger, and ends when
all are handled, unless it stays for those of others.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from perdure import Actor, ActorSystem, Limit, Limits, handler, step

SLOTS = 3
_LEDGER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(os.devnull)


def note(what: str) -> None:
    """Write a line that a SIGKILL cannot take back, whole, after all that others have written."""
    with _LEDGER.open("ab", buffering=0) as ledger:
        ledger.write(f"{what} {os.getpid()}\n".encode())


@step(limit=Limit("acceptance.step", concurrent=SLOTS))
async def costly(seconds: float) -> None:
    """What costs."""
    note("+step")
    try:
        await asyncio.sleep(seconds)
    finally:
        note("-step")


class Worker(Actor, kind="limited.worker"):
    @handler
    async def work(self, seconds: float) -> None:
        await costly(seconds)


class Turner(Actor, kind="limited.turner", limit=Limit("acceptance.turn", concurrent=SLOTS)):
    @handler
    async def work(self, seconds: float) -> None:
        note("+turn")
        try:
            await asyncio.sleep(seconds)
        finally:
            note("-turn")


def most(lines: Iterable[str], what: str) -> int:
    """The most that were under way at once; a process that was killed has none any more."""
    inside: dict[str, int] = {}
    found = 0
    for line in lines:
        event, pid = line.split()
        if event == "killed":
            inside.pop(pid, None)
        elif event[1:] == what:
            inside[pid] = inside.get(pid, 0) + (1 if event[0] == "+" else -1)
        found = max(found, sum(inside.values()))
    return found


async def main(database: str, name: str, count: int, seconds: float, *, lease: float, stays: bool) -> None:
    """Handle so many messages of each kind."""
    async with ActorSystem(database, limits=Limits(lease=lease, heartbeat=lease / 10)) as system:
        note("up")
        kinds = (Worker, Turner)
        asked = [system.get(kind, f"{name}-{n}").work(seconds) for kind in kinds for n in range(count)]
        await asyncio.gather(*asked)
        if stays:
            await system.serve()


if __name__ == "__main__":
    amount, length, patience = int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
    asyncio.run(main(sys.argv[1], sys.argv[3], amount, length, lease=patience, stays=len(sys.argv) > 7))
