"""How a scribe is asked, and what it writes: an answer that a turn holds, and a question for it.

The answer stands first: what a turn tells is found by copying from it, and the question is then written for that.
"""

from __future__ import annotations

import re

from locas_agent.conversation.messages import Message

_WRITE = 'Someone said: "{turn}"\nWhat may they ask later? Write short answers, each with its question.'
_READ = 'Someone said: "{turn}"\nThey ask later: {question}'
MARK = "|"
"""Between an answer and its question."""
_QUESTION = re.compile(r"\s*(?P<question>[^|\n?]*[^|\n?\s]\?)")


def to_write(turn: str) -> tuple[Message, ...]:
    """Return the prompt that asks for pairs about a turn."""
    return ({"role": "user", "content": _WRITE.format(turn=turn)},)


def to_read(turn: str, asked: str) -> tuple[Message, ...]:
    """Return the prompt that asks a question about a turn; it begins like that of `to_write`."""
    return ({"role": "user", "content": _READ.format(turn=turn, question=asked)},)


def pair_of(answer: str, asked: str) -> str:
    """Return an answer with its question as a scribe writes them."""
    return f"{opening_of(answer)} {asked}"


def opening_of(answer: str) -> str:
    """Return the words after which a scribe writes a question for a given answer."""
    return f"{answer} {MARK}"


def answer_in(text: str) -> str:
    """Return the answer with which a text begins."""
    return text.partition(MARK)[0].strip()


def question_in(text: str) -> str | None:
    """Return the question of a text, None where it has none."""
    match = _QUESTION.match(text.partition(MARK)[2])
    return match["question"] if match else None
