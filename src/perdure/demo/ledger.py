"""A ledger beside the database: one line for every time a step really began, written by the step itself.

It stands for the world outside, which no transaction reaches. What it says can be held against the journal.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from attrs import asdict, frozen

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Line:
    """One beginning of a step.

    Attributes:
        step: What `step_id()` said: the same for every attempt at the same step.
        name: The step's function.
        page: What it worked on.
        process: The process it ran in.
    """

    step: str
    name: str
    page: str
    process: int


def enter(ledger: Path, line: Line) -> None:
    """Append a line in one write, so that a kill leaves it whole or leaves it out."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(asdict(line)).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(ledger: Path) -> list[Line]:
    """Every line, in the order written; none where no step has begun yet."""
    if not ledger.exists():
        return []
    return [Line(**json.loads(text)) for text in ledger.read_text(encoding="utf-8").splitlines()]
