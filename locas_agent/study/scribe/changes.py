"""What a turn says to be otherwise now: words that announce it, in English, and which values may take whose place.

A reader of one turn answers whatever it is asked, and nearly any old question finds some value in a new turn. That a
value took another's place is believed where its own sentence says that something changed ("now", "instead", "takes
over"), and where both are of one kind: a date follows a date, a name a name.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Literal

from locas_agent.conversation.messages import MONTHS
from locas_agent.study.spans import is_figure, is_spelled_number, telling, words_of

Kind = Literal["date", "number", "name", "word"]
_MONTH = re.compile(rf"\b(?:{'|'.join(MONTHS)})\b")
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+|\n+")
_CHANGE = re.compile(
    r"\b(?:now|no longer|no more|instead|any ?more|from now on|these days|tak(?:es|en|ing) over|took over|renamed|"
    r"rechristened|switched|replac(?:es|ed|ing)|swapped|changed?|moved|shifted|relocated|pushed back|put back|"
    r"postponed|brought forward|rescheduled|new \w+ is|after all|settled on|going to be|by now)\b",
    re.IGNORECASE,
)
_NEW = re.compile(r"\b(?:my|our|a) new (\w+)", re.IGNORECASE)
"""What somebody has anew: "so I have a new partner, Duarte"."""
_SEVERAL = frozenset(
    "friend mate pal colleague coworker neighbour neighbor student pupil client patient customer cousin niece nephew "
    "grandchild grandson granddaughter baby child book recipe song word idea".split()
)
"""Of these one more takes nobody's place."""


def kind_of(value: str) -> Kind:
    """Return what kind of answer a value is: a day of a month, a number or a time of day, a name, or other words."""
    if any(letter.isdigit() for letter in value):
        return "date" if _MONTH.search(value) else "number"
    if is_figure(value) or is_spelled_number(value):
        return "number"
    return "name" if value[:1].isupper() else "word"


def says_change(text: str, value: str, known: str = "") -> bool:
    """Tell whether the sentence of a turn that has a word of a value says that something is otherwise now.

    "Now" at the beginning of a sentence is no such word: "Now, the other matter". "A new partner" says it of a partner
    alone.

    Args:
        text: of the turn.
        value: as the turn spells it, or a date that it means.
        known: what is known and may be otherwise: how it was told, and what asks for it.
    """
    about = {word.key for word in words_of(known)} - _SEVERAL if _NEW.search(text) else set()
    return any(_announces(part, about) for part in _SENTENCE_END.split(text) if _has_word_of(value, part))


def _announces(sentence: str, about: Set[str]) -> bool:
    if any(match[1].casefold() in about for match in _NEW.finditer(sentence)):
        return True
    return any(match.start() or match.group().casefold() != "now" for match in _CHANGE.finditer(sentence))


def _has_word_of(value: str, sentence: str) -> bool:
    said = {word.key for word in words_of(sentence)}
    if kind_of(value) != "date":
        return bool(telling(value) & said)
    numbers = {digits for word in said if (digits := "".join(filter(str.isdigit, word)))}
    return bool(telling(value) & (said | numbers))
