"""The free functions of a turn that are no steps: many calls at once, time, chance.

Like steps, they find the turn they are called in by themselves, and are plain calls outside of one.
"""

from __future__ import annotations

import asyncio
import random as random_module
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import msgspec

from perdure.actors.scope import Part, current, forbid_in_step, here, item_names
from perdure.clock import Seconds, seconds

R = TypeVar("R")
T = TypeVar("T")


async def fan_out(
    fn: Callable[[T], Awaitable[R]],
    items: Iterable[T],
    *,
    concurrency: int = 16,
    key: Callable[[T], str] | None = None,
) -> list[R]:
    """Call `fn` for every item, several at a time, and give the results in the items' order.

    Each item is a scope of its own: on replay, what an item had finished is not done again, whatever the order.

    Args:
        fn: A step, a handler of a reference, or any function that calls them.
        items: What to call it with.
        concurrency: How many items at once.
        key: An item's stable name in the journal; its index without it.

    Raises:
        Exception: Of the first item that failed; the others are cancelled.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    work = list(items)
    scope = here()
    prefix = "" if scope is None else f"{scope.key('fan_out')}"
    names = [str(index) for index in range(len(work))] if key is None else item_names(map(key, work), prefix)
    results: list[Any] = [None] * len(work)
    remaining = iter(range(len(work)))

    async def worker() -> None:
        task = asyncio.current_task()
        if scope is not None and task is not None:
            scope.turn.joined(task)
        for index in remaining:
            if scope is not None:
                current.set(Part(scope.turn, f"{prefix}[{names[index]}]/", task))
            results[index] = await fn(work[index])

    tasks = [asyncio.ensure_future(worker()) for _ in range(min(concurrency, len(work)))]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return cast("list[R]", results)


async def sleep(duration: Seconds) -> None:
    """Wait; in a turn durably: a restart does not begin the wait anew, and a long one leaves memory."""
    scope = here()
    if scope is None:
        forbid_in_step("a sleep")
        await asyncio.sleep(seconds(duration))
        return
    await scope.turn.sleep(scope, seconds(duration))


def _value(name: str, make: Callable[[], T], type_: type[T]) -> T:
    scope = here()
    if scope is None:
        return make()
    stored = scope.turn.value(scope, name, lambda: msgspec.json.encode(make()).decode())
    return msgspec.json.decode(stored, type=type_)


def now() -> datetime:
    """The present, in UTC; in a turn the same on every replay."""
    scope = here()
    moment = scope.turn.timestamp if scope is not None else time.time
    return _value("now", lambda: datetime.fromtimestamp(moment(), UTC), datetime)


def uuid4() -> uuid.UUID:
    """A random UUID; in a turn the same on every replay."""
    return _value("uuid4", uuid.uuid4, uuid.UUID)


def random() -> random_module.Random:
    """A source of random numbers; in a turn seeded the same on every replay. Not for secrets."""
    return random_module.Random(_value("random", lambda: secrets.randbits(63), int))  # noqa: S311  # documented as not for secrets
