"""How a scribe is asked, and what it writes: one line for each answer that a turn holds, with a question for it.

The answer stands first: what a turn tells is found by copying from it, and the question is then written for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from locas_agent.conversation.messages import Message

_WRITE = 'Someone said: "{turn}"\nWhat may they ask later? Write short answers, each with its question.'
_READ = 'Someone said: "{turn}"\nThey ask later: {question}'
_LINE = re.compile(r"^\s*(?P<answer>[^|\n]*?\S)\s*\|\s*(?P<question>[^|\n?]*\S\?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pair:
    """An answer that a turn holds, and a question for it."""

    answer: str
    question: str


def to_write(turn: str) -> tuple[Message, ...]:
    """Return the prompt that asks for pairs about a turn."""
    return ({"role": "user", "content": _WRITE.format(turn=turn)},)


def to_read(turn: str, asked: str) -> tuple[Message, ...]:
    """Return the prompt that asks a question about a turn; it begins like that of `to_write`."""
    return ({"role": "user", "content": _READ.format(turn=turn, question=asked)},)


def lines_of(pairs: Iterable[Pair]) -> str:
    """Return pairs as a scribe writes them."""
    return "\n".join(f"{pair.answer} | {pair.question}" for pair in pairs)


def opening_of(answer: str) -> str:
    """Return the beginning of a line after which a scribe writes a question for a given answer."""
    return f"{answer} |"


def pairs_in(text: str) -> list[Pair]:
    """Return the pairs of what a scribe wrote; lines of any other form are left out."""
    return [Pair(match["answer"], match["question"]) for match in _LINE.finditer(text)]
