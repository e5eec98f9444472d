"""`from perdure import ...`: the list of public names is complete, and each is explained."""

import inspect
from types import ModuleType

import perdure
from tests.architecture import rules
from tests.architecture.source import PACKAGE


def test_all_names_exist() -> None:
    """`from perdure import *` works."""
    missing = [name for name in perdure.__all__ if not hasattr(perdure, name)]
    assert not missing


def test_all_is_sorted_and_says_each_name_once() -> None:
    """A reader scans the list, and a diff of it shows what was added."""
    assert list(perdure.__all__) == sorted(set(perdure.__all__), key=rules.all_order)


def test_all_is_complete() -> None:
    """What can be imported without an underscore is promised; what is not promised is not there."""
    public = {
        name
        for name, value in vars(perdure).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public <= set(perdure.__all__)


def test_every_public_name_is_documented() -> None:
    """`help(perdure.step)`, and an editor's hover, say what a thing is for."""
    sources = PACKAGE.rglob("*.py")
    assigned = {name for path in sources for name in rules.documented_assignments(path.read_text("utf-8"))}
    undocumented = [name for name in perdure.__all__ if not (_has_docstring(name) or name in assigned)]
    assert not undocumented


def _has_docstring(name: str) -> bool:
    value: object = getattr(perdure, name)
    return (inspect.isclass(value) or inspect.isroutine(value)) and bool((value.__doc__ or "").strip())
