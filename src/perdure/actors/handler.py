"""Messages an actor accepts: `@handler` and `@query`, and their signatures."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from perdure.actors.names import kinds
from perdure.clock import Seconds, seconds
from perdure.errors import ActorDefinitionError, ArgumentsError, EncodingError
from perdure.storage.codec import Codec, codec_for
from perdure.storage.record_codec import RecordCodec

if TYPE_CHECKING:
    from perdure.actors.actor import Actor
    from perdure.actors.ref import BoundHandler
    from perdure.supervision.strategy import Retry

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A_contra = TypeVar("A_contra", bound="Actor", contravariant=True)
A = TypeVar("A", bound="Actor")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])

_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def resolve_hints(target: object, what: str) -> dict[str, Any]:
    """Annotations of a class or function, resolved; classes of actors may be named before they are defined."""
    # what the module itself calls so comes first: two modules may each have a Worker
    own: Mapping[str, object] = getattr(target, "__globals__", None) or vars(sys.modules[target.__module__])
    known = {cls.__name__: cls for cls in kinds.values() if cls.__name__ not in own}
    try:
        return typing.get_type_hints(target, localns=known, include_extras=True)
    except NameError as error:
        raise ActorDefinitionError(
            f"{what}: an annotation cannot be resolved ({error}). "
            "Import the name at run time, where the module can see it."
        ) from error


class Signature:
    """A message's arguments and reply, and how they are stored."""

    def __init__(self, function: Callable[..., Any], owner: str) -> None:
        self.function = function
        self.what = f"{owner}.{function.__name__}"
        self.reply_path = f"{self.what} reply"
        _, *parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.kind not in _PLAIN:
                raise ActorDefinitionError(
                    f"{self.what}: parameter '{parameter}' has no name that a stored message could use. "
                    "Give every parameter a name; take a list or a dict instead of * and **."
                )
        self._parameters = parameters
        self._positional = tuple(p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._all_positional = len(parameters) if len(self._positional) == len(parameters) else -1
        self._order = tuple(p.name for p in parameters)
        self._names = frozenset(self._order)
        self._required = frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return self._order

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return resolve_hints(self.function, self.what)

    @cached_property
    def arguments(self) -> RecordCodec:
        """The codec of the arguments, by name."""
        try:
            return RecordCodec({p.name: self._hints.get(p.name, inspect.Parameter.empty) for p in self._parameters})
        except EncodingError as error:
            raise ActorDefinitionError(f"{self.what}: {error}") from error

    @cached_property
    def reply(self) -> Codec[Any]:
        """The codec of the reply."""
        return codec_for(self._hints.get("return", inspect.Parameter.empty))

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """Arguments as one JSON object. Raises `ArgumentsError` or `EncodingError` before anything is sent."""
        if not kwargs and len(args) == self._all_positional:
            return self.arguments.text_in_order(args, self.what)
        named = dict(zip(self._positional, args, strict=False))
        if kwargs:
            if not named.keys().isdisjoint(kwargs):
                raise self._misfit(args, kwargs)
            named.update(kwargs)
        if len(args) > len(self._positional) or not self._required <= named.keys() <= self._names:
            raise self._misfit(args, kwargs)
        # in the order of the signature: what is the same call has the same text
        return self.arguments.text({name: named[name] for name in self._order if name in named}, self.what)

    def _misfit(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> ArgumentsError:
        signature = inspect.Signature(self._parameters)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            return ArgumentsError(f"{self.what}{signature}: {error}. Nothing was sent.")
        return ArgumentsError(f"{self.what}{signature}: the arguments do not fit. Nothing was sent.")


class Declaration:
    """What a class says of one message: its name, the method, the signature."""

    word: ClassVar[str]
    """What the decorator is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        check_coroutine(function, self.word)
        self.function = function
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function
        self._owner = "?"

    def __repr__(self) -> str:
        return f"<{self.word} {self.function.__qualname__}>"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self._owner = owner.__qualname__

    @cached_property
    def signature(self) -> Signature:
        """The arguments and the reply."""
        return Signature(self.function, self._owner)


class Handler(Declaration, Generic[P, R_co]):
    """A message an actor accepts, as a descriptor: on a live actor the plain method, on a reference its remote twin."""

    word = "handler"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        aliases: Iterable[str] = (),
    ) -> None:
        super().__init__(function)
        self.retry = retry
        self.timeout = None if timeout is None else seconds(timeout)
        self.aliases = tuple(aliases)

    @overload
    def __get__(self, instance: None, owner: type[Actor]) -> Self: ...
    @overload
    def __get__(self, instance: Actor, owner: type[Actor]) -> BoundHandler[P, R_co]: ...
    def __get__(self, instance: Actor | None, owner: type[Actor]) -> Self | BoundHandler[P, R_co]:
        """On a class the handler; on a live actor the method (statically its remote twin: a reference is an actor)."""
        if instance is None:
            return self
        return cast("BoundHandler[P, R_co]", MethodType(self.function, instance))


class Query(Declaration):
    """A question an actor answers at once, beside a running turn: read-only, concurrent, never stored."""

    word = "query"

    def __get__(self, instance: Actor | None, owner: type[Actor]) -> object:
        """On a class the query; on a live actor the method."""
        return self if instance is None else MethodType(self.function, instance)


def check_coroutine(function: Callable[..., Any], what: str) -> None:
    """Refuse what cannot be awaited."""
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isasyncgenfunction(function):
        raise ActorDefinitionError(
            f"@{what} {name} is an async generator, which this version does not run. Return a value."
        )
    if not inspect.iscoroutinefunction(function):
        raise ActorDefinitionError(
            f"@{what} {name} is not `async def`. Make it so; put blocking work into a sync @step."
        )


class HandlerDecorator(Protocol):
    """What `@handler(…)` gives."""

    def __call__(self, function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]:
        """Make a method a handler."""
        ...


@overload
def handler(function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(
    *, retry: Retry | None = None, timeout: Seconds | None = None, aliases: Iterable[str] = ()
) -> HandlerDecorator: ...
def handler(
    function: Callable[..., Any] | None = None,
    /,
    *,
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    aliases: Iterable[str] = (),
) -> Handler[..., Any] | HandlerDecorator:
    """Make an async method a message that its actor accepts.

    Args:
        function: The method. Its parameters and reply are encoded by their annotations.
        retry: Attempts and backoff of a message to this handler; the class's or the system's otherwise.
        timeout: Wall time from the first start, waits included, after which the message ends `expired`.
        aliases: Former names, under which stored messages still arrive.

    Raises:
        ActorDefinitionError: It is not a coroutine function, or takes `*` or `**`.
    """
    if function is not None:
        return Handler(function)

    def decorate(function: Callable[..., Any], /) -> Handler[..., Any]:
        return Handler(function, retry=retry, timeout=timeout, aliases=aliases)

    return cast("HandlerDecorator", decorate)


def query(function: F, /) -> F:
    """Make an async method a question: answered at once, beside a running turn, from the live state.

    A query may not assign fields (`ReadOnlyError`), is never stored and is not retried.
    """
    return cast("F", Query(function))
