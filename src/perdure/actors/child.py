"""`Child`: an actor as its supervisor declares it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, TypeVar, cast, get_origin

from msgspec.structs import replace

from perdure.actors.names import check_name, kinds
from perdure.clock import Seconds, seconds
from perdure.errors import ActorDefinitionError, DecodingError, EncodingError
from perdure.storage.extension import register_extension
from perdure.storage.records import ChildSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perdure.actors.actor import Actor, ActorSpec
    from perdure.storage.records import Restart

P = ParamSpec("P")
A = TypeVar("A", bound="Actor")
A_co = TypeVar("A_co", bound="Actor", covariant=True)

_RESTARTS = ("permanent", "transient", "temporary")


class Child(Generic[A_co]):
    """An actor with its first state, and how it is supervised.

    A supervisor's child is `permanent`: restarted whenever it ends. It has 5 seconds to stop in; one that supervises
    others, as long as it takes.
    """

    cls: type[Actor]
    key: str | None
    state: Mapping[str, object]
    spec: ChildSpec
    plain: bool
    """Whether it was given no options, so that it says no more than its class, key and state."""

    def __new__(cls, actor: Callable[P, A], key: str | None = None, /, *args: P.args, **state: P.kwargs) -> Child[A]:
        """An actor of this class, with this key (without one, one is made) and this first state."""
        del args
        known = getattr(actor, "__perdure__", None)
        if known is None:
            raise ActorDefinitionError(f"Child({actor!r}): is no actor class. Pass a subclass of Actor.")
        known.check_state(state)
        self = cast("Child[Any]", object.__new__(cls))
        self.cls = cast("type[Actor]", actor)
        self.key = None if key is None else check_name(key, "key")
        self.state = state
        self.spec = _default(known)
        self.plain = True
        return cast("Child[A]", self)

    def __repr__(self) -> str:
        return f"<child {self.cls.__perdure__.kind}/{self.key}, {self.spec.restart}>"

    def options(
        self,
        *,
        restart: Restart | None = None,
        shutdown: Seconds | Literal["brutal", "infinity"] | None = None,
        significant: bool | None = None,
    ) -> Self:
        """The same child, supervised otherwise.

        Args:
            restart: `permanent`: restarted whenever it ends; `transient`: after a failure; `temporary`: never.
            shutdown: How long it has to stop in: running steps to complete, `stopping()` to return. `brutal`: not at
                all; `infinity`: as long as it takes.
            significant: Its end may end its supervisor (see `auto_shutdown` of `Supervisor`).

        Raises:
            ActorDefinitionError: A permanent child cannot be significant: it never ends for good.
        """
        if restart is not None and restart not in _RESTARTS:
            raise ActorDefinitionError(f"{self!r}: restart={restart!r} is not one of {', '.join(_RESTARTS)}.")
        spec = replace(
            self.spec,
            restart=self.spec.restart if restart is None else restart,
            shutdown=self.spec.shutdown if shutdown is None else _shutdown(shutdown),
            significant=self.spec.significant if significant is None else significant,
        )
        if spec.significant and spec.restart == "permanent":
            raise ActorDefinitionError(
                f"{self!r}: a permanent child cannot be significant, for it never ends for good. "
                "Make it transient or temporary."
            )
        other = object.__new__(type(self))
        other.cls, other.key, other.state, other.spec = self.cls, self.key, self.state, spec
        other.plain = False
        return other


class _ChildExtension:
    """How a child travels to its supervisor: as a JSON object in a string, its state encoded by its class."""

    def wire(self, value: object) -> str:
        if not isinstance(value, Child):
            raise EncodingError("child", f"{value!r} is no Child", "Pass Child(Cls, key, **state).")
        known = value.cls.__perdure__
        made = value.cls(**value.state)
        state = known.state.text({name: made.__dict__[name] for name in value.state}, known.cls.__name__)
        spec = value.spec
        return json.dumps([known.kind, value.key, state, spec.restart, spec.shutdown, spec.significant])

    def unwire(self, text: str) -> Child[Any]:
        kind, key, state, restart, shutdown, significant = json.loads(text)
        cls = kinds.get(kind)
        if cls is None:
            raise DecodingError(f"child {kind}/{key}", "no imported module defines that kind", "Import it first.")
        child = Child(cls, key, **cls.__perdure__.state.decode(state))
        child.spec = ChildSpec(restart, shutdown, significant)
        child.plain = child.spec == _default(cls.__perdure__)
        return child


def _child_extension(annotation: object) -> _ChildExtension | None:
    return _ChildExtension() if annotation is Child or get_origin(annotation) is Child else None


register_extension(_child_extension)


def _default(known: ActorSpec) -> ChildSpec:
    """How a child of a class is supervised that was given no options."""
    return ChildSpec(shutdown=None if known.supervision is not None else 5.0)


def _shutdown(given: Seconds | str) -> float | None:
    if given == "infinity":
        return None
    if given == "brutal":
        return 0.0
    if isinstance(given, str) or not 0 <= seconds(given) < math.inf:
        raise ActorDefinitionError(f"shutdown={given!r}: give seconds, 'brutal' or 'infinity'.")
    return seconds(given)
