"""Steps and the other free functions of a turn.

They find the turn they are called in by themselves, in any code a handler calls. Outside turns a step is a plain
call, unjournaled.

A step's life: claimed by key → started-record durable → action → completed (or failed attempt, wait, action again).
A replay answers completed ones from the journal and runs interrupted ones again, under the same `step_id()`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from types import MethodType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

import anyio
from attrs import evolve, frozen
from msgspec.structs import replace

from perdure.actors.actor import Actor
from perdure.actors.handler import resolve_hints
from perdure.actors.limit import Limit, declare
from perdure.actors.past import carried
from perdure.actors.scope import Scope, forbid_in_step, here, running_step
from perdure.actors.sealing import admit_step, close_error, close_result, open_result, open_step_error
from perdure.actors.threads import in_thread
from perdure.clock import Seconds, seconds
from perdure.errors import (
    ActorDefinitionError,
    NotInTurnError,
    NotRunningError,
    StepError,
    StepNameError,
    StepTimeout,
)
from perdure.storage.codec import Codec, codec_for, digest
from perdure.storage.failure import failure_fields
from perdure.storage.records import Record
from perdure.supervision.strategy import Retry, TryAgain, after_failure

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from perdure.actors.slots import Place
    from perdure.actors.turn import Turn

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., "Coroutine[Any, Any, Any]"])

STEP_TIMEOUT_SECONDS = 300.0
_DEFAULT_RETRY = Retry()


@frozen(eq=False)
class Definition:
    """A step as it was declared."""

    function: Callable[..., Any]
    name: str
    aliases: tuple[str, ...]
    retry: Retry
    timeout: float
    limit: Limit | None
    is_async: bool

    @functools.cached_property
    def result(self) -> Codec[Any]:
        """The codec of the result."""
        target = inspect.unwrap(self.function)
        hints = resolve_hints(target, self.name) if hasattr(target, "__annotations__") else {}
        return codec_for(hints.get("return", inspect.Parameter.empty))

    async def call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Run the action once, a sync one in a worker thread with its context."""
        if self.is_async:
            return await self.function(*args, **kwargs)
        return await in_thread(functools.partial(self.function, *args, **kwargs))


class StepDecorator(Protocol):
    """What `@step(…)` gives."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Make a function a step."""
        ...


@overload
def step(
    function: F,
    /,
    *,
    key: str | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    limit: Limit | None = None,
) -> F: ...
@overload
def step(
    function: Callable[P, R],
    /,
    *,
    key: str | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    limit: Limit | None = None,
) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def step(
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    limit: Limit | None = None,
) -> StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    key: str | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    limit: Limit | None = None,
) -> Callable[..., Any]:
    """Make a function a journaled side effect.

    Called in a turn, its completion is recorded and a replay skips it. It may run again if the process dies between
    the effect and the record: use `step_id()` as the effect's idempotency key.

    Args:
        function: The action: a coroutine function, or a plain one, which runs in a worker thread and is awaited.
        key: For one call (`step(fn, key="doc-3")(x)`): the journal key, instead of the call's ordinal.
        name: Durable name; the function's qualified name without it.
        aliases: Former names, under which the journal of running turns is found.
        retry: Attempts of the step alone; 5 with backoff from 0.1 to 30 s without it.
        timeout: Of one attempt; 5 minutes without it.
        limit: How many of it there may be at once, or begin in a time, on all processes together. The wait for it is
            not in the timeout, and costs no attempt; each attempt waits anew.

    Raises:
        StepNameError: It has no name that would be the same tomorrow.
        ActorDefinitionError: It cannot be a step, being an async generator for instance.
    """
    make = functools.partial(
        _make_step, key=key, name=name, aliases=tuple(aliases), retry=retry, timeout=timeout, limit=limit
    )
    return make if function is None else make(function)


def _make_step(
    function: Callable[..., Any],
    *,
    key: str | None,
    name: str | None,
    aliases: tuple[str, ...],
    retry: Retry | None,
    timeout: Seconds | None,
    limit: Limit | None,
) -> Callable[..., Any]:
    known: Definition | None = getattr(function, "__perdure_step__", None)
    if known is not None:
        definition = evolve(
            known,
            name=name or known.name,
            aliases=(*known.aliases, *aliases),
            retry=retry or known.retry,
            timeout=known.timeout if timeout is None else seconds(timeout),
            limit=declare(limit, f"step {name or known.name}") or known.limit,
        )
        receiver = getattr(function, "__self__", None)
        wrapper = _wrap(definition, key)
        return wrapper if receiver is None else MethodType(wrapper, receiver)
    return _wrap(_define(function, name, aliases, retry, timeout, limit), key)


def _define(
    function: Callable[..., Any],
    name: str | None,
    aliases: tuple[str, ...],
    retry: Retry | None,
    timeout: Seconds | None,
    limit: Limit | None,
) -> Definition:
    qualified = name or getattr(function, "__qualname__", "")
    if not qualified or "<lambda>" in qualified:
        raise StepNameError(
            f"{function!r} has no name that would be the same tomorrow. Use a def, or step(fn, name='…')."
        )
    qualified = qualified.rpartition("<locals>.")[2]
    if inspect.isasyncgenfunction(function):
        raise ActorDefinitionError(
            f"step {qualified} is an async generator, which this version does not run. Return a list."
        )
    if not callable(function):
        raise ActorDefinitionError(f"step {qualified}: {function!r} cannot be called. Decorate a function.")
    bound = None if timeout is None else seconds(timeout)
    return Definition(
        function,
        qualified,
        aliases,
        retry or _DEFAULT_RETRY,
        STEP_TIMEOUT_SECONDS if bound is None else bound,
        declare(limit, f"step {qualified}"),
        inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function),
    )


def _wrap(definition: Definition, key: str | None) -> Callable[..., Any]:
    async def call(*args: object, **kwargs: object) -> object:
        scope = here()
        if scope is not None:
            return await _Run(scope, definition, key, args, kwargs).run()
        forbid_in_step(f"step '{definition.name}'")
        return await definition.call(args, kwargs)

    wrapper = cast("Any", functools.wraps(definition.function)(call))
    wrapper.__perdure_step__ = definition
    return cast("Callable[..., Any]", wrapper)


class _Run:
    """One call of a step in a turn."""

    def __init__(
        self, scope: Scope, definition: Definition, key: str | None, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self.turn: Turn = scope.turn
        self.scope = scope
        self.definition = definition
        self.key = key
        self.args = args
        self.kwargs = kwargs
        plain = args[1:] if args and isinstance(args[0], Actor) else args
        self.digest = digest(plain, kwargs)

    async def run(self) -> object:
        """The step's result, from the journal or from the action."""
        turn, definition = self.turn, self.definition
        key, record = self._claim()
        if record is not None and record.status in {"completed", "failed"}:
            return self._open(await turn.recorded(record))
        await turn.may_begin(definition.name, record, key)
        with turn.fly():
            try:
                if record is None or record.status == "cancelled":
                    if turn.seat.seal is not None:
                        admit_step(turn.seat.seal, definition.name, definition.result)
                    record = Record(key, "step", definition.name, turn.timestamp(), self.digest)
                    turn.begin(record)
                    await turn.durable()
                elif record.due is not None:
                    await turn.until_retry(record.due)
                record = await self._attempts(record)
                await turn.hand(key)
            except asyncio.CancelledError:
                turn.cancelled(key)
                raise
        return self._open(record)

    def _claim(self) -> tuple[str, Record | None]:
        """The step's key, under its name or, in the journal of a running turn, a former one."""
        name = self.definition.name
        for alias in self.definition.aliases:
            former = self.scope.former(alias, self.key)
            if former in self.turn.records:
                name = alias
        return self.turn.claim(self.scope, "step", name, self.digest, self.key)

    async def _attempts(self, record: Record) -> Record:
        turn, retry, codec = self.turn, self.definition.retry, self.definition.result
        while True:
            turn.check()  # it may have been stopped in the very pass in which the started-record came to be on disk
            await turn.may_begin(None)
            limit = self.definition.limit
            place = None if limit is None else await turn.admitted(limit, record.key)
            try:
                value = await (self._once(record) if place is None else self._under_limit(place, record))
                result = close_result(turn, record.key, codec.encode(value, record.key).decode(), codec)
            except Exception as error:  # noqa: BLE001  # any failure of user code is an attempt
                turn.check()
                decision = after_failure(retry, record.attempt, error)
                failure = close_error(turn.seat.seal, error, turn.mail.id, turn.seat.address)
                if not isinstance(decision, TryAgain):
                    turn.complete(replace(record, status="failed", error=failure, due=None))
                    return turn.records[record.key]
                due = turn.timestamp() + decision.delay
                record = replace(record, attempt=record.attempt + 1, error=failure, due=due)
                turn.begin(record)
                await turn.durable()
                await turn.until_retry(due)
            else:
                turn.check()
                turn.complete(replace(record, status="completed", result=result, error=None, due=None))
                return turn.records[record.key]

    async def _under_limit(self, place: Place, record: Record) -> object:
        try:
            self.turn.check()
            await self.turn.may_begin(None)  # it may have waited long
            return await self._once(record)
        finally:
            place.leave()

    async def _once(self, record: Record) -> object:
        turn, definition = self.turn, self.definition
        token = running_step.set(f"{turn.mail.id}:{record.key}")
        turn.running_steps += 1
        deadline = anyio.current_time() + definition.timeout
        try:
            with anyio.CancelScope(deadline=deadline):  # which `fail_after` has in two generators
                return await definition.call(self.args, self.kwargs)
            raise StepTimeout(
                f"step '{record.key}' ran past its timeout of {definition.timeout:g} s (attempt {record.attempt})"
            )
        finally:
            turn.running_steps -= 1
            running_step.reset(token)

    def _open(self, record: Record) -> object:
        if record.status == "completed":
            return self.definition.result.decode(open_result(self.turn, record, self.definition.result))
        fields = failure_fields(open_step_error(self.turn, record))
        type_ = str(fields.get("type", "Exception"))
        name = type_.rpartition(".")[2]
        raise StepError(
            f"step '{record.key}' failed after {record.attempt} attempts: {name}: {fields.get('text', '')}",
            error_type=name,
            key=record.key,
            lineage=[str(base) for base in fields.get("lineage", [type_])],
        )


def step_id() -> str:
    """The running step's id: the same whenever this step runs again, unique in the deployment.

    Raises:
        NotInTurnError: No step is running here.
    """
    found = running_step.get()
    if found is None:
        raise NotInTurnError(
            "step_id() was called outside a step. Call it in the body of a @step that runs in a handler."
        )
    return found


def escaped_keys(error: BaseException) -> list[str]:
    """Keys of the failed steps, and of asks to actors that did not run, whose errors an exception carries."""
    errors = (each for each in carried(error) if isinstance(each, StepError | NotRunningError))
    return [each.key for each in errors if each.key]
