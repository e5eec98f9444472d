"""What must hold of a supervision tree whenever its process is killed: read from the dead database and the ledger.

- A restarting member has only restarting members behind it in start order: an order is carried out eldest first.
- Within one life of the process, who starts finds its elders up; who is stopped, without having failed itself, has no
  younger one up.
- Nobody starts twice in one life unless a failure was judged that its group, or a group above, has to bear.
- In the end: every accepted message was handled, once, in the state of its actor.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from attrs import frozen

from tests.acceptance.torture.facts import Fact, read_facts

ORDER = ("first", "left", "middle", "right", "last")
"""Start order, depth first. Everybody's elders are those before it: rest_for_one over a group of one_for_all."""

_GROVE = frozenset({"left", "middle", "right"})


@frozen
class Failed:
    """A failure as it was judged."""

    actor: str
    at: float
    decision: str

    @property
    def bears(self) -> frozenset[str]:
        """Who restarts because of it."""
        if self.actor == "first":
            return frozenset(ORDER)
        if self.actor == "last":
            return frozenset({"last"})
        return _GROVE | {"last"} if self.decision != "restart" else _GROVE


def read(path: Path) -> tuple[dict[str, str], list[Failed], dict[str, list[str]], int]:
    """The lives of the trees, the failures, the states, and how many messages have no outcome."""
    with closing(sqlite3.connect(path)) as connection:
        lives = dict(connection.execute("SELECT key, life FROM actor WHERE kind = 'tree'"))
        sql = "SELECT key, at, decision FROM failure JOIN actor ON id = failure.actor WHERE kind = 'tree' ORDER BY seq"
        failed = [Failed(*row) for row in connection.execute(sql)]
        sql = "SELECT key, state FROM snapshot JOIN actor ON id = snapshot.actor WHERE kind = 'tree'"
        states = {key: json.loads(state).get("done", []) for key, state in connection.execute(sql)}
        sql = "SELECT count(*) FROM message WHERE seq NOT IN (SELECT message FROM outcome)"
        ((open_,),) = connection.execute(sql)
    return lives, failed, states, open_


def judge(directory: Path) -> list[str]:
    """Everything that is wrong with what a killed process left."""
    lives, failed, _, _ = read(directory / "app.db")
    runs: dict[int, list[Fact]] = {}
    for fact in read_facts(directory / "ledger"):
        runs.setdefault(fact.run, []).append(fact)
    wrong = list(_half_way(lives))
    for number, facts in runs.items():
        wrong += [f"run {number}: {text}" for text in (*_order(facts), *_needless(facts, failed))]
    return wrong


def _half_way(lives: dict[str, str]) -> Iterator[str]:
    """An order that was being carried out left the eldest running and the youngest restarting."""
    grove = [lives[name] for name in ORDER if name in _GROVE and name in lives]
    if grove != sorted(grove, key=lambda life: life == "restarting"):
        yield f"lives {lives}: one behind a restarting one is not restarting"
    if lives.get("first") == "restarting" and set(lives.values()) != {"restarting"}:
        yield f"lives {lives}: what rests on the first one is not restarting with it"
    yield from (f"{name} is {life}" for name, life in lives.items() if life not in {"running", "restarting"})


def _order(facts: list[Fact]) -> Iterator[str]:
    up: set[str] = set()
    seen: set[str] = set()
    failing: set[str] = set()
    stumbled = False
    for fact in facts:
        if fact.event == "failed":
            failing.add(fact["actor"])
            stumbled = stumbled or fact["actor"] in _GROVE
        elif fact.event == "up":
            name = fact["actor"]
            # an elder that failed by itself meanwhile is seen to by an order of its own, which is about to come
            elders = set(ORDER[: ORDER.index(name)]) - failing
            # the grove restarts by itself beside the last one, once it has stood
            missing = elders - (seen if name == "last" and "first" in up else up)
            # one of the grove that fails while it starts has the grove's own order see to the rest
            if missing and not (stumbled and missing <= _GROVE):
                yield f"{name} started while {sorted(missing)} were down"
            seen.add(name)
            failing.discard(name)
            if name in up:
                yield f"{name} started while it was up"
            up.add(name)
        elif fact.event == "down":
            name = fact["actor"]
            young = [one for one in ORDER[ORDER.index(name) + 1 :] if one in up and _bound(name, one)]
            if young and not fact["crashed"]:
                yield f"{name} was stopped while {young} were up"
            up.discard(name)


def _bound(elder: str, younger: str) -> bool:
    """Whether the younger one is always stopped before the elder: within a group, or by rest_for_one above."""
    return elder == "first" or (elder in _GROVE and younger in _GROVE)


def _needless(facts: list[Fact], failed: list[Failed]) -> Iterator[str]:
    """Starts that no failure of this life accounts for."""
    begin, end = facts[0].time, facts[-1].time
    mine = [one for one in failed if begin <= one.at <= end + 1.0]
    for name in ORDER:
        starts = sum(fact.event == "up" and fact["actor"] == name for fact in facts)
        allowed = 1 + sum(name in one.bears for one in mine)
        if starts > allowed:
            yield f"{name} started {starts} times, and only {allowed - 1} failures concern it"


def judge_end(directory: Path) -> list[str]:
    """Everything that is wrong when all work is done."""
    lives, _, states, open_ = read(directory / "app.db")
    wrong = [f"{name} is {life}" for name, life in lives.items() if life != "running"]
    if open_:
        wrong.append(f"{open_} messages have no outcome")
    sent = [line.split()[0] for line in (directory / "sent").read_text(encoding="utf-8").splitlines()]
    done = [message for messages in states.values() for message in messages]
    wrong += [f"message {one} was lost" for one in sorted(set(sent) - set(done))[:5]]
    wrong += [f"message {one} changed the state twice" for one in sorted(set(done)) if done.count(one) > 1]
    return wrong
