"""Runs the program, kills it at random instants, and has the checker judge what is left each time.

`python -m tests.acceptance.torture.harness --seed S --kills K` repeats a run; its process ends with 1 on a violation.
How a run unfolds depends on the machine too, so a seed repeats the work and the instants, not every interleaving.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal

from attrs import define, field, frozen

from tests.acceptance.forked import Forked
from tests.acceptance.torture import checker, workload
from tests.acceptance.torture.disk import count_unfinished, read_disk
from tests.acceptance.torture.facts import read_facts

_LEAVE_SECONDS = 20.0
_FINISH_SECONDS = 120.0
_POLL_SECONDS = 0.1

End = Literal["killed", "left"]


@frozen
class Options:
    """A run: its seed, how many deaths, and how long a life lasts at most."""

    seed: int
    kills: int
    life_seconds: float = 0.8
    leave: float = 0.1
    sabotage: str | None = None

    @property
    def command(self) -> str:
        """What repeats this run."""
        how = f"--life {self.life_seconds} --leave {self.leave}"
        how += f" --sabotage {self.sabotage}" if self.sabotage else ""
        return f"python -m tests.acceptance.torture.harness --seed {self.seed} --kills {self.kills} {how}"


@define
class Report:
    """What a run showed."""

    options: Options
    kills: int = 0
    messages: int = 0
    steps: int = 0
    interrupted: int = 0
    seconds: float = 0.0
    violations: list[checker.Violation] = field(factory=list[checker.Violation])

    def __str__(self) -> str:
        head = (
            f"seed {self.options.seed}: {self.kills} kills, {self.messages} messages, {self.steps} steps, "
            f"{self.interrupted} begun more than once, {self.seconds:.0f} s, {len(self.violations)} violations"
        )
        if not self.violations:
            return head
        shown = [f"  {violation}" for violation in self.violations[:20]]
        return "\n".join([head, *shown, f"repeat with: {self.options.command}"])


class Program:
    """The child, from its start to its end."""

    def __init__(self, directory: Path, options: Options, run: int, *, finish: bool) -> None:
        arguments = [str(directory), "--seed", str(options.seed), "--run", str(run)]
        arguments += ["--finish"] if finish else []
        arguments += ["--sabotage", options.sabotage] if options.sabotage else []
        self._process = Forked(workload.main, *arguments, errors=directory / "errors")

    def wait_until_ready(self) -> None:
        """Wait for the moment before the database is opened."""
        if not self._process.read():
            raise RuntimeError("the program ended before it began")

    def ends_within(self, seconds: float) -> bool:
        """Whether the program ends by itself in that time."""
        return self._process.ends_within(seconds)

    def kill(self) -> None:
        """End it as a power cut of one process would."""
        self._process.kill()

    def leave(self, patience_seconds: float = _LEAVE_SECONDS) -> int | None:
        """Ask it to leave; its exit status, or none if it has not left in time and was killed."""
        self._process.close_input()
        ended = self._process.ends_within(patience_seconds)
        self._process.kill()
        return self._process.status if ended else None


class Run:
    """One seed's run in a directory of its own."""

    def __init__(self, options: Options, directory: Path) -> None:
        self.report = Report(options)
        self._options = options
        self._directory = directory
        self._random = Random(f"harness {options.seed}")
        self._ends = checker.Ends()
        self._runs = 0

    def carry_out(self) -> Report:
        """Kill, judge, and go on; in the end let the work be finished and judge the whole."""
        begun = time.monotonic()
        while self.report.kills < self._options.kills and not self.report.violations:
            how = self._live_and_die()
            self.report.kills += how == "killed"
            self._judge(at_end=False)
        if not self.report.violations:
            self._finish()
            self._judge(at_end=True)
        self.report.seconds = time.monotonic() - begun
        return self.report

    def _start(self, *, finish: bool = False) -> Program:
        self._runs += 1
        program = Program(self._directory, self._options, self._runs, finish=finish)
        program.wait_until_ready()
        return program

    def _live_and_die(self) -> End:
        program = self._start()
        if program.ends_within(self._life()):
            self._complain("P10", "the program ended by itself")
            program.kill()
        elif self._random.random() < self._options.leave:
            if self._random.random() < 0.5:  # killed while it leaves
                program.leave(self._random.expovariate(1 / 0.03))
                return "killed"
            status = program.leave()
            if status != 0:
                self._complain(
                    "closing", f"asked to leave, the program {'hung' if status is None else f'ended {status}'}"
                )
            return "left"
        else:
            program.kill()
        return "killed"

    def _life(self) -> float:
        """Bursts just after a start, where recovery is at work, and instants spread over a life."""
        if self._random.random() < 0.4:
            return min(self._random.expovariate(1 / 0.03), self._options.life_seconds)
        return self._random.uniform(0.0, self._options.life_seconds)

    def _finish(self) -> None:
        program = self._start(finish=True)
        deadline = time.monotonic() + _FINISH_SECONDS
        while not self._is_finished():
            if program.ends_within(_POLL_SECONDS) or time.monotonic() > deadline:
                self._complain("P10", "the last program did not bring the work to its end")
                break
        status = program.leave()
        if status != 0:
            self._complain("closing", f"the last program {'hung' if status is None else f'ended with {status}'}")

    def _is_finished(self) -> bool:
        diary = read_facts(self._directory / "diary")
        done = any(fact.event == "done" and fact.run == self._runs for fact in diary[-3:])
        return done and count_unfinished(self._directory / "app.db") == 0

    def _judge(self, *, at_end: bool) -> None:
        ledger, diary = read_facts(self._directory / "ledger"), read_facts(self._directory / "diary")
        disk = read_disk(self._directory / "app.db")
        judge = checker.at_end if at_end else checker.at_stop
        found = judge(ledger, diary, self._ends, disk)
        self.report.violations += [*found, *self._complaints_of_python()]
        self._ends.add(disk, len(ledger))
        self.report.messages = len(disk.messages)
        begins = [fact["work"] for fact in ledger if fact.event == "begin"]
        self.report.steps, self.report.interrupted = len(set(begins)), len(begins) - len(set(begins))

    def _complaints_of_python(self) -> Iterator[checker.Violation]:
        errors = (self._directory / "errors").read_text(encoding="utf-8", errors="replace")
        for sign in (
            "never retrieved",
            "was never awaited",
            "This is a bug",
            "Fatal Python error",
            "Exception in callback",
        ):
            if sign in errors:
                place = errors.index(sign)
                yield checker.Violation("hygiene", f"on standard error: {errors[max(0, place - 300) : place + 1500]}")

    def _complain(self, promise: str, text: str) -> None:
        errors = (self._directory / "errors").read_text(encoding="utf-8", errors="replace")
        self.report.violations.append(checker.Violation(promise, f"{text} (run {self._runs}); {errors[-3000:]}"))


def torture(options: Options, keep: Path | None = None) -> Report:
    """Carry a run out; its directory stays if `keep` names one."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return Run(options, keep).carry_out()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        return Run(options, Path(folder)).carry_out()


def main() -> None:
    """Carry one run out and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--life", type=float, default=0.8, help="longest life, in seconds")
    parser.add_argument("--leave", type=float, default=0.1, help="share of lives that end by leaving")
    parser.add_argument("--sabotage")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    report = torture(Options(given.seed, given.kills, given.life, given.leave, given.sabotage), given.keep)
    print(report)  # noqa: T201  # the command's answer
    raise SystemExit(bool(report.violations))


if __name__ == "__main__":
    main()
