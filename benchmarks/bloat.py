"""How much dead weight a long load leaves in PostgreSQL: `python -m benchmarks.bloat --minutes 60`.

One node, whose actors are asked, told, and take steps, on a server with its autovacuum as it comes; retention as it is
by default. Shown of every table, at the end: its rows, the most dead ones that were seen at any time, how many of its
updates were HOT (changed no index), and its size in the middle of the time and at its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import psycopg
from attrs import define
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.counting import counting
from benchmarks.measures import Bench, asks, steps, tells
from perdure import ActorSystem
from perdure.storage.postgres_open import place
from perdure.testing.postgres import PostgresServer, fresh_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

_SLICE_SECONDS = 10.0
_STATISTICS = """
SELECT relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, pg_total_relation_size(relid)
FROM pg_stat_user_tables WHERE schemaname = %s AND n_tup_ins > 0 ORDER BY relname
"""


@define
class Weight:
    """What was seen of a table.

    Attributes:
        live: Its rows, as the server estimates them.
        dead: The most dead rows that were seen.
        updates: How many rows were updated.
        hot: How many of these changed no index.
        halfway: Its size in the middle of the time, with its indexes, in bytes.
        size: Its size at the end.
    """

    live: int = 0
    dead: int = 0
    updates: int = 0
    hot: int = 0
    halfway: int = 0
    size: int = 0

    def see(self, row: Iterable[Any], *, first_half: bool) -> None:
        """Look at it once more."""
        self.live, dead, self.updates, self.hot, self.size = row
        self.dead = max(self.dead, dead)
        if first_half:
            self.halfway = self.size


async def _load(target: str, seconds: float) -> tuple[int, dict[str, Weight]]:
    where, store = place(target), counting(target)
    weights: dict[str, Weight] = {}
    done = 0
    async with (
        ActorSystem(store) as system,
        await psycopg.AsyncConnection.connect(where.conninfo, autocommit=True) as server,
    ):
        bench = await Bench.of(system, store.counts)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while (passed := loop.time() - begin) < seconds:
            for work, width in ((asks, 32), (tells, 256), (steps, 16)):
                done += (await work(bench, width, _SLICE_SECONDS / 3)).operations
            for name, *row in await (await server.execute(_STATISTICS, [where.schema])).fetchall():
                weights.setdefault(name, Weight()).see(row, first_half=passed < seconds / 2)
    return done, weights


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=60.0, show_default=True, help="How long.")
def main(minutes: float) -> None:
    with PostgresServer() as server, fresh_schema(server.dsn) as target:
        done, weights = asyncio.run(_load(target, minutes * 60))
    shown = Table(caption=f"{done:,} asks, tells and steps in {minutes:g} minutes", box=SIMPLE_HEAD, show_edge=False)
    for name in ("table", "rows", "most dead", "updates", "HOT", "MB halfway", "MB"):
        shown.add_column(name, justify="left" if name == "table" else "right")
    for name, it in weights.items():
        hot = f"{it.hot / it.updates:.1%}" if it.updates else ""
        sizes = (f"{it.halfway / 1e6:,.1f}", f"{it.size / 1e6:,.1f}")
        shown.add_row(name, f"{it.live:,}", f"{it.dead:,}", f"{it.updates:,}", hot, *sizes)
    Console().print(shown)


if __name__ == "__main__":
    main()
