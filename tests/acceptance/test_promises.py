"""One test for each of perdure's promises, named after it, with real processes where a death matters."""

import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from perdure.storage.writer_lock import FileLock
from tests.acceptance.children import PATIENCE_SECONDS, Child, child, events, run_to_end
from tests.acceptance.torture.disk import Disk, count_unfinished, read_disk

KILLED = -signal.SIGKILL


def on_disk(directory: Path) -> Disk:
    """What lies on disk, while no process lives."""
    return read_disk(directory / "app.db")


def history(disk: Disk, actor: str) -> list[str]:
    """What an actor's committed state holds."""
    for found in disk.actors.values():
        if found.name == actor:
            return found.history
    return []


def wait_until_drained(running: Child) -> None:
    """Wait until every message has an outcome."""
    running.wait_for("up")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count_unfinished(running.directory / "app.db"):
        assert running.is_alive(), running.errors()
        assert time.monotonic() < deadline, f"the work did not end; {running.errors()}"
        time.sleep(0.05)


def recover(directory: Path) -> Disk:
    """Start the program again, let it do what is left, and leave; what is on disk then."""
    with child(directory, "rest") as running:
        wait_until_drained(running)
        assert running.leave() == 0, running.errors()
    return on_disk(directory)


def test_p1_a_tell_that_returned_survives_kill_9(tmp_path: Path) -> None:
    """What perdure acknowledged, it never loses."""
    acknowledged: set[str] = set()
    for life in range(4):
        with child(tmp_path, "tell_for_ever", str(life)) as running:
            running.wait_for("acked", 200 * (life + 1))
            running.kill()
        kept = {message.id for message in on_disk(tmp_path).messages.values()}
        acknowledged = {fact["id"] for fact in events(tmp_path, "acked")}
        assert acknowledged <= kept
    disk = recover(tmp_path)
    handled = Counter(text for actor in disk.actors.values() for text in actor.history)
    assert acknowledged <= handled.keys()
    assert set(handled.values()) == {1}


def test_p2_a_message_is_on_disk_before_its_handler_starts(tmp_path: Path) -> None:
    """A handler's first effect never comes from a message that nobody can find again."""
    assert run_to_end(tmp_path, "tell", "at_first_line") == KILLED
    disk = on_disk(tmp_path)
    assert [message.id for message in disk.messages.values()] == ["m"]
    assert not disk.outcomes
    assert history(recover(tmp_path), "doomed/d") == ["m"]


def test_p3_one_senders_messages_are_handled_in_the_order_they_were_sent(tmp_path: Path) -> None:
    """Whoever sends A and then B never sees B handled before A, load and deaths or not."""
    for handled in (100, 1_000, 1_800):
        with child(tmp_path, "chatter") as running:
            running.wait_for("noted", handled)
            running.kill()
    disk = recover(tmp_path)
    for receiver in range(5):
        noted = history(disk, f"notes/n{receiver}")
        for sender in ["outside", *(f"c{n}" for n in range(20))]:
            heard = [text for text in noted if text.startswith(f"{sender}:")]
            assert heard == sorted(set(heard)), f"{sender} to n{receiver}"
            assert len(heard) == (80 if sender == "outside" else 20)


def test_p4_every_message_ends_in_exactly_one_durable_outcome(tmp_path: Path) -> None:
    """Nothing disappears: success, rejection and dead letter are all there is, and each is there once."""
    for ended in (5, 25, 45):
        with child(tmp_path, "try_all") as running:
            running.wait_for("end", ended)
            running.kill()
    assert run_to_end(tmp_path, "try_all") == 0
    disk = on_disk(tmp_path)
    statuses = {message.id: disk.outcomes[message.seq].status for message in disk.messages.values()}
    assert statuses == {f"m{n}": ("succeeded", "rejected", "dead")[n % 3] for n in range(60)}
    told = {fact["id"]: fact["value"] for fact in events(tmp_path, "outcome")}
    assert told == {f"m{n}": (f"m{n}", "Rejected", "DeadLetterError")[n % 3] for n in range(60)}
    kept = [tag for actor in disk.actors.values() for tag in actor.history]
    assert sorted(kept) == sorted(f"m{n}" for n in range(0, 60, 3))


def test_p5_a_segment_commits_whole_and_once(tmp_path: Path) -> None:
    """Sends and spawns of a segment leave together, once; those of an unfinished one never; state comes at the end."""
    assert run_to_end(tmp_path, "tell", "in_second_segment") == KILLED
    disk = on_disk(tmp_path)
    first = [f"m/one/{place}" for place in range(3)]
    assert sorted(message.id for message in disk.messages.values()) == ["m", *first]
    names = {actor.name for actor in disk.actors.values()}
    assert "notes/d/m/one" in names
    assert "notes/d/m/two" not in names
    assert history(disk, "doomed/d") == []
    disk = recover(tmp_path)
    assert sorted(message.id for message in disk.messages.values()) == [
        "m", *first, *(f"m/two/{place}" for place in range(3))
    ]  # fmt: skip
    assert history(disk, "doomed/d") == ["m"]
    assert history(disk, "notes/n0") == ["m/one/0", "m/two/0"]
    assert history(disk, "notes/d/m/two") == ["m/two"]


def test_p6_a_completed_step_never_begins_again_and_an_interrupted_one_keeps_its_id(tmp_path: Path) -> None:
    """A paid call is not paid twice, and one that was cut off can be recognised by its receiver."""
    assert run_to_end(tmp_path, "tell", "between_steps") == KILLED
    disk = recover(tmp_path)
    begun = [(fact["work"], fact["sid"]) for fact in events(tmp_path, "begin")]
    (_, first), (_, second), again = begun
    assert begun == [("m/first", first), ("m/second", second), ("m/second", second)]
    assert again[1] != first
    assert next(iter(disk.outcomes.values())).result == [first, second]


def test_p7_no_step_starts_before_what_it_depends_on_is_durable(tmp_path: Path) -> None:
    """An effect outside never rests on a turn that a crash can take back, however many turns are in flight."""
    assert run_to_end(tmp_path, "tell_successors", "60") == KILLED
    (base,) = events(tmp_path, "base")
    assert base["turns"] == 59
    disk = on_disk(tmp_path)
    assert history(disk, "doomed/d") == [f"m{n}" for n in range(59)]
    assert [step.status for step in disk.steps] == ["started"]


def test_p7_no_reply_leaves_before_its_effect_is_durable(tmp_path: Path) -> None:
    """Who has heard a yes can rely on it."""
    assert run_to_end(tmp_path, "tell", "after_reply") == KILLED
    disk = on_disk(tmp_path)
    assert history(disk, "notes/asked") == ["m"]
    disk = recover(tmp_path)
    assert history(disk, "notes/asked") == ["m"]
    assert [fact["value"] for fact in events(tmp_path, "heard")] == [1, 1]


def take_away(running: Child, actor: str, owner: str | None) -> None:
    """Stop a process where it stands, and give one of its actors to somebody else, or to nobody."""
    database = running.directory / "app.db"
    lock = FileLock(database.with_name("app.db-lock"))
    for _ in range(100):
        running.signal(signal.SIGSTOP)
        if lock.try_acquire():
            break
        running.signal(signal.SIGCONT)  # it was stopped within a transaction
        time.sleep(0.02)
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            sql = "UPDATE actor SET owner = ?, epoch = epoch + 1 WHERE kind || '/' || key = ?"
            assert connection.execute(sql, (owner, actor)).rowcount == 1
    finally:
        lock.close()


def only_message(disk: Disk, id_: str) -> int:
    """The sequence number of the message with that id."""
    (seq,) = (message.seq for message in disk.messages.values() if message.id == id_)
    return seq


def test_p8_a_zombie_can_write_nothing(tmp_path: Path) -> None:
    """An activation that lost its actor while it was stopped may go on computing, and that is all."""
    gate = tmp_path / "gate"
    with child(tmp_path, "zombie", str(gate)) as running:
        running.wait_for("begin")
        take_away(running, "doomed/d", "somebody else")
        gate.touch()
        running.signal(signal.SIGCONT)
        running.wait_for("well")  # the process goes on with the actors it still has
        running.kill()
    assert events(tmp_path, "end")
    disk = on_disk(tmp_path)
    assert [step.status for step in disk.steps] == ["started"]
    assert "notes/told" not in {actor.name for actor in disk.actors.values()}
    assert history(disk, "doomed/d") == []
    assert only_message(disk, "m") not in disk.outcomes


def test_p8_of_two_activations_one_commits(tmp_path: Path) -> None:
    """Work that another process took over and finished is not done again by the one that wakes up too late."""
    gate = tmp_path / "gate"
    with child(tmp_path, "zombie", str(gate)) as stopped:
        stopped.wait_for("begin")
        take_away(stopped, "doomed/d", None)
        with child(tmp_path, "rest") as heir:
            heir.wait_for("begin", 2)
            gate.touch()
            heir.wait_for("noted")
            stopped.signal(signal.SIGCONT)
            stopped.wait_for("well")
            stopped.kill()
            wait_until_drained(heir)
            assert heir.leave() == 0, heir.errors()
    disk = on_disk(tmp_path)
    assert history(disk, "doomed/d") == ["m"]
    assert history(disk, "notes/told") == ["m"]
    begun = [fact for fact in events(tmp_path, "begin") if fact["work"] == "m/gated"]
    assert len({fact.run for fact in begun}) == 2
    assert len({fact["sid"] for fact in begun}) == 1
    assert disk.outcomes[only_message(disk, "m")].result == begun[0]["sid"]


def test_p9_the_same_id_has_the_same_outcome(tmp_path: Path) -> None:
    """A sender that asks again, even from another process, gets the first answer, and no second effect."""
    assert run_to_end(tmp_path, "stamp", "1") == 0
    assert run_to_end(tmp_path, "stamp", "1") == 0
    assert run_to_end(tmp_path, "stamp", "2") == 0
    assert run_to_end(tmp_path, "reuse") == 0
    first, second, *others = [fact["value"] for fact in events(tmp_path, "reply")]
    assert first == second
    assert first.endswith(":1")
    assert others == ["IdReusedError"] * 3
    assert len(events(tmp_path, "turn")) == 1
    assert history(on_disk(tmp_path), "doomed/d") == ["1"]


def test_p10_recovery_is_to_start_the_program_again(tmp_path: Path) -> None:
    """Nobody sends anything again, repairs anything or calls anything: the work goes on where it was."""
    with child(tmp_path, "chatter") as running:
        running.wait_for("noted", 300)
        running.kill()
    before = on_disk(tmp_path)
    assert len(before.outcomes) < len(before.messages)
    disk = recover(tmp_path)
    assert {message.id for message in before.messages.values()} <= {message.id for message in disk.messages.values()}
    assert disk.outcomes.keys() == disk.messages.keys()
    assert {outcome.status for outcome in disk.outcomes.values()} == {"succeeded"}


@pytest.mark.parametrize(("killers", "most_deaths"), [(1, 8), (5, 30)])
def test_p11_a_message_that_kills_its_process_is_found_out(tmp_path: Path, killers: int, most_deaths: int) -> None:
    """One poisonous message cannot keep a service down, and takes none of a thousand neighbours with it."""
    deaths = 0
    while run_to_end(tmp_path, "swarm", "1000", str(killers)) == KILLED:
        deaths += 1
        assert deaths <= most_deaths, f"{deaths} deaths and no end; {len(on_disk(tmp_path).outcomes)} have ended"
    assert events(tmp_path, "done"), (tmp_path / "errors").read_text(encoding="utf-8")[-3000:]
    disk = on_disk(tmp_path)
    dead = sorted(m.id for m in disk.messages.values() if disk.outcomes[m.seq].status == "dead")
    assert dead == [f"Killer {n}" for n in range(killers)]
    assert Counter(outcome.status for outcome in disk.outcomes.values()) == {"succeeded": 1_000, "dead": killers}
    per_step = Counter(fact["sid"] for fact in events(tmp_path, "end"))
    assert len(per_step) == sum(n % 3 for n in range(1_000))
