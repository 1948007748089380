"""What a turn says that somebody is: a calling, a relation, a post. In English.

It is what people are asked for first, and no capital and no digit gives it away.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from locas_agent.study.scribe.naming import CALLED, ENDS, name_at
from locas_agent.study.spans import Word, words_of

MOST_WORDS = 3
"""Words of a calling at most: "wind turbine technician"."""
_IS = frozenset("i'm i’m im he she am is was be become became becoming as".split())
"""Words before "a" or "an" behind which a text says what somebody is; "he" and "she" are "he's" and "she's"."""
_WORKS = frozenset(
    "apprenticed employed hired job post qualified qualify role serve served started trained training work worked "
    "working works".split()
)
"""Words before such an "as": "red as a beet" says nothing of anybody."""
_IS_NAMED = frozenset("i'm i’m im he she".split())
"""The same before "the" or whose: "the chair is the problem" says nothing of anybody."""
_I_AM = frozenset("i'm i’m im".split())
_NOBODY = frozenset("it this that there here which what such".split())
_KNOWN = frozenset("the my our".split())
_STARTED = frozenset("new newest".split())
"""Words that are no part of what somebody is: "the new dentist" is asked for by what he does."""
MOST_BETWEEN = 5
"""Words between what somebody is and a name behind it at most: "the dentist from the square, Doctor Low,"."""


@dataclass(frozen=True, slots=True)
class Calling:
    """What somebody is, as a turn spells it, and whose it is."""

    text: str
    whose: str
    """"I", a name, or "my brother"; empty where the turn says only "he" or "she", and no name behind it."""


def callings_in(text: str) -> list[Calling]:
    """Return what a text says that somebody is, in order.

    "kiln technician" of "I'm a kiln technician now", "vet" of "he's the vet", "baker" of "I've got Torvald, a baker".
    """
    text = unicodedata.normalize("NFC", text)
    words = words_of(text)
    found = []
    for at in range(1, len(words) - 1):
        if not _says_what_somebody_is(text, words, at):
            continue
        said = list(takewhile(_may_be_part, words[at + 1 : at + 1 + MOST_WORDS]))
        run = said[1:] if len(said) > 1 and said[0].key in _STARTED else said
        if run and text[words[at].end : run[-1].end].count(" ") == len(said):  # nothing but blanks between them
            whose = _whose(words, at) or _named_behind(text, words[at + len(said) :])
            found.append(Calling(text[run[0].start : run[-1].end], whose))
    return found


def _says_what_somebody_is(text: str, words: Sequence[Word], at: int) -> bool:
    """Tell whether behind a word, an article or whose, stands what somebody is."""
    before = words[at - 1]
    if words[at].key in _KNOWN:
        return before.key in _IS_NAMED
    if words[at].key not in ("a", "an"):
        return False
    if before.is_name and text[before.end : words[at].start] == ", ":
        return True
    other = words[max(0, at - 2)].key
    return before.key in _IS and other not in _NOBODY and (before.key != "as" or other in _WORKS)


def _whose(words: Sequence[Word], at: int) -> str:
    """Return whose a calling is whose article stands at a place."""
    *_, other, subject, verb = ["", "", *(word.key for word in words[max(0, at - 3) : at])]
    if verb in _I_AM or (verb == "am" and subject == "i"):
        return "I"
    if words[at - 1].is_name:
        return words[at - 1].text
    if verb not in ("is", "was") or at < 2:
        return ""
    if words[at - 2].is_name:
        return words[at - 2].text
    return f"{other} {subject}" if other in ("my", "our") and words[at - 2].carries else ""


def _named_behind(text: str, words: Sequence[Word]) -> str:
    """Return the name that stands between commas behind the first word, in the same part of a sentence; or nothing.

    It says whose calling stands before it: "he's the dentist from the square, Doctor Low, and ...".
    """
    for at, word in enumerate(words[1 : MOST_BETWEEN + 2], 1):
        between = text[words[at - 1].end : word.start]
        if between == ", " and word.is_name:
            name = name_at(words, at)
            return text[word.start : name[-1].end] if name and ENDS.match(text, name[-1].end) else ""
        if between != " ":
            return ""
    return ""


def _may_be_part(word: Word) -> bool:
    return word.carries and not word.is_name and word.key not in CALLED
