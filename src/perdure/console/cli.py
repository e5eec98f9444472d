"""The command line: what people see on the read model, what they do by hand, and `perdure demo`.

Exit codes: 0; 1 for an actor or message that is not there or does not allow what is asked, and for a copy that differs;
2 for a wrong call or a database that cannot be used; 130 for Ctrl-C. Those of `perdure run` are in `run.py`.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import shutil
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click
from rich.console import Console

from perdure._version import __version__
from perdure.console import done, histories, moving, tables, tree
from perdure.console.document import render_json
from perdure.console.inspect import Inspector
from perdure.console.logs import LEVELS
from perdure.console.operate import Operator
from perdure.console.text import clean, count
from perdure.errors import ActorError, PerdureError
from perdure.storage.seal_keys import VARIABLE as KEYS_VARIABLE
from perdure.storage.seal_keys import environment_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from attrs import AttrsInstance
    from rich.console import RenderableType

    from perdure.console.logs import Format
    from perdure.console.operate import Refusal, Removed, Retried

View = TypeVar("View", bound="AttrsInstance")
Function = TypeVar("Function", bound="Callable[..., object]")

NOT_FOUND = 1
WRONG_TARGET = 2
INTERRUPTED = 130

_PIPED_WIDTH = 120
_NARROWEST = 40
_WIDEST = 500

_db_option = click.option("--db", metavar="TARGET", help="The database: a file, or postgresql://…; or set PERDURE_DB.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_db_option
@click.version_option(
    __version__, prog_name="perdure", message=f"%(prog)s %(version)s (Python {platform.python_version()})"
)
@click.pass_context
def main(context: click.Context, db: str | None) -> None:
    """Run actors, see what they did, do and wait for, and act where they cannot help themselves.

    `run` runs a node. The others work on a database of perdure, of a running system or of a dead one; only `restart`,
    `dead retry` and `dead purge` write.
    What is encrypted is shown if its keys are in PERDURE_KEYS, in base64.
    """
    context.obj = db


def _on_database(function: Function) -> Function:
    """The options of every command that reads a database."""
    json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
    return _db_option(json_option(function))


def _limit_option(default: int, what: str) -> Callable[[Function], Function]:
    return click.option(
        "--limit", type=click.IntRange(min=0), default=default, show_default=True, help=f"Most {what}; 0 for all."
    )


_error_option = click.option("--error", metavar="CLASS", help="Only those of this error: ValueError, or its full name.")


def _letters(function: Function) -> Function:
    """How dead letters are named."""
    messages = click.argument("messages", metavar="[MESSAGE]...", nargs=-1)
    every = click.option("--all", "every", is_flag=True, help="All dead letters.")
    return messages(_error_option(every(function)))


def _chosen(messages: tuple[str, ...], error: str | None, *, every: bool) -> tuple[str, ...] | None:
    """The letters that were named; none if they are to be looked for."""
    if bool(messages) + (error is not None) + every != 1:
        raise click.UsageError("name dead letters by their ids, or give --error CLASS, or --all.")
    return messages or None


@main.command()
@click.option("--kind", help="Only actors of this kind.")
@_limit_option(50, "actors to list")
@_on_database
@click.pass_context
def ps(context: click.Context, kind: str | None, limit: int, db: str | None, *, as_json: bool) -> None:
    """List actors, those with mail first, and why each mailbox waits."""
    _show(context, db, lambda it: it.overview(kind=kind, limit=limit or None), tables.overview, as_json=as_json)


@main.command()
@click.argument("actor", metavar="KIND/KEY")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Newest messages to show.")
@_on_database
@click.pass_context
def show(context: click.Context, actor: str, limit: int, db: str | None, *, as_json: bool) -> None:
    """Show an actor: its state, its newest messages, what each changed, and why the mailbox waits."""
    _show(context, db, lambda it: it.actor(actor, limit=limit), histories.actor_history, as_json=as_json)


@main.command()
@click.argument("message", metavar="MESSAGE")
@_limit_option(200, "steps to show")
@_on_database
@click.pass_context
def journal(context: click.Context, message: str, limit: int, db: str | None, *, as_json: bool) -> None:
    """Show a message by its id: what came in, what each step did and gave, what came of it, what it caused."""
    _show(context, db, lambda it: it.message(message, limit=limit or None), histories.message_history, as_json=as_json)


@main.command("tree")
@_limit_option(50, "children of each supervisor to list")
@_on_database
@click.pass_context
def show_tree(context: click.Context, limit: int, db: str | None, *, as_json: bool) -> None:
    """Show who supervises whom, who was restarted, and who has failed."""
    _show(context, db, lambda it: it.tree(limit=limit or None), tree.tree, as_json=as_json)


@main.group(invoke_without_command=True)
@_error_option
@_limit_option(50, "dead letters to list")
@_on_database
@click.pass_context
def dead(context: click.Context, error: str | None, limit: int, db: str | None, *, as_json: bool) -> None:
    """List the messages that were given up, the last one first, and why; or do something about them."""
    if context.invoked_subcommand is None:
        _show(context, db, lambda it: it.dead(error=error, limit=limit or None), tables.dead_letters, as_json=as_json)
    elif error or as_json:
        raise click.UsageError(f"give options after the command: perdure dead {context.invoked_subcommand} ...")
    elif db:
        context.obj = db


@dead.command()
@_letters
@_on_database
@click.pass_context
def retry(
    context: click.Context,
    messages: tuple[str, ...],
    error: str | None,
    db: str | None,
    *,
    every: bool,
    as_json: bool,
) -> None:
    """Send dead letters again: each goes to the end of its mailbox, and goes on after the steps it had done."""
    chosen = _chosen(messages, error, every=every)

    def send(operator: Operator) -> Retried:
        return asyncio.run(operator.retry(*(operator.letters(error) if chosen is None else chosen)))

    view = _act(context, db, send, done.retried, as_json=as_json)
    _tell_refused(context, view.refused, as_json=as_json)


@dead.command()
@_letters
@click.option("--yes", is_flag=True, help="Remove them without naming each.")
@_on_database
@click.pass_context
def purge(
    context: click.Context,
    messages: tuple[str, ...],
    error: str | None,
    db: str | None,
    *,
    every: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove dead letters for good, with all that is known of them."""
    chosen = _chosen(messages, error, every=every)

    def remove(operator: Operator) -> Removed:
        letters = operator.letters(error) if chosen is None else chosen
        if chosen is None and letters and not yes:
            raise click.UsageError(
                f"this removes {count(len(letters), 'dead letter')} for good. Say --yes if you mean it."
            )
        return asyncio.run(operator.purge(*letters))

    view = _act(context, db, remove, done.removed, as_json=as_json)
    _tell_refused(context, view.refused, as_json=as_json)


@main.command()
@click.argument("actor", metavar="KIND/KEY")
@_on_database
@click.pass_context
def restart(context: click.Context, actor: str, db: str | None, *, as_json: bool) -> None:
    """Have an actor go on that failed or was stopped by its supervisor, with all it supervises."""
    _act(context, db, lambda it: asyncio.run(it.restart(actor)), done.restarting, as_json=as_json)


def _duration(_context: click.Context, _option: click.Parameter, given: float | None) -> float | None:
    if given is not None and math.isnan(given):
        raise click.BadParameter("nan is no number of seconds.")
    return given


@main.command("run")
@click.argument("place", metavar="MODULE:ATTRIBUTE")
@click.option("--db", metavar="TARGET", help="The database, instead of the one that the system names.")
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    callback=_duration,
    metavar="SECONDS",
    help="Time to drain in, instead of the system's.",
)
@click.pass_context
def run_node(
    context: click.Context, place: str, db: str | None, log_level: str, log_format: Format, drain: float | None
) -> NoReturn:
    """Run a node: the ActorSystem at MODULE:ATTRIBUTE, or the one that the function there makes.

    SIGTERM or Ctrl-C drains it: running steps complete and are recorded, actors are released for other nodes. Once
    more hurries, a third time ends the process. Exit codes: 0 drained, 1 failed, 2 wrong call or database, 143 or 130
    hurried.
    """
    from perdure.console.run import run  # noqa: PLC0415  # reading a database needs nothing of what runs one

    sys.exit(run(place, target=db or context.obj, drain=drain, level=log_level, style=log_format))


@main.command()
@click.argument("destination", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@_on_database
@click.pass_context
def backup(context: click.Context, destination: Path, db: str | None, *, force: bool, as_json: bool) -> None:
    """Back a database up into FILE, also while it runs: consistent, verified, there whole or not at all."""
    target = _target(context, db)
    _report(context, lambda: moving.back_up(target, destination, replaces=force), done.backed_up, as_json=as_json)


@main.command()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@click.option("--verify-only", is_flag=True, help="Compare the two, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@click.pass_context
def copy(context: click.Context, source: str, destination: str, *, verify_only: bool, as_json: bool) -> None:
    """Copy a whole system, which nobody runs, from one database to another, and verify it.

    FROM and TO are SQLite files, or postgresql://user@host/database?schema=perdure. TO has to be a new file, or an
    empty schema.
    """
    make = moving.verify if verify_only else moving.copy
    view = _report(context, lambda: make(source, destination), done.copied, as_json=as_json)
    if not view.equal:
        context.exit(NOT_FOUND)


@main.command()
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Where its files go.")
@click.option("--question", help="What to ask the researcher.")
@click.option("--no-kill", is_flag=True, help="Do not kill the process; press Ctrl-C yourself, and start again.")
@click.option("--fresh", is_flag=True, help="Remove what an earlier demo left in the directory.")
def demo(directory: Path | None, question: str | None, *, no_kill: bool, fresh: bool) -> NoReturn:
    """Watch an actor survive kill -9."""
    from perdure.demo.show import QUESTION, run_demo  # noqa: PLC0415  # the demo brings half of the package with it

    sys.exit(run_demo(directory, question or QUESTION, not no_kill, fresh=fresh))


# output ---------------------------------------------------------------------------------------------------------------


def _show(
    context: click.Context,
    db: str | None,
    read: Callable[[Inspector], View],
    draw: Callable[[View], Iterable[RenderableType]],
    *,
    as_json: bool,
) -> None:
    target = _target(context, db)
    _report(context, lambda: read(Inspector(target, keys=_keys())), draw, as_json=as_json)


def _act(
    context: click.Context,
    db: str | None,
    act: Callable[[Operator], View],
    draw: Callable[[View], Iterable[RenderableType]],
    *,
    as_json: bool,
) -> View:
    target = _target(context, db)
    return _report(context, lambda: act(Operator(target)), draw, as_json=as_json)


def _target(context: click.Context, db: str | None) -> str:
    target = db or context.obj or os.environ.get("PERDURE_DB")
    if not target:
        raise click.UsageError("no database was named. Give --db TARGET, or set PERDURE_DB.")
    return str(target)


def _keys() -> Sequence[bytes]:
    """The keys of the system's seal, if they are in the environment."""
    return environment_keys() if os.environ.get(KEYS_VARIABLE) else ()


def _report(
    context: click.Context,
    make: Callable[[], View],
    draw: Callable[[View], Iterable[RenderableType]],
    *,
    as_json: bool,
) -> View:
    try:
        view = make()
    except PerdureError as error:
        click.echo(f"perdure: {clean(str(error))}", err=True)
        context.exit(NOT_FOUND if isinstance(error, ActorError) else WRONG_TARGET)
    except KeyboardInterrupt:  # which click would end with 1, as if something differed
        click.echo("perdure: interrupted", err=True)
        context.exit(INTERRUPTED)
    _write(render_json(view) + "\n" if as_json else _drawn(draw(view)))
    return view


def _tell_refused(context: click.Context, refused: Sequence[Refusal], *, as_json: bool) -> None:
    """Say what was left as it is, and fail for it."""
    for one in refused:
        if not as_json:
            click.echo(f"perdure: {clean(one.text)}", err=True)
    if refused:
        context.exit(NOT_FOUND)


def _drawn(parts: Iterable[RenderableType]) -> str:
    """Renderables as text: with colours on a terminal, plain and of a stable width elsewhere."""
    terminal = sys.stdout.isatty()
    console = Console(
        file=StringIO(),
        width=_width(terminal=terminal),
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    lines = capture.get().split("\n")
    return "\n".join(lines if terminal else [line.rstrip() for line in lines])


def _width(*, terminal: bool) -> int:
    asked = os.environ.get("COLUMNS", "")
    width = shutil.get_terminal_size().columns if terminal else _PIPED_WIDTH
    if asked.isdecimal() and int(asked):
        width = int(asked)
    return min(max(width, _NARROWEST), _WIDEST)


def _write(text: str) -> None:
    """Write to standard output; quiet when nobody reads to the end, as with `| head`."""
    output = sys.stdout
    encoding = output.encoding or "utf-8"
    try:
        output.write(text.encode(encoding, "backslashreplace").decode(encoding))
        output.flush()
    except BrokenPipeError:
        # What is still buffered would fail again, loudly, when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
