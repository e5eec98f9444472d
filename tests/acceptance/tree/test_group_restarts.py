"""A supervision tree under SIGKILL while groups of it restart, judged at each death."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.acceptance.forked import Forked
from tests.acceptance.torture.facts import FactReader
from tests.acceptance.tree import program
from tests.acceptance.tree.judging import judge, judge_end, read

_ROUNDS = 30  # a seed: 60 in all
_LONG_ROUNDS = 125  # a seed: 500 in all
_START_SECONDS = 30.0
_FINISH_SECONDS = 90.0


def _start(directory: Path, seed: int, run: int, *, finish: bool = False) -> Forked:
    return Forked(program.main, directory, seed, run, finish, errors=directory / "errors")


def _kill_at_random(directory: Path, seed: int, run: int, chance: Random) -> None:
    ledger = FactReader(directory / "ledger")
    process = _start(directory, seed, run)
    try:
        end = time.monotonic() + _START_SECONDS
        while not any(fact.run == run for fact in ledger.news()):
            assert not process.ends_within(0), (directory / "errors").read_text()[-3000:]
            assert time.monotonic() < end, "the program did not begin"
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.5))
        assert not process.ends_within(0), (directory / "errors").read_text()[-3000:]
    finally:
        process.kill()


def _rounds(directory: Path, seed: int, rounds: int) -> None:
    chance = Random(seed)
    half_way = 0
    for run in range(1, rounds + 1):
        _kill_at_random(directory, seed, run, chance)
        wrong = judge(directory)
        assert not wrong, f"seed {seed}, death {run}: {wrong[:10]}"
        half_way += "restarting" in read(directory / "app.db")[0].values()
    print(f"seed {seed}: {rounds} kills, {half_way} in the middle of a group restart")  # noqa: T201  # `make torture` tells it
    assert half_way, "no kill came in the middle of a group restart"
    process = _start(directory, seed, rounds + 1, finish=True)
    try:
        assert process.ends_within(_FINISH_SECONDS)
        assert process.status == 0, (directory / "errors").read_text()[-3000:]
    finally:
        process.kill()
    wrong = judge(directory) + judge_end(directory)
    assert not wrong, f"seed {seed}, in the end: {wrong[:10]}"


@pytest.mark.parametrize("seed", range(2))
def test_a_tree_is_consistent_whenever_its_process_dies(tmp_path: Path, seed: int) -> None:
    """A death in the middle of a group restart loses no message, and restarts nobody who need not be."""
    _rounds(tmp_path, seed, _ROUNDS)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 104))
def test_a_tree_is_consistent_over_five_hundred_deaths(tmp_path: Path, seed: int) -> None:
    """What sixty deaths do not find, five hundred may."""
    _rounds(tmp_path, seed, _LONG_ROUNDS)
