"""`Child`: an actor as its supervisor declares it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, TypeVar, cast

from msgspec.structs import replace

from perdure.actors.names import check_name
from perdure.clock import Seconds, seconds
from perdure.errors import ActorDefinitionError
from perdure.storage.records import ChildSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perdure.actors.actor import Actor
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
        self.spec = ChildSpec(shutdown=None if known.supervision is not None else 5.0)
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
        return other


def _shutdown(given: Seconds | str) -> float | None:
    if given == "infinity":
        return None
    if given == "brutal":
        return 0.0
    if isinstance(given, str) or not 0 <= seconds(given) < math.inf:
        raise ActorDefinitionError(f"shutdown={given!r}: give seconds, 'brutal' or 'infinity'.")
    return seconds(given)
