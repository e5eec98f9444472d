"""The files of the repository, as the architecture tests read them."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "perdure"
SCHEMA = PACKAGE / "storage" / "schema" / "sqlite"

CODE = ("src", "tests", "examples", "benchmarks")
HIDDEN_BUT_OURS = {".ci", ".github", ".gitignore", ".importlinter"}
BUILT = {"__pycache__", "build", "dist", "node_modules"}


def python_files() -> list[Path]:
    """Every Python file that people wrote."""
    return sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[tuple[Path, str]]:
    """Every file that is text, with its content; not what tools made."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if _is_ours(name))
        for path in (Path(folder, name) for name in sorted(names) if _is_ours(name)):
            try:
                yield path, path.read_text("utf-8")
            except UnicodeDecodeError:
                continue


def short(path: Path) -> str:
    """The path as people name it, from the top of the repository."""
    return path.relative_to(ROOT).as_posix()


def _is_ours(name: str) -> bool:
    return name in HIDDEN_BUT_OURS or not (name.startswith(".") or name in BUILT or ".db" in name)
