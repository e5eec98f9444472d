"""References: how one actor, or the world outside, names another and sends it messages.

Statically a reference to a Counter *is* a Counter; at run time it has the counter's handlers and queries and nothing
else. It pickles, compares, hashes, and travels in messages and state as the text `Kind/key`.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, ParamSpec, Self, TypeVar, cast

from msgspec.structs import replace

from perdure.actors.actor import Actor
from perdure.actors.handler import Handler, Query
from perdure.actors.names import check_name, kinds, near
from perdure.actors.port import Options, Outgoing, decoding_port
from perdure.actors.receipt import Receipt
from perdure.actors.scope import current, forbid_in_step, here
from perdure.clock import Seconds, seconds
from perdure.errors import DecodingError, EncodingError, NotAMessageError, NotInTurnError
from perdure.storage.codec import register_extension, register_wire
from perdure.storage.records import Address

if TYPE_CHECKING:
    from perdure.actors.port import Port

T = TypeVar("T")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Ref = Annotated[T, "reference"]
"""Annotation for a reference in state and messages; to a type checker `Ref[Counter]` is `Counter`."""


class Reference:
    """An actor's name with the messages it takes."""

    __slots__ = ("_address", "_cls", "_port")

    def __new__(cls, actor: type[Actor], address: Address, port: Port | None) -> Self:
        """Make one of the reference class that this actor class has."""
        del address, port
        return cast("Self", object.__new__(_reference_class(actor)))

    def __init__(self, actor: type[Actor], address: Address, port: Port | None) -> None:
        self._cls = actor
        self._address = address
        self._port = port

    def __repr__(self) -> str:
        return f"<reference {self._address}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._address == other._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (self._address.kind, self._address.key)

    @property
    def key(self) -> str:
        """The actor's key."""
        return self._address.key

    def __getattr__(self, name: str) -> object:
        spec = self._cls.__perdure__
        if name in spec.queries:
            return BoundQuery(self, spec.queries[name])
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._not_a_message(name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in Reference.__slots__:
            object.__setattr__(self, name, value)
            return
        raise self._not_a_message(name)

    def _not_a_message(self, name: str) -> NotAMessageError:
        spec = self._cls.__perdure__
        messages = [*spec.handlers, *spec.queries]
        if name in spec.fields:
            what, remedy = "state", "Add a @query that returns it."
        else:
            what, remedy = "not a message", f"Add a @handler or @query.{near(name, messages)}"
        only = ", ".join(messages) or "no messages"
        return NotAMessageError(f"'{name}' is {what} of {self._cls.__name__}; a reference has only {only}. {remedy}")


def address_of(ref: object) -> Address:
    """The address behind a reference."""
    if isinstance(ref, Reference):
        return ref._address  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the field's own module
    raise TypeError(f"{ref!r} is not a reference. Use system.get(…) or an actor's .ref.")


def class_of(ref: Reference) -> type[Actor]:
    """The class a reference was made with."""
    return ref._cls  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the field's own module


def restore(kind: str, key: str) -> Reference:
    """A reference read back; it belongs to the system that reads it."""
    cls = kinds.get(kind)
    if cls is None:
        raise EncodingError(
            f"reference {kind}/{key}", "no imported module defines that kind", "Import the module first."
        )
    return Reference(cls, Address(kind, key), decoding_port.get())


def bare_port_of(ref: Reference) -> Port | None:
    """The system a reference belongs to, if it was made in one."""
    return ref._port  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the field's own module


def port_of(ref: Reference) -> Port:
    """The system a reference belongs to, or the one of the running turn."""
    port = ref._port or decoding_port.get()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the field's own module
    if port is None:
        raise NotInTurnError(
            f"{ref!r} belongs to no system here, having been unpickled outside one. "
            f"Use system.get({class_of(ref).__name__}, {ref.key!r})."
        )
    return port


_NO_OPTIONS = Options()


class BoundHandler(Generic[P, R_co]):
    """A handler of one actor: call it to ask, `tell` to send without waiting for the reply."""

    __slots__ = ("_handler", "_options", "_ref")

    def __init__(self, ref: Reference, handler: Handler[P, R_co], options: Options = _NO_OPTIONS) -> None:
        self._ref = ref
        self._handler = handler
        self._options = options

    def __repr__(self) -> str:
        return f"<{self._handler.name} of {self._ref!r}>"

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Send the message, wait for its reply and return it.

        Raises:
            Rejected: The handler refused.
            DeadLetterError: The message ran out of attempts.
            AskTimeout: The `timeout` option ended the wait; the message goes on.
            DeadlockError: The reply could never come.
            ArgumentsError: The arguments do not fit; nothing was sent.
            EncodingError: An argument cannot be stored; nothing was sent.
        """
        message = self._outgoing(args, kwargs)
        scope = here()
        if scope is not None:
            return cast("R_co", await scope.turn.ask(scope, message))
        forbid_in_step("an ask of ", self._ref)
        reply: Any = await (self._ref._port or port_of(self._ref)).ask(message)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # every message comes by
        return reply  # type: ignore[no-any-return]  # by the handler's annotation

    async def tell(self, *args: P.args, **kwargs: P.kwargs) -> Receipt[R_co]:
        """Send the message. When this returns it is durable; inside a turn, with the turn's next durable point.

        Raises:
            MailboxFull: The receiver has too much mail; nothing was written.
            ActorStopped: The receiver has ended.
            IdReusedError: The id belongs to another message.
            ArgumentsError: The arguments do not fit; nothing was sent.
            EncodingError: An argument cannot be stored; nothing was sent.
        """
        message = self._outgoing(args, kwargs)
        scope = here()
        if scope is not None:
            return scope.turn.tell(scope, message)
        port = self._ref._port or port_of(self._ref)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # every message comes by
        id_, accepted = port.tell(message)
        await accepted
        return Receipt(id_, self._handler.signature.reply, port)

    def options(
        self,
        *,
        id: str | None = None,
        delay: Seconds | None = None,
        at: datetime | None = None,
        timeout: Seconds | None = None,
    ) -> Self:
        """The same handler with options set.

        Args:
            id: Your own id for the message: sent twice, it is handled once and answered alike.
            delay: Not handled before this much time has passed.
            at: Not handled before this time (with a timezone).
            timeout: For an ask, how long to wait for the reply; for a tell, the latest start.
        """
        due: float | None = None
        if delay is not None and at is not None:
            raise ValueError("delay= and at= are two ways to say one thing. Use one of them.")
        if at is not None:
            if at.tzinfo is None:
                raise ValueError(f"at={at!r} has no timezone. Give it one, such as timezone.utc.")
            due = at.timestamp()
        elif delay is not None:
            due = self._timestamp() + seconds(delay)
        options = replace(
            self._options,
            id=self._options.id if id is None else check_name(id, "message id"),
            due=self._options.due if due is None else due,
            timeout=self._options.timeout if timeout is None else seconds(timeout),
        )
        return type(self)(self._ref, self._handler, options)

    @property
    def target(self) -> tuple[Reference, Handler[P, R_co]]:
        """Whose handler it is, and which."""
        return self._ref, self._handler

    def _timestamp(self) -> float:
        scope = current.get()
        if scope is not None:
            return scope.turn.timestamp()
        port = bare_port_of(self._ref)
        return port.timestamp() if port is not None else time.time()

    def _outgoing(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Outgoing:
        ref, handler = self._ref, self._handler
        cls, to = ref._cls, ref._address  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # every message comes by
        return Outgoing(cls, to, handler, handler.signature.encode(args, kwargs), self._options)


class _Point:
    """A handler as an attribute of references: found at once, where `__getattr__` comes after a search and an error."""

    __slots__ = ("_handler",)

    def __init__(self, handler: Handler[..., Any]) -> None:
        self._handler = handler

    def __get__(self, ref: Reference, owner: type[Reference]) -> BoundHandler[..., Any]:
        return BoundHandler(ref, self._handler)


def _reference_class(actor: type[Actor]) -> type[Reference]:
    """The class of references to an actor class, kept with what is known of that."""
    known = actor.__perdure__
    made: type[Reference] | None = known.reference_class
    if made is None:
        points = {name: _Point(handler) for name, handler in known.handlers.items() if not hasattr(Reference, name)}
        made = known.reference_class = type("Reference", (Reference,), {"__slots__": (), **points})
    return made


class BoundQuery:
    """A query of one actor."""

    __slots__ = ("_query", "_ref")

    def __init__(self, ref: Reference, query: Query) -> None:
        self._ref = ref
        self._query = query

    def __repr__(self) -> str:
        return f"<{self._query.name} of {self._ref!r}>"

    async def __call__(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401  # typed by the query's own signature
        """Have the query answered."""
        scope = here()
        if scope is not None:
            return await scope.turn.query(scope, self._ref, self._query, args, kwargs)
        return await port_of(self._ref).query(self._ref, self._query, args, kwargs)


class _ReferenceExtension:
    """How a reference is stored: as `Kind/key`."""

    def __init__(self, declared: type[Actor]) -> None:
        self._declared = declared

    def wire(self, value: object) -> str:
        ref = value if isinstance(value, Reference) else getattr(value, "ref", None)
        if not isinstance(ref, Reference):
            raise EncodingError(
                "reference",
                f"{value!r} is not a reference to a {self._declared.__name__}",
                "Pass system.get(…) or self.ref.",
            )
        if not issubclass(class_of(ref), self._declared):
            raise EncodingError(
                "reference",
                f"{ref!r} is not a {self._declared.__name__}",
                "Pass a reference to one, or widen the annotation.",
            )
        return str(address_of(ref))

    def unwire(self, text: str) -> Reference:
        kind, _, key = text.partition("/")
        cls = kinds.get(kind, self._declared)
        if cls is Actor:
            raise DecodingError(f"reference {text}", "no imported module defines that kind", "Import the module first.")
        return Reference(cls, Address(kind, key), decoding_port.get())


def _reference_extension(annotation: object) -> _ReferenceExtension | None:
    if isinstance(annotation, TypeVar):
        annotation = annotation.__bound__
    if isinstance(annotation, type) and (annotation is Actor or hasattr(annotation, "__perdure__")):
        return _ReferenceExtension(annotation)
    return None


register_extension(_reference_extension)
register_wire(Reference, lambda ref: str(address_of(ref)))
