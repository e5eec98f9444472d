"""The rules themselves: each lets good code pass and catches bad code."""

from collections.abc import Callable, Iterator

import pytest

from tests.architecture import rules

ROOT_FOLDER = "/" + "root"
WORK_FOLDER = "/" + "work"
HOME_FOLDER = "/" + "home"
REGISTRY = "py" + "pi.org"
LONG_BODY = "    pass\n"

PASSING: list[tuple[Callable[[str], Iterator[str]], str]] = [
    (rules.long_file, "\n" * rules.FILE_LINES),
    (rules.long_functions, "def f():\n" + LONG_BODY * (rules.FUNCTION_LINES - 1)),
    (rules.unexplained_suppressions, "x = 1  # noqa: S101 - users may pass anything\n"),
    (rules.unexplained_suppressions, "x = 1  # noqa: S101, S102  # users may pass anything\n"),
    (rules.unexplained_suppressions, "x = 1  # type: ignore[arg-type]  # attrs makes it\n"),
    (rules.unexplained_suppressions, "x = '# noqa'  # a string that speaks of it\n"),
    (rules.machine_traces, f"supervision{ROOT_FOLDER} of https://example.org{WORK_FOLDER}/x and {WORK_FOLDER}ers"),
]

FAILING: list[tuple[Callable[[str], Iterator[str]], str]] = [
    (rules.long_file, "\n" * (rules.FILE_LINES + 1)),
    (rules.long_functions, "def f():\n" + LONG_BODY * rules.FUNCTION_LINES),
    (rules.long_functions, "async def f():\n" + LONG_BODY * rules.FUNCTION_LINES),
    (rules.unexplained_suppressions, "x = 1  # noqa\n"),
    (rules.unexplained_suppressions, "x = 1  # noqa: S101\n"),
    (rules.unexplained_suppressions, "x = 1  # type: ignore[arg-type]  # ok\n"),
    (rules.unexplained_suppressions, "x = 1  # type: ignore[arg-type]  # pyright: ignore[reportAny]\n"),
    (rules.machine_traces, f"see {WORK_FOLDER}/x"),
    (rules.machine_traces, f"'{ROOT_FOLDER}/.cache'"),
    (rules.machine_traces, f"cd {ROOT_FOLDER}"),
    (rules.machine_traces, f"file://{HOME_FOLDER}/someone"),
    (rules.machine_traces, f"https://{REGISTRY}/simple"),
]


@pytest.mark.parametrize(("rule", "text"), PASSING)
def test_good_code_passes(rule: Callable[[str], Iterator[str]], text: str) -> None:
    """A contributor is not stopped for code that keeps the rules."""
    assert not list(rule(text))


@pytest.mark.parametrize(("rule", "text"), FAILING)
def test_bad_code_is_caught(rule: Callable[[str], Iterator[str]], text: str) -> None:
    """A rule that no longer bites would leave the next reader with worse code."""
    assert list(rule(text))


def test_names_are_read_word_by_word() -> None:
    """`writer_manager` is caught, `information` and `database` are not."""
    assert list(rules.empty_names(["storage", "writer_manager"]))
    assert not list(rules.empty_names(["storage", "database", "information"]))


def test_names_sort_as_ruff_sorts_them() -> None:
    """Contributors need not please two different orders of `__all__`."""
    assert sorted(["step", "Actor", "LIMIT", "ActorSystem"], key=rules.all_order) == [
        "LIMIT",
        "Actor",
        "ActorSystem",
        "step",
    ]


def test_an_assignment_is_documented_by_the_string_beneath() -> None:
    """Aliases and constants get documentation too."""
    assert rules.documented_assignments("A = 1\n'one'\nB: int = 2\n'two'\nC = 3\nD = 4\n") == {"A", "B"}
