"""What a turn says to be otherwise now: words that announce it, in English, and which values may take whose place.

A reader of one turn answers whatever it is asked, and nearly any old question finds some value in a new turn. That a
value took another's place is believed where its own sentence says that something changed ("now", "instead", "takes
over"), and where both are of one kind: a date follows a date, a name a name.
"""

from __future__ import annotations

import re
from typing import Literal

from locas_agent.conversation.messages import MONTHS
from locas_agent.study.spans import telling, words_of

Kind = Literal["date", "number", "name", "word"]
_MONTH = re.compile(rf"\b(?:{'|'.join(MONTHS)})\b")
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+|\n+")
_CHANGE = re.compile(
    r"\b(?:now|no longer|no more|instead|any ?more|from now on|these days|tak(?:es|en|ing) over|took over|renamed|"
    r"rechristened|switched|replac(?:es|ed|ing)|swapped|changed?|moved|pushed back|put back|postponed|brought forward|"
    r"rescheduled|new \w+ is|after all|settled on|going to be|by now)\b",
    re.IGNORECASE,
)


def kind_of(value: str) -> Kind:
    """Return what kind of answer a value is: a day of a month, something with a digit, a name, or other words."""
    if any(letter.isdigit() for letter in value):
        return "date" if _MONTH.search(value) else "number"
    return "name" if value[:1].isupper() else "word"


def says_change(text: str, value: str) -> bool:
    """Tell whether the sentence of a turn that has a word of a value says that something is otherwise now.

    "Now" at the beginning of a sentence is no such word: "Now, the other matter".

    Args:
        text: of the turn.
        value: as the turn spells it, or a date that it means.
    """
    return any(_announces(part) for part in _SENTENCE_END.split(text) if _has_word_of(value, part))


def _announces(sentence: str) -> bool:
    return any(match.start() or match.group().casefold() != "now" for match in _CHANGE.finditer(sentence))


def _has_word_of(value: str, sentence: str) -> bool:
    said = {word.key for word in words_of(sentence)}
    if kind_of(value) != "date":
        return bool(telling(value) & said)
    numbers = {digits for word in said if (digits := "".join(filter(str.isdigit, word)))}
    return bool(telling(value) & (said | numbers))
