"""The command line: `perdure ps`, `show`, `journal`, `dead` and `tree` on the read model, and `perdure demo`.

Exit codes: 0; 1 for an actor or message that is not there; 2 for a wrong call or a database that cannot be read.
"""

from __future__ import annotations

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
from perdure.console import histories, tables, tree
from perdure.console.document import render_json
from perdure.console.inspect import Inspector
from perdure.console.text import clean
from perdure.errors import ActorError, PerdureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from attrs import AttrsInstance
    from rich.console import RenderableType

View = TypeVar("View", bound="AttrsInstance")
Function = TypeVar("Function", bound="Callable[..., object]")

NOT_FOUND = 1
WRONG_TARGET = 2

_PIPED_WIDTH = 120
_NARROWEST = 40
_WIDEST = 500


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--db", metavar="PATH", help="The database; or set PERDURE_DB.")
@click.version_option(
    __version__, prog_name="perdure", message=f"%(prog)s %(version)s (Python {platform.python_version()})"
)
@click.pass_context
def main(context: click.Context, db: str | None) -> None:
    """See what actors did, do and wait for.

    The commands read a database of perdure, of a running system or of a dead one, and never write.
    """
    context.obj = db


def _on_database(function: Function) -> Function:
    """The options of every command that reads a database."""
    json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
    db_option = click.option("--db", metavar="PATH", help="The database; or set PERDURE_DB.")
    return db_option(json_option(function))


def _limit_option(default: int, what: str) -> Callable[[Function], Function]:
    return click.option(
        "--limit", type=click.IntRange(min=0), default=default, show_default=True, help=f"Most {what}; 0 for all."
    )


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


@main.command()
@click.option("--error", metavar="CLASS", help="Only those of this error: ValueError, or its full name.")
@_limit_option(50, "dead letters to list")
@_on_database
@click.pass_context
def dead(context: click.Context, error: str | None, limit: int, db: str | None, *, as_json: bool) -> None:
    """List the messages that were given up, newest first, and why."""
    _show(context, db, lambda it: it.dead(error=error, limit=limit or None), tables.dead_letters, as_json=as_json)


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
    target = db or context.obj or os.environ.get("PERDURE_DB")
    if not target:
        raise click.UsageError("no database was named. Give --db PATH, or set PERDURE_DB.")
    try:
        view = read(Inspector(target))
    except PerdureError as error:
        click.echo(f"perdure: {clean(str(error))}", err=True)
        context.exit(NOT_FOUND if isinstance(error, ActorError) else WRONG_TARGET)
    _write(render_json(view) + "\n" if as_json else _drawn(draw(view)))


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
