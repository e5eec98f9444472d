"""The read model: for every state that rows can be in, what people are told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from perdure.console import database, inspect, postgres_database, reading, sqlite_database
from perdure.console.document import render_json
from perdure.console.inspect import Inspector
from perdure.console.targets import database_of
from perdure.console.views import Failure, Stored, Wait
from tests.unit.inspected import NOW, Rows, alive, failure


@pytest.fixture
def file(tmp_path: Path) -> Generator[Rows]:
    """A SQLite file to write into."""
    rows = Rows(tmp_path / "agents.db")
    yield rows
    rows.connection.close()


@pytest.fixture
def live(rows: Rows) -> Generator[str]:
    """A process that lives."""
    with alive(rows.target, rows.node()):
        yield "n1"


def wait_of(inspector: Inspector) -> Wait:
    """Why the only actor's mailbox waits."""
    wait = inspector.actor("Researcher/r1").actor.wait
    assert wait is not None
    return wait


# states ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["succeeded", "rejected", "cancelled", "expired", "dead"])
def test_an_outcome_is_the_state_of_its_message(rows: Rows, inspector: Inspector, status: str) -> None:
    """People see how every accepted message ended (P4)."""
    seq = rows.message(rows.actor(), "m")
    rows.outcome(seq, status, started=NOW - 12, result="7", error=failure(), changes='{"total": 7}')
    message = inspector.message("m").message
    assert message.state == status
    assert (message.started, message.finished, message.seconds) == (NOW - 12, NOW - 10, 2.0)
    assert message.result == Stored("7")
    assert message.error == Failure("builtins.ValueError", "no", "Traceback\n  builtins.ValueError: no\n")
    assert message.changes is not None
    assert message.changes.value() == {"total": 7}


def test_messages_queue_behind_the_one_in_hand(rows: Rows, inspector: Inspector, live: str) -> None:
    """People see what is running, what waits behind it, and what is not yet due."""
    actor = rows.actor(owner=live)
    rows.outcome(rows.message(actor))
    rows.message(actor)
    rows.message(actor)
    rows.message(actor, number=None, due=NOW + 60)
    history = inspector.actor("Researcher/r1")
    assert [message.state for message in history.messages] == ["succeeded", "running", "pending", "delayed"]
    assert (history.actor.mail, history.actor.delayed, history.actor.handled) == (2, 1, 1)


def test_an_idle_actor_waits_for_nothing(rows: Rows, inspector: Inspector) -> None:
    """Nobody is sent looking for a reason where there is no mail."""
    rows.outcome(rows.message(rows.actor()))
    assert inspector.actor("Researcher/r1").actor.wait is None


def test_a_delayed_message_that_was_cancelled_is_not_counted(rows: Rows, inspector: Inspector) -> None:
    """What was cancelled before it fell due is not announced any more."""
    seq = rows.message(rows.actor(), "m", number=None, due=NOW + 60)
    rows.insert("outcome", message=seq, status="cancelled", finished=NOW)
    history = inspector.actor("Researcher/r1")
    assert (history.actor.delayed, history.messages) == (0, ())
    assert inspector.message("m").message.state == "cancelled"


# why a mailbox waits --------------------------------------------------------------------------------------------------


def test_a_step_that_runs(rows: Rows, inspector: Inspector, live: str) -> None:
    """A slow step is named, so nobody takes it for a hang."""
    seq = rows.message(rows.actor(owner=live))
    rows.record(seq, "fetch#1", status="started")
    rows.record(seq, "fetch#2", status="started")
    wait = wait_of(inspector)
    assert (wait.kind, wait.text, wait.open_count) == ("step", "runs fetch x2", 2)
    assert inspector.message("m1").message.state == "running"


@pytest.mark.parametrize(("waiting", "kind", "text"), [
    (0, "step", "runs fetch x2"),
    (1, "step", "runs fetch x2, of which 1 wait for limit llm"),
    (2, "limit", "waits for limit llm"),
])  # fmt: skip
def test_steps_that_wait_for_a_limit(
    rows: Rows, inspector: Inspector, live: str, waiting: int, kind: str, text: str
) -> None:
    """What waits for others to end is not taken for slow."""
    seq = rows.message(rows.actor(owner=live))
    rows.record(seq, "fetch#1", status="started")
    rows.record(seq, "fetch#2", status="started")
    rows.insert("slot", name="llm", node=live, has=1, wants=1, waiting=json.dumps([seq] * waiting))
    rows.insert("slot", name="other", node="n9", has=1, wants=1, waiting=json.dumps([seq]))
    wait = wait_of(inspector)
    assert (wait.kind, wait.text, wait.open_count) == (kind, text, 2)


def test_a_turn_that_waits_for_the_limit_of_its_kind(rows: Rows, inspector: Inspector, live: str) -> None:
    """Nor what has not begun because of it, or waits to go on."""
    seq = rows.message(rows.actor(owner=live))
    rows.insert("slot", name="llm", node=live, has=1, wants=1, waiting=json.dumps([seq]))
    assert (wait_of(inspector).kind, wait_of(inspector).text) == ("limit", "waits for limit llm")
    rows.record(seq, "sleep#1", "sleep", "started", due=NOW - 1)
    assert wait_of(inspector).kind == "limit"


def test_a_step_that_failed_and_waits_for_its_next_attempt(rows: Rows, inspector: Inspector, live: str) -> None:
    """A backoff is told apart from work, with the failure behind it and its end."""
    seq = rows.message(rows.actor(owner=live))
    rows.record(seq, "fetch#1", status="started", attempt=3, due=NOW + 8, error=failure())
    wait = wait_of(inspector)
    assert (wait.kind, wait.until, wait.open[0].attempt) == ("step_retry", NOW + 8, 3)
    assert wait.open[0].error is not None


@pytest.mark.parametrize("status", ["ready", "waiting"])
def test_an_ask_names_whom_it_waits_for(rows: Rows, inspector: Inspector, live: str, status: str) -> None:
    """A chain of waiting actors can be walked to the one that holds it up, in memory or evicted."""
    seq = rows.message(rows.actor(owner=live if status == "ready" else None, status=status))
    asked = rows.message(rows.actor("Critic", "c1", owner=live), "m/ask", "review", cause=seq)
    rows.record(seq, "Critic.review#1", "ask", "started", target=asked, due=NOW + 30)
    wait = wait_of(inspector)
    assert (wait.kind, wait.text, wait.until) == ("reply", "waits for the reply of Critic/c1.review", NOW + 30)
    target = wait.open[0].target
    assert target is not None
    assert (target.id, target.state) == ("m/ask", "running")
    assert inspector.message("m1").message.state == "waiting"


def test_a_receipt_and_a_sleep(rows: Rows, inspector: Inspector) -> None:
    """Long waits of an evicted turn are told by what ends them."""
    seq = rows.message(rows.actor(status="waiting"))
    other = rows.message(rows.actor("Critic", "c1"), "other", "review")
    rows.record(seq, "receipt#1", "receipt", "started", target=other)
    assert wait_of(inspector).text == "waits for the outcome of Critic/c1.review"
    rows.connection.execute("DELETE FROM journal")
    rows.record(seq, "sleep#1", "sleep", "started", due=NOW + 3600)
    wait = wait_of(inspector)
    assert (wait.kind, wait.until) == ("sleep", NOW + 3600)


def test_a_handler_that_failed_and_is_tried_again(rows: Rows, inspector: Inspector, live: str) -> None:
    """The failure that holds a mailbox up is on the screen, not in a log."""
    seq = rows.message(rows.actor(owner=live))
    rows.insert("turn", message=seq, attempts=2, retry_at=NOW + 4, error=failure(text="overloaded"))
    wait = wait_of(inspector)
    assert (wait.kind, wait.until) == ("retry", NOW + 4)
    assert wait.text == "tries 'run' again after ValueError: overloaded"
    message = inspector.message("m1").message
    assert (message.state, message.attempts, message.retry_at) == ("waiting", 2, NOW + 4)
    assert message.error is not None


def test_a_parked_turn(rows: Rows, inspector: Inspector) -> None:
    """What only a person can mend says so, and why."""
    rows.message(rows.actor(status="parked", reason="'fetch#1' has other arguments"))
    wait = wait_of(inspector)
    assert (wait.kind, wait.text) == ("parked", "parked, and waits for a person: 'fetch#1' has other arguments")
    assert inspector.message("m1").message.state == "parked"
    assert inspector.overview().parked == 1


def test_an_actor_of_a_dead_process(rows: Rows, inspector: Inspector) -> None:
    """After a kill nothing is called running, although the rows still name an owner."""
    rows.record(rows.message(rows.actor(owner=rows.node())), "fetch#1", status="started")
    assert wait_of(inspector).kind == "orphaned"
    assert inspector.message("m1").message.state == "pending"
    assert inspector.overview().nodes[0].live is False


def test_an_actor_nobody_has_taken(rows: Rows, inspector: Inspector) -> None:
    """Mail for a kind that no process knows is seen to wait for one that does."""
    rows.message(rows.actor())
    assert wait_of(inspector).kind == "unclaimed"


def test_a_process_is_live_as_long_as_its_lock_is_held(rows: Rows, inspector: Inspector) -> None:
    """A pid that was given to another program deceives nobody."""
    rows.node()
    with alive(rows.target, "n1"):
        assert inspector.overview().nodes[0].live is True
    assert inspector.overview().nodes[0].live is False


def test_a_node_id_that_is_a_path_is_not_followed(file: Rows) -> None:
    """A database from somewhere else cannot make the reader open other files."""
    file.node("../../secret")
    assert Inspector(file.target).overview().nodes[0].live is None


# journals -------------------------------------------------------------------------------------------------------------


def test_steps_come_in_order_of_start_with_their_completions(rows: Rows, inspector: Inspector) -> None:
    """A race is read as it went: who began first, and whose result the handler got first."""
    seq = rows.message(rows.actor(), "m")
    rows.record(seq, "fan_out#1[10]/fetch#1", started=NOW - 9, position=1, result='"b"')
    rows.record(seq, "fan_out#1[2]/fetch#1", started=NOW - 9, position=2, digest=bytes(range(32)), finished=NOW - 8)
    rows.record(seq, "first#1", started=NOW - 10, position=3)
    steps = inspector.message("m").steps
    assert [step.key for step in steps] == ["first#1", "fan_out#1[2]/fetch#1", "fan_out#1[10]/fetch#1"]
    assert [step.position for step in steps] == [3, 2, 1]
    assert (steps[1].digest, steps[1].seconds, steps[2].result) == ("00010203", 1.0, Stored('"b"'))


def test_a_long_journal_is_read_to_its_end(rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of a long turn is hidden from who asks for all, and no read holds the writers up."""
    monkeypatch.setattr(inspect, "_PAGE", 3)
    seq = rows.message(rows.actor(), "m")
    for number in range(1, 12):
        rows.record(seq, f"fetch#{number}")
    for limit, more in ((None, False), (11, False), (10, True), (3, True), (2, True)):
        history = inspector.message("m", limit=limit)
        assert [step.key for step in history.steps] == [f"fetch#{n}" for n in range(1, (limit or 11) + 1)]
        assert history.more is more


def test_what_a_turn_did_is_counted(rows: Rows, inspector: Inspector) -> None:
    """A turn of a thousand steps is told in one line."""
    seq = rows.message(rows.actor(), "m")
    for number, status in enumerate(("completed", "completed", "failed", "started")):
        rows.record(seq, f"fetch#{number}", status=status)
    (did,) = inspector.message("m").message.did
    assert (did.kind, did.name, did.succeeded, did.failed, did.open) == ("step", "fetch", 2, 1, 1)


def test_the_tree_of_what_a_message_caused(rows: Rows, inspector: Inspector) -> None:
    """One question's work is followed across actors."""
    log = rows.actor("Audit", "log")
    root = rows.message(rows.actor(), "root")
    child = rows.message(log, "child", "note", cause=root)
    rows.message(log, "foreign", "note")
    rows.message(log, "grandchild", "note", cause=child)
    rows.message(log, "second", "note", cause=root)
    history = inspector.message("root")
    assert [(it.depth, it.cause, it.message.id) for it in history.caused] == [
        (1, "root", "child"),
        (2, "child", "grandchild"),
        (1, "root", "second"),
    ]
    assert history.caused_complete
    cause = inspector.message("child").message.cause
    assert cause is not None
    assert cause.id == "root"


def test_a_message_that_caused_very_many_shows_the_nearest(
    rows: Rows, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that set off a storm is still shown, and says that there was more."""
    monkeypatch.setattr(reading, "MEMBERS", 3)
    actor = rows.actor()
    root = rows.message(actor, "root")
    first = rows.message(actor, "first", cause=root)
    for number in range(3):
        rows.message(actor, f"below{number}", cause=first)
    rows.message(actor, "second", cause=root)
    history = inspector.message("root")
    assert {it.message.id for it in history.caused} >= {"first", "second"}
    assert (len(history.caused), history.caused_complete) == (3, False)
    assert inspector.message("first").caused_complete


def test_effects_are_found_whatever_their_numbers(rows: Rows, inspector: Inspector) -> None:
    """Numbers are given to processes in blocks, so what a message caused may have a lower one."""
    log = rows.actor("Audit", "log")
    rows.message(log, "effect", "note", cause=2, sent=NOW - 10)
    rows.message(rows.actor(), "root", sent=NOW - 20)
    assert [it.message.id for it in inspector.message("root").caused] == ["effect"]


# values ---------------------------------------------------------------------------------------------------------------


def test_a_value_of_another_codec_is_named_and_not_decoded(rows: Rows, inspector: Inspector) -> None:
    """Looking at a database never runs code that lies in it."""
    rows.message(rows.actor(), "m", args="gASV...", codec="cloudpickle")
    assert inspector.message("m").message.args.value() == {"unreadable": "cloudpickle", "bytes": 7}


def test_a_value_too_deep_to_parse_is_named(rows: Rows, inspector: Inspector) -> None:
    """One odd value does not hide the rest of the page."""
    deep = "[" * 100_000 + "]" * 100_000
    assert Stored(deep).value() == {"unreadable": "json", "bytes": 200_000}


def test_a_failure_of_an_unknown_form_is_shown_as_it_is() -> None:
    """Whatever a store wrote, people can read it."""
    assert Failure.parse("odd") == Failure("", "odd")
    assert Failure.parse('{"a": 1}') == Failure("", '{"a": 1}')
    assert Failure.parse(None) is None


def test_the_state_of_an_actor(rows: Rows, inspector: Inspector) -> None:
    """The fields after the last committed turn, and those it was spawned with."""
    actor = rows.actor()
    assert inspector.actor("Researcher/r1").state is None
    rows.insert("snapshot", actor=actor, version=2, codec="json", state='{"total": 3}', initial='{"total": 0}')
    state = inspector.actor("Researcher/r1").state
    assert state is not None
    assert (state.version, state.fields.value(), state.initial) == (2, {"total": 3}, Stored('{"total": 0}'))


def test_queries_use_the_indexes(file: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at one actor or message among millions stays quick, so nobody is afraid to look."""
    seen: list[str] = []
    rows, inspector = file, Inspector(file.target)
    seq = rows.message(rows.actor(), "m")
    rows.record(seq, "fetch#1")
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401  # passed on
        connection = connect(*args, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    inspector.actor("Researcher/r1")
    inspector.message("m")
    plans = [
        row[3]
        for sql in set(seen)
        if sql.startswith(("SELECT", "WITH"))
        for row in rows.connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
    ]
    assert plans
    scans = {plan for plan in plans if plan.startswith("SCAN") and "json_each" not in plan and "delayed" not in plan}
    assert not {scan for scan in scans if any(table in scan for table in ("message", "journal", "outcome", "actor"))}


def test_a_read_that_takes_too_long_is_given_up(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader never keeps the WAL of a busy system from being emptied, nor vacuum from its work."""
    monkeypatch.setattr(sqlite_database, "READ_SECONDS", 0.0)
    monkeypatch.setattr(postgres_database, "READ_SECONDS", 0.2)
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(database.SlowReadError, match="--limit"):
        database_of(rows.target).read(lambda moment: moment.fetch(endless))


def test_the_documents_of_views_are_json(rows: Rows, inspector: Inspector) -> None:
    """Programs read the same facts as people."""
    seq = rows.message(rows.actor(), "m", args={"question": "why?"})
    rows.outcome(seq, result='{"answer": [1, 2]}')
    document = json.loads(render_json(inspector.message("m")))
    assert document["message"]["args"] == {"question": "why?"}
    assert document["message"]["result"] == {"answer": [1, 2]}
    assert document["message"]["actor"] == "Researcher/r1"


def test_a_turn_that_was_interrupted_began_with_its_first_run(rows: Rows, inspector: Inspector) -> None:
    """How long a question took includes the crash in its middle."""
    seq = rows.message(rows.actor(), "m")
    rows.record(seq, "fetch#1", started=NOW - 30)
    rows.outcome(seq, started=NOW - 12)
    message = inspector.message("m").message
    assert (message.started, message.seconds) == (NOW - 30, 20.0)
