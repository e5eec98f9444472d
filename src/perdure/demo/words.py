"""Words that carry meaning, reduced to stems."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[a-z_][a-z_0-9]*(?:\.[a-z_][a-z_0-9]*)*")
_KEYWORD = re.compile(
    r'"([a-z]{2,8})"|\b([a-z]{2,8}) (?=(?:statement|clause|loop|block|keyword|expression|operator)s?\b)'
)
_LONG_ENOUGH = 4  # letters that a word keeps when its last one goes

STOP_WORDS = frozenset(
    """
    a about above after again all also although always an and another any are as at be because been before being
    below between both but by called can cannot case cases could did differ difference do does doing done each
    either else even every example few find first following for from further get given gives had happen happened
    happens has have having here how however i if in into is it its itself just kind know last least less like
    made make makes many may mean means might more most much must need neither new no none nor not now of off
    often on once one only onto or other others otherwise our out over own per python rather same section see
    shall should since so some still such sure than that the their them then there therefore these they thing
    things this those though through thus to too two under unless until up upon use used uses using usually was
    way we well were what when where whether which while who whom whose why will with within without work works
    would yet you your
    """.split()  # noqa: SIM905  # a list of two hundred strings is harder to read
)

# endings, what stands in their place, and how many letters must remain before them; the first that fits
_ENDINGS = (
    ("ies", "y", 2),
    ("sses", "ss", 2),
    ("izations", "iz", 2),
    ("ization", "iz", 2),
    ("ations", "at", 3),
    ("ation", "at", 3),
    ("ions", "", 4),
    ("ion", "", 4),
    ("ings", "", 3),
    ("ing", "", 3),
    ("ers", "", 4),
    ("er", "", 4),
    ("es", "", 3),
    ("ed", "", 3),
    ("ly", "", 4),
    ("ss", "ss", 2),
    ("us", "us", 2),
    ("is", "is", 2),
    ("s", "", 3),
)


def stems(text: str) -> Counter[str]:
    """The meaningful words of a text, reduced to stems, with their counts.

    `with`, `for` and their like mean nothing in English and much in Python: they count where they are quoted as code,
    or named as in "the with statement".
    """
    lowered = text.lower()
    words = (word for word in _WORD.findall(lowered) if len(word) > 1 and word not in STOP_WORDS)
    keywords = (quoted or named for quoted, named in _KEYWORD.findall(lowered))
    return Counter(map(_stem, words)) + Counter(word for word in keywords if word in STOP_WORDS)


def _stem(word: str) -> str:
    """English endings off (a small part of Porter's algorithm); names with dots or underscores stay as they are."""
    if "_" in word or "." in word:
        return word
    for ending, instead, shortest in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= shortest:
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > _LONG_ENOUGH and word[-1] == word[-2] and word[-1] not in "aeiouls":  # binding: bindd, bind
        word = word[:-1]
    return word[:-1] if len(word) > _LONG_ENOUGH and word.endswith("e") else word  # raise, raised, raising: rais
