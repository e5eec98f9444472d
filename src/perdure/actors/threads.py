"""Blocking work in threads that never hold the process.

anyio's worker threads are joined when the interpreter ends, so a step that blocks for an hour would keep a closed
program alive for an hour. A thread cannot be cancelled: past its timeout it is left behind, and what it gives is
dropped.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(action: Callable[[], T]) -> T:
    """Run blocking work in a thread, with the caller's context; as many at once as anyio's own limit (40) allows."""
    async with to_thread.current_default_thread_limiter():
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def work() -> None:
            try:
                told = partial(_give, future, context.run(action))
            except StopIteration as error:
                told = partial(
                    _fail, future, RuntimeError(f"blocking work raised {error!r}")
                )  # no future holds that one
            except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the caller
                told = partial(_fail, future, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(told)

        threading.Thread(target=work, name="perdure-step", daemon=True).start()
        return await future


def _give(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
