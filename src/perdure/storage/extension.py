"""How higher layers teach the codec types of their own, such as references and receipts: each is one JSON string."""

from collections.abc import Callable
from typing import Any, Protocol


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


def register_extension(matches: Callable[[object], Extension | None]) -> None:
    """Ask `matches` for the extension of every annotation, however deep inside another, from now on.

    It is asked for the type of a value too, when a digest of untyped arguments is made. Register when a module is
    imported: annotations that were compiled before are not looked at again.
    """
    _matchers.append(matches)


def extension_for(annotation: object) -> Extension | None:
    """The extension of this annotation, or of a value of this type; the first that was registered wins."""
    for matches in _matchers:
        found = matches(annotation)
        if found is not None:
            return found
    return None
