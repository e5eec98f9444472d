"""Views for people: `ps` and `dead` as tables, and the parts that `show` and `journal` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from perdure.console.text import Cut, ago, assignments, call_text, clean, count, cut, duration, moment, value_text
from perdure.console.why import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from perdure.console.views import (
        ActorView,
        DeadLetters,
        Did,
        FailureView,
        MessageRef,
        MessageView,
        NodeView,
        Overview,
        StepView,
        Wait,
    )

STYLES = {
    **dict.fromkeys(("succeeded", "completed"), "green"),
    **dict.fromkeys(("dead", "failed", "parked", "rejected", "orphaned"), "red"),
    **dict.fromkeys(("cancelled", "expired", "retry", "step_retry", "unclaimed"), "yellow"),
    **dict.fromkeys(("restarting", "terminated"), "yellow"),
    **dict.fromkeys(("running", "step", "started"), "cyan"),
}
"""Colours of states, where there are colours."""

_LABEL_CELLS = 8
_ERROR_CELLS = 80  # of an error among other things; journal shows it whole
_DUE = {"ask": "deadline", "receipt": "deadline", "sleep": "ends"}
_WORDS = {
    "step": "running",
    "step_retry": "retrying",
    "retry": "retrying",
    "reply": "waiting",
    "outcome": "waiting",
    "sleep": "sleeping",
    "limit": "waiting",
}


def grid(*headings: str) -> Table:
    """A table without lines, whose columns are given afterwards."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left")
    return table


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Names and what there is to say, one to a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(style="dim", no_wrap=True, min_width=_LABEL_CELLS)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def plain(text: str, style: str = "") -> Text:
    """Text that is shown whole, on as many lines as it needs."""
    return Text(clean(text), style=style, overflow="fold")


# ps -------------------------------------------------------------------------------------------------------------------


def overview(view: Overview) -> Iterator[RenderableType]:
    """`perdure ps`."""
    if view.actors:
        table = grid("ACTOR", "STATUS", ">MAIL", ">HANDLED", "WHY IT WAITS", "PROCESS")
        table.columns[0].overflow = "fold"
        table.columns[5].no_wrap = True
        for actor in view.actors:
            word = status_word(actor)
            table.add_row(
                plain(str(actor.address)),
                Text(word, style=STYLES.get(word, "")),
                f"{actor.mail:,}" + (f" +{actor.delayed:,}" if actor.delayed else ""),
                f"{actor.handled:,}",
                plain(idle_or_why(actor, view.read)),
                process(actor.owner),
            )
        yield table
        yield ""
    yield Text(_summary(view), style="dim")
    for node in view.nodes:
        yield Text(node_text(node, view.read), style="dim")


def _summary(view: Overview) -> str:
    parts = [count(view.total, "actor"), f"{view.busy:,} with mail"]
    if view.more:
        parts[0] = f"{len(view.actors):,} of {parts[0]} (all: --limit 0)"
    if view.parked:
        parts.append(f"{view.parked:,} parked")
    if view.failed:
        parts.append(f"{view.failed:,} failed (perdure tree)")
    letters = f"; {count(view.dead_letters, 'dead letter')} (perdure dead)" if view.dead_letters else ""
    live = sum(node.live is not False for node in view.nodes)
    return f"{', '.join(parts)}{letters}; {count(live, 'live process', 'live processes')}"


def status_word(actor: ActorView) -> str:
    """An actor's state in one word."""
    if actor.wait is None and actor.life != "running" and actor.status != "stopped":
        return actor.life
    if actor.wait is None:
        return "idle" if actor.status in {"ready", "waiting"} else actor.status
    return _WORDS.get(actor.wait.kind, actor.wait.kind)


def idle_or_why(actor: ActorView, now: float) -> str:
    """Why an actor does not move on, or does nothing although there is no mail."""
    if actor.wait is not None:
        return why_text(actor.wait, now)
    stopped = held(actor.address, actor.life, actor.reason) if actor.status != "stopped" else None
    if stopped is None:
        return actor.reason or ""
    return when(stopped[1], actor.restart_at, now)


def when(text: str, until: float | None, now: float) -> str:
    """What someone waits for, and until when."""
    if until is None:
        return text
    return text + (f" (goes on {ago(until, now)})" if until > now else f" (was due {ago(until, now)})")


def process(node: NodeView | None) -> Text:
    """The process that has an actor."""
    if node is None:
        return Text("-", style="dim")
    gone = node.live is False
    return Text(clean(f"pid {node.pid}{' gone' if gone else ''}"), style="red" if gone else "")


def node_text(node: NodeView, now: float) -> str:
    """A process in one line."""
    state = {True: "is live", False: "is gone", None: "cannot be examined from here"}[node.live]
    built = f"perdure {node.version}, Python {node.python}"
    return clean(f"pid {node.pid} on {node.host} {state}: started {ago(node.started, now)}, {built}, node {node.id}")


def why_text(wait: Wait, now: float) -> str:
    """Why a mailbox waits, and since or until when."""
    if wait.until is not None:
        return when(wait.text, wait.until, now)
    since = min((step.started for step in wait.open), default=None)
    if since is not None and wait.kind in {"step", "reply", "outcome"}:
        return f"{wait.text} (for {duration(max(0.0, now - since))})"
    return wait.text


# failures -------------------------------------------------------------------------------------------------------------


def failures(found: Iterable[FailureView], now: float, *, named: bool) -> Table:
    """Failures and what came of each; `named` if they are of several messages."""
    table = grid("WHEN", *(["MESSAGE"] if named else []), ">TRY", "ERROR", "THEN")
    for failure in found:
        table.add_row(
            moment(failure.at, now),
            *([plain(failure.message or "-")] if named else []),
            str(failure.attempt),
            plain(cut(failure.error.short, _ERROR_CELLS), STYLES["failed"]),
            plain(failure.decision),
        )
    return table


# messages -------------------------------------------------------------------------------------------------------------


def message_line(message: MessageRef) -> str:
    """A message in few words."""
    return f"{message.actor}.{message.handler} ({message.id}), {message.state}"


def gave(message: MessageView, now: float) -> Text | Cut:
    """What came of a message."""
    if message.result is not None and message.state == "succeeded":
        return Cut(value_text(message.result))
    if message.error is not None:
        return plain(cut(message.error.short, _ERROR_CELLS), STYLES.get(message.state, "yellow"))
    if message.state == "delayed" and message.due is not None:
        return plain(f"due {ago(message.due, now)}")
    return Text("-", style="dim")


def changed(message: MessageView) -> Iterator[str]:
    """The fields that a turn changed, `name=value` each."""
    if message.changes is not None:
        yield from assignments(message.changes)


def did_text(did: Did) -> str:
    """What a turn did, and how often: `summarise x8, 1 open`."""
    total = did.succeeded + did.failed + did.open
    name = did.name.rpartition(".")[2] if did.kind == "step" else did.name
    prefix = f"{did.kind} " if did.kind not in {"step", name} else ""
    parts = [f"{prefix}{name}" + (f" x{total}" if total > 1 else "")]
    if did.failed:
        parts.append(f"{did.failed} failed")
    if did.open:
        parts.append(f"{did.open} open")
    return ", ".join(parts)


def open_text(step: StepView, now: float) -> str:
    """Something that a turn has begun and not ended."""
    text = f"{step.kind} {step.key}, begun {ago(step.started, now)}"
    if step.attempt > 1:
        text += f", attempt {step.attempt}"
    if step.error is not None:
        text += f", after {step.error.short}"
    if step.due is not None:
        text += f", {_DUE.get(step.kind, 'next try')} {ago(step.due, now)}"
    return text + (f": {message_line(step.target)}" if step.target else "")


# dead -----------------------------------------------------------------------------------------------------------------


def dead_letters(view: DeadLetters) -> Iterator[RenderableType]:
    """`perdure dead`."""
    if not view.messages:
        yield "No dead letters."
        return
    table = grid("MESSAGE", "WHEN", "WHY", ">TRIES", ">DEATHS")
    table.columns[0].overflow = "fold"
    table.columns[1].no_wrap = True
    for message in view.messages:
        table.add_row(
            Group(plain(message.id, "bold"), Cut(f"{message.actor}.{call_text(message.handler, message.args)}")),
            moment(message.finished or message.sent, view.read),
            plain(message.error.short if message.error else "no reason was recorded", "red"),
            str(message.attempts),
            str(message.blame),
        )
    yield table
    yield ""
    shown = f"{len(view.messages):,} of " if view.more else ""
    more = " (all: --limit 0)" if view.more else ""
    yield Text(f"{shown}{count(view.total, 'dead letter')}{more}", style="dim")
    yield Text("One in full: perdure journal MESSAGE. Once more: perdure dead retry MESSAGE", style="dim")
