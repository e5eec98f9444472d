"""A copy or a backup that is killed leaves nothing that could be taken for a whole one, and can be made again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perdure.storage.copying.copy import verify
from tests.copying.conftest import Kind, NewTarget
from tests.copying.cutting import BACKUP_POINTS, POINTS
from tests.copying.written import holds_nothing, write
from tests.unit.observing import files_in

ROOT = Path(__file__).parents[2]
MEASURED = """
import re, sys
from pathlib import Path
from perdure.console.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
"""A command, and the most memory that it had, in kB. What `wait4` tells includes what its parent had when it forked."""
SCALE_MESSAGES, SCALE_BYTES = 100_000, 2_000


def command(*args: str, until: str = "") -> subprocess.Popen[str]:
    """`perdure` as a process; killed at a point, if one is named."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    program = ["tests.copying.cutting", until] if until else ["perdure"]
    return subprocess.Popen(
        [sys.executable, "-m", *program, *args],
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def run(*args: str, until: str = "") -> None:
    """A command, to its end or to where it is killed."""
    process = command(*args, until=until)
    _, error = process.communicate(timeout=120)
    assert process.returncode == (-9 if until else 0), error


@pytest.mark.parametrize("to", ["sqlite", "postgres"])
def test_a_copy_that_is_killed_is_not_there(to: Kind, tmp_path: Path, new_target: NewTarget) -> None:
    """Whenever it is cut, the new place holds nothing; and the next attempt there needs no tidying."""
    old, new = str(tmp_path / "a.db"), new_target(to)
    write(Path(old), 10_000)
    for point in POINTS:
        run("copy", old, new, until=point)
        assert holds_nothing(new), point
    run("copy", old, new)
    assert verify(old, new).equal
    assert not [name for name in files_in(tmp_path) if "partial" in name], "what the killed ones left is gone"


def test_a_backup_that_is_killed_is_not_there(tmp_path: Path) -> None:
    """Under its name there is never half of one, and the last one is there until the next is whole."""
    write(tmp_path / "a.db", 50_000, 100)
    arguments = ("backup", "--force", "--db", str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    for point in BACKUP_POINTS:
        run(*arguments, until=point)
        assert not (tmp_path / "b.db").exists(), point
    run(*arguments)
    before = (tmp_path / "b.db").read_bytes()
    for point in BACKUP_POINTS:
        run(*arguments, until=point)
        assert (tmp_path / "b.db").read_bytes() == before, point
    run(*arguments)
    assert files_in(tmp_path) == ["a.db", "a.db-lock", "b.db"]


@pytest.mark.torture
@pytest.mark.parametrize(("of", "to"), [("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "sqlite")])
def test_memory_does_not_grow_with_what_is_copied(
    of: Kind, to: Kind, tmp_path: Path, new_target: NewTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database larger than the machine's memory can be moved."""
    old, new = str(tmp_path / "a.db"), new_target(to)
    write(Path(old), SCALE_MESSAGES, SCALE_BYTES)
    if of == "postgres":
        old, first = new_target(of), old
        run("copy", first, old)
    began = time.monotonic()
    program = [sys.executable, "-c", MEASURED, "copy", old, new]
    peak = int(subprocess.run(program, check=True, text=True, stdout=subprocess.PIPE, timeout=300).stdout.split()[-1])
    seconds = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"\n{of} to {to}: {SCALE_MESSAGES} messages, {seconds:.1f} s, {peak / 1024:.0f} MiB\n")
    assert peak < 150_000
