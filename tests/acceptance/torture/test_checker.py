"""The checker finds each way of breaking a promise, and none in a history where all are kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define, evolve, field

from tests.acceptance.torture import checker
from tests.acceptance.torture.disk import ActorOnDisk, Disk, Message, Outcome, StepOnDisk
from tests.acceptance.torture.facts import Fact, FactFile, FactReader, read_facts


def fact(event: str, time: float = 0.0, **about: object) -> Fact:
    """A line of the ledger or the diary."""
    return Fact(event, time, 1, dict(about))


def begin(work: str, sid: str, **about: object) -> Fact:
    """A step's first line."""
    usual: dict[str, object] = {"base": 0, "after": list[str](), "sent": list[str](), "saw": ""}
    return Fact("begin", 0.0, 1, {"work": work, "sid": sid, **usual, **about})


@define
class Past:
    """A run in which every promise was kept: a worker handled m0, an account its m0/d and, from outside, m1 and m2."""

    ledger: list[Fact] = field(
        factory=lambda: [
            fact("turn", tag="m0", actor="w"),
            begin("m0/first", "s1"),
            fact("end", work="m0/first", sid="s1"),
            begin("m0/last", "s2", after=["s1"], sent=["m0/d"]),
            fact("end", work="m0/last", sid="s2"),
            fact("released", tags=["m0/d"]),
            fact("turn", tag="m0/d", actor="a"),
            fact("asleep", tag="m0", seconds=1.0, time=10.0),
            fact("awake", tag="m0", time=11.0),
        ]
    )
    diary: list[Fact] = field(
        factory=lambda: [
            fact("acked", n=0, id="m0"),
            fact("acked", n=1, id="m1"),
            fact("reply", n=0, id="m0", value=["m0/first", "m0/last"]),
            fact("reply", n=2, id="m2", value=1_000),
        ]
    )
    disk: Disk = field(
        factory=lambda: Disk(
            actors={
                1: ActorOnDisk(1, "worker/w", 1, 1, "ready", {"history": ["m0"]}),
                2: ActorOnDisk(2, "account/a", 3, 3, "ready", {"history": ["m0/d", "m1", "m2"], "balance": 1_000}),
            },
            messages={
                1: Message(1, "m0", 1, 1, "run", None, None, "m0", 0),
                2: Message(2, "x", 2, 1, "deposit", 1, None, "m0/d", 0),
                3: Message(3, "m1", 2, 2, "deposit", None, None, "m1", 1),
                4: Message(4, "m2", 2, 3, "deposit", None, None, "m2", 2),
            },
            outcomes={
                1: Outcome("succeeded", ["m0/first", "m0/last"], None),
                **{seq: Outcome("succeeded", 1_000, None) for seq in (2, 3, 4)},
            },
            steps=[
                StepOnDisk(1, "first", "act", "completed", "s1", ""),
                StepOnDisk(1, "last", "act", "completed", "s2", ""),
            ],
        )
    )
    ends: checker.Ends = field(factory=checker.Ends)

    def judge(self) -> list[checker.Violation]:
        """What the checker finds."""
        return list(checker.at_end(self.ledger, self.diary, self.ends, self.disk))


def _lose_message(past: Past) -> None:
    del past.disk.messages[3], past.disk.outcomes[3]
    past.disk.actors[2] = ActorOnDisk(2, "account/a", 2, 2, "ready", {"history": ["m0/d", "m2"]})
    past.disk.messages[4] = evolve(past.disk.messages[4], number=2)


def _lose_told_message(past: Past) -> None:
    del past.disk.messages[2], past.disk.outcomes[2]


def _run_without_message(past: Past) -> None:
    past.ledger.append(fact("turn", tag="m9", actor="a"))


def _lose_effect(past: Past) -> None:
    past.disk.actors[2].state["history"].remove("m2")


def _lose_outcome(past: Past) -> None:
    del past.disk.outcomes[4]
    past.disk.actors[2].cursor = 2


def _change_reply(past: Past) -> None:
    past.diary.append(fact("reply", n=2, id="m2", value=7))


def _reject_silently(past: Past) -> None:
    past.disk.outcomes[4] = Outcome("rejected", None, {"text": "no"})


def _double_effect(past: Past) -> None:
    past.disk.actors[2].state["history"].append("m1")


def _foreign_order_of_effects(past: Past) -> None:
    past.disk.actors[2].state["history"][1:] = ["m2", "m1"]


def _send_twice(past: Past) -> None:
    past.disk.messages[5] = Message(5, "again", 2, 4, "deposit", 1, None, "m0/d", 0)
    past.disk.outcomes[5] = Outcome("succeeded", 1_000, None)
    past.disk.actors[2].tail = past.disk.actors[2].cursor = 4


def _leave_a_gap(past: Past) -> None:
    past.disk.messages[4] = evolve(past.disk.messages[4], number=4)


def _end_above_cursor(past: Past) -> None:
    past.disk.actors[2].cursor = 2


def _skip_below_cursor(past: Past) -> None:
    del past.disk.outcomes[3]


def _corrupt_file(past: Past) -> None:
    past.disk.integrity = "row 3 missing from index mailbox"


def _reorder(past: Past) -> None:
    past.disk.messages[3] = evolve(past.disk.messages[3], n=2)
    past.disk.messages[4] = evolve(past.disk.messages[4], n=1)


def _reorder_in_a_turn(past: Past) -> None:
    past.disk.messages[3] = evolve(past.disk.messages[3], cause=1, n=0)
    past.disk.messages[2] = evolve(past.disk.messages[2], n=1)


def _begin_completed_step(past: Past) -> None:
    past.ends.completed["s1"] = 3
    past.ledger.append(begin("m0/first", "s1"))


def _begin_step_that_was_built_upon(past: Past) -> None:
    past.ledger.append(begin("m0/first", "s1"))


def _retry_caught_failure(past: Past) -> None:
    past.ledger += [begin("m0/after", "s3", saw="LookupError"), begin("m0/broken", "s4")]


def _forget_completion(past: Past) -> None:
    past.ends.completed["s9"] = 0


def _change_step_id(past: Past) -> None:
    past.ledger.append(begin("m0/last", "s3", after=["s1"], sent=["m0/d"]))


def _share_step_id(past: Past) -> None:
    past.ledger.append(begin("m0/other", "s2"))


def _change_arguments(past: Past) -> None:
    past.ledger.append(begin("m0/last", "s2", after=["s1"], sent=["m0/d"], saw="another uuid"))


def _begin_before_completion(past: Past) -> None:
    past.disk.steps[0] = evolve(past.disk.steps[0], status="started", sid="")


def _begin_before_started_record(past: Past) -> None:
    del past.disk.steps[1]


def _begin_before_state(past: Past) -> None:
    past.ledger[1] = begin("m0/first", "s1", base=2)


def _never_end(past: Past) -> None:
    past.disk.actors[2].status = "parked"


def _kill_an_innocent(past: Past) -> None:
    past.disk.outcomes[4] = Outcome("dead", None, {"text": "gone"})


def _skip_a_step(past: Past) -> None:
    del past.ledger[4]


def _send_a_dropped_segment(past: Past) -> None:
    past.disk.messages[4] = evolve(past.disk.messages[4], tag="m2/never")


def _make_money(past: Past) -> None:
    past.disk.actors[2].state["balance"] = 1_001


def _sleep_too_little(past: Past) -> None:
    past.ledger[8] = fact("awake", tag="m0", time=10.5)


def _deliver_early(past: Past) -> None:
    past.disk.messages[2] = evolve(past.disk.messages[2], due=99.0)


def _meet_an_error(past: Past) -> None:
    past.diary.append(fact("surprise", text="KeyError"))


BROKEN: list[tuple[Callable[[Past], None], str, str]] = [
    (_lose_message, "P1", "acknowledged and not on disk"),
    (_lose_told_message, "P1", "before a durable point that has passed"),
    (_run_without_message, "P2", "a message that is not on disk"),
    (_lose_effect, "P7", "its effect is not in account/a"),
    (_lose_outcome, "P7", "no outcome on disk"),
    (_change_reply, "P9", "two outcomes for one id"),
    (_reject_silently, "P7", "the outcome on disk is rejected"),
    (_double_effect, "P5", "too much ['m1']"),
    (_foreign_order_of_effects, "P5", "first difference at 1"),
    (_send_twice, "P5", "sent 2 times"),
    (_leave_a_gap, "P4", "not dense"),
    (_end_above_cursor, "P4", "number 3 (m2) has ended"),
    (_skip_below_cursor, "P4", "has no outcome"),
    (_corrupt_file, "P4", "integrity"),
    (_reorder, "P3", "outside sent m2 before m1"),
    (_reorder_in_a_turn, "P3", "worker/w sent"),
    (_begin_completed_step, "P6", "began again"),
    (_begin_step_that_was_built_upon, "P6", "built upon its result"),
    (_retry_caught_failure, "P6", "m0/broken"),
    (_forget_completion, "P6", "a completion that was on disk is gone"),
    (_change_step_id, "P6", "two ids for one step"),
    (_share_step_id, "P6", "one id for two steps"),
    (_change_arguments, "P6", "other arguments"),
    (_begin_before_completion, "P7", "is not completed on disk"),
    (_begin_before_started_record, "P7", "started-record"),
    (_begin_before_state, "P7", "2 turns of worker/w, 1 on disk"),
    (_never_end, "P4", "is parked in the end"),
    (_kill_an_innocent, "P4", "ended dead"),
    (_skip_a_step, "P5", "never ended in the world"),
    (_send_a_dropped_segment, "P5", "never committed"),
    (_make_money, "P5", "1001 in the end"),
    (_sleep_too_little, "time", "slept too little"),
    (_deliver_early, "time", "before it was due"),
    (_meet_an_error, "P10", "KeyError"),
]


def test_a_sound_history_passes() -> None:
    """A checker that cries at everything shows nothing."""
    assert Past().judge() == []


@pytest.mark.parametrize(("breaking", "promise", "text"), BROKEN, ids=[each[0].__name__[1:] for each in BROKEN])
def test_a_broken_history_is_found(breaking: Callable[[Past], None], promise: str, text: str) -> None:
    """Each promise broken in a history is named, with its evidence."""
    past = Past()
    breaking(past)
    assert any(found.promise == promise and text in found.text for found in past.judge()), past.judge()


def test_a_line_whose_writer_was_killed_in_the_middle_is_none(tmp_path: Path) -> None:
    """What comes after it is read as it is, whether that was there at the first look or not."""
    path = tmp_path / "ledger"
    before, after = FactFile(path, 1), FactFile(path, 2)
    reader = FactReader(path)
    before.write("begin", work="a")
    with path.open("ab") as torn:
        torn.write(b'\x1e["end",1.0,1,{"wo')
    assert [found["work"] for found in reader.news()] == ["a"]
    after.write("begin", work="b")
    assert [found["work"] for found in reader.news()] == ["b"]
    assert [found["work"] for found in read_facts(path)] == ["a", "b"]
