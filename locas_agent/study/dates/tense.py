"""Whether a phrase of a sentence is about what was or about what will be, by the nearest verb that says so."""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"[.!?;:\n]")
_WORD = re.compile(r"[\w'’]+")
_PAST = frozenset(
    "was were wasn't weren't had did didn't went came got saw met told said bought left took made gave found began "
    "broke fell died ate drank flew drove ran rang sang sat slept spent spoke stood swam taught thought threw woke won "
    "wore wrote lost paid sent sold heard held kept knew led felt built caught chose brought forgot hid rode rose shot "
    "stole tore grew drew dug fought learnt burnt dreamt meant".split()
)
_PRESENT = frozenset(
    "will won't gonna shall must should can can't could may might am is are isn't aren't has have he's she's it's "
    "that's who's there's do does don't doesn't be being".split()
)
_NO_VERB = frozenset(
    "need indeed seed speed feed weed bed red wed shed hundred kid naked tired excited scared worried supposed pleased "
    "interested used bored".split()
)
_BEFORE_A_PARTICIPLE = frozenset("be being been am is are gets get getting have has he's she's it's".split())
_HABIT = re.compile(r"\b(?:every|each|always|usually|normally|often|sometimes|never)\b", re.IGNORECASE)


def sentence_around(text: str, start: int, end: int) -> tuple[str, str]:
    """Return what stands before and behind a part of a text in its sentence."""
    before, behind = text[:start], text[end:]
    cut = max((match.end() for match in _SENTENCE_END.finditer(before)), default=0)
    stop = _SENTENCE_END.search(behind)
    return before[cut:], behind[: stop.start()] if stop else behind


def is_habit(text: str, start: int, end: int) -> bool:
    """Tell whether the sentence around a part of a text speaks of what happens again and again."""
    return any(_HABIT.search(part) for part in sentence_around(text, start, end))


def is_past(text: str, start: int, end: int) -> bool:
    """Tell whether the sentence around a part of a text speaks of what was: the nearest verb before it, else behind it.

    A verb that no list knows says nothing, and a sentence without any is about what is to come, as plans are.
    """
    before, behind = sentence_around(text, start, end)
    words = [word.replace("’", "'").casefold() for word in _WORD.findall(before)]
    for at in reversed(range(len(words))):
        past = _tense(words[at], words[at - 1] if at else "")
        if past is not None:
            return past
    words = [word.replace("’", "'").casefold() for word in _WORD.findall(behind)]
    return next(
        (past for at, word in enumerate(words) if (past := _tense(word, words[at - 1] if at else "")) is not None),
        False,
    )


def _tense(word: str, former: str) -> bool | None:
    """Tell whether a word is a verb of the past (True) or the present (False); None where it is neither."""
    if word in _PRESENT or word.endswith(("'ll", "'m", "'re")):
        return False
    if former in _BEFORE_A_PARTICIPLE or former.endswith("'ve"):
        return None  # "is booked", "I've got"
    is_past = word in _PAST or (word.endswith("ed") and len(word) > 3 and word not in _NO_VERB)
    return True if is_past else None
