"""How higher layers teach the codec types of their own, such as references and receipts: each is one JSON string."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Extension(Protocol):
    """A type that is stored as a string which its owner reads and writes."""

    def wire(self, value: Any) -> str:  # noqa: ANN401  # any value may be offered, acceptable or not
        """The string that stands for the value.

        Raises:
            EncodingError: The value is not one of this type.
        """
        ...

    def unwire(self, text: str) -> Any:  # noqa: ANN401  # the type is the extension's own
        """The value that the string stands for.

        Raises:
            DecodingError: The string stands for no value of this type.
        """
        ...


_matchers: list[Callable[[object], Extension | None]] = []
_wires: list[tuple[type[Any], Callable[[Any], str]]] = []


def register_extension(matches: Callable[[object], Extension | None]) -> None:
    """Ask `matches` for the extension of every annotation, however deep inside another, from now on.

    Register when a module is imported: annotations that were compiled before are not looked at again.
    """
    _matchers.append(matches)


def register_wire(type_: type[T], wire: Callable[[T], str]) -> None:
    """Write values of this class, subclasses included, by `wire` where no annotation says what they are: in digests.

    Needed where the class of the value is not what annotations name, as with references.
    """
    _wires.append((type_, wire))


def extension_for(annotation: object) -> Extension | None:
    """The extension of this annotation, or of a value of this type; the first that was registered wins."""
    for matches in _matchers:
        found = matches(annotation)
        if found is not None:
            return found
    return None


def wire_of(value: object) -> str | None:
    """The string for a value without annotation; None if it belongs to no extension."""
    for type_, wire in _wires:
        if isinstance(value, type_):
            return wire(value)
    extension = extension_for(type(value))
    return None if extension is None else extension.wire(value)
