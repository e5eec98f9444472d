"""Sentences out of reStructuredText as `pydoc` keeps it: prose in, code, grammar, tables and headings out.

A reference page is mostly not prose. What is kept is every sentence that ends like one, together with what it stands
under (a section, a function's signature, a definition's term), because `Return a copy.` says nothing without it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from perdure.demo.words import stems

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator


class Sentence(NamedTuple):
    """One sentence and its place.

    Attributes:
        text: The sentence on one line.
        stems: How often each meaningful word, reduced to its stem, occurs in it.
        term: What it explains (`str.split()`, `Integers ("int")`), or empty.
        section: The heading above it, or empty under the page's own title.
        opens: It is the first of its paragraph.
        first: It is the first below its heading or term.
    """

    text: str
    stems: Counter[str]
    term: str
    section: str
    opens: bool
    first: bool


class _Block(NamedTuple):
    """Consecutive lines without a blank one between them."""

    indent: int
    lines: list[str]


_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "sect.", "resp.", "no.")
_UNDERLINE = re.compile(r"([*=\-^~\"#+])\1{2,}$")
_BULLET = re.compile(r"(?:[*•-]|\d+\.|\[\d+\])\s+")
_FOOTNOTE = re.compile(r"\[\d+\]\s")
_MARGIN_NOTE = re.compile(
    r"(?:Changed|New|Added|Deprecated)\b[^:.]{0,20}\bversion\b|Deprecated since|See also:", re.IGNORECASE
)
_ADMONITION = re.compile(r"(?:Note|Warning|Caution|Important|Tip|CPython implementation detail):\s*")
_NOT_PROSE = re.compile(r"::=|>>>|\+--|\|\s|-\[")
_RUN_IN = re.compile(r"^\*\*[^*]{1,40}[:.]\*\*\s+")
_MARK = re.compile(r"\s?\[\d+\](?=[\s.,;:]|$)")
_ASIDE = re.compile(r"\s\((?:see|cf\.|described|discussed)\b[^()]*(?:\([^()]*\)[^()]*)*\)", re.IGNORECASE)
_LISTING = re.compile(
    r"\b(?:follow\w*|below|example|e\.g\.|like|looks?|these|this)\b[^.]*:$|\bas follows", re.IGNORECASE
)
_LED = r"[\w.]+(?:\(\))?: [A-Z]"  # a lower-case name first, only where a summary put it: `str.split(): Return ...`
_BOUNDARY = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(*\[]*[A-Z_\"*\u201c]|" + _LED + ")")
_ENDING = re.compile(r"[.!?][\"'\u201d\u2019)\]]*$")
_OPENING = re.compile(r"[\"'\u201c\u2018(*\[_]*[A-Z]|[\"*\u201c]|" + _LED)
_SHORTEST, _LONGEST = 30, 420  # characters: below is a scrap, above is a list in disguise


def sentences(text: str) -> list[Sentence]:
    """The sentences of a page, in order. A sentence that occurs twice is kept once."""
    seen: dict[str, Sentence] = {}
    for sentence in _sentences(text):
        seen.setdefault(sentence.text, sentence)
    return list(seen.values())


def split(text: str) -> Iterator[str]:
    """A paragraph's sentences: what begins and ends like one, and is neither a scrap nor a monster."""
    start = 0
    for boundary in [*_BOUNDARY.finditer(text), None]:
        end = len(text) if boundary is None else boundary.end()
        candidate = text[start:end].strip()
        if boundary is not None and candidate.lower().endswith(_ABBREVIATIONS):
            continue
        start = end
        if _SHORTEST <= len(candidate) <= _LONGEST and _ENDING.search(candidate) and _OPENING.match(candidate):
            yield candidate


def _sentences(text: str) -> Iterator[Sentence]:
    section, opened = "", True
    titles = 0
    terms: list[tuple[int, str]] = []
    skipped: int | None = None  # everything indented deeper than this belongs to something that is left out
    for block in _blocks(text):
        if skipped is not None and block.indent > skipped:
            continue
        skipped = None
        terms = [(indent, term) for indent, term in terms if indent < block.indent]
        if len(block.lines) > 1 and _UNDERLINE.match(block.lines[1].strip()):
            titles += 1
            section, opened = ("" if titles == 1 else block.lines[0].strip()), True
            continue
        head, indent, body = _unwrap(block)
        if _left_out(block):
            skipped = block.indent
            continue
        if head:
            terms.append((indent, head))
            opened = True
        term = terms[-1][1] if terms else ""
        if opened and "." not in body and not _ENDING.search(body) and not _LISTING.search(body):
            body = body.removesuffix(":") + "."  # a definition, and its grammar or code follows
        for number, found in enumerate(split(body)):
            yield Sentence(found, stems(found), term, section, number == 0, opened)
            opened = False


def _blocks(text: str) -> Iterator[_Block]:
    lines: list[str] = []
    for line in [*text.expandtabs().splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield _Block(_indent(lines[0]), lines)
            lines = []


def _left_out(block: _Block) -> bool:
    first = block.lines[0].strip()
    return bool(
        _FOOTNOTE.match(first) or _MARGIN_NOTE.match(first) or any(_NOT_PROSE.search(line) for line in block.lines)
    )


def _unwrap(block: _Block) -> tuple[str, int, str]:
    """The term that a block defines (or nothing), its indent, and the block's prose on one line."""
    lines = list(block.lines)
    bullet = _BULLET.match(lines[0].lstrip())
    indent = block.indent
    if bullet:
        indent += bullet.end()
        lines[0] = " " * indent + lines[0].lstrip()[bullet.end() :]
    if len(lines) > 1 and _indent(lines[1]) > indent and not _ENDING.search(lines[0]):
        return _term(lines[0]), indent, _join(lines[1:])
    if _is_signature(lines):
        return _term(lines[0]), indent, ""
    return "", indent, _RUN_IN.sub("", _ADMONITION.sub("", _join(lines), count=1))


def _is_signature(lines: list[str]) -> bool:
    return all(re.fullmatch(r"\s*(?:class |async |await )?[\w.]+(?:\(.*\))?\s*", line) for line in lines)


def _term(line: str) -> str:
    """A signature's name, or a definition's term: what a reader needs to know what the sentence is about."""
    text = line.strip().rstrip(":")
    return re.sub(r"\(.*\)$", "()", text) if re.match(r"(?:class |async )?[\w.]+\(", text) else text


def _join(lines: list[str]) -> str:
    """Lines as one, with words that were broken at a hyphen put together."""
    text = re.sub(r"\s+", " ", " ".join(line.strip() for line in lines))
    return re.sub(r"(?<=[a-z])- (?!or\b|and\b|to\b)(?=[a-z]+\b)", "-", _ASIDE.sub("", _MARK.sub("", text)))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
