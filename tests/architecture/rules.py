"""The rules of style that no linter has: text in, complaints out."""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator, Sequence

FILE_LINES = 450
"""About 400 lines is where a file asks to be two; here it must."""

FUNCTION_LINES = 65
"""About 60 lines is where a function asks to be two; here it must."""

EMPTY_WORDS = {"data", "helper", "helpers", "info", "manager", "managers", "misc", "util", "utils"}
"""Names that say nothing about what is in a module."""

REASON_LETTERS = 8
"""Fewer letters than these explain nothing."""

SUPPRESSION = re.compile(
    r"\b(?:noqa(?::\s*[A-Z]+\d+(?:[,\s]+[A-Z]+\d+)*)?|(?:type|pyright|ty):\s*ignore(?:\[[^\]]*\])?|pragma:\s*no\s+\w+)"
)

MACHINE = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|debian\.org/debian"
    r"|(?<![\w.~>}-])/(?:(?:work|root|home|Users|opt)(?=/)|(?:work|root)(?![\w/-]))"
)
"""Package servers, and absolute paths of somebody's machine; paths such as `tell/work` and `/workers` are none."""


def long_file(text: str) -> Iterator[str]:
    """A file has one idea."""
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines: split it (limit {FILE_LINES})"


def long_functions(text: str) -> Iterator[str]:
    """A function fits on a screen."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines (limit {FUNCTION_LINES})"


def empty_names(parts: Sequence[str]) -> Iterator[str]:
    """A module's name is its idea. `parts` are the names on its path, without suffix."""
    for word in (word for part in parts for word in part.split("_")):
        if word in EMPTY_WORDS:
            yield f"{word!r} does not say what is in it"


def unexplained_suppressions(text: str) -> Iterator[str]:
    """A silenced tool is silenced for a reason, written after it: `# noqa: ANN401  # the user's own value`."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found = list(SUPPRESSION.finditer(token.string)) if token.type == tokenize.COMMENT else []
        if found and sum(map(str.isalpha, token.string[found[-1].end() :])) < REASON_LETTERS:
            yield f"{token.start[0]}: {token.string} owes a reason"


def machine_traces(text: str) -> Iterator[str]:
    """Nothing in the repository points at one machine or one package server."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in MACHINE.finditer(line):
            yield f"{number}: {match.group()}"


def all_order(name: str) -> tuple[int, str]:
    """The order of names in `__all__`: constants, then classes, then the rest, as ruff has it (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def documented_assignments(text: str) -> set[str]:
    """The names that a module assigns, at its top, with a string beneath that documents them."""
    body = ast.parse(text).body
    return {
        name.id
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
        for name in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(name, ast.Name)
    }
