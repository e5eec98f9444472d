"""The examples are run, and killed, as a reader would do it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from pydoc_data.topics import topics

from perdure.demo.summary import answer, summarise

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = "What is a generator and how does yield work?"
PATIENCE_SECONDS = 90


def start(database: Path) -> subprocess.Popen[str]:
    """The example, as its docstring says to run it."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / "deep_research.py"), QUESTION, "--db", str(database)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def completed(database: Path) -> dict[str, float]:
    """The steps whose completion is on disk, and when they were completed."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT key, finished FROM journal WHERE status = 'completed'").fetchall())
    except sqlite3.OperationalError:  # not made yet
        return {}


def wait_for(process: subprocess.Popen[str], database: Path, *, steps: int) -> None:
    """Watch from outside until so many steps are completed."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(completed(database)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def expected_answer() -> str:
    """What the researcher would say without perdure."""
    notes = {page: summarise(topics[page], focus=QUESTION) for page in sorted(topics)}
    return answer(QUESTION, notes) + "\n"


def test_deep_research_survives_a_kill(tmp_path: Path) -> None:
    """The program on one screen keeps its promise: killed and started again, it gives the answer."""
    database = tmp_path / "research.db"
    first = start(database)
    wait_for(first, database, steps=30)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = completed(database)
    assert 30 <= len(kept) < 2 * len(topics)

    second = start(database)
    output, errors = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, errors
    assert kept.items() <= completed(database).items()
    assert output.endswith(expected_answer())


def test_deep_research_survives_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C is quiet, quick and costs nothing: the same command gives the answer without a completed step again."""
    database = tmp_path / "research.db"
    first = start(database)
    wait_for(first, database, steps=30)
    first.send_signal(signal.SIGINT)
    output, errors = first.communicate(timeout=PATIENCE_SECONDS)
    assert output.endswith("Stopped. The same command goes on from here.\n")
    assert not errors
    kept = completed(database)
    assert 30 <= len(kept) < 2 * len(topics)

    second = start(database)
    output, errors = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, errors
    assert kept.items() <= completed(database).items()
    assert output.endswith(expected_answer())


def test_any_model_can_be_plugged_in(tmp_path: Path) -> None:
    """A reader's own model is one function and one argument away."""
    program = (
        "import asyncio, deep_research\n"
        "async def shout(question, text): return text.split(chr(10))[0].upper() + ' IS A PAGE ABOUT YIELD AND MORE.'\n"
        f"asyncio.run(deep_research.main('yield', {str(tmp_path / 'research.db')!r}, shout))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])},
    )
    assert run.returncode == 0, run.stderr
    assert "IS A PAGE ABOUT YIELD" in run.stdout


def test_the_order_pipeline_survives_a_kill(tmp_path: Path) -> None:
    """The nested tree keeps its promise: killed in the middle, each order is shipped once, the bad one is dead."""
    database = tmp_path / "orders.db"
    command = [sys.executable, str(EXAMPLES / "order_pipeline.py"), "--db", str(database), "--orders", "30"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(first, database, steps=5)
    first.kill()
    first.communicate()

    second = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, env=environment
    )
    assert second.returncode == 0, second.stderr
    assert sum(": shipped" in line for line in second.stdout.splitlines()) == 30
    assert "not enough values to unpack" in second.stdout
    assert "the shop is open: stock running, till running, packing running" in second.stdout
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        sql = "SELECT state FROM snapshot JOIN actor ON id = actor WHERE kind = 'packer'"
        ((state,),) = connection.execute(sql).fetchall()
        shipped = [line.partition(" -> ")[0] for line in json.loads(state)["shipped"]]
        (failures,) = connection.execute("SELECT count(*) FROM failure WHERE decision = 'resume'").fetchone()
    assert sorted(shipped) == sorted(f"o{n}" for n in range(30))
    assert failures, "the line to the bank never dropped"


def test_deep_research_fits_on_a_screen() -> None:
    """What a newcomer reads first can be read at once."""
    assert len((EXAMPLES / "deep_research.py").read_text().splitlines()) <= 90
