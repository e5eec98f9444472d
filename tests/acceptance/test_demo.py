"""`perdure demo`, really killed and really interrupted, judged by its files and not by its own word."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any

import pytest

from perdure.demo import summary
from perdure.demo.ledger import Line
from perdure.demo.place import Journal, Place, Record
from perdure.demo.proof import Stop, prove

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUESTION = "When is a finally clause executed?"
STEPS = 2 * len(topics) + 1
PATIENCE_SECONDS = 90
FAST = (
    "import pathlib, sys; from perdure.demo import show; show.FETCH_SECONDS, show.MODEL_SECONDS = 0.02, 0.06; "
    "sys.exit(show.run_demo(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == 'kill'))"
)


def demo(folder: Path, *, kill: bool) -> subprocess.Popen[str]:
    """The demo in a process of its own, with quick steps."""
    command = [sys.executable, "-c", FAST, str(folder), QUESTION, "kill" if kill else "no-kill"]
    environment = {
        **os.environ,
        "COLUMNS": "120",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, encoding="utf-8"
    )


def said(process: subprocess.Popen[str]) -> str:
    """All it printed, once it has ended, on one line."""
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return " ".join(output.split())


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    """The ledger as it lies on disk."""
    return [json.loads(line) for line in Place(folder, QUESTION).ledger.read_text().splitlines()]


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What any SQLite tool sees."""
    with closing(sqlite3.connect(f"file:{folder}/perdure-demo.db?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def pages_done(folder: Path) -> int:
    """Summaries whose completion is on disk."""
    try:
        return len(rows(folder, "SELECT 1 FROM journal WHERE name LIKE '%summarise' AND status = 'completed'"))
    except sqlite3.OperationalError:  # not made yet
        return 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a process from outside."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def expected_answer() -> str:
    """What the researcher would say without perdure."""
    notes = {page: summary.summarise(topics[page], focus=QUESTION) for page in sorted(topics)}
    return summary.answer(QUESTION, notes)


def hold_to_account(folder: Path) -> int:
    """The proof over again, from the raw files; how many steps ran again."""
    lines = ledger_of(folder)
    processes = list(dict.fromkeys(line["process"] for line in lines))
    begun = Counter((line["name"], line["page"]) for line in lines)
    ids = {(line["name"], line["page"]): line["step"] for line in lines}
    assert set(begun) == {(name, page) for name in ("fetch", "summarise") for page in topics} | {("conclude", "")}
    assert len(set(ids.values())) == STEPS, "two steps share an id"
    assert {line["step"] for line in lines} == set(ids.values()), "a step changed its id when it ran again"
    assert len({(line["step"], line["process"]) for line in lines}) == len(lines), "a process ran a step twice"

    finished = dict(rows(folder, "SELECT key, finished FROM journal WHERE kind = 'step'"))
    assert len(finished) == STEPS
    started = dict(rows(folder, "SELECT pid, started FROM node"))
    for line in lines:
        if line["process"] != processes[0]:
            key = max((key for key in finished if line["step"].endswith(key)), key=len)
            assert finished[key] > started[line["process"]], f"{line} was complete before this process was born"
    return len(lines) - STEPS


def test_killed_in_the_middle_it_goes_on_and_no_completed_step_runs_twice(tmp_path: Path) -> None:
    """The promise on the front page: kill -9, start again, nothing finished is done again."""
    process = demo(tmp_path, kill=True)
    output = said(process)
    assert process.returncode == 0, output
    assert "SIGKILL" in output
    assert f"of {len(topics)}: " in output
    assert "No completed step ran twice." in output
    repeated = hold_to_account(tmp_path)
    assert f"interrupted, run again, same id │ {repeated} " in output
    assert len({line["process"] for line in ledger_of(tmp_path)}) == 2
    [(result,)] = rows(tmp_path, "SELECT result FROM outcome WHERE status = 'succeeded'")
    assert json.loads(result) == expected_answer()


def test_interrupted_by_hand_it_says_where_it_stopped_and_resumes_there(tmp_path: Path) -> None:
    """Ctrl-C costs nothing: what was committed is named, and the same command goes on from it."""
    process = demo(tmp_path, kill=False)
    wait_until(lambda: pages_done(tmp_path) >= 10)
    process.send_signal(signal.SIGINT)
    output = said(process)
    assert process.returncode == 130, output
    done = pages_done(tmp_path)
    assert 10 <= done < len(topics)
    assert f"{done} of {len(topics)} pages" in output
    assert "The same command resumes there." in output

    again = demo(tmp_path, kill=False)
    output = said(again)
    assert again.returncode == 0, output
    assert f"resumed at document {done + 1} of {len(topics)}: {done} answered from the journal" in output
    assert "No completed step ran twice." in output
    hold_to_account(tmp_path)


def test_finished_work_is_answered_again_without_a_step(tmp_path: Path) -> None:
    """The same question under the same id has one answer, and it is not paid for twice."""
    first = demo(tmp_path, kill=False)
    output = said(first)
    assert first.returncode == 0, output
    before = ledger_of(tmp_path)
    again = demo(tmp_path, kill=False)
    output = said(again)
    assert again.returncode == 0, output
    assert "answered before" in output
    assert ledger_of(tmp_path) == before


def test_a_demo_begun_anew_removes_only_its_own_files(tmp_path: Path) -> None:
    """A folder that the demo is pointed at keeps what is the user's."""
    place = Place(tmp_path, QUESTION)
    for name in ("perdure-demo.db", "perdure-demo.db-wal", "perdure-demo.ledger", "mine.db", "perdure-demo-notes"):
        (tmp_path / name).touch()
    place.clear()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.db", "perdure-demo-notes"]


# the judge ------------------------------------------------------------------------------------------------------------


def line(step: str, process: int) -> Line:
    """A line of a ledger."""
    return Line(step=f"m/{step}", name=step, page="", process=process)


def journal(outcome: str = "", **steps: str) -> Journal:
    """A journal with these steps and their status."""
    return Journal(outcome, tuple(Record(name, name, status) for name, status in steps.items()))


KILL = Stop(journal(a="completed", b="started"), lines=2)
DONE = journal("succeeded", a="completed", b="completed")


def test_a_step_interrupted_and_run_again_is_no_failure() -> None:
    """The one repetition that perdure announces is told apart from those that it forbids."""
    proof = prove([KILL], [line("a", 1), line("b", 1), line("b", 2)], DONE)
    assert proof.holds
    assert proof.interrupted == (line("b", 2),)


@pytest.mark.parametrize(
    ("ledger", "now"),
    [
        pytest.param([line("a", 1), line("b", 1), line("a", 2), line("b", 2)], DONE, id="completed step begun again"),
        pytest.param([line("a", 1), line("b", 1), line("b", 2), line("b", 2)], DONE, id="begun twice by one process"),
        pytest.param([line("a", 1)], DONE, id="completed without having begun"),
        pytest.param([line("a", 1), line("b", 1)], journal("succeeded", b="completed"), id="completion lost"),
        pytest.param([line("a", 1), line("b", 1)], journal("", a="completed", b="completed"), id="never ended"),
    ],
)
def test_the_proof_fails_where_it_should(ledger: list[Line], now: Journal) -> None:
    """A proof that cannot fail proves nothing."""
    assert not prove([KILL], ledger, now).holds
