"""Forms of writing: how a backbone is brought to write questions about a turn.

A large model follows an instruction and its format. A small one writes anything but a question, until its answer is
*opened* for it: the first words of the question stand there already, and it goes on. So every form but "seed" opens
the answer, and cuts it at the question mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from locas_agent.conversation.messages import Message, exchange, question

SEED = "seed"
"""The protocol of the bundled backbone, which was trained on it: it writes question and answer in a set format."""

OPENINGS = (
    "What is my",
    "What is the name of my",
    "Who is my",
    "Where do I",
    "Where is",
    "When is",
    "When did I",
    "How many",
    "Which",
    "What do I",
    "What did I",
    "Who",
)
"""First words of questions about oneself."""

_BY_CUE = ("What is the {cue}", "What is my {cue}", "What is the name of the {cue}", "When is the {cue}")
_BY_NAME = ("Who is {cue}", "Where is {cue}", "What is {cue}")
_BY_NUMBER = ("How many {cue}",)
_QUESTION = re.compile(r'^[\s"“]*(?P<question>[^\n?"“”]*\?)')
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


def openings_for(cues: Sequence[str]) -> list[str]:
    """Return first words of questions: general ones, and some for each cue of the turn."""
    found = list(OPENINGS)
    for cue in cues:
        if any(letter.isdigit() for letter in cue):
            continue
        shapes = _BY_NAME if cue[0].isupper() else _BY_CUE
        found += [shape.format(cue=cue) for shape in shapes]
    return found


def question_of(text: str) -> str | None:
    """Return the question that an opened answer begins with; None where it is none or retells the turn."""
    match = _QUESTION.match(text)
    if match is None:
        return None
    found = " ".join(match["question"].split())
    return found if 3 <= len(found.split()) <= LONGEST_QUESTION else None


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
