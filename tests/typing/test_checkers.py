"""pyright, mypy and ty, run on calls that are right and on calls that are wrong, as a user's project runs them."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = "tests/typing/right_calls.py"
WRONG = "tests/typing/wrong_calls.py"

MARK = re.compile(r"# (E\d+)\b")

LET_THROUGH = {
    "pyright": {"E86", "E87", "E131"},
    "mypy": {"E86", "E87", "E131"},
    "ty": {"E61", "E63", "E85", "E86", "E87", "E128", "E131", "E142"},
}
"""Wrong calls that a checker accepts.

E86 and E87: to a checker a reference is an actor, so it has the actor's fields; at run time it refuses them.
E61 and E63: ty asks for the await of a `CoroutineType`, mypy of a `Coroutine`; a call of a blocking step is the latter.
E85: ty takes an argument for an actor if a subclass of both could be made.
E128 and E142: ty lets one compare a literal with any text, also with one that it never is.
E131: what has a default need not be given, so the handler can be called with one thing; at run time `watch` refuses it.
"""


class Complaint(NamedTuple):
    """What a checker says of one line."""

    path: str
    line: int
    text: str


def run(tool: str, *arguments: str, **environment: str) -> str:
    """What a checker prints; its exit status only tells whether it complains, or failed itself."""
    command = [sys.executable, "-m", tool, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def pyright() -> Iterator[Complaint]:
    """Strict and nothing else, by a configuration of its own: the project's excludes the wrong calls."""
    found = run(
        "pyright",
        *("--project", "tests/typing/pyrightconfig.json", "--pythonpath", sys.executable, "--outputjson"),
        PYRIGHT_PYTHON_GLOBAL_NODE="0",
        PYRIGHT_PYTHON_IGNORE_WARNINGS="1",
    )
    for each in json.loads(found)["generalDiagnostics"]:
        path = Path(each["file"]).relative_to(ROOT).as_posix()
        yield Complaint(path, each["range"]["start"]["line"] + 1, each["message"])


def mypy() -> Iterator[Complaint]:
    """Strict and nothing else: what the project turns on beyond that, a user's may not have."""
    found = run(
        "mypy",
        *("--config-file=", "--strict", "--explicit-package-bases", "--output=json"),
        *("--python-version=3.11", "--python-executable", sys.executable, "--cache-dir=.mypy_cache/users"),
        *(RIGHT, WRONG),
        MYPYPATH="src",
    )
    for each in map(json.loads, found.splitlines()):
        if each["severity"] == "error":
            yield Complaint(each["file"], each["line"], each["message"])


def ty() -> Iterator[Complaint]:
    """As it is installed."""
    found = run("ty", "check", "--output-format=gitlab", "--python", sys.executable, RIGHT, WRONG)
    for each in json.loads(found):
        where = each["location"]
        yield Complaint(where["path"], where["positions"]["begin"]["line"], each["description"])


def marks() -> dict[str, set[int]]:
    """The lines of each wrong call; a decorated definition has two, of which a checker reports one."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for number, line in enumerate((ROOT / WRONG).read_text("utf-8").splitlines(), 1):
        if mark := MARK.search(line):
            found[mark[1]].add(number)
    return dict(found)


CHECKERS: dict[str, Callable[[], Iterator[Complaint]]] = {"pyright": pyright, "mypy": mypy, "ty": ty}


@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers_infer_replies_and_refuse_wrong_calls(checker: str) -> None:
    """A wrong call is underlined in the user's editor, and stopped by their CI, before any message is sent."""
    complaints = list(CHECKERS[checker]())
    flagged = {each.line for each in complaints if each.path == WRONG}
    wrong = marks()
    allowed = {line for lines in wrong.values() for line in lines}

    surplus = [each for each in complaints if each.path != WRONG or each.line not in allowed]
    assert not surplus, "\n".join(f"{each.path}:{each.line}: {each.text}" for each in surplus)
    assert {name for name, lines in wrong.items() if not lines & flagged} == LET_THROUGH[checker]


def test_wrong_calls_are_numbered() -> None:
    """A reader who is told of E17 finds one E17."""
    assert list(marks()) == [f"E{number}" for number in range(1, len(marks()) + 1)]
