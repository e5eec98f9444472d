"""What the demo says, in words: pure functions from what is known to what is printed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.demo.ledger import Line
    from perdure.demo.place import Journal, Place
    from perdure.demo.proof import Proof

_LISTED = 6  # lines shown of a list before "and so on"


def opening(question: str, pages: int, fetch_seconds: float, model_seconds: float) -> str:
    """What is going to happen."""
    return (
        f"\n[bold]A researcher reads the {pages} reference pages that ship with CPython and answers:[/]\n"
        f"  {escape(question)}\n"
        "Each page is fetched in a step and summarised in a step, four pages at a time.\n"
        f"The steps wait {fetch_seconds} s and {model_seconds} s, in place of a network and a language model.\n"
    )


def finished_before(place: Place) -> str:
    """The same question was answered by an earlier process."""
    return (
        "This question was answered before: the same message id, the same answer, no step runs. "
        f"[dim](Begin anew: --fresh. The database: {escape(str(place.database))})[/]"
    )


def killed(process: int, journal: Journal, pages: int) -> str:
    """What was on disk at the kill."""
    return f"[bold red]  SIGKILL[/] to process {process}.\n" + resumed(journal, pages)


def resumed(journal: Journal, pages: int) -> str:
    """Where the next process goes on."""
    read = journal.pages()
    under_way = sum(step.status == "started" for step in journal.steps)
    return (
        f"  On disk: {len(journal.completed())} steps completed, {under_way} under way.\n"
        f"[bold green]  Started again:[/] resumed at document {read + 1} of {pages}: "
        f"{read} answered from the journal.\n"
    )


def interrupted(journal: Journal, pages: int, place: Place) -> str:
    """Ctrl-C."""
    return (
        f"\n[bold]Stopped.[/] {journal.pages()} of {pages} pages, {len(journal.completed())} steps, are committed in "
        f"{escape(str(place.database))}.\nThe same command resumes there."
    )


def failed(error: Exception, place: Place) -> str:
    """The child ended by itself without an answer."""
    return (
        f"\n[bold red]The working process ended without an answer.[/] Its last words, from {escape(str(place.log))}:\n"
        f"{escape(textwrap.indent(str(error).strip(), '  '))}"
    )


def answered(question: str, answer: str, width: int) -> str:
    """The answer, a paragraph for every sentence quoted."""
    quotes = "\n".join(
        textwrap.fill(line, min(width, 100), initial_indent="  - ", subsequent_indent="    ")
        for line in answer.split("\n")
    )
    return f"\n[bold]{escape(question)}[/]\n{escape(quotes)}"


def table(proof: Proof, *, stopped: bool) -> Table:
    """The proof, a line a fact."""
    rows = Table(
        title="Steps, by the journal in the database and the ledger outside it", show_header=False, title_justify="left"
    )
    rows.add_column(no_wrap=True)
    rows.add_column(justify="right")
    rows.add_column()
    if stopped:
        rows.add_row("completed on disk at the stop", str(proof.completed))
        rows.add_row("of those, begun again", _must_be_none(len(proof.begun_again)), _listed(proof.begun_again))
        rows.add_row("interrupted, run again, same id", str(len(proof.interrupted)), _listed(proof.interrupted))
        rows.add_section()
    rows.add_row("completed now", str(proof.steps.total()), _counted(proof.steps))
    rows.add_row("begun, by the ledger outside", str(proof.lines.total()), _counted(proof.lines))
    for fact, wrong in (
        ("begun twice by one process", len(proof.repeated)),
        ("completed once, and lost since", len(proof.vanished)),
        ("completed without ever having begun", len(proof.unheard)),
    ):
        if wrong:
            rows.add_row(fact, _must_be_none(wrong))
    return rows


def verdict(proof: Proof, place: Place, command: str = "perdure") -> str:
    """Whether the proof holds, and where to look; `command` is how this shell calls perdure."""
    if not proof.holds:
        return (
            f"[bold white on red] THE PROOF FAILS [/] Please report it, with the files in {escape(str(place.folder))}."
        )
    again = len(proof.interrupted)
    rest = (
        f" {again} had begun and not been recorded when the process died: they ran again under the same id, "
        "by which the world outside can tell."
        if again
        else ""
    )
    return (
        f"[bold green]No completed step ran twice.[/]{rest}\n"
        f"See for yourself:\n  [bold]{escape(command)} journal {place.message} --db {escape(str(place.database))}[/]"
    )


def _must_be_none(count: int) -> str:
    return f"[bold red]{count}[/]" if count else "[bold green]0[/]"


def _listed(lines: Iterable[Line]) -> str:
    names = [f"{line.name} {line.page}".strip() for line in lines]
    return escape(", ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else ""))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
