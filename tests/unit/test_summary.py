"""The summariser behind the demo: what newcomers read first must be sentences, and the same ones every time."""

from __future__ import annotations

import subprocess
import sys
from pydoc_data.topics import topics
from types import FrameType

import pytest

from perdure.demo import prose
from perdure.demo.summary import answer, summarise
from perdure.demo.words import stems

LARGEST = max(topics, key=lambda topic: len(topics[topic]))
GRAMMAR_AND_CODE = ("::=", ">>>", "+---", "****", "====")


def test_empty_text_has_an_empty_summary() -> None:
    """A page without a sentence is no crash and no invented sentence."""
    assert summarise("") == ""
    assert summarise("\n\n   x = 1\n") == ""
    assert summarise("Title\n*****\n\n   stmt ::= 'x'\n") == ""


def test_one_sentence_is_its_own_summary() -> None:
    """A page that cannot be shortened comes back whole."""
    text = "An actor keeps its state in a database file."
    assert summarise(text) == text
    assert summarise(text, sentences=1, focus="state") == text


def test_no_sentence_asked_for_gives_none() -> None:
    """The number of sentences is a limit, at zero too."""
    assert summarise("An actor keeps its state in a database file.", sentences=0) == ""


@pytest.mark.parametrize("topic", sorted(topics))
def test_every_topic_has_a_summary_of_whole_sentences(topic: str) -> None:
    """Whatever page is read, the note is prose: no grammar, code, tables or headings, no torn sentence."""
    summary = summarise(topics[topic])
    assert summary
    assert not [mark for mark in GRAMMAR_AND_CODE if mark in summary]
    assert "\n" not in summary
    assert summary.rstrip("\"')\u201d\u2019")[-1] in ".!?"
    assert 1 <= len(list(prose.split(summary))) <= 3


def test_a_page_opens_with_what_it_defines() -> None:
    """The summary of a page says what the page is about, also where the definition runs into its grammar."""
    assert summarise(topics["assert"]).startswith(
        "Assert statements are a convenient way to insert debugging assertions into a program."
    )
    assert summarise(topics["while"]).startswith('The "while" statement is used for repeated execution as long as')
    assert summarise(topics["lambda"]).startswith("Lambda expressions (sometimes called lambda forms) are used to")


def test_a_sentence_about_a_function_names_it() -> None:
    """`Return a copy.` means nothing without the signature it stood under."""
    text = (
        "Methods\n*******\n\nstr.upper()\n\n   Return a copy of the string with all the cased characters in capitals.\n"
    )
    assert summarise(text) == "str.upper(): Return a copy of the string with all the cased characters in capitals."


def test_the_same_thing_is_not_said_twice() -> None:
    """Three sentences of summary are three thoughts."""
    text = (
        "The writer locks the database file before every write. "
        "Before every write the writer locks the database file. "
        "Readers open the file without any lock and see the last commit."
    )
    summary = summarise(text, sentences=2)
    assert "Readers" in summary
    assert summary.count("writer locks") == 1


def test_a_question_draws_the_summary_to_itself() -> None:
    """Notes taken for a question hold what bears on it."""
    assert "finally" in summarise(topics["compound"], focus="When is a finally clause executed?")
    assert "pattern" in summarise(topics["compound"], focus="How does a pattern match?")


def test_summaries_are_the_same_in_every_process() -> None:
    """A step that is interrupted and run again writes the same note, whatever the seed of hashes is."""
    program = (
        "from pydoc_data.topics import topics\nfrom perdure.demo.summary import summarise\n"
        "print([summarise(topics[t], focus='How are names bound?') for t in ('naming', 'import', 'types')])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_the_largest_topic_takes_no_more_than_it_should() -> None:
    """The demo's steps last as long as they say, not as long as the summariser: calls are counted, for clocks lie."""
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        assert summarise(topics[LARGEST], focus="What is a descriptor?")
    finally:
        sys.setprofile(before)
    assert calls < 1_500_000


@pytest.mark.parametrize(
    ("question", "topic", "words"),
    [
        ("When is a finally clause executed?", "try", "on the way out"),
        ("What is a generator and how does yield work?", "yield", "generator function"),
        ("Which objects are mutable?", "objects", "Objects whose value can change"),
        ("How does the with statement release resources?", "with", "context manager"),
        ("How are exceptions raised and handled?", "raise", "An exception may be handled when"),
    ],
)
def test_an_answer_quotes_the_topic_that_knows(question: str, topic: str, words: str) -> None:
    """A newcomer's question is answered from the right page, with that page named."""
    notes = {name: summarise(text, focus=question) for name, text in topics.items()}
    cited = [line for line in answer(question, notes).splitlines() if words in line]
    assert cited
    assert topic in cited[0].rpartition("[")[2]


def test_an_answer_cites_every_topic_that_says_so_once() -> None:
    """A sentence that stands on two pages is quoted once and credited to both."""
    notes = {"a": "Snow is white in winter and grey in spring.", "b": "Snow is white in winter and grey in spring."}
    assert answer("What colour is snow?", notes) == "Snow is white in winter and grey in spring. [a, b]"


def test_no_answer_is_made_up() -> None:
    """Where the notes are silent the answer says so."""
    notes = {name: summarise(text) for name, text in topics.items()}
    assert answer("How is sourdough baked?", notes) == f"The {len(topics)} notes say nothing about that."
    assert answer("Anything?", {}) == "The 0 notes say nothing about that."


def test_words_meet_across_their_endings() -> None:
    """A question about raising finds what is raised."""
    assert stems("raising raised raises") == {"rais": 3}
    assert stems("the with statement") == {"statement": 1, "with": 1}
    assert stems("with care") == {"care": 1}
