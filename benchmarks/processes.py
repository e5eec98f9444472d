"""Other processes, for what is measured between some."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_END_SECONDS = 30.0


def _run(serve: Callable[..., Coroutine[Any, Any, None]], pipe: Connection, args: tuple[object, ...]) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(pipe, *args))


@contextmanager
def other_process(
    serve: Callable[..., Coroutine[Any, Any, None]], *args: object
) -> Generator[tuple[BaseProcess, Connection]]:
    """A process that runs a coroutine function with one end of a pipe and these arguments; it, and the other end.

    At the end it is sent `None` if it lives, and killed if it has not ended half a minute later.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    started = context.Process(target=_run, args=(serve, there, args), daemon=True)
    started.start()
    there.close()
    try:
        yield started, here
        if started.is_alive():
            here.send(None)
            started.join(_END_SECONDS)
    finally:
        started.kill()
        started.join()
