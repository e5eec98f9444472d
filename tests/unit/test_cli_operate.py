"""What people do by hand: try dead letters again, remove them, and have an actor go on that failed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perdure import Actor, ActorSystem, Limits, handler, step
from perdure.console import operate
from perdure.console.cli import main
from perdure.console.database import ForeignDatabaseError, NoDatabaseError
from perdure.console.inspect import Inspector
from perdure.console.names import UnknownActor
from perdure.console.operate import ActorRuns, Operator, StoppedForGood, SupervisorDown
from perdure.storage.records import Address
from tests.unit.inspected import NOW, STORES, Rows, alive, failure, target_of
from tests.unit.observing import files_in, until


@pytest.fixture(params=STORES)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Rows]:
    """A database with three dead letters of two classes of errors, and a message that came right."""
    rows = Rows(target_of(request, tmp_path))
    actor = rows.actor()
    for id_, type_ in {"d1": "builtins.ValueError", "d2": "shop.SoldOut", "d3": "builtins.ValueError"}.items():
        rows.outcome(rows.message(actor, id_), "dead", error=failure(type_))
    rows.outcome(rows.message(actor, "good"))
    yield rows
    rows.connection.close()


def run(rows: Rows, *args: str) -> Result:
    """A command on the database."""
    return CliRunner().invoke(main, [*args, "--db", rows.target], env={"COLUMNS": "200"})


def document(rows: Rows, *args: str, code: int = 0) -> Any:  # noqa: ANN401  # any JSON document
    """A command's JSON document."""
    result = run(rows, *args, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def dead(rows: Rows) -> list[str]:
    """The dead letters that are left."""
    return [message.id for message in Inspector(rows.target).dead(limit=None).messages]


# trying again ---------------------------------------------------------------------------------------------------------


def test_a_letter_is_tried_again_by_its_id(rows: Rows) -> None:
    """Once the cause is mended, one command puts the message back to work."""
    result = run(rows, "dead", "retry", "d2")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["Researcher/r1.run (d2), pending", "1 dead letter sent again"]
    assert dead(rows) == ["d3", "d1"]
    assert [message.id for message in Inspector(rows.target).actor("Researcher/r1").messages][-1] == "d2"


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--error", "ValueError"], ["d2"]),
        (["--error", "shop.SoldOut"], ["d3", "d1"]),
        (["--error", "KeyError"], ["d3", "d2", "d1"]),
        (["--all"], []),
        (["d3", "d1", "d3"], ["d2"]),
    ],
)
def test_many_letters_are_tried_again_at_once(
    rows: Rows, args: list[str], left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, what it killed goes back to work, and nothing else does, in the order it was sent in."""
    monkeypatch.setattr(operate, "_A_TRANSACTION", 1)
    sent = [id_ for id_ in (args if args[0].startswith("d") else ["d1", "d2", "d3"]) if id_ not in left]
    found = document(rows, "dead", "retry", *args)
    assert [message["id"] for message in found["messages"]] == list(dict.fromkeys(sent))
    assert dead(rows) == left


def test_a_letter_to_an_actor_that_does_not_run_says_what_is_missing(rows: Rows) -> None:
    """Nobody waits for a letter that waits for somebody: the command to restart its actor is named."""
    rows.connection.execute("UPDATE actor SET life = 'failed', reason = 'it broke'")
    assert "Researcher/r1 handles nothing now: failed: it broke; perdure restart Researcher/r1" in (
        run(rows, "dead", "retry", "--all").stdout
    )


def test_what_cannot_be_tried_again_is_named_and_the_rest_is_sent(rows: Rows) -> None:
    """A slip in one of many ids costs that one alone, and a script sees that it happened."""
    stopped = rows.actor("Till", "t", status="stopped")
    rows.outcome(rows.message(stopped, "late"), "dead", error=failure())
    result = run(rows, "dead", "retry", "d1", "d22", "good", "late")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "1 dead letter sent again"
    unknown, good, late = result.stderr.splitlines()
    assert unknown.startswith("perdure: message 'd22': there is no such message")
    assert "Did you mean d2" in unknown
    assert good.startswith("perdure: message 'good': ended as succeeded")
    assert late.endswith("perdure dead purge late")
    found = document(rows, "dead", "retry", "nothing", "good", "late", code=1)
    assert [(one["message"], one["error"]) for one in found["refused"]] == [
        ("nothing", "UnknownMessage"),
        ("good", "NotADeadLetter"),
        ("late", "ActorStopped"),
    ]


@pytest.mark.parametrize("odd", ["d\udcff", "d\0"])
@pytest.mark.parametrize("command", [["dead", "retry"], ["dead", "purge"], ["restart"]])
def test_a_name_that_is_no_text_is_refused_alone(rows: Rows, command: list[str], odd: str) -> None:
    """Whatever bytes a shell passes, the letters that were named right are done, and nobody reads a traceback."""
    names = ["Researcher/" + odd] if command == ["restart"] else ["d1", odd]
    result = run(rows, *command, *names)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "there is no such" in result.stderr
    assert dead(rows) == (["d3", "d2", "d1"] if command == ["restart"] else ["d3", "d2"])


# removing -------------------------------------------------------------------------------------------------------------


def test_letters_are_removed_by_their_ids(rows: Rows) -> None:
    """What is of no use any more is thrown away, and said to be."""
    result = run(rows, "dead", "purge", "d1", "d2")
    assert (result.exit_code, result.stdout) == (0, "2 dead letters removed\n")
    assert dead(rows) == ["d3"]
    assert run(rows, "journal", "d1").exit_code == 1


@pytest.mark.parametrize(
    ("args", "left"), [(["--error", "ValueError"], ["d2"]), (["--all"], []), (["--error", "X"], ["d3", "d2", "d1"])]
)
def test_many_letters_are_removed_only_on_purpose(rows: Rows, args: list[str], left: list[str]) -> None:
    """Letters that nobody has named are not thrown away by the habit of a hand."""
    everything = dead(rows)
    asked = run(rows, "dead", "purge", *args)
    if left != everything:
        assert asked.exit_code == 2
        assert f"removes {len(everything) - len(left)} dead letter" in asked.stderr
        assert "--yes" in asked.stderr
    assert dead(rows) == everything
    assert document(rows, "dead", "purge", *args, "--yes")["removed"] == len(everything) - len(left)
    assert dead(rows) == left


def test_only_dead_letters_are_removed(rows: Rows) -> None:
    """Mail and history are safe from a wrong id."""
    rows.message(1, "waiting")
    result = run(rows, "dead", "purge", "good", "waiting", "d1", "nothing")
    assert (result.exit_code, result.stdout) == (1, "1 dead letter removed\n")
    assert ["no such message" in line for line in result.stderr.splitlines()] == [False, False, True]
    assert run(rows, "journal", "good").exit_code == run(rows, "journal", "waiting").exit_code == 0


# calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["retry", "purge"])
@pytest.mark.parametrize("args", [[], ["d1", "--all"], ["d1", "--error", "ValueError"], ["--all", "--error", "X"]])
def test_letters_are_named_in_one_way(rows: Rows, command: str, args: list[str]) -> None:
    """A call that could be understood in two ways does nothing."""
    result = run(rows, "dead", command, *args)
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert dead(rows) == ["d3", "d2", "d1"]


def test_dead_alone_lists_as_ever(rows: Rows) -> None:
    """Looking does nothing, and can be narrowed to a class of errors."""
    assert [message["id"] for message in document(rows, "dead")["messages"]] == ["d3", "d2", "d1"]
    assert [message["id"] for message in document(rows, "dead", "--error", "SoldOut")["messages"]] == ["d2"]
    assert "perdure dead retry" in run(rows, "dead").stdout


def test_the_database_may_be_named_before_the_operation(rows: Rows) -> None:
    """`perdure dead --db PATH` is gone on with, and what would be ignored is refused."""
    runner, path = CliRunner(), rows.target
    assert runner.invoke(main, ["dead", "--db", path, "retry", "d1"]).exit_code == 0
    assert runner.invoke(main, ["--db", path, "dead", "retry", "d2"]).exit_code == 0
    refused = runner.invoke(main, ["dead", "--db", path, "--error", "ValueError", "purge", "d3"])
    assert refused.exit_code == 2
    assert "perdure dead purge" in refused.stderr
    assert dead(rows) == ["d3"]


# restarting -----------------------------------------------------------------------------------------------------------


def life(rows: Rows, actor: int) -> tuple[object, ...]:
    """What is stored of an actor's life."""
    sql = "SELECT life, status, restart_at IS NOT NULL, reason FROM actor WHERE id = ?"
    found: tuple[object, ...] = rows.connection.execute(sql, (actor,)).fetchone()
    return found


@pytest.mark.parametrize("was", ["failed", "terminated", "restarting"])
def test_an_actor_that_does_not_run_is_restarted(rows: Rows, was: str) -> None:
    """One command, and the actor goes on with the mail that was kept for it, with all of its restarts before it."""
    actor = rows.actor("Till", "t", life=was, reason="it broke")
    for number, at in ((1, NOW - 2), (2, NOW - 1)):
        rows.insert("restart", supervisor=-actor, number=number, child=actor, at=at)
    result = run(rows, "restart", "Till/t")
    assert (result.exit_code, result.stdout) == (
        0,
        "Till/t begins again as soon as a process starts that knows its kind\n",
    )
    assert life(rows, actor) == ("restarting", "ready", True, "restarted by hand")
    (restarts,) = rows.connection.execute("SELECT count(*) FROM restart WHERE at > 0").fetchone()
    assert restarts == 0


def test_a_supervisor_is_restarted_with_its_children(rows: Rows) -> None:
    """Whoever restarts a crew restarts all of it, and reads who that is."""
    crew = rows.actor("Crew", "main", life="failed")
    first = rows.child(crew, rows.actor("Till", "a", life="terminated"), 1)
    ended = rows.child(crew, rows.actor("Till", "b", life="terminated", status="stopped"), 2)
    with alive(rows.target, rows.node()):
        found = document(rows, "restart", "Crew/main")
    assert (found["actor"], found["others"], found["processes"]) == ("Crew/main", ["Till/a", "Till/b"], 1)
    assert [life(rows, actor)[:2] for actor in (crew, first, ended)] == [("restarting", "ready")] * 3


def test_a_child_that_ended_is_restarted(rows: Rows) -> None:
    """A child that ended by itself can be had again, as with OTP's restart_child."""
    rows.child(rows.actor("Crew", "main"), ended := rows.actor("Till", "a", status="stopped", reason="normal"))
    assert "and with it" not in run(rows, "restart", "Till/a").stdout
    assert life(rows, ended)[:2] == ("restarting", "ready")


async def test_what_cannot_be_restarted_says_why(rows: Rows) -> None:
    """A wrong name, a running actor, an ended one and a child of a failed crew all get their cause and remedy."""
    crew = rows.actor("Crew", "main", life="failed", reason="too many restarts")
    inner = rows.child(crew, rows.actor("Crew", "inner", life="failed"))
    rows.child(inner, rows.actor("Till", "a", life="failed"))
    rows.actor("Till", "gone", status="stopped", reason="normal")
    operator = Operator(rows.target)
    with pytest.raises(UnknownActor) as unknown:
        await operator.restart("Researcher/r2")
    assert unknown.value.near == ("Researcher/r1",)
    with pytest.raises(ActorRuns, match="perdure show Researcher/r1"):
        await operator.restart("Researcher/r1")
    with pytest.raises(StoppedForGood, match=r"normal.*another key"):
        await operator.restart(Address("Till", "gone"))
    with pytest.raises(SupervisorDown, match=r"too many restarts.*perdure restart Crew/main") as down:
        await operator.restart("Till/a")
    assert down.value.supervisor == Address("Crew", "main")


def test_a_restart_that_is_refused_is_1(rows: Rows) -> None:
    """Scripts see that nothing was restarted."""
    result = run(rows, "restart", "Researcher/r1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("perdure: actor 'Researcher/r1': runs")


# the database ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_made_where_no_database_is(tmp_path: Path) -> None:
    """A wrong path leaves no file behind, and no other application's database is touched."""
    with pytest.raises(NoDatabaseError):
        await Operator(tmp_path / "nowhere.db").retry("m")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE mine (a)")
    with pytest.raises(ForeignDatabaseError):
        await Operator(tmp_path / "other.db").restart("Till/t")
    assert files_in(tmp_path) == ["other.db"]


def test_a_database_that_cannot_be_used_is_2(tmp_path: Path) -> None:
    """Scripts tell a wrong path from a wrong name."""
    for command in (["restart", "Till/t"], ["dead", "retry", "m"], ["dead", "purge", "--all"], ["tree"]):
        assert CliRunner().invoke(main, [*command, "--db", str(tmp_path / "nowhere.db")]).exit_code == 2


def test_an_operation_touches_nothing_else(rows: Rows) -> None:
    """Turns that are parked stay so, dead processes stay unburied, and no actor changes hands."""
    parked = rows.actor("Till", "p", status="parked", reason="the code changed")
    owned = rows.actor("Till", "o", owner=rows.node())
    rows.message(owned, "m")
    run(rows, "dead", "retry", "d1")
    assert life(rows, parked)[1:] == ("parked", 0, "the code changed")
    owners = rows.connection.execute("SELECT owner, epoch FROM actor ORDER BY id").fetchall()
    assert owners == [(None, 0), (None, 0), ("n1", 0)]
    assert [node.id for node in Inspector(rows.target).overview().nodes] == ["n1"]


# real systems ---------------------------------------------------------------------------------------------------------

BROKEN = asyncio.Event()
PAID: list[int] = []


@step
async def pay(amount: int) -> int:
    """A step that must not run twice."""
    PAID.append(amount)
    return amount


class Shop(Actor, kind="operate.shop"):
    @handler
    async def sell(self, amount: int) -> int:
        """Pay, and fail while the shop is broken."""
        paid = await pay(amount)
        return self._deliver(paid)

    @handler
    async def greet(self) -> str:
        """Fail while the shop is broken."""
        return str(self._deliver(1))

    @staticmethod
    def _deliver(paid: int) -> int:
        if BROKEN.is_set():
            raise ValueError("broken")
        return paid


@pytest.fixture(params=STORES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a system."""
    return target_of(request, tmp_path)


@pytest.fixture
def broken() -> Generator[None]:
    """A shop that is broken until somebody mends it."""
    PAID.clear()
    BROKEN.set()
    yield
    BROKEN.clear()


@pytest.mark.usefixtures("broken")
async def test_a_letter_of_a_dead_system_is_done_when_it_starts(target: str) -> None:
    """After the mending, the same message comes right under the same receipt, and nothing is paid twice."""
    async with ActorSystem(target, limits=Limits(attempts=1)) as system:
        receipt = await system.get(Shop, "s").sell.options(id="order").tell(7)
        await until(lambda: _is(receipt.status, "dead"))
    BROKEN.clear()
    operator = Operator(target)
    retried = await operator.retry(*operator.letters("ValueError"))
    assert [message.id for message in retried.messages] == ["order"]
    async with ActorSystem(target) as system:
        assert await system.get(Shop, "s").sell.options(id="order")(7) == 7
    assert PAID == [7]


@pytest.mark.usefixtures("broken")
async def test_a_letter_is_tried_again_beside_a_running_system(target: str) -> None:
    """Nobody stops a service to have one message done again."""
    async with ActorSystem(target, limits=Limits(attempts=1)) as system:
        receipt = await system.get(Shop, "s").greet.options(id="hello").tell()
        await until(lambda: _is(receipt.status, "dead"))
        BROKEN.clear()
        await Operator(target).retry("hello")
        await until(lambda: _is(receipt.status, "succeeded"))
        assert await receipt.result() == "1"


async def _is(status: Any, wanted: str) -> bool:  # noqa: ANN401  # a receipt's method
    return await status() == wanted
