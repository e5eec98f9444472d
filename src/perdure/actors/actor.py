"""`Actor`: the base class users write their actors on.

Annotated fields are the durable state. A subclass becomes an attrs class as it is defined; what perdure knows of it
stands in its `ActorSpec`.
"""

from __future__ import annotations

import copy
import enum
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    final,
    overload,
)
from uuid import UUID

import attrs

from perdure.actors.handler import Handler, Query, resolve_hints
from perdure.actors.limit import Limit, declare
from perdure.actors.names import check_tags, near, register_kind
from perdure.clock import Seconds, seconds
from perdure.errors import ActorDefinitionError, EncodingError, NotInTurnError, ReadOnlyError, StateError
from perdure.storage.record_codec import RecordCodec

if TYPE_CHECKING:
    from perdure.actors.child import Child
    from perdure.actors.ref import Reference
    from perdure.storage.records import ChildSpec, Member
    from perdure.supervision.strategy import AutoShutdown, Directive, Failure, Retry, Strategy
    from perdure.system import ActorSystem

P = ParamSpec("P")
A = TypeVar("A", bound="Actor")

_RESERVED = frozenset({"ref", "key", "system", "spawn", "stop", "started", "stopping", "migrate", "decide"})
_OVERRIDABLE = frozenset({"started", "stopping", "migrate", "decide"})
_EPHEMERAL = "perdure.ephemeral"
_IMMUTABLE = (
    type(None), bool, int, float, str, bytes, tuple, frozenset, type,
    enum.Enum, datetime, date, timedelta, Decimal, UUID,
)  # fmt: skip
_PASSIVATE_AFTER_SECONDS = 60.0

read_only: ContextVar[str | None] = ContextVar("perdure_read_only", default=None)
"""Why fields may not be assigned here; none where they may."""


def ephemeral(*, factory: Callable[[], object] | None = None, init: Literal[False] = False) -> Any:  # noqa: ANN401  # any field's type
    """Mark a field that is not state, such as a client or a cache: never stored, made anew at every activation.

    Args:
        factory: Makes its value; without one, assign the field in `started()`.
        init: Always false; there so that type checkers leave the field out of the constructor.
    """
    del init
    if factory is None:
        return attrs.field(init=False, metadata={_EPHEMERAL: True})
    return attrs.field(init=False, factory=factory, metadata={_EPHEMERAL: True})


def field(*, default: Any = attrs.NOTHING, factory: Callable[[], object] | None = None) -> Any:  # noqa: ANN401  # any field's type
    """A field of the state with a default value, or a factory of one."""
    if factory is not None:
        return attrs.field(factory=factory)
    return attrs.field(default=cast("object", default)) if isinstance(default, _IMMUTABLE) else _copied(default)


def _copied(default: object) -> object:
    if default is attrs.NOTHING:
        return attrs.field()
    return attrs.field(factory=lambda: copy.deepcopy(default))


class Relatives(Protocol):
    """The children of a supervisor, as it knows them."""

    async def start_child(self, child: Child[Any]) -> Reference:
        """Start a child at run time."""
        ...

    async def terminate_child(self, child: Actor) -> None:
        """Stop a child."""
        ...

    async def restart_child(self, child: Actor) -> None:
        """Start a child that does not run."""
        ...

    async def delete_child(self, child: Actor) -> None:
        """Forget a child that does not run."""
        ...

    async def members(self) -> list[tuple[Reference, Member]]:
        """All of them, in start order."""
        ...


class Cell(Protocol):
    """What a live actor needs of its activation."""

    @property
    def reference(self) -> Reference:
        """Its own reference."""
        ...

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        ...

    async def spawn(
        self, cls: type[Actor], key: str | None, state: Mapping[str, object], child: ChildSpec | None = None
    ) -> Reference:
        """Begin another actor."""
        ...

    @property
    def relatives(self) -> Relatives:
        """The actors it supervises."""
        ...

    def stop(self) -> None:
        """End with this turn."""
        ...


class ActorSpec:
    """What perdure knows of an actor class."""

    def __init__(  # noqa: PLR0913  # one for each class keyword
        self,
        cls: type[Actor],
        *,
        kind: str,
        version: int,
        retry: Retry | None,
        timeout: float | None,
        passivate_after: float,
        mailbox_limit: int,
        supervision: Strategy | None = None,
        needs: frozenset[str] = frozenset(),
        limit: Limit | None = None,
    ) -> None:
        self.cls = cls
        self.kind = kind
        self.version = version
        self.retry = retry
        self.timeout = timeout
        self.passivate_after = passivate_after
        self.mailbox_limit = mailbox_limit
        self.supervision = supervision
        self.needs = needs
        self.limit = limit
        self.auto_shutdown: AutoShutdown = "never"
        self.raises_children = False
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", cls))
        self.ephemerals = frozenset(a.name for a in fields if a.metadata.get(_EPHEMERAL))
        self.fields = tuple(a.name for a in fields if not a.metadata.get(_EPHEMERAL))
        self.required = frozenset(a.name for a in fields if a.init and a.default is attrs.NOTHING)
        self.names = frozenset(a.name for a in fields)
        members = {name: getattr_static(cls, name) for name in dir(cls)}
        self.handlers: dict[str, Handler[..., Any]] = {
            name: cast("Handler[..., Any]", m) for name, m in members.items() if isinstance(m, Handler)
        }
        self.queries = {name: m for name, m in members.items() if isinstance(m, Query)}
        self.reference_class: type[Reference] | None = None
        self.by_stored_name = {alias: h for h in self.handlers.values() for alias in h.aliases} | self.handlers

    def __repr__(self) -> str:
        return f"<spec of {self.kind}>"

    @cached_property
    def state(self) -> RecordCodec:
        """The codec of the state, by field."""
        hints = resolve_hints(self.cls, self.cls.__qualname__)
        try:
            return RecordCodec({name: hints[name] for name in self.fields})
        except EncodingError as error:
            raise ActorDefinitionError(f"{self.cls.__qualname__}: {error}") from error

    def check_state(self, state: Mapping[str, object]) -> None:
        """Refuse initial state that the class does not declare, or that lacks what it requires."""
        for name in state:
            if name not in self.fields:
                what = "is ephemeral, not state" if name in self.ephemerals else "is no field"
                raise StateError(f"'{name}' {what} of {self.cls.__name__}.{near(name, self.fields)}")
        missing = sorted(self.required - state.keys())
        if missing:
            raise StateError(f"{self.cls.__name__} requires {', '.join(missing)}. Pass it to spawn().")


def getattr_static(cls: type, name: str) -> object:
    """A class attribute as it was written, descriptors untouched."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


class SpawnCall(Protocol):
    """How `spawn` is called: with a class, a key and the first state, or with a `Child`. It gives a reference."""

    @overload
    async def __call__(self, child: Child[A], /) -> A: ...
    @overload
    async def __call__(self, cls: Callable[P, A], key: str | None = None, /, *args: P.args, **state: P.kwargs) -> A: ...


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(ephemeral, field))
class Actor:
    """Base class of actors.

    Class keywords:
        kind: Durable name; the class's qualified name without it. Renaming a class without `kind` loses its actors.
        aliases: Former durable names.
        version: Version of the state; see `migrate`.
        retry: Attempts and backoff of its messages.
        timeout: Wall time of a turn, waits included, after which its message ends `expired`.
        supervision: What it does about failures of the actors it spawns. Without it they are under the system's root,
            which counts the restarts of each alone.
        passivate_after: Idle time after which the actor leaves memory.
        mailbox_limit: How many unhandled messages it may hold.
        needs: What a process must have to run it, as its `ActorSystem(tags=…)` says: ``needs={"gpu"}``.
        limit: How many of its turns there may be at once, or begin in a time, on all processes together. A turn that
            waits for nothing but replies and time leaves its slot to others meanwhile.
    """

    __perdure__: ClassVar[ActorSpec]

    def __init_subclass__(  # noqa: PLR0913  # the class keywords, which are public API
        cls,
        *,
        kind: str | None = None,
        aliases: Iterable[str] = (),
        version: int = 1,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        supervision: Strategy | None = None,
        passivate_after: Seconds | None = None,
        mailbox_limit: int = 100_000,
        needs: Iterable[str] = (),
        limit: Limit | None = None,
    ) -> None:
        super().__init_subclass__()
        _check_reserved(cls)
        _copy_mutable_defaults(cls)
        attrs.define(slots=False, kw_only=True, eq=False, repr=False, on_setattr=attrs.setters.NO_OP)(cls)
        cls.__perdure__ = ActorSpec(
            cls,
            kind=kind or cls.__qualname__,
            version=version,
            retry=retry,
            timeout=None if timeout is None else seconds(timeout),
            passivate_after=_PASSIVATE_AFTER_SECONDS if passivate_after is None else seconds(passivate_after),
            mailbox_limit=mailbox_limit,
            supervision=supervision,
            needs=check_tags(needs, f"{cls.__qualname__}: needs="),
            limit=declare(limit, cls.__qualname__),
        )
        register_kind(cls, cls.__perdure__.kind, tuple(aliases))

    def __repr__(self) -> str:
        cell = self.__dict__.get("_perdure_cell")
        return f"<{type(self).__name__} {cell.reference.key if cell else '(no system)'}>"

    def __setattr__(self, name: str, value: object) -> None:
        spec = type(self).__perdure__
        if name not in spec.names:
            raise StateError(
                f"'{name}' is no field of {type(self).__name__}; it would be lost at the next activation. "
                f"Declare it with an annotation, or as ephemeral().{near(name, spec.names)}"
            )
        reason = read_only.get()
        if reason is not None and name not in spec.ephemerals:
            raise (ReadOnlyError if reason.startswith("query") else StateError)(
                f"{type(self).__name__}.{name} was assigned in {reason}, where state may not change. "
                "Do it in a @handler."
            )
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> object:
        if name in type(self).__perdure__.ephemerals:
            raise StateError(f"{type(self).__name__}.{name} is ephemeral and not set. Assign it in started().")
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    # final: a checker then refuses a field or handler of the same name

    @final
    @property
    def ref(self) -> Self:
        """The reference by which others reach this actor."""
        return cast("Self", cell_of(self).reference)

    @final
    @property
    def key(self) -> str:
        """This actor's key."""
        return cell_of(self).reference.key

    @final
    @property
    def system(self) -> ActorSystem:
        """The system this actor lives in."""
        return cell_of(self).system

    @final
    @property
    def spawn(self) -> SpawnCall:
        """Begin an actor as this one's child: `await self.spawn(Cls, key, **state)` gives its reference.

        It leaves with the turn's next durable point. Without a key, one is made. If this class has `supervision=`, it
        supervises the child: transient, unless a `Child` says otherwise.
        """
        cell = cell_of(self)

        async def spawn(cls: Callable[..., Any] | Child[Any], key: str | None = None, /, **state: object) -> object:
            if callable(cls):
                return await cell.spawn(cast("type[Actor]", cls), key, state)
            return await cell.spawn(cls.cls, cls.key, cls.state, cls.spec)

        return cast("SpawnCall", spawn)

    @final
    async def stop(self) -> None:
        """End this actor with the current turn. What is left in its mailbox becomes dead letters."""
        cell_of(self).stop()

    async def started(self) -> None:
        """Run at every activation, before the first message: open clients, warm caches. State may not be assigned."""

    async def stopping(self) -> None:
        """Run at passivation and at the system's end: close clients. State may not be assigned."""

    @classmethod
    def decide(cls, failure: Failure) -> Directive:
        """What to do about the failure of an actor that this one supervises.

        Asked of a class with `supervision=`, a `Supervisor` included, each time such an actor fails. Must be quick, and
        change nothing: it runs on the child's node, beside whatever this actor is doing.

        Args:
            failure: What went wrong, and with whom.

        Returns:
            `restart`: the strategy restarts it, if its restart type allows. `resume`: it goes on without a restart
            being counted, as the same instance; one that failed because a child's failure was escalated is restarted
            all the same. `stop`: it stops, its mail kept, until it is restarted; a temporary child is forgotten.
            `escalate`: this actor fails in its place, and its own supervisor decides. Anything else, or an exception,
            is logged and means `restart`.
        """
        del failure
        return "restart"

    @classmethod
    def migrate(cls, old_version: int, fields: dict[str, Any]) -> Mapping[str, Any]:
        """Turn the stored fields of an older `version` (plain JSON values) into those of this one."""
        del old_version
        return fields


def bind(actor: Actor, cell: Cell) -> None:
    """Tie a live actor to its activation."""
    actor.__dict__["_perdure_cell"] = cell


def lives(actor: Actor) -> bool:
    """Whether an actor lives in a system."""
    return "_perdure_cell" in actor.__dict__


def cell_of(actor: Actor) -> Cell:
    """The activation of a live actor."""
    cell = actor.__dict__.get("_perdure_cell")
    if cell is None:
        raise NotInTurnError(f"this {type(actor).__name__} lives in no system. Reach it through system.get(…).")
    return cast("Cell", cell)


def _check_reserved(cls: type) -> None:
    names = {*_own_annotations(cls), *(n for n in cls.__dict__ if not n.startswith("__"))}
    for name in sorted(names & _RESERVED):
        found = cls.__dict__.get(name)
        if name not in _OVERRIDABLE or isinstance(found, Handler | Query):
            raise ActorDefinitionError(
                f"{cls.__qualname__}.{name}: '{name}' is perdure's own name on actors. Choose another name."
            )


def _copy_mutable_defaults(cls: type) -> None:
    for name, annotation in _own_annotations(cls).items():
        if "ClassVar" in str(annotation):
            continue
        if name.startswith("_"):
            raise ActorDefinitionError(
                f"{cls.__qualname__}.{name}: a field of the state cannot begin with '_'. Rename it."
            )
        default = cls.__dict__.get(name, attrs.NOTHING)
        # attrs.field() and ephemeral() leave their own mark, which is not a value
        if default is attrs.NOTHING or isinstance(default, (*_IMMUTABLE, type(attrs.field()))):
            continue
        setattr(cls, name, _copied(default))


def _own_annotations(cls: type) -> dict[str, Any]:
    """Annotations written in the class itself, unresolved where the Python version keeps them lazily."""
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415  # 3.11 to 3.13 have none

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)
