"""Values as text that is safe and fits: for a terminal, a pipe, or a log."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from attrs import frozen
from rich.cells import cell_len, set_cell_size
from rich.measure import Measurement
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderResult

    from perdure.console.views import Stored

ELLIPSIS = "…"

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NARROW = 10
_SHORTEST = 4


def clean(text: str) -> str:
    """Text on one line, in which nothing moves the cursor, changes colours or turns the direction of reading."""
    return text if text.isascii() and text.isprintable() else "".join(map(_clean_character, text))


def _clean_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in _TURNING:
        code = ord(character)
        return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004  # two digits hold it
    return character


def size(count: int) -> str:
    """A number of bytes: `412 B`, `1.2 kB`."""
    if count < 1000:  # noqa: PLR2004  # decimal units
        return f"{count} B"
    amount, unit = count / 1000, "kB"
    for larger in ("MB", "GB"):
        if amount >= 999.95:  # noqa: PLR2004  # would be written 1000.0
            amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}"


def cut(text: str, width: int) -> str:
    """Clean text in `width` cells; a longer one ends in an ellipsis and its length in bytes, where there is room."""
    # No more characters than fit need to be looked at, however long the value is.
    start = clean(text[: width + 1])
    if len(text) <= width + 1 and cell_len(start) <= width:
        return start
    length = size(len(text.encode(errors="surrogatepass")))
    ending = f"{ELLIPSIS} {length}" if width >= len(length) + _NARROW else ELLIPSIS
    return set_cell_size(start, max(0, width - len(ending))).rstrip() + ending if width > 0 else ""


def duration(seconds: float) -> str:
    """A duration in two units at most."""
    if seconds < 1:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"  # noqa: PLR2004  # two digits
    if seconds < 60:  # noqa: PLR2004  # seconds of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004  # minutes of an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004  # hours of a day
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h"


def moment(seconds: float, now: float) -> str:
    """A time in the local zone; without the date if it is today's."""
    try:
        then, today = _local(seconds), _local(now)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M:%S}"


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone()


def ago(seconds: float, now: float) -> str:
    """`4.2 s ago`, or `in 4.2 s`."""
    return f"{duration(now - seconds)} ago" if seconds <= now else f"in {duration(seconds - now)}"


def count(number: int, word: str, plural: str = "") -> str:
    """`1 message`, `2 messages`."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def value_text(stored: Stored) -> str:
    """A stored value as people read it: compact JSON, or what it is instead."""
    if stored.codec != "json":
        return f"<{stored.codec}, {size(stored.size)}>"
    return stored.text


def call_text(handler: str, args: Stored) -> str:
    """`run(question="why?", documents=["a","b"])`."""
    value = args.value()
    if args.codec != "json" or not isinstance(value, dict):
        return f"{handler}({value_text(args)})"
    return f"{handler}({', '.join(assignments(args))})"


def assignments(stored: Stored) -> Iterable[str]:
    """`name=value` for every member of a JSON object; the value alone of anything else."""
    for name, value in members(stored):
        yield f"{name}={value}" if name else value


def members(stored: Stored) -> list[tuple[str, str]]:
    """Names and compact JSON values of an object; a nameless one for anything else."""
    value = stored.value()
    if stored.codec != "json" or not isinstance(value, dict):
        return [("", value_text(stored))]
    named = cast(dict[str, object], value)
    return [(name, json.dumps(member, ensure_ascii=False, separators=(",", ":"))) for name, member in named.items()]


@frozen
class Cut:
    """A line of text that takes the width it is given, and is cut there."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's protocol for drawing."""
        yield Text(cut(self.text, options.max_width), style=self.style, no_wrap=True, overflow="ignore")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Rich's protocol for finding the widths of columns."""
        widest = min(cell_len(clean(self.text[: options.max_width + 1])), options.max_width)
        return Measurement(min(_SHORTEST, widest), widest)
