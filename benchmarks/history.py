"""What a message costs as what is kept grows: tells over the same actors, one slice after the other.

    python -m benchmarks.history [--slices 8] [--target PATH]

Rate and processor time of each slice, and how many messages each actor has behind it by then. Nothing is removed
meanwhile. A column that grows is a cost of the past; the machine's own drift is in all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.counting import counting
from benchmarks.measures import Bench, tells
from benchmarks.raw import ACTORS
from perdure import ActorSystem

_SENDERS = 1_000
_SLICE_SECONDS = 4.0


async def _slices(target: str, slices: int) -> Table:
    table = Table("messages an actor", "tells a second", "CPU µs", "a commit", box=SIMPLE_HEAD)
    store, sent = counting(target), 0
    async with ActorSystem(store) as system:
        bench = await Bench.of(system, store.counts)
        for _ in range(slices):
            sample = await tells(bench, _SENDERS, _SLICE_SECONDS)
            sent += sample.operations
            table.add_row(
                f"{sent / ACTORS:,.0f}", f"{sample.rate:,.0f}", f"{sample.cpu_microseconds:.0f}", f"{sample.batch:.0f}"
            )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slices", type=int, default=8, help=f"how many, of {_SLICE_SECONDS:g} s each")
    parser.add_argument("--target", help="where, instead of a file in this folder that is removed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        target = asked.target or str(Path(folder) / "history.db")
        Console().print(asyncio.run(_slices(target, asked.slices)))


if __name__ == "__main__":
    main()
