"""Views for people: what an operation did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from perdure.console.tables import STYLES, grid, message_line, plain
from perdure.console.text import count, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from perdure.console.moving import Backup, Copy
    from perdure.console.operate import Removed, Restarting, Retried

_DIGITS = 16  # of a digest, for people


def retried(view: Retried) -> Iterator[RenderableType]:
    """`perdure dead retry`."""
    for message in view.messages:
        yield plain(message_line(message), STYLES.get(message.state, ""))
    for one in view.held:
        yield plain(f"{one.actor} handles nothing now: {one.why}", STYLES["failed"])
    yield Text(f"{count(len(view.messages), 'dead letter')} sent again", style="dim")


def removed(view: Removed) -> Iterator[RenderableType]:
    """`perdure dead purge`."""
    yield Text(f"{count(view.removed, 'dead letter')} removed", style="dim")


def restarting(view: Restarting) -> Iterator[RenderableType]:
    """`perdure restart`."""
    when = "now" if view.processes else "as soon as a process starts that knows its kind"
    yield plain(f"{view.actor} begins again {when}")
    for other in view.others:
        yield plain(f"  and with it {other}")


def backed_up(view: Backup) -> Iterator[RenderableType]:
    """`perdure backup`."""
    yield plain(f"{view.database} is backed up in {view.path}")
    rows = {table.name: table.rows for table in view.tables}
    holds = [
        count(rows["actor"], "actor"),
        count(rows["message"], "message"),
        count(rows["outcome"], "outcome"),
        count(rows["journal"], "journal record"),
    ]
    size = f"{view.bytes / 1_000_000:,.1f} MB"
    yield Text(f"{', '.join(holds)}; {size}, verified, in {duration(view.seconds)}", style="dim")


def copied(view: Copy) -> Iterator[RenderableType]:
    """`perdure copy`."""
    table = grid("TABLE", ">ROWS", "DIGEST", "THERE")
    for one in view.tables:
        there = "equal" if one.equal else f"differs ({count(one.rows_there, 'row')})"
        table.add_row(one.name, f"{one.rows:,}", one.digest[:_DIGITS], Text(there, style="" if one.equal else "red"))
    yield table
    yield ""
    verdict = "holds the same as" if view.equal else "does not hold the same as"
    yield plain(f"{view.destination} {verdict} {view.database}")
    yield Text(f"compared row by row, in {duration(view.seconds)}", style="dim")
