"""`perdure run module:attribute`: one node, from the shell.

    import ──► the system, or what makes it ──► open ──► ready ──► SIGTERM ──► drained ──► 0

Exit codes: 0 after a drain; 1 for a failure; 2 for a wrong call or a database that cannot be used; 128 and the signal's
number (143, 130) if a second signal cut the drain short, or the process had to be ended.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.console.logs import set_up_logging
from perdure.errors import ApplicationError, ClientError, StorageError, TargetError, WriterLockTimeout
from perdure.signals import Signals
from perdure.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.console.logs import Format

_LOG = logging.getLogger("perdure.console")

FAILED = 1
WRONG_CALL = 2


def run(place: str, *, target: str | None, drain: float | None, level: str, style: Format) -> int:
    """Run a system until it is told to stop.

    Args:
        place: Where it is: `module:attribute`, an `ActorSystem` or what makes one.
        target: The database, instead of the system's own.
        drain: Seconds that turns have to come to a durable point, instead of the system's own.
        level: Of the log's lines.
        style: What these lines are.

    Returns:
        The exit code.
    """
    set_up_logging(level, style)
    signals = Signals()
    with suppress(ValueError):  # not the main interpreter's main thread: no signals come
        signals.__enter__()
    try:
        return asyncio.run(_serve(find(place), target, drain, signals))
    except (ApplicationError, TargetError) as error:
        _LOG.error("%s", error)
        return WRONG_CALL
    except Exception:  # noqa: BLE001  # whatever it is, it ended the program
        _LOG.exception("%s failed", place)
        return FAILED
    finally:
        if not signals.count:  # else they are heard until the process has ended, whatever keeps it
            signals.__exit__()


def find(place: str) -> ActorSystem | Callable[[], Any]:
    """Import what is at `module:attribute`, from the current directory, too. Raises `ApplicationError`."""
    module_name, colon, attribute = place.partition(":")
    if not (module_name and colon and attribute) or module_name.startswith("."):
        raise ApplicationError(f"'{place}' is no module:attribute, such as shop.main:system.", "malformed")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise  # the module is there, and what it imports is not
        raise ApplicationError(
            f"there is no module '{error.name}' in {here} or on the import path. "
            "Start it where the module can be imported, or set PYTHONPATH.",
            "no_module",
        ) from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ApplicationError(
                f"'{module_name}' has no '{attribute}'. Name the ActorSystem, or a function that makes it.",
                "no_attribute",
            )
        found = getattr(found, name)
    if isinstance(found, ActorSystem):
        return found
    if not callable(found) or isinstance(found, type):
        raise _wrong(place, found)
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise ApplicationError(
            f"'{place}' makes no system without arguments: {error}. Give its parameters defaults.", "wrong_type"
        ) from None
    return found  # type: ignore[no-any-return]  # callable without arguments, as was seen


def _wrong(place: str, found: object) -> ApplicationError:
    return ApplicationError(
        f"'{place}' is {type(found).__name__}, no ActorSystem and nothing that makes one. "
        "Name an ActorSystem, or a function without parameters, async or not, that returns one.",
        "wrong_type",
    )


async def _serve(found: ActorSystem | Callable[[], Any], target: str | None, drain: float | None, it: Signals) -> int:
    it.attach()
    system: Any = found
    if not isinstance(found, ActorSystem):
        system = found()
        if inspect.isawaitable(system):
            system = await system
    if not isinstance(system, ActorSystem):
        raise _wrong(getattr(found, "__qualname__", repr(found)), system)
    system.adjust(target=target, drain=drain)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(system)
        except (TargetError, WriterLockTimeout):
            raise
        except StorageError as error:
            raise TargetError(str(error)) from error
        try:
            await system.serve()
        except ClientError:
            raise ApplicationError(
                f"{system!r} runs no actors. Name an ActorSystem that ActorSystem.client() did not make.", "wrong_type"
            ) from None
    return it.exit_code if it.hurried else 0
