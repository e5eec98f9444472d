"""`perdure demo`: a researcher in a child process that is killed in the middle, started again, and held to account."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import define, field
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perdure.demo import ledger, report
from perdure.demo.place import Place
from perdure.demo.proof import Stop, prove
from perdure.demo.research import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.demo.place import Journal

QUESTION = "When is a finally clause executed?"
FOLDER = Path("perdure-demo")
FETCH_SECONDS = 0.15
MODEL_SECONDS = 0.45
KILLED_PART = 0.28  # of the pages still to read: 22 of 79
WORTH_A_KILL = 8  # pages still to read
IN_THE_MIDDLE_SECONDS = 0.25  # after a page: by then the next ones are being fetched and summarised
PATIENCE_SECONDS = 20.0
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def run_demo(directory: Path | None, question: str = QUESTION, kill: bool = True, *, fresh: bool = False) -> int:  # noqa: FBT001, FBT002  # called by the command line with its flags
    """Run the demo and print its proof.

    Args:
        directory: Where the database, the ledger and the log go; `perdure-demo` in the current one if left out.
        question: What to ask.
        kill: Kill the process in the middle. Without it, the reader presses Ctrl-C at will and starts again.
        fresh: Remove what an earlier demo left in the directory. An unfinished one is resumed otherwise.

    Returns:
        An exit code: 0, or 1 if the proof fails or the child did, or 130 after Ctrl-C.
    """
    place = Place(directory or FOLDER, question)
    place.make()
    if fresh or (kill and place.journal().outcome):
        place.clear()
    return Demo(place, Console(highlight=False)).run(kill=kill)


class ChildFailedError(Exception):
    """The child ended without an answer, and nobody had killed it."""


@define
class Demo:
    """One run of the demo: one or two child processes on one database, one after the other."""

    place: Place
    console: Console
    stops: list[Stop] = field(factory=list[Stop])

    def run(self, *, kill: bool) -> int:
        """Work, be killed, work on, prove."""
        before = self.place.journal()
        self.console.print(report.opening(self.place.question, len(PAGES), FETCH_SECONDS, MODEL_SECONDS))
        if before.outcome:
            self.console.print(report.finished_before(self.place))
        elif before.steps:
            self._stopped(before)
            self.console.print(report.resumed(before, len(PAGES)))
        try:
            answer = self._work(kill=kill, before=before)
        except KeyboardInterrupt:
            now = self.place.journal()
            self.console.print(report.interrupted(now, len(PAGES), self.place))
            return INTERRUPTED
        except ChildFailedError as failed:
            self.console.print(report.failed(failed, self.place))
            return 1
        return self._account(answer)

    def _work(self, *, kill: bool, before: Journal) -> str:
        left = len(PAGES) - before.pages()
        if kill and not before.outcome and left >= WORTH_A_KILL:
            killed_at = before.pages() + round(KILLED_PART * left)
            with Child(self.place) as child:
                self._watch(child, kill_at=killed_at)
            if child.process.returncode != -signal.SIGKILL:
                raise ChildFailedError(self._last_words())
            journal = self.place.journal()
            self._stopped(journal)
            self.console.print(report.killed(child.process.pid, journal, len(PAGES)))
        with Child(self.place) as child:
            answer = self._watch(child)
        if answer is None:
            raise ChildFailedError(self._last_words())
        return answer

    def _last_words(self) -> str:
        return self.place.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def _stopped(self, journal: Journal) -> None:
        self.stops.append(Stop(journal, len(ledger.read(self.place.ledger))))

    def _watch(self, child: Child, kill_at: int | None = None) -> str | None:
        """Move the bar as the child says; its answer, or nothing where it ended before, by itself or killed."""
        with _bar(self.console) as bar:
            reading = bar.add_task("reading", total=len(PAGES))
            for fact in child.facts():
                if "answer" in fact:
                    bar.update(reading, completed=len(PAGES))
                    return str(fact["answer"])
                finished = int(str(fact["finished"]))
                bar.update(reading, completed=finished)
                if kill_at is not None and finished >= kill_at:
                    kill_at = None
                    time.sleep(IN_THE_MIDDLE_SECONDS)
                    child.kill()  # what it had said before is still in the pipe
        return None

    def _account(self, answer: str) -> int:
        proof = prove(self.stops, ledger.read(self.place.ledger), self.place.journal())
        self.console.print(report.answered(self.place.question, answer, self.console.width))
        self.console.print(Padding(report.table(proof, stopped=bool(self.stops)), (1, 0)))
        self.console.print(report.verdict(proof, self.place, _command()))
        return 0 if proof.holds else 1


class Child:
    """The working process. It is in a process group of its own, so that Ctrl-C reaches it once, from here."""

    def __init__(self, place: Place) -> None:
        self.process: subprocess.Popen[str]
        self._command = [
            *(sys.executable, "-m", "perdure.demo.child", str(place.folder), place.question),
            *("--fetch-seconds", str(FETCH_SECONDS), "--model-seconds", str(MODEL_SECONDS)),
        ]
        self._log = place.log

    def __enter__(self) -> Self:
        with self._log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                process_group=0,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Let it end: by itself, or asked to by Ctrl-C, or by force where it does not listen."""
        if kind is not None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=PATIENCE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.kill()

    def facts(self) -> Iterator[dict[str, object]]:
        """What it says, until it ends."""
        assert self.process.stdout is not None  # noqa: S101  # a pipe was asked for
        for line in self.process.stdout:
            yield json.loads(line)

    def kill(self) -> None:
        """SIGKILL: it has no chance to write anything down."""
        self.process.kill()
        self.process.wait()


def _command() -> str:
    """What to type for `perdure` here: a virtual environment's may not be on the path."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "perdure" and not shutil.which("perdure") else "perdure"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  [cyan]{task.description}"),
        BarColumn(bar_width=44),
        MofNCompleteColumn(),
        TextColumn("pages"),
        TimeElapsedColumn(),
        console=console,
    )
