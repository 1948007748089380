"""The English seed prompts of self-study, and the reading of what comes back.

The same prompts serve every backbone: a large one follows them as instructions, the bundled one was trained on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOTHING = "Nothing."
ABSTENTION = "I do not know."

_QUESTION_PROMPT = (
    '{speaker} said: "{excerpt}"\n'
    "Write a question about this for later, clear on its own, and its short answer, "
    'as "Question: ..." and "Answer: ...". If there is nothing to remember, write "Nothing."'
)
_UNANSWERABLE_PROMPT = (
    'Write a question about me that our conversation does not answer, as "Question: ..." and "Answer: I do not know."'
)
_QUESTION_ANSWER = re.compile(
    r"^\s*Question:[ \t]*(?P<question>\S[^\n]*?)\s*\n\s*Answer:[ \t]*(?P<answer>\S[^\n]*?)\s*$"
)
_ABSTAINS = re.compile(
    r"\b(i (do not|don't|don’t|cannot|can't|can’t) (know|say|tell|recall|remember)|not "
    r"(mentioned|known|stated|told)|no information|unknown)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """A question with its answer as the backbone wrote them."""

    question: str
    answer: str


def question_prompt(excerpt: str, *, speaker: str) -> str:
    """Return the seed prompt that asks for a question about one turn; `speaker` is "I", "You" or a name."""
    return _QUESTION_PROMPT.format(speaker=speaker, excerpt=excerpt)


def unanswerable_prompt() -> str:
    """Return the seed prompt that asks for a question which the conversation leaves open."""
    return _UNANSWERABLE_PROMPT


def parse_question_answer(text: str) -> QuestionAnswer | None:
    """Read one question and answer out of the backbone's text; None when it wrote nothing or anything else."""
    match = _QUESTION_ANSWER.match(text)
    return QuestionAnswer(match["question"], match["answer"]) if match else None


def says_nothing(text: str) -> bool:
    """Tell whether the backbone said that there is nothing to remember."""
    return text.strip().rstrip(".").casefold() == NOTHING.rstrip(".").casefold()


def abstains(answer: str) -> bool:
    """Tell whether an answer says that it does not know; English only, as the seed prompts are."""
    return _ABSTAINS.search(answer) is not None
