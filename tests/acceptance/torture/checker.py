"""The promises, as pure functions over what a run left behind.

`at_stop` judges one death (or one leaving) of the program: what the world had seen by then must be on disk.
`at_end` judges the whole run, after a last program has brought everything to its end. Each violation names the promise
and the evidence.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.acceptance.torture.disk import ActorOnDisk, Disk, Message, Outcome
    from tests.acceptance.torture.facts import Fact


@frozen
class Violation:
    """A promise that did not hold, and how one knows."""

    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


@define
class Ends:
    """What was on disk when processes ended, kept over a run: in which ledger line each completion was known."""

    completed: dict[str, int] = field(factory=dict[str, int])

    def add(self, disk: Disk, ledger_lines: int) -> None:
        """Note the steps that must not begin after this line of the ledger."""
        for step in disk.steps:
            if step.status == "completed":
                self.completed.setdefault(step.sid, ledger_lines)


class Index:
    """A disk's messages by the names that facts use."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.by_id = {message.id: message for message in disk.messages.values()}
        self.by_tag = {message.tag: message for message in disk.messages.values()}
        self.histories = {actor.id: actor.history for actor in disk.actors.values()}
        self.handled = {actor: frozenset(history) for actor, history in self.histories.items()}
        self.completed = disk.completed

    def outcome(self, message: Message) -> Outcome | None:
        """How a message ended, if it has."""
        return self.disk.outcomes.get(message.seq)

    def name(self, actor: int) -> str:
        """An actor's name."""
        return self.disk.actors[actor].name


def at_stop(ledger: Sequence[Fact], diary: Sequence[Fact], ends: Ends, disk: Disk) -> Iterator[Violation]:
    """Judge what was on disk when a process ended, against all that had been seen by then."""
    index = Index(disk)
    yield from acknowledged_are_kept(ledger, diary, index)
    yield from started_are_kept(ledger, index)
    yield from replies_are_kept(ledger, diary, index)
    yield from steps_wait_for_what_they_need(ledger, index)
    yield from completed_never_begin_again(ledger, ends, index)
    yield from steps_keep_their_id(ledger)
    yield from answers_agree(ledger, diary)
    yield from database_is_sound(index)
    yield from state_is_exact(index)
    yield from order_is_kept(diary, index)
    yield from time_is_kept(ledger, index)
    yield from nothing_surprised(diary)


def at_end(ledger: Sequence[Fact], diary: Sequence[Fact], ends: Ends, disk: Disk) -> Iterator[Violation]:
    """Judge a whole run after everything has come to its end."""
    index = Index(disk)
    yield from at_stop(ledger, diary, ends, disk)
    yield from all_has_ended(index)
    yield from turns_did_all_they_say(ledger, index)
    yield from dropped_segments_are_gone(index)
    yield from money_is_conserved(index)


# at every stop --------------------------------------------------------------------------------------------------------


def acknowledged_are_kept(ledger: Sequence[Fact], diary: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P1: a tell that returned, or whose segment has committed, is on disk."""
    for fact in diary:
        if fact.event == "acked" and fact["id"] not in index.by_id:
            yield Violation("P1", f"acknowledged and not on disk: {fact}")
    for fact in ledger:
        if fact.event == "released":
            for tag in fact["tags"]:
                if tag not in index.by_tag:
                    yield Violation(
                        "P1", f"sent before a durable point that has passed, and not on disk: {tag}, {fact}"
                    )


def started_are_kept(ledger: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P2: a message whose handler has run is on disk."""
    for fact in ledger:
        if fact.event == "turn" and fact["tag"] not in index.by_tag:
            yield Violation("P2", f"a handler ran for a message that is not on disk: {fact}")


def replies_are_kept(ledger: Sequence[Fact], diary: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P7: whoever saw an answer finds its outcome, and its effect in the receiver's state."""
    for fact in (*ledger, *diary):
        if fact.event not in {"reply", "heard", "refused"}:
            continue
        message = index.by_id.get(fact["id"])
        outcome = index.outcome(message) if message else None
        if message is None or outcome is None:
            yield Violation("P7", f"an answer was seen and its message has no outcome on disk: {fact}")
        elif fact.event == "refused":
            expected = {"Rejected": "rejected", "DeadLetterError": "dead"}[fact["error"]]
            if outcome.status != expected:
                yield Violation("P7", f"the outcome on disk is {outcome.status}, seen was {fact}")
        elif outcome.status != "succeeded" or outcome.result != fact["value"]:
            yield Violation("P7", f"the outcome on disk is {outcome.status} {outcome.result!r}, seen was {fact}")
        elif message.tag not in index.handled[message.actor]:
            yield Violation("P7", f"an answer was seen and its effect is not in {index.name(message.actor)}: {fact}")


def steps_wait_for_what_they_need(ledger: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P7: no step starts before everything it depends on is durable."""
    records: Counter[int] = Counter(step.message for step in index.disk.steps)
    begun: defaultdict[str, set[str]] = defaultdict(set)
    erased = {fact["tag"] for fact in ledger if fact.event == "raised"}
    for fact in ledger:
        if fact.event != "begin":
            continue
        tag = fact["work"].rpartition("/")[0]
        begun[tag].add(fact["work"])
        for sid in fact["after"]:
            if sid not in index.completed:
                yield Violation(
                    "P7", f"a step began although {sid}, which it depends on, is not completed on disk: {fact}"
                )
        for sent in fact["sent"]:
            if sent not in index.by_tag:
                yield Violation("P7", f"a step began although {sent}, told before it, is not on disk: {fact}")
        message = index.by_tag.get(tag)
        if message is not None and len(index.histories[message.actor]) < fact["base"]:
            known = len(index.histories[message.actor])
            yield Violation(
                "P7", f"a step began on {fact['base']} turns of {index.name(message.actor)}, {known} on disk: {fact}"
            )
    for tag, works in begun.items():
        message = index.by_tag.get(tag)
        if message is not None and tag not in erased and records[message.seq] < len(works):
            text = (
                f"{tag} began {len(works)} steps ({', '.join(sorted(works))}), {records[message.seq]} records on disk"
            )
            yield Violation("P7", f"a step began before its started-record was durable: {text}")


def database_is_sound(index: Index) -> Iterator[Violation]:
    """P4: mailboxes are dense, and exactly the messages up to the cursor have an outcome."""
    disk = index.disk
    if disk.integrity != "ok":
        yield Violation("P4", f"SQLite's integrity check: {disk.integrity}")
    boxes: defaultdict[int, list[Message]] = defaultdict(list)
    for message in disk.messages.values():
        boxes[message.actor].append(message)
    for seq in disk.outcomes.keys() - disk.messages.keys():
        yield Violation("P4", f"an outcome without a message: {seq}")
    for orphan in boxes.keys() - disk.actors.keys():
        yield Violation("P4", f"messages without an actor: {boxes[orphan]}")
    for actor in disk.actors.values():
        yield from _mailbox_is_sound(index, actor, boxes[actor.id])
    for tag, count in Counter(message.tag for message in disk.messages.values()).items():
        if count > 1:
            yield Violation("P5", f"{tag} was sent {count} times")


def _mailbox_is_sound(index: Index, actor: ActorOnDisk, messages: Sequence[Message]) -> Iterator[Violation]:
    numbers = sorted(message.number for message in messages if message.number is not None)
    if numbers != list(range(1, actor.tail + 1)):
        yield Violation("P4", f"{actor.name}: numbers are not dense up to {actor.tail}: {numbers}")
    for message in messages:
        ended = index.outcome(message) is not None
        if ended != (message.number is not None and message.number <= actor.cursor):
            about = f"number {message.number} ({message.tag}) {'has ended' if ended else 'has no outcome'}"
            yield Violation("P4", f"{actor.name}: cursor {actor.cursor}, but {about}")


def state_is_exact(index: Index) -> Iterator[Violation]:
    """P5: an actor's state holds the effect of each succeeded message once, in the mailbox's order, and no other."""
    expected: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for message in index.disk.messages.values():
        outcome = index.outcome(message)
        if outcome is not None and outcome.status == "succeeded":
            expected[message.actor].append((message.number or 0, message.tag))
    for actor, history in index.histories.items():
        right = [tag for _, tag in sorted(expected[actor])]
        if history != right:
            place = next((i for i, pair in enumerate(zip(history, right, strict=False)) if pair[0] != pair[1]), -1)
            text = f"{len(history)} effects, {len(right)} succeeded turns, first difference at {place}"
            lost, extra = sorted(set(right) - set(history)), list((Counter(history) - Counter(right)).elements())
            yield Violation("P5", f"{index.name(actor)}: {text}; lost {lost}, too much {extra}")


def order_is_kept(diary: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P3: what one sender sent to one receiver is handled in the order it was sent."""
    # A caller that gave up may send again later; such a message has two places.
    resent = {fact["id"] for fact in diary if fact.event == "cancelled"}
    pairs: defaultdict[tuple[str, int], list[tuple[int, int, int, str]]] = defaultdict(list)
    for message in index.disk.messages.values():
        if message.due is not None or message.number is None or message.tag in resent:
            continue
        cause = index.disk.messages.get(message.cause) if message.cause is not None else None
        if cause is None:
            pairs["outside", message.actor].append((0, message.n, message.number, message.tag))
        else:
            pairs[index.name(cause.actor), message.actor].append(
                (cause.number or 0, message.n, message.number, message.tag)
            )
    for (sender, receiver), sent in pairs.items():
        numbers = [number for _, _, number, _ in sorted(sent)]
        if numbers != sorted(numbers):
            got = [(number, tag) for _, _, number, tag in sorted(sent)]
            wrong = next((a, b) for a, b in itertools.pairwise(got) if a[0] > b[0])
            yield Violation(
                "P3", f"{sender} sent {wrong[0][1]} before {wrong[1][1]}, {index.name(receiver)} has {wrong}"
            )


# at the end -----------------------------------------------------------------------------------------------------------


def completed_never_begin_again(ledger: Sequence[Fact], ends: Ends, index: Index) -> Iterator[Violation]:
    """P6: a step whose completion was on disk when a process ended never began again, and its record stayed."""
    for line, fact in enumerate(ledger):
        if fact.event == "begin" and ends.completed.get(fact["sid"], line + 1) <= line:
            yield Violation(
                "P6", f"completed on disk after ledger line {ends.completed[fact['sid']]}, began again: {fact}"
            )
    for sid in ends.completed.keys() - index.completed:
        yield Violation("P6", f"a completion that was on disk is gone: {sid}")
    yield from _built_upon_never_begin_again(ledger)


def _built_upon_never_begin_again(ledger: Sequence[Fact]) -> Iterator[Violation]:
    """A step that began shows that what it was given was durable: those completions, and a failure that was caught."""
    durable: dict[str, Fact] = {}
    for fact in ledger:
        if fact.event != "begin":
            continue
        for name in (fact["sid"], fact["work"]):
            if name in durable:
                yield Violation("P6", f"began again: {fact}, although {durable[name]} was built upon its result")
        durable.update(dict.fromkeys(fact["after"], fact))
        if fact["work"].endswith("/after") and fact["saw"] == "LookupError":
            durable[fact["work"].removesuffix("after") + "broken"] = fact


def steps_keep_their_id(ledger: Sequence[Fact]) -> Iterator[Violation]:
    """P6: an interrupted step runs again under the same id, with the arguments it had; no two steps share an id."""
    first: dict[str, Fact] = {}
    names: dict[str, str] = {}
    for fact in ledger:
        if fact.event != "begin":
            continue
        before = first.setdefault(fact["work"], fact)
        if before["sid"] != fact["sid"]:
            yield Violation("P6", f"two ids for one step: {before} and {fact}")
        elif (before["saw"], before["after"]) != (fact["saw"], fact["after"]):
            yield Violation("P6", f"a replay gave a step other arguments: {before} and {fact}")
        if names.setdefault(fact["sid"], fact["work"]) != fact["work"]:
            yield Violation("P6", f"one id for two steps: {names[fact['sid']]} and {fact}")


def answers_agree(ledger: Sequence[Fact], diary: Sequence[Fact]) -> Iterator[Violation]:
    """P9: same id, same outcome, for every sender and in every run."""
    answers: dict[str, Fact] = {}
    for fact in (*diary, *ledger):
        if fact.event in {"reply", "heard", "refused"}:
            first = answers.setdefault(fact["id"], fact)
            if _answer(first) != _answer(fact):
                yield Violation("P9", f"two outcomes for one id: {first} and {fact}")


def _answer(fact: Fact) -> Any:  # noqa: ANN401  # any JSON value
    return fact.about.get("value"), fact.about.get("error")


def all_has_ended(index: Index) -> Iterator[Violation]:
    """P4: every message has the one outcome that its handler is written for."""
    for message in index.disk.messages.values():
        outcome = index.outcome(message)
        if outcome is None:
            yield Violation("P4", f"never ended: {message}")
            continue
        expected = _expected_status(message)
        if outcome.status not in expected:
            error = outcome.error and outcome.error.get("text")
            yield Violation("P4", f"{message.tag} ({message.handler}) ended {outcome.status}, not {expected}: {error}")
        if message.handler == "poison" and index.disk.attempts.get(message.seq) not in {4, 5}:
            yield Violation("P4", f"{message.tag} had {index.disk.attempts.get(message.seq)} attempts, not 5")
    for actor in index.disk.actors.values():
        if actor.status != "ready":
            yield Violation("P4", f"{actor.name} is {actor.status} in the end")


def _expected_status(message: Message) -> tuple[str, ...]:
    if message.handler == "poison":
        return ("dead",)
    if message.handler == "refuse":
        return ("rejected",)
    return ("rejected", "succeeded") if message.handler == "deposit" else ("succeeded",)


_TELLS = {
    "bear": ("/told", "/asked"),
    "bound": ("/q",),
    "hug": ("/q",),
    "hurry": ("/q",),
    "pay_asking": ("/a", "/b", "/d"),
    "pay_telling": ("/d0", "/d1", "/d2"),
    "poison": ("/d",),
    "race": ("/q0", "/q1"),
    "refuse": ("/d",),
    "run": ("/d",),
    "start": ("/d", "/c"),
    "stumble": ("/d",),
}
_LISTS_ITS_STEPS = {"run", "race", "stumble", "survive", "nap", "first_of", "hurry", "some_fail", "bound", "hug"}


def turns_did_all_they_say(ledger: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """P5: a turn that succeeded has all of its steps in its journal and in the world, and all of its messages sent."""
    ended = {fact["work"] for fact in ledger if fact.event == "end"}
    for message in index.disk.messages.values():
        outcome = index.outcome(message)
        for suffix in _TELLS.get(message.handler, ()):
            if message.tag + suffix not in index.by_tag:
                yield Violation(
                    "P5", f"{message.tag} ({message.handler}) ended and {message.tag}{suffix} was never sent"
                )
        if outcome is not None and outcome.status == "succeeded" and message.handler in _LISTS_ITS_STEPS:
            for work in outcome.result:
                if work not in ended:
                    yield Violation("P5", f"{message.tag} succeeded and its step {work} never ended in the world")


def dropped_segments_are_gone(index: Index) -> Iterator[Violation]:
    """P5: what an unfinished segment sent was never sent."""
    for tag in index.by_tag:
        if tag.endswith("/never"):
            yield Violation("P5", f"sent by a segment that never committed: {tag}")


def money_is_conserved(index: Index) -> Iterator[Violation]:
    """P5: across all actors, what one loses another gains."""
    total = expected = 0
    for actor in index.disk.actors.values():
        kind = actor.name.partition("/")[0]
        opening = 1_000 if kind in {"account", "parent"} else 0
        total += actor.state.get("balance", actor.state.get("purse", opening))
        expected += opening
    if total != expected:
        yield Violation("P5", f"money: {total} in the end, {expected} in the beginning")


def time_is_kept(ledger: Sequence[Fact], index: Index) -> Iterator[Violation]:
    """Section 7: a sleep is never short, and no delayed message is early."""
    asleep: dict[str, Fact] = {}
    for fact in ledger:
        if fact.event == "asleep":
            asleep.setdefault(fact["tag"], fact)
        elif fact.event == "awake" and fact.time - asleep[fact["tag"]].time < fact_seconds(asleep[fact["tag"]]):
            yield Violation(
                "time", f"slept too little: {fact.time - asleep[fact['tag']].time} s, {asleep[fact['tag']]}"
            )
        elif fact.event == "turn":
            message = index.by_tag.get(fact["tag"])
            if message is not None and message.due is not None and fact.time < message.due - 0.001:
                yield Violation("time", f"handled {message.due - fact.time:.3f} s before it was due: {fact}")


def fact_seconds(fact: Fact) -> float:
    """How long a sleep was to last, less the clock's grain."""
    return float(fact["seconds"]) - 0.001


def nothing_surprised(diary: Sequence[Fact]) -> Iterator[Violation]:
    """P10: the sender outside met no error that it was not written for."""
    for fact in diary:
        if fact.event == "surprise":
            yield Violation("P10", f"in run {fact.run}: {fact['text']}")
