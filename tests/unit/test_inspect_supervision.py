"""The read model of supervision: who runs and who does not, who supervises whom, and what went wrong."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from perdure.console import inspect
from perdure.console.cli import main
from perdure.console.inspect import Inspector
from perdure.console.views import Failure
from tests.unit.inspected import NOW, Rows, alive, failure, named


def output(rows: Rows, *args: str, width: int = 120) -> str:
    """What a command prints."""
    result = CliRunner().invoke(main, [*args, "--db", rows.target], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.stderr
    return result.stdout


# lives ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "text"),
    [
        ("failed", "failed: it broke; perdure restart Researcher/r1"),
        ("terminated", "stopped by its supervisor: it broke; perdure restart Researcher/r1"),
        ("restarting", "restarts: it broke"),
    ],
)
def test_an_actor_that_does_not_run_says_why_and_what_to_do(
    rows: Rows, inspector: Inspector, life: str, text: str
) -> None:
    """Mail that waits for a person is told apart from mail that waits for a process, with the command to type."""
    rows.message(rows.actor(life=life, reason="it broke", restart_at=NOW + 9 if life == "restarting" else None))
    with alive(rows.target, rows.node()):
        actor = inspector.actor("Researcher/r1").actor
    assert actor.wait is not None
    assert (actor.life, actor.wait.kind, actor.wait.text) == (life, life, text)
    assert actor.wait.until == actor.restart_at == (NOW + 9 if life == "restarting" else None)
    assert inspector.message("m1").message.state == "waiting"
    for command in (["ps"], ["show", "Researcher/r1"], ["journal", "m1"]):
        shown = " ".join(output(rows, *command, width=300).split())
        assert text in shown
        assert life in shown or command[0] == "journal"


def test_an_actor_that_does_not_run_is_seen_although_it_has_no_mail(rows: Rows) -> None:
    """An actor that failed while nobody wrote to it is found before its next message is lost in it."""
    rows.actor("Zebra", "z", life="failed", reason="it broke")
    rows.actor()
    rows.actor("Aged", "a", life="failed", status="stopped", reason="normal")
    lines = output(rows, "ps").splitlines()
    assert lines[2].split()[:2] == ["Zebra/z", "failed"]
    assert "perdure restart Zebra/z" in lines[2]
    assert "stopped" in lines[1]
    assert "2 failed (perdure tree)" in lines[-1]
    assert "perdure restart Zebra/z" in output(rows, "show", "Zebra/z")
    assert "perdure restart" not in output(rows, "show", "Aged/a")


def test_actors_that_do_not_run_come_first_on_every_page(
    rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs attention is listed once, and before all else, however many actors there are."""
    monkeypatch.setattr(inspect, "_PAGE", 1)
    for key in "abc":
        rows.actor(key=key)
        rows.actor("Zebra", key, life="failed")
    found = inspector.overview(limit=None)
    assert [str(one.address) for one in found.actors] == [
        *(f"Zebra/{key}" for key in "abc"),
        *(f"Researcher/{key}" for key in "abc"),
    ]
    assert found.failed == 3


def test_an_actor_names_its_supervisor(rows: Rows, inspector: Inspector) -> None:
    """From an actor in trouble one walks up to whoever decides about it."""
    rows.child(rows.actor("Crew", "main"), rows.actor())
    assert str(inspector.actor("Researcher/r1").actor.supervisor) == "Crew/main"
    assert inspector.actor("Crew/main").actor.supervisor is None
    assert "Crew/main" in output(rows, "show", "Researcher/r1")


# failures -------------------------------------------------------------------------------------------------------------


def test_the_failures_of_a_message_are_told_one_by_one(rows: Rows, inspector: Inspector) -> None:
    """Which attempt failed when, with what, and what was decided: nobody has to search a log."""
    actor = rows.actor()
    seq = rows.message(actor, "m")
    rows.failure(actor, seq, 1, error=failure(text="overloaded"))
    rows.failure(actor, rows.message(actor, "other"), 1)
    rows.failure(actor, seq, 2, error=failure(text="gone"), at=NOW - 1, decision="dead letter")
    found = inspector.message("m").failures
    assert [(one.attempt, one.at, one.message, one.error.text, one.decision) for one in found] == [
        (1, NOW - 5, "m", "overloaded", "try again"),
        (2, NOW - 1, "m", "gone", "dead letter"),
    ]
    shown = output(rows, "journal", "m")
    assert "ValueError: overloaded" in shown
    assert "dead letter" in shown
    document = json.loads(output(rows, "journal", "m", "--json"))
    assert document["failures"][1] == {
        "at": NOW - 1,
        "message": "m",
        "attempt": 2,
        "error": {
            "type": "builtins.ValueError",
            "text": "gone",
            "traceback": "Traceback\n  builtins.ValueError: gone\n",
        },
        "decision": "dead letter",
    }


def test_the_newest_failures_of_an_actor_are_shown(rows: Rows, inspector: Inspector) -> None:
    """A glance at an actor tells what has gone wrong with it lately, with messages or without."""
    actor = rows.actor()
    for number in range(12):
        rows.failure(actor, None, number)
    rows.failure(actor, rows.message(actor, "m"))
    rows.failure(rows.actor("Critic", "c"))
    found = inspector.actor("Researcher/r1").failures
    assert [(one.attempt, one.message) for one in found] == [*((n, None) for n in range(3, 12)), (1, "m")]
    assert "ValueError: no" in output(rows, "show", "Researcher/r1")


def test_a_failure_of_an_unknown_form_does_not_hide_the_others(rows: Rows, inspector: Inspector) -> None:
    """Whatever was written, people can read it."""
    rows.failure(rows.actor(), None, error="odd")
    (found,) = inspector.actor("Researcher/r1").failures
    assert found.error == Failure("", "odd")


# dead letters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ids"),
    [
        ("ValueError", ["decode", "value"]),
        ("builtins.ValueError", ["decode", "value"]),
        ("UnicodeDecodeError", ["decode"]),
        ("shop.SoldOut", ["sold"]),
        ("SoldOut", ["sold"]),
        ("Out", []),
        ("ERROR", []),
        ("_alueError", []),
        ("", []),
        (None, ["odd", "none", "sold", "decode", "value"]),
    ],
)
def test_dead_letters_are_found_by_the_class_of_their_error(
    rows: Rows, inspector: Inspector, error: str | None, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, what it killed is told apart from what is broken."""
    monkeypatch.setattr(inspect, "_PAGE", 1)
    actor = rows.actor()
    lineage = ["builtins.UnicodeDecodeError", "builtins.ValueError", "builtins.Exception"]
    for id_, stored in {
        "value": failure(),
        "decode": failure("builtins.UnicodeDecodeError", lineage=lineage),
        "sold": failure("shop.SoldOut", lineage="?"),
        "none": None,
        "odd": "not JSON",
    }.items():
        rows.outcome(rows.message(actor, id_), "dead", error=stored)
    rows.outcome(rows.message(actor, "rejected"), "rejected", error=failure())
    letters = inspector.dead(error=error)
    assert [message.id for message in letters.messages] == ids
    assert letters.total == len(ids)


# the tree -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def crew(rows: Rows) -> Rows:
    """A supervisor with a declared child that failed, a supervisor below it, and actors in no family."""
    top, writer, fetcher, pool = [
        rows.actor("Crew", "main"),
        rows.actor("Writer", "w", life="restarting", restart_at=NOW + 4, reason="sibling"),
        rows.actor("Fetcher", "f", life="failed", reason="ValueError: no"),
        rows.actor("Pool", "p"),
    ]
    rows.child(top, pool, 1, "temporary")
    rows.child(top, writer, 2, "transient", declared=1)
    rows.child(top, fetcher, 1, declared=1, significant=1)
    for number in range(1, 5):
        rows.child(pool, rows.actor("Job", f"j{number}", life="terminated" if number == 4 else "running"), number)
    for number, at in enumerate((0.0, NOW - 3, NOW - 2)):
        rows.insert("restart", supervisor=top, number=number, child=fetcher, at=at)
    alone = rows.actor("Till", "t", life="failed", reason="it broke")
    rows.insert("restart", supervisor=-alone, number=1, child=alone, at=NOW - 3)
    rows.failure(fetcher)
    rows.failure(fetcher)
    for key in "abc":
        rows.actor(key=key, status="stopped" if key == "c" else "ready")
    return rows


def test_the_tree_is_in_start_order(crew: Rows) -> None:
    """People see the tree as it starts: declared children first, then those of run time, each with its own below it."""
    view = Inspector(crew.target, clock=lambda: NOW).tree()
    assert [(one.depth, str(one.address), one.restart, one.state) for one in view.members] == [
        (0, "Crew/main", "transient", "running"),
        (1, "Fetcher/f", "permanent", "failed"),
        (1, "Writer/w", "transient", "restarting"),
        (1, "Pool/p", "temporary", "running"),
        (2, "Job/j1", "permanent", "running"),
        (2, "Job/j2", "permanent", "running"),
        (2, "Job/j3", "permanent", "running"),
        (2, "Job/j4", "permanent", "stopped"),
    ]
    main_, fetcher, writer, *_ = view.members
    assert (main_.counted, main_.restarts, fetcher.restarts, fetcher.failures) == (2, 0, 2, 2)
    assert (fetcher.declared, fetcher.significant, str(fetcher.supervisor)) == (True, True, "Crew/main")
    assert (writer.restart_at, main_.supervisor) == (NOW + 4, None)
    assert (view.others, view.held_count, [str(one.address) for one in view.held]) == (3, 1, ["Till/t"])
    assert view.held[0].restarts == 1


def test_the_tree_as_text(crew: Rows) -> None:
    """One screen answers: who supervises whom, who was restarted, who has failed, and what to do about it."""
    lines = output(crew, "tree").splitlines()
    assert lines[0].split() == ["ACTOR", "RESTART", "STATE", "RESTARTS", "FAILURES", "WHY"]
    assert lines[1].startswith("Crew/main")
    assert "counts 2 restarts" in lines[1]
    assert lines[2].startswith("  Fetcher/f  permanent, significant  failed")
    assert "perdure restart Fetcher/f" in " ".join(lines)
    assert any(line.startswith("    Job/j1") for line in lines)
    assert "3 actors under the system's root, 1 of them held up:" in lines
    assert lines[-1] == "  Till/t  failed: it broke; perdure restart Till/t"
    assert max(map(len, output(crew, "tree", width=80).splitlines())) <= 80


def test_a_large_family_is_cut_and_what_needs_attention_is_not(crew: Rows) -> None:
    """Ten thousand children do not hide the one that does not run, nor a supervisor among them."""
    view = Inspector(crew.target, clock=lambda: NOW).tree(limit=1)
    assert [(str(one.address), one.hidden) for one in view.members] == [
        ("Crew/main", 0),
        ("Fetcher/f", 0),
        ("Writer/w", 0),
        ("Pool/p", 2),
        ("Job/j1", 0),
        ("Job/j4", 0),
    ]
    lines = [line.rstrip() for line in output(crew, "tree", "--limit", "1").splitlines()]
    after = next(at for at, line in enumerate(lines) if line.startswith("    Job/j4"))
    assert lines[after + 1] == "    and 2 more"
    assert "--limit 0" in " ".join(lines)
    assert "more" not in output(crew, "tree", "--limit", "0")


def test_the_tree_as_a_document(crew: Rows) -> None:
    """Programs watch the tree as people do."""
    document = json.loads(output(crew, "tree", "--json"))
    assert document["database"] == named(crew.target)
    assert set(document["members"][1]) == {
        "depth", "address", "supervisor", "restart", "declared", "significant", "state", "reason", "restart_at",
        "restarts", "counted", "failures", "hidden",
    }  # fmt: skip
    assert document["held"][0]["address"] == "Till/t"


def test_a_system_without_supervisors_has_a_tree_too(rows: Rows) -> None:
    """Whoever has no supervisor is under the root, and is counted."""
    assert output(rows, "tree") == "No actor supervises another.\n0 actors under the system's root\n"
    rows.actor()
    assert "1 actor under the system's root" in output(rows, "tree")


def test_a_family_that_is_deep_is_shown_to_its_end(rows: Rows, inspector: Inspector) -> None:
    """However deep supervisors are nested, looking at them works."""
    rows.connection.execute("BEGIN")
    above = rows.actor(key="k0")
    for number in range(1, 2_000):
        above = rows.child(above, rows.actor(key=f"k{number}"))
    rows.connection.execute("COMMIT")
    assert [one.depth for one in inspector.tree().members] == list(range(2_000))
    assert len(json.loads(output(rows, "tree", "--json"))["members"]) == 2_000
