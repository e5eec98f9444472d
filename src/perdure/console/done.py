"""Views for people: what an operation did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from perdure.console.tables import STYLES, message_line, plain
from perdure.console.text import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from perdure.console.operate import Removed, Restarting, Retried


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
