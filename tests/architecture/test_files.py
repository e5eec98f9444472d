"""The house style, where it can be counted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.source import python_files, short, text_files


@pytest.mark.parametrize("rule", [rules.long_file, rules.long_functions, rules.unexplained_suppressions])
def test_every_python_file_keeps(rule: Callable[[str], Iterator[str]]) -> None:
    """Whoever opens a file finds one idea, short functions, and a reason beside each silenced tool."""
    complaints = [f"{short(path)}:{it}" for path in python_files() for it in rule(path.read_text("utf-8"))]
    assert not complaints, "\n".join(complaints)


def test_module_names_say_what_is_inside() -> None:
    """A reader finds a thing by its name; `utils` and `manager` name nothing."""
    complaints = [
        f"{short(path)}: {it}"
        for path in python_files()
        for it in rules.empty_names(Path(short(path)).with_suffix("").parts)
    ]
    assert not complaints, "\n".join(complaints)


def test_no_file_points_at_a_machine() -> None:
    """The repository works for whoever clones it, from whichever package server they use."""
    complaints = [f"{short(path)}:{it}" for path, text in text_files() for it in rules.machine_traces(text)]
    assert not complaints, "\n".join(complaints)
