"""Comparing answers as text: normalise, token F1, containment, abstention."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_CARRIERS = frozenset("a an the it is its it's was are i you my your".split())
"""Words that carry no answer: articles, and the copula sentence an answer is put in ("It is Rex.")."""
_WORD = re.compile(r"\w+(?:['’]\w+)*", re.UNICODE)


def normalized_words(text: str) -> list[str]:
    """Return the words that make up an answer: NFC, case folded, without punctuation and carrier words."""
    found = _WORD.findall(unicodedata.normalize("NFC", text).casefold())
    return [word for word in found if word not in _CARRIERS] or found


def token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the two bags of words, 0..1."""
    got, expected = normalized_words(answer), normalized_words(gold)
    common = sum((Counter(got) & Counter(expected)).values())
    return 2 * common / (len(got) + len(expected)) if common else 0.0


def contains(answer: str, gold: str) -> bool:
    """Tell whether the gold's words stand in the answer, in order and together: exact match by containment."""
    got, expected = normalized_words(answer), normalized_words(gold)
    return any(got[at : at + len(expected)] == expected for at in range(len(got) - len(expected) + 1))


def same_answer(first: str, second: str) -> bool:
    """Tell whether two answers say the same: all words of one stand in the other, or nearly all are shared.

    Half of the words are not enough: "rubber maps" then agrees with "rubber postcards", and what is told again does not
    replace the old.
    """
    got, expected = set(normalized_words(first)), set(normalized_words(second))
    return bool(got and expected) and (got <= expected or expected <= got or token_f1(first, second) > 0.8)


def same_question(first: str, second: str) -> bool:
    """Tell whether two questions have the same words in the same order, carrier words aside."""
    return normalized_words(first) == normalized_words(second)


def stands_in(answer: str, question: str, text: str) -> bool:
    """Tell whether a text says an answer.

    It has every word of the answer that the question does not bring along, and there is one.
    """
    own = set(normalized_words(answer)) - set(normalized_words(question))
    return bool(own) and own <= set(normalized_words(text))
