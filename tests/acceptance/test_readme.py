"""What README shows runs, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """README's program, run twice in a folder of its own: the folder and what the second run printed."""
    folder = tmp_path_factory.mktemp("readme")
    (program,) = _blocks("python")
    (folder / "program.py").write_text(program, encoding="utf-8")
    output = ""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout
    return folder, output


def test_the_program_runs(ran: tuple[Path, str]) -> None:
    """The first screen can be pasted into a file and run; started again it rejoins its work."""
    assert ran[1].splitlines()[-1] == "Why? One Three"


@pytest.mark.parametrize("command", re.findall(r"^\$ perdure (.*?)(?:\s+#.*)?$", README, re.MULTILINE))
def test_the_commands_run(ran: tuple[Path, str], command: str) -> None:
    """Every command that README shows works on the database that its program made."""
    perdure = shutil.which("perdure", path=str(Path(sys.executable).parent)) or "perdure"
    done = subprocess.run(
        [perdure, *command.split()],
        cwd=ran[0],
        env={**os.environ, "PERDURE_DB": "agents.db"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if command == "tree":
        assert "under the system's root" in done.stdout
    elif command != "dead":
        assert "run" in done.stdout or "Researcher" in done.stdout or "summarise" in done.stdout


def test_the_doors_exist() -> None:
    """The make targets that README names are there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for door in re.findall(r"^\$ make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{door}:", makefile, re.MULTILINE), door
