"""What the pages in docs/ show runs, as it stands there: a page's Python blocks are one program."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if "```python" in page.read_text(encoding="utf-8"))


def _run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PERDURE_DB": "shop.db", "PERDURE_KEYS": base64.b64encode(b"k" * 32).decode()}
    if command[1:2] == ["run"]:
        return _run_until_stopped(command, folder)
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=180, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run_until_stopped(command: list[str], folder: Path) -> str:
    """Run a node, stop it once it is ready, and see it drain; its log."""
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        log = node.stderr.readline()
        node.send_signal(signal.SIGTERM)
        log += node.stderr.read()
    assert node.returncode == 0, log
    assert "ready" in log, log
    assert "drained" in log, log
    return log


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(tmp_path: Path, page: str) -> None:
    """A reader can paste what a page shows; started again it goes on; its commands work on what it made."""
    text = (DOCS / page).read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    first = _run([sys.executable, "program.py"], tmp_path)
    assert first.strip()
    assert _run([sys.executable, "program.py"], tmp_path).count("\n") == first.count("\n")
    perdure = shutil.which("perdure", path=str(Path(sys.executable).parent)) or "perdure"
    for command in re.findall(r"^\$ perdure (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
        assert _run([perdure, *command.split()], tmp_path).strip()


def test_pages_with_programs_are_there() -> None:
    """The pages that this test is for are there and have programs."""
    assert {"clients.md", "deploying.md", "sealing.md", "supervision.md"} <= set(PAGES)
