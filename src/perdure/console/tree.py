"""View for people: `tree`, who supervises whom, and how they fare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from perdure.console.tables import STYLES, grid, plain, when
from perdure.console.text import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from perdure.console.views import MemberView, TreeView

_INDENT = "  "


def tree(view: TreeView) -> Iterator[RenderableType]:
    """`perdure tree`."""
    if view.members:
        table = grid("ACTOR", "RESTART", "STATE", ">RESTARTS", ">FAILURES", "WHY")
        table.columns[0].overflow = "fold"
        for one, end in _with_ends(view.members):
            table.add_row(
                plain(_INDENT * one.depth + str(one.address)),
                one.restart + (", significant" if one.significant else ""),
                Text(one.state, style=STYLES.get(one.state, "")),
                f"{one.restarts:,}",
                f"{one.failures:,}",
                plain(_why(one, view.read)),
            )
            for depth, hidden in end:
                table.add_row(Text(f"{_INDENT * depth}and {hidden:,} more", style="dim"))
        yield table
        yield ""
        if any(one.hidden for one in view.members):
            yield Text("Not all children are listed; all: --limit 0", style="dim")
    else:
        yield "No actor supervises another."
    held = f", {view.held_count:,} of them held up:" if view.held_count else ""
    yield Text(f"{count(view.others, 'actor')} under the system's root{held}", style="dim")
    for one in view.held:
        yield plain(f"{_INDENT}{one.address}  {one.state}: {_why(one, view.read)}", STYLES.get(one.state, ""))
    if view.held_count > len(view.held):
        yield Text(f"{_INDENT}and {view.held_count - len(view.held):,} more", style="dim")


def _with_ends(members: tuple[MemberView, ...]) -> Iterator[tuple[MemberView, list[tuple[int, int]]]]:
    """Members, each with the families that end after it and do not show all of their children."""
    opened: list[tuple[int, int]] = []
    for at, one in enumerate(members):
        opened.append((one.depth + 1, one.hidden))
        following = members[at + 1].depth if at + 1 < len(members) else 0
        end: list[tuple[int, int]] = []
        while opened and opened[-1][0] > following:
            end.append(opened.pop())
        yield one, [family for family in end if family[1]]


def _why(one: MemberView, now: float) -> str:
    if one.state == "running":
        return f"counts {count(one.counted, 'restart')}" if one.counted else ""
    why = when(one.reason or "no reason was recorded", one.restart_at, now)
    return f"{why}; perdure restart {one.address}" if one.state == "failed" else why
