"""The command line: what people and programs read, and how it says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perdure.console.cli import main
from tests.unit.inspected import STORES, Rows, failure, in_a_file, named, target_of

TRAP = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202e\x9b31m"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.fixture(params=STORES)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Rows]:
    """A database with one handled and one waiting message, and a dead letter."""
    rows = Rows(target_of(request, tmp_path))
    actor = rows.actor(owner=rows.node())
    seq = rows.message(actor, "r1/why", args={"question": "why?", "documents": ["a" * 5000]})
    rows.record(seq, "fetch#1", result='"page"', position=1)
    rows.outcome(seq, result='"because"', changes='{"status": "done"}', started=1.0)
    rows.outcome(rows.message(actor, "r1/boom", "boom"), "dead", error=failure(text="it broke"))
    rows.message(actor, "r1/next", args={"question": "and?"})
    rows.insert("snapshot", actor=actor, version=1, codec="json", state='{"status": "done"}')
    yield rows
    rows.connection.close()


def run(rows: Rows, *args: str, width: int = 80) -> Result:
    """A command on the database."""
    return CliRunner().invoke(main, [*args, "--db", rows.target], env={"COLUMNS": str(width)})


def document(rows: Rows, *args: str) -> Any:  # noqa: ANN401  # any JSON document
    """A command's JSON document."""
    result = run(rows, *args, "--json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_ps_lists_actors_and_why_they_wait(rows: Rows) -> None:
    """One command answers: what is there, and what is stuck?"""
    result = run(rows, "ps")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ACTOR", "STATUS", "MAIL", "HANDLED", "WHY", "IT", "WAITS", "PROCESS"]
    assert lines[1].split()[:4] == ["Researcher/r1", "orphaned", "1", "2"]
    assert "1 actor, 1 with mail; 1 dead letter (perdure dead); 0 live processes" in lines


def test_show_tells_an_actor_at_one_glance(rows: Rows) -> None:
    """What came in, what each turn did, changed and gave, and why the mailbox waits, on one screen."""
    result = run(rows, "show", "Researcher/r1", width=120)
    assert result.exit_code == 0
    for part in (
        "its process is gone",
        'status    "done"',
        "fetch",
        'status="done"',
        '"because"',
        "it broke",
        "pending",
    ):
        assert part in result.stdout


def test_journal_tells_a_message_from_beginning_to_end(rows: Rows) -> None:
    """How a result came about is read off, step by step."""
    result = run(rows, "journal", "r1/why")
    assert result.exit_code == 0
    for part in ('question="why?"', "5.0 kB", "message 1 of Researcher/r1", "fetch#1", '"page"', 'status = "done"'):
        assert part in result.stdout


def test_dead_tells_why_and_how_to_see_more(rows: Rows) -> None:
    """Nothing that was given up is out of sight."""
    result = run(rows, "dead")
    assert result.exit_code == 0
    for part in ("r1/boom", "ValueError: it broke", "perdure journal"):
        assert part in result.stdout
    rows.connection.execute("DELETE FROM outcome WHERE status = 'dead'")
    assert "No dead letters." in run(rows, "dead").stdout


def test_journal_shows_a_traceback_line_by_line(rows: Rows) -> None:
    """The place in the code where it broke is there for the reading."""
    assert "\nTraceback\n  builtins.ValueError: it broke\n" in run(rows, "journal", "r1/boom").stdout


@in_a_file
@pytest.mark.parametrize("command", [["ps"], ["show", "Researcher/r1"], ["journal", "r1/why"], ["dead"]])
@pytest.mark.parametrize("width", [80, 120])
def test_tables_keep_to_their_width(rows: Rows, command: list[str], width: int) -> None:
    """Piped into a file or a ticket, lines are whole, and have no colours."""
    result = run(rows, *command, width=width)
    assert max(map(len, result.stdout.splitlines())) <= width
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("command", [["ps"], ["show", "Researcher/r1"], ["journal", "r1/why"], ["dead"]])
def test_json_documents_hold_values_as_json(rows: Rows, command: list[str]) -> None:
    """Programs get one document, with what was stored in it."""
    assert document(rows, *command)["database"] == named(rows.target)


def test_json_keys_are_stable(rows: Rows) -> None:
    """A script written today reads tomorrow's documents."""
    message = document(rows, "journal", "r1/why")["message"]
    assert message["args"]["question"] == "why?"
    assert message["result"] == "because"
    assert message["changes"] == {"status": "done"}
    actor = document(rows, "show", "Researcher/r1")["actor"]
    assert set(actor) == {
        "address", "status", "reason", "owner", "epoch", "mail", "delayed", "handled", "created", "parent", "wait",
        "life", "restart_at", "supervisor",
    }  # fmt: skip
    (listed,) = document(rows, "ps")["actors"]
    assert listed["wait"]["kind"] == "orphaned"
    (letter,) = document(rows, "dead")["messages"]
    assert letter["error"]["type"] == "builtins.ValueError"


@in_a_file
def test_stored_text_cannot_play_tricks_on_a_terminal(rows: Rows) -> None:
    """Whatever an actor was sent, reading it moves no cursor, sets no title, hides no text."""
    actor = rows.actor("Trap", "t\u202e", reason=TRAP, status="parked")
    stored = json.dumps(TRAP, ensure_ascii=False).replace("\\u001b", "\x1b")
    seq = rows.message(actor, "trap" + TRAP, TRAP, args={TRAP: TRAP})
    rows.record(seq, f"{TRAP}#1", result=stored, error=None)
    rows.record(seq, "failed#1", status="failed", error=failure(TRAP, TRAP))
    rows.insert("snapshot", actor=actor, version=1, codec="json", state=json.dumps({TRAP: TRAP}))
    for command in (["ps"], ["show", "Trap/t\u202e"], ["journal", "trap" + TRAP], ["ps", "--json"]):
        result = run(rows, *command)
        assert result.exit_code == 0
        assert not set(result.stdout) & set("\x1b\x07\x9b\u202e")
        if "--json" not in command:
            assert "[boldred]x[/]" in "".join(result.stdout.split())


def test_the_database_may_be_named_in_three_ways(rows: Rows) -> None:
    """Before the command, after it, or in the environment; the nearest wins."""
    path, runner = rows.target, CliRunner()
    assert runner.invoke(main, ["--db", path, "ps"], env={"PERDURE_DB": "nowhere"}).exit_code == 0
    assert runner.invoke(main, ["--db", "nowhere", "ps", "--db", path]).exit_code == 0
    assert runner.invoke(main, ["ps"], env={"PERDURE_DB": path}).exit_code == 0
    nothing = runner.invoke(main, ["ps"], env={"PERDURE_DB": None})
    assert nothing.exit_code == 2
    assert "--db TARGET" in nothing.stderr


def test_what_is_not_there_is_1_and_what_cannot_be_read_is_2(rows: Rows) -> None:
    """Scripts tell the two apart; people read the cause and the remedy, never a traceback."""
    result = run(rows, "show", "Researcher/r2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("perdure: actor 'Researcher/r2'")
    assert "Researcher/r1" in result.stderr
    assert run(rows, "journal", "r1/wha").exit_code == 1
    missing = CliRunner().invoke(main, ["ps", "--db", "no\x1b[2Jwhere.db"])
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "no such file" in missing.stderr
    assert "\x1b" not in missing.stderr
    assert CliRunner().invoke(main, ["show"]).exit_code == 2
    assert CliRunner().invoke(main, ["ps", "--limit", "-1"]).exit_code == 2


def test_limits(rows: Rows) -> None:
    """The page says when there is more, and how to see it."""
    for key in "abc":
        rows.actor(key=key)
    assert "2 of 4 actors (all: --limit 0)" in run(rows, "ps", "--limit", "2").stdout
    assert len(document(rows, "ps", "--limit", "0")["actors"]) == 4
    assert "the newest 1" in run(rows, "show", "Researcher/r1", "--limit", "1").stdout


@in_a_file
def test_output_that_is_closed_early_is_quiet(rows: Rows) -> None:
    """`perdure ps | head -1` prints one line and nothing else."""
    rows.connection.execute("BEGIN")
    for number in range(1000):  # more than a pipe holds
        rows.actor(key=f"k{number:04}")
    rows.connection.execute("COMMIT")
    command = [sys.executable, "-m", "perdure", "ps", "--json", "--limit", "0", "--db", rows.target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@in_a_file
def test_output_in_a_narrow_encoding_is_escaped(rows: Rows) -> None:
    """A terminal without Unicode shows escapes, not a traceback."""
    rows.actor("Critic", "日本")
    command = [sys.executable, "-m", "perdure", "ps", "--db", rows.target]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "Critic/\\u65e5\\u672c" in result.stdout


def test_the_demo_gets_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`perdure demo` does what its flags say, and its exit code is the proof's."""
    calls: list[tuple[object, ...]] = []

    def run_demo(directory: Path | None, question: str, kill: bool = True, *, fresh: bool = False) -> int:  # noqa: FBT001, FBT002  # the demo's signature
        calls.append((directory, question, kill, fresh))
        return 1

    monkeypatch.setattr("perdure.demo.show.run_demo", run_demo)
    options = ["demo", "--directory", str(tmp_path), "--question", "why?", "--no-kill", "--fresh"]
    assert CliRunner().invoke(main, options).exit_code == 1
    assert CliRunner().invoke(main, ["demo"]).exit_code == 1
    assert calls[0] == (tmp_path, "why?", False, True)
    assert calls[1][2:] == (True, False)


def test_version_and_help() -> None:
    """The two questions everyone asks a new command."""
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("perdure ")
    shown = CliRunner().invoke(main, ["--help"]).stdout
    for command in ("ps", "show", "journal", "tree", "dead", "restart", "demo"):
        assert command in shown


@in_a_file
@pytest.mark.parametrize("width", ["", "0", "x", "-5", "99999999999999999999"])
def test_a_strange_width_is_no_width(rows: Rows, width: str) -> None:
    """A terminal that lies about its size gets a page all the same."""
    result = CliRunner().invoke(main, ["ps", "--db", rows.target], env={"COLUMNS": width})
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 500
