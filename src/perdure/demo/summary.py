"""An extractive summariser: the sentences of a page that say most, in the page's own words.

Sentences are ranked by centrality in the graph of their TF-IDF similarities (LexRank, Erkan and Radev 2004), biased
towards a question where there is one (Otterbacher et al. 2005), and chosen by maximal marginal relevance, so that the
second does not repeat the first (Carbonell and Goldstein 1998). Answers are ranked with BM25 (Robertson et al. 1994).

Pure and deterministic: the same text gives the same summary, in every process.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from perdure.demo import prose
from perdure.demo.words import stems

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from perdure.demo.prose import Sentence

_DAMPING = 0.25  # how much of a sentence's rank is its own, not lent by its neighbours
_ROUNDS = 30
_NOVELTY = 0.35  # weight of "says something new" against "is important"
_SAME = 0.75  # two sentences this alike say the same
_LINKED = 0.05  # similarities below this are chance
_K1, _B = 1.2, 0.6  # BM25: saturation, and how much a long sentence is held against it
_IDEAL_WORDS = 22
_LEAD = 1.0  # how much more a page's first sentence counts, which says what the page is about
_INDIFFERENT = 0.5  # what a sentence that does not bear on the question still counts
_STRONG = 0.45  # of the best sentence's score, for another to be part of the answer
# sentences that lean on the one before them
_DANGLING = re.compile(
    r"\(|(?:"
    r"This|These|That|Those|It|Its|They|Their|Such|Both|Another|Some of|Here|Now|Then|So|And|Or|But|Also|Again|Below|"
    r"However|Otherwise|Therefore|Thus|Hence|Note|Similarly|Finally|Likewise|Instead|Consequently|Moreover|Furthermore|"
    r"Nevertheless|Still|Conversely|Unlike|What has|Given that|When this|Since this|Once this|Because of this|"
    r"When doing|A similar|In particular|From version|"
    r"As a (?:result|consequence)|For (?:example|instance|this)|"
    r"In (?:the table|this|that|these|those|such|other|both|either)|"
    r"If (?:so|not|it|they|this|that|neither|the latter)|"
    r"The (?:latter|former|above|following|second|other|result|previous|same|rest|first|last|next|reason)"
    r")\b"
)
# sentences that say only where something is said
_POINTER = re.compile(
    r"\b(?:[Ss]ee (?:also|section|the|PEP|chapter)?\b|refer to|is documented|"
    r"(?:described|discussed) (?:in|below|above)|(?:can|may) be found in|listed (?:earlier|below|above)|following|"
    r"for (?:more|full|further|additional) (?:details|information))"
)

_Vector = dict[str, float]


def summarise(text: str, sentences: int = 3, *, focus: str = "") -> str:
    """The sentences that say most, in the order of the page.

    Args:
        text: A page in the reStructuredText of `pydoc`, or plain prose.
        sentences: How many; fewer where the page has fewer.
        focus: A question. Sentences that bear on it are preferred, where there are any.

    Returns:
        One paragraph; empty for a page without a sentence.
    """
    found = prose.sentences(text)
    vectors = _vectors([sentence.stems for sentence in found])
    links = _links(vectors)
    interest = _interest(found, stems(focus))
    ranks = _centrality(links, interest)
    scores = [rank * want * _fitness(sentence) for rank, want, sentence in zip(ranks, interest, found, strict=True)]
    chosen = sorted(_choose(scores, links, sentences))
    return " ".join(_in_context(found, chosen))


def answer(question: str, notes: Mapping[str, str], sentences: int = 5) -> str:
    """What the notes say to a question: their best sentences, best first, each with the topic it stands in.

    Args:
        question: In plain words.
        notes: The topic and what was noted about it.
        sentences: How many at most; sentences far weaker than the best are left out.

    Returns:
        One line a sentence, with its topic in brackets, or a line that says that the notes are silent.
    """
    quotes = _quotes(notes)
    bags = [quote.bag for quote in quotes]
    scores = [
        score * _readability(quote.text) for score, quote in zip(_bm25(stems(question), bags), quotes, strict=True)
    ]
    best = max(scores, default=0.0)
    strong = [score if score >= _STRONG * best else 0.0 for score in scores]
    chosen = _choose(strong, _links(_vectors(bags)), sentences)
    lines = [f"{quotes[index].text} [{', '.join(quotes[index].topics)}]" for index in chosen]
    return "\n".join(lines) or f"The {len(notes)} notes say nothing about that."


# ranking --------------------------------------------------------------------------------------------------------------


def _vectors(bags: Sequence[Counter[str]]) -> list[_Vector]:
    """Each bag of stems as a TF-IDF vector of length one."""
    rarity = _rarity(bags)
    weighed = [{stem: (1 + math.log(count)) * rarity[stem] for stem, count in bag.items()} for bag in bags]
    return [_normal(vector) for vector in weighed]


def _rarity(bags: Sequence[Counter[str]]) -> dict[str, float]:
    """Inverse document frequency of every stem, as BM25 has it: never negative."""
    holding: defaultdict[str, int] = defaultdict(int)
    for bag in bags:
        for stem in bag:
            holding[stem] += 1
    return {stem: math.log(1 + (len(bags) - held + 0.5) / (held + 0.5)) for stem, held in holding.items()}


def _normal(vector: _Vector) -> _Vector:
    length = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {stem: weight / length for stem, weight in vector.items()} if length else {}


def _links(vectors: Sequence[_Vector]) -> list[dict[int, float]]:
    """For each sentence the cosine with every other one that shares more than chance with it."""
    postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    links: list[dict[int, float]] = [{} for _ in vectors]
    for index, vector in enumerate(vectors):
        overlap: defaultdict[int, float] = defaultdict(float)
        for stem, weight in vector.items():
            for other, other_weight in postings[stem]:
                overlap[other] += weight * other_weight
            postings[stem].append((index, weight))
        for other, similarity in overlap.items():
            if similarity >= _LINKED:
                links[index][other] = links[other][index] = similarity
    return links


def _centrality(links: Sequence[Mapping[int, float]], interest: Sequence[float]) -> list[float]:
    """PageRank over the similarities, with `interest` as where the reader starts anew. Sums to about one."""
    total = sum(interest)
    own = [weight / total for weight in interest]
    given = [sum(neighbours.values()) for neighbours in links]
    ranks = own
    for _ in range(_ROUNDS):
        ranks = [
            _DAMPING * own[index]
            + (1 - _DAMPING) * sum(ranks[other] * similarity / given[other] for other, similarity in neighbours.items())
            for index, neighbours in enumerate(links)
        ]
    return ranks


def _interest(found: Sequence[Sentence], asked: Counter[str]) -> list[float]:
    """Where a reader would look first: at the opening, and at what is asked for."""
    wanted = _bm25(asked, [sentence.stems for sentence in found])
    most = max(wanted, default=0.0) or 1.0
    lead = [1.0 + _LEAD / (1 + index) ** 2 for index in range(len(found))]
    return [place * (_INDIFFERENT + want / most) for place, want in zip(lead, wanted, strict=True)]


def _fitness(sentence: Sentence) -> float:
    """How well a sentence of a page can be taken out of it. What explains a heading or a term gets it in front."""
    explains = sentence.first and bool(sentence.term or sentence.section)
    return _readability(sentence.text, led=explains) * (1.0 if sentence.opens else 0.85)


def _readability(text: str, *, led: bool = False) -> float:
    """How well a sentence stands alone: long enough to say something, short enough to read, leaning on no other."""
    apart = math.log(len(text.split()) / _IDEAL_WORDS)
    fitness = math.exp(-(apart**2) * (1.0 if apart > 0 else 0.5))
    if _DANGLING.match(text) and not led:
        fitness *= 0.3
    if _POINTER.search(text):
        fitness *= 0.35
    return fitness


def _choose(scores: Sequence[float], links: Sequence[Mapping[int, float]], wanted: int) -> list[int]:
    """Up to `wanted` indexes, best first, each weighed against what is already chosen. Zeros are never chosen."""
    best = max(scores, default=0.0)
    left: list[int] = [index for index, score in enumerate(scores) if score > 0]
    chosen: list[int] = []
    while left and len(chosen) < wanted:

        def worth(index: int) -> tuple[float, int]:
            repeated = max((links[index].get(other, 0.0) for other in chosen), default=0.0)
            return (1 - _NOVELTY) * scores[index] / best - _NOVELTY * repeated, -index

        chosen.append(max(left, key=worth))
        left = [index for index in left if index != chosen[-1] and links[index].get(chosen[-1], 0.0) < _SAME]
    return chosen


def _bm25(asked: Counter[str], bags: Sequence[Counter[str]]) -> list[float]:
    """BM25, times the part of the question that a sentence speaks of: two words of two beat one of them twice."""
    rarity = _rarity(bags)
    known = [stem for stem in asked if stem in rarity]
    whole = sum(rarity[stem] for stem in known)
    usual = sum(bag.total() for bag in bags) / len(bags) if bags else 1.0

    def score(bag: Counter[str]) -> float:
        room = _K1 * (1 - _B + _B * bag.total() / (usual or 1.0))
        hits = [stem for stem in known if bag[stem]]
        covered = sum(rarity[stem] for stem in hits) / whole if hits else 0.0
        return covered * sum(rarity[stem] * bag[stem] * (_K1 + 1) / (bag[stem] + room) for stem in hits)

    return [score(bag) for bag in bags]


# wording --------------------------------------------------------------------------------------------------------------


class _Quote(NamedTuple):
    """A sentence of the notes, and every topic that has it."""

    text: str
    topics: list[str]
    bag: Counter[str]


def _quotes(notes: Mapping[str, str]) -> list[_Quote]:
    """The notes' sentences. One speaks of its topic even where it does not name it."""
    found: dict[str, _Quote] = {}
    for topic, note in notes.items():
        for text in prose.split(note):
            quote = found.setdefault(text, _Quote(text, [], stems(text)))
            quote.topics.append(topic)
            quote.bag.update(stems(topic.replace("-", " ")))
    return list(found.values())


def _in_context(found: Sequence[Sentence], chosen: Sequence[int]) -> list[str]:
    """The chosen sentences, each after what it explains unless the one before, or its own words, said so."""
    lines: list[str] = []
    said = ""
    for index in chosen:
        sentence = found[index]
        heading = sentence.section if _DANGLING.match(sentence.text) and sentence.first else ""
        about = sentence.term or heading
        named = about in {"", said} or about.strip('"').removesuffix("()") in sentence.text
        lines.append(sentence.text if named else f"{about}: {sentence.text}")
        said = about
    return lines
