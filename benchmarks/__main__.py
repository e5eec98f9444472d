"""Measure perdure beside the raw limit of SQLite, in one run on one disk.

The raw limit is the least work of a durable mailbox in plain sqlite3: a message inserted in one transaction, state and
cursor updated in a later one. Below each limit stand the measures of perdure that are compared with it, over 1,000
actors. A tell counts when its outcome is durable (and is accepted earlier). An ask is two commits, as a message of the
raw limit is; a step is one, so `steps, 1 turn` is compared with commits.

A floor is what no such system can do without (`floors.py`): the raw limit's statements with nothing around them but the
way to the database's thread and back, or with a bare asyncio mailbox. The column of that name is the ratio to it.

CPU is that of all threads for one operation. Ratios are medians over neighbours in time: on a machine that does other
things too, trust them and not the absolute figures.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click
from rich.console import Console

from benchmarks import nodes, supervision, wakeups
from benchmarks.disk import fdatasync_times, file_system
from benchmarks.report import Place, as_json, table
from benchmarks.rounds import GROUPS, Result, run

_ROUNDS, _SECONDS = 9, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.2


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: rough figures in seconds.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here, too."
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The disk to measure; the current directory's without it.",
)
def main(*, quick: bool, json_file: Path | None, folder: Path) -> None:
    rounds, seconds = (_QUICK_ROUNDS, _QUICK_SECONDS) if quick else (_ROUNDS, _SECONDS)
    console = Console()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as name:
        scratch = Path(name).resolve()
        syncs: list[float] = []
        with console.status("measuring") as status:
            for group in GROUPS:
                syncs.extend(fdatasync_times(scratch))
                results.extend(run(group, scratch, rounds, seconds, status.update))
        place = Place(str(folder.resolve()), file_system(scratch), statistics.median(syncs))
    console.print(table(results, place))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as name, console.status("supervision"):
        figures = supervision.measure(Path(name).resolve(), quick=quick)
    console.print(supervision.table(figures))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as name, console.status("wake-ups"):
        figures = wakeups.measure(Path(name).resolve(), quick=quick)
    console.print(wakeups.table(figures))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as name, console.status("several nodes"):
        found = nodes.measure(Path(name).resolve(), quick=quick)
    console.print(nodes.table(found))
    if json_file is not None:
        json_file.write_text(as_json(results, place) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
