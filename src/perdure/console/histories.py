"""Views for people: `show`, an actor at one glance, and `journal`, a message from what came in to what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perdure.console.tables import (
    STYLES,
    changed,
    did_text,
    facts,
    failures,
    gave,
    grid,
    idle_or_why,
    message_line,
    node_text,
    open_text,
    plain,
    status_word,
    why_text,
)
from perdure.console.text import (
    Cut,
    ago,
    call_text,
    clean,
    count,
    duration,
    members,
    moment,
    size,
    value_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from perdure.console.views import (
        ActorHistory,
        ActorView,
        MessageHistory,
        MessageView,
        StateView,
        StepView,
        Wait,
    )

_LINES = 4  # of a cell
_STEP_WIDTH = 36
_DEADLINES = {"ask": "deadline", "receipt": "deadline", "sleep": "ends"}
_DONE = {"tell": "sent", "spawn": "spawned", "sleep": "ended"}


# show -----------------------------------------------------------------------------------------------------------------


def actor_history(view: ActorHistory) -> Iterator[RenderableType]:
    """`perdure show`: what came in, what each turn did, changed and gave, and why the mailbox waits."""
    actor = view.actor
    word = status_word(actor)
    yield Text.assemble((clean(str(actor.address)), "bold"), "  ", (word, STYLES.get(word, "")))
    yield facts(_actor_facts(actor, view.read))
    yield from _state(view.state)
    if view.failures:
        yield ""
        yield Text("Failures", style="bold")
        yield failures(view.failures, view.read, named=True)
    yield ""
    if not view.messages:
        yield "No messages are kept."
        return
    numbered = sum(message.number is not None for message in view.messages)
    shown = f"Messages (the newest {numbered}; more: --limit N)" if view.more else "Messages"
    yield Text(shown, style="bold")
    yield _messages(view)


def _actor_facts(actor: ActorView, now: float) -> Iterator[tuple[str, RenderableType]]:
    delayed = f", {actor.delayed:,} delayed" if actor.delayed else ""
    yield "mailbox", f"{count(actor.mail, 'message')}{delayed}; {actor.handled:,} handled"
    if actor.wait is not None:
        yield "why", plain(why_text(actor.wait, now), STYLES.get(actor.wait.kind, ""))
        yield from _wait_facts(actor.wait, now)
    elif actor.life != "running" and actor.status != "stopped":
        yield "why", plain(idle_or_why(actor, now), STYLES.get(actor.life, ""))
    elif actor.reason:
        yield "reason", plain(actor.reason)
    yield "process", plain(node_text(actor.owner, now) if actor.owner else "none has it")
    if actor.parent is not None:
        yield "parent", plain(str(actor.parent))
    if actor.supervisor is not None:
        yield "supervisor", plain(str(actor.supervisor))


def _wait_facts(wait: Wait, now: float) -> Iterator[tuple[str, RenderableType]]:
    yield "message", plain(f"{wait.message.id} ({wait.message.handler})")
    shown = wait.open[:_LINES]
    for step in shown:
        yield "open", plain(open_text(step, now))
    if wait.open_count > len(shown):
        yield (
            "",
            Text(f"and {wait.open_count - len(shown):,} more: perdure journal {clean(wait.message.id)}", style="dim"),
        )


def _state(state: StateView | None) -> Iterator[RenderableType]:
    if state is None:
        yield facts([("state", Text("as the class begins: no turn has changed it", style="dim"))])
        return
    yield facts([("state", f"version {state.version}, {size(state.fields.size)}")])
    table = facts((clean(name), Cut(value)) for name, value in members(state.fields))
    yield Padding(table, (0, 0, 0, 2))


def _messages(view: ActorHistory) -> Table:
    table = grid(">#", "CAME IN", "DID", "CHANGED", "GAVE")
    for column, ratio in zip(table.columns[1:], (4, 3, 3, 3), strict=True):
        column.ratio = ratio
    table.expand = True
    for message in view.messages:
        table.add_row(
            str(message.number or "-"),
            Group(
                Cut(call_text(message.handler, message.args)),
                plain(message.id, "dim"),
                Text(moment(message.sent, view.read), style="dim"),
            ),
            _lines([did_text(did) for did in message.did], plain),
            _lines(list(changed(message)), Cut),
            Group(gave(message, view.read), plain(_ended(message), STYLES.get(message.state, ""))),
        )
    return table


def _ended(message: MessageView) -> str:
    return message.state + (f" in {duration(message.seconds)}" if message.seconds is not None else "")


def _lines(lines: list[str], draw: Callable[[str], RenderableType]) -> RenderableType:
    """A cell of a few lines."""
    if not lines:
        return Text("-", style="dim")
    shown = lines if len(lines) <= _LINES else lines[: _LINES - 1]
    drawn = [draw(line) for line in shown]
    if len(shown) < len(lines):
        drawn.append(Text(f"and {len(lines) - len(shown)} more", style="dim"))
    return Group(*drawn)


# journal --------------------------------------------------------------------------------------------------------------


def message_history(view: MessageHistory) -> Iterator[RenderableType]:
    """`perdure journal`: what came in, what each step did and gave, what came of it, what it caused."""
    message = view.message
    yield Text.assemble((clean(message.id), "bold"), "  ", (message.state, STYLES.get(message.state, "")))
    yield facts(_came_in(view))
    yield ""
    if view.steps:
        yield _steps(view)
        if view.more:
            yield Text(f"The first {len(view.steps):,} steps; all: --limit 0", style="dim")
    else:
        yield Text("No steps: the journal of this message is empty.", style="dim")
    if view.failures:
        yield ""
        yield Text("Failures", style="bold")
        yield failures(view.failures, view.read, named=False)
    came_of_it = list(_came_of_it(message))
    if came_of_it:
        yield ""
        yield facts(came_of_it)
    if message.error is not None and message.error.traceback:
        yield Padding(_traceback(message.error.traceback), (1, 0, 0, 0))
    if view.caused:
        yield ""
        yield Text("Caused" if view.caused_complete else "Caused (there may be more)", style="bold")
        for caused in view.caused:
            indent = "  " * caused.depth
            style = STYLES.get(caused.message.state, "")
            yield Padding(plain(message_line(caused.message), style), (0, 0, 0, len(indent)))


def _came_in(view: MessageHistory) -> Iterator[tuple[str, RenderableType]]:
    message, now = view.message, view.read
    place = (
        f"message {message.number} of {message.actor}"
        if message.number
        else f"not yet in the mailbox of {message.actor}"
    )
    yield "call", Cut(call_text(message.handler, message.args))
    yield "place", plain(place)
    sender = f" by {message_line(message.cause)}" if message.cause else " from outside any turn"
    yield "sent", plain(moment(message.sent, now) + sender)
    if message.chain:
        yield "asked by", plain(" > ".join(message.chain))
    if message.due is not None:
        yield "not before", moment(message.due, now)
    if message.expires is not None:
        yield "start by", moment(message.expires, now)
    if message.started is not None:
        took = f", took {duration(message.seconds)}" if message.seconds is not None else ""
        yield "started", f"{moment(message.started, now)}{took}"
    if message.attempts or message.blame:
        yield "trouble", f"{count(message.attempts, 'failed attempt')}, {count(message.blame, 'death')} of its process"
    if view.wait is not None:
        yield "why", plain(why_text(view.wait, now), STYLES.get(view.wait.kind, ""))


def _steps(view: MessageHistory) -> Table:
    again = any(step.attempt > 1 for step in view.steps)
    table = grid(">START", "STEP", "GAVE", ">TOOK", ">DONE", *([">TRY"] if again else []))
    table.expand = True
    for column in (table.columns[0], *table.columns[3:]):
        column.no_wrap = True
    table.columns[1].overflow, table.columns[1].max_width = "fold", _STEP_WIDTH
    table.columns[2].ratio = 1
    first = view.message.started or view.steps[0].started
    for step in view.steps:
        table.add_row(
            f"+{duration(max(0.0, step.started - first))}",
            plain(step.key if step.kind == "step" else f"{step.kind} {step.key}"),
            Group(_step_gave(step, view.read), *_of_whom(step)),
            duration(step.seconds) if step.seconds is not None else "",
            str(step.position) if step.position is not None else "",
            *([str(step.attempt)] if again else []),
        )
    return table


def _of_whom(step: StepView) -> Iterator[RenderableType]:
    if step.target is not None:
        yield plain(f"{step.target.actor}.{step.target.handler}, {step.target.state}", "dim")
        if step.kind == "receipt":  # an ask's message is in the tree beneath
            yield plain(step.target.id, "dim")


def _step_gave(step: StepView, now: float) -> RenderableType:
    if step.error is not None and step.status != "completed":
        later = f"; next try {ago(step.due, now)}" if step.status == "started" and step.due is not None else ""
        return plain(step.error.short + later, STYLES["failed"])
    if step.result is not None:
        return Cut(value_text(step.result))
    if step.status == "started":
        doing = "waits" if step.kind in _DEADLINES else "runs"
        until = f", {_DEADLINES.get(step.kind, 'until')} {ago(step.due, now)}" if step.due is not None else ""
        return plain(doing + until, STYLES["started"])
    word = _DONE.get(step.kind, step.status) if step.status == "completed" else step.status
    return Text(word, style=STYLES.get(word, ""))


def _came_of_it(message: MessageView) -> Iterator[tuple[str, RenderableType]]:
    if message.finished is not None:
        yield "outcome", Text(message.state, style=STYLES.get(message.state, ""))
    if message.result is not None:
        yield "result", Cut(value_text(message.result))
    if message.error is not None:
        yield ("error" if message.finished else "last error"), plain(message.error.short, STYLES["failed"])
    if message.changes is not None:
        for name, value in members(message.changes):
            yield "changed", Cut(f"{name} = {value}")


def _traceback(text: str) -> Group:
    return Group(*(plain(line, "dim") for line in text.rstrip("\n").split("\n")))
