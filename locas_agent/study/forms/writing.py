"""Forms of writing: how a backbone is brought to write questions about a turn.

A large model follows an instruction and its format. A small one writes anything but a question, until its answer is
*opened* for it: the first words of the question stand there already, and it goes on. So every form but "seed" opens
the answer, and cuts it at the question mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from locas_agent.conversation.messages import Message, exchange, question

Wanted = Literal["anything", "name", "time", "number"]

SEED = "seed"
"""The protocol of the bundled backbone, which was trained on it: it writes question and answer in a set format."""


@dataclass(frozen=True, slots=True)
class OpeningWords:
    """First words of a question, and of what kind its answer is."""

    words: str
    wants: Wanted = "anything"


OPENINGS = (
    OpeningWords("What is my"),
    OpeningWords("What is the name of my", "name"),
    OpeningWords("Who is my", "name"),
    OpeningWords("Where do I"),
    OpeningWords("Where is my"),
    OpeningWords("When is", "time"),
    OpeningWords("When did I", "time"),
    OpeningWords("How many", "number"),
    OpeningWords("How much", "number"),
    OpeningWords("Which"),
    OpeningWords("What do I"),
    OpeningWords("What did I"),
    OpeningWords("Who", "name"),
)
"""First words of questions about oneself."""

_BY_CUE = (
    OpeningWords("What is the {cue}"),
    OpeningWords("What is my {cue}"),
    OpeningWords("What is the name of my {cue}", "name"),
    OpeningWords("When is the {cue}", "time"),
)
_BY_NAME = (OpeningWords("Who is {cue}"), OpeningWords("Where is {cue}"), OpeningWords("What is {cue}"))
_TIME_WORDS = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays "
    "sundays january february march april may june july august september october november december jan feb mar apr jun "
    "jul aug sep sept oct nov dec spring summer autumn winter fall morning afternoon evening night noon midnight today "
    "tomorrow yesterday weekend week weeks month months year years day days easter christmas".split()
)
_NUMBER_WORDS = frozenset(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
    "half dozen once twice".split()
)
_FIRST_PERSON = {
    "are you": "am I",
    "were you": "was I",
    "you are": "I am",
    "you were": "I was",
    "you're": "I'm",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
    "you": "I",
}
_PERSONS = re.compile(r"\b(" + "|".join(sorted(_FIRST_PERSON, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_QUESTION = re.compile(r'^[\s"“]*(?P<question>[^\n?"“”]*\?)')
_CLAUSE_END = re.compile(r"[.!?;:\n]\s")
CLOZE_WORDS = 10
"""Words before a value left out; half as many behind it."""
LONGEST_QUESTION = 18
"""Words of a question at most; a longer one retells the turn."""


@dataclass(frozen=True, slots=True)
class WritingForm:
    """One way to ask for a question about what the user said.

    Attributes:
        name: what settings, reports and caches call it.
        build: from the text of a turn to the messages of a prompt; the opened answer follows them.
    """

    name: str
    build: Callable[[str], list[Message]]


def openings_for(cues: Sequence[str]) -> list[OpeningWords]:
    """Return first words of questions: general ones, and some for each cue of the turn."""
    found = list(OPENINGS)
    for cue in cues:
        if any(letter.isdigit() for letter in cue):
            continue
        shapes = _BY_NAME if cue[0].isupper() else _BY_CUE
        found += [OpeningWords(shape.words.format(cue=cue), shape.wants) for shape in shapes]
    return found


def question_of(text: str) -> str | None:
    """Return the question that an opened answer begins with, as the user asks it.

    None where it is none, retells the turn, or asks the backbone about itself.
    """
    match = _QUESTION.match(text)
    if match is None:
        return None
    found = _PERSONS.sub(lambda each: _FIRST_PERSON[each[0].casefold()], " ".join(match["question"].split()))
    return found if 3 <= len(found.split()) <= LONGEST_QUESTION else None


def cloze(text: str, value: str) -> str | None:
    """Return what was said around a value, with the value left out, as a question; None where the value is all.

    What no question came to asks for is at least learnt in its own words.
    """
    before, found, after = text.partition(value)
    if not found:
        return None
    left = _CLAUSE_END.split(before)[-1].split()[-CLOZE_WORDS:]
    right = [word for word in _CLAUSE_END.split(after)[0].split() if any(map(str.isalnum, word))][: CLOZE_WORDS // 2]
    said = " ".join([*left, "...", *right])
    return f'What did I say: "{said}"?' if len(left) + len(right) > 1 else None


def is_of_kind(span: str, wants: Wanted) -> bool:
    """Tell whether a span can be the answer to a question that wants a time, a number or a name."""
    words = re.findall(r"\w+", span.casefold())
    if wants == "time":
        return any(word in _TIME_WORDS or word[0].isdigit() for word in words)
    if wants == "number":
        return any(word in _NUMBER_WORDS or word[0].isdigit() for word in words)
    return wants != "name" or any(word[0].isupper() for word in span.split())


def _asked(told: str) -> list[Message]:
    return question(f"Text:\nI: {told}\n\nWrite a short question that I could ask about this text.")


def _later(told: str) -> list[Message]:
    return question(
        f'I said: "{told}"\n\nLater I want to be reminded of this. Write the question that I ask, in the first person.'
    )


def _examples(told: str) -> list[Message]:
    shown = [message for text, asked in _SHOWN for message in exchange(f"Text:\nI: {text}\n\nA question:", asked)]
    return [*shown, *question(f"Text:\nI: {told}\n\nA question:")]


_SHOWN = (
    ("We moved to Leeds last year because I got a job at the library there.", "Which city did I move to?"),
    ("Nora, my eldest, turned six in March and wants a drum.", "How old is my daughter Nora?"),
)

WRITING_FORMS: dict[str, WritingForm] = {
    form.name: form
    for form in (WritingForm("ask", _asked), WritingForm("later", _later), WritingForm("examples", _examples))
}
"""All opened forms by name; "seed" is no entry, see `SEED`."""
