"""`perdure run` told to run what is no system."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from perdure import Limits

MODULE = """
from perdure import ActorSystem
def client():
    return ActorSystem.client("a.db")
def other():
    return ActorSystem("mysql://me:s3cret@host/shop")
def unset():
    return ActorSystem(None)
"""


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("./wrong:client", "is no module:attribute"),
        (".wrong:client", "is no module:attribute"),
        ("wrong:client", "runs no actors. Name an ActorSystem"),
        ("wrong:other", "'mysql://…': not a target perdure knows"),
        ("wrong:unset", "None: is no target"),
    ],
)
def test_a_wrong_call_is_one_line_and_the_code_for_it(place: str, said: str, tmp_path: Path) -> None:
    """A service's supervisor does not start again what can never run, and its log says why, without a password."""
    (tmp_path / "wrong.py").write_text(MODULE, encoding="utf-8")
    command = [sys.executable, "-m", "perdure", "run", place]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "s3cret" not in ended.stderr


def test_a_time_that_is_no_number_is_a_wrong_call(tmp_path: Path) -> None:
    """A drain that is neither over nor to come would never end."""
    command = [sys.executable, "-m", "perdure", "run", "--drain", "nan", "shop:system"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "nan is no number of seconds" in ended.stderr


@pytest.mark.parametrize("name", ["drain", "grace", "query", "lease", "heartbeat", "retention", "evict_after"])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    """Whatever compares with it would be false."""
    with pytest.raises(ValueError, match=rf"Limits\(.*{name}=nan"):
        attrs.evolve(Limits(), **{name: math.nan})
