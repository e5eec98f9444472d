"""The figures as a table for people, and as JSON."""

from __future__ import annotations

import json
import platform
import sqlite3
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Result


@frozen
class Place:
    """Where the figures were taken."""

    folder: str
    file_system: str
    fdatasync_seconds: float
    python: str = platform.python_version()
    sqlite: str = sqlite3.sqlite_version

    def __str__(self) -> str:
        return (
            f"{self.file_system}, fdatasync p50 {self.fdatasync_seconds * 1e3:.2f} ms, "
            f"Python {self.python}, SQLite {self.sqlite}, {self.folder}"
        )


def table(results: Sequence[Result], place: Place) -> Table:
    """Every figure, with the ratios to its limit and to its floor, and the target beside them; 80 columns wide."""
    shown = Table(caption=str(place), caption_justify="left", padding=0, box=SIMPLE_HEAD, show_edge=False)
    shown.add_column("", no_wrap=True)
    for name in ("a second", "accepted", "CPU µs", "a commit", "ratio", "floor"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("target", no_wrap=True)
    for number, result in enumerate(results):
        following = results[number + 1 : number + 2]
        shown.add_row(
            result.measure.title,
            f"{result.rate:,.0f}",
            "" if result.accepted_rate is None else f"{result.accepted_rate:,.0f}",
            f"{result.cpu_microseconds:,.0f}",
            f"{result.batch:,.1f}",
            "" if result.ratio is None else f"{result.ratio:.3f}",
            "" if result.floor_ratio is None else f"{result.floor_ratio:.2f}",
            _target(result),
            end_section=not following or following[0].ratio is None,
        )
    return shown


def _target(result: Result) -> str:
    if result.measure.target is None:
        return ""
    return f"{result.measure.target:g} " + ("[green]met[/]" if result.met else "[red]missed[/]")


def as_json(results: Sequence[Result], place: Place) -> str:
    """Every figure, for programs."""
    rows: list[dict[str, Any]] = [{**attrs.asdict(result), "met": result.met} for result in results]
    return json.dumps({"place": attrs.asdict(place), "results": rows}, indent=2)
