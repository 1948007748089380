"""SQuAD's scorer, written again from the rules of its published code.

The rules: letters become small, ASCII punctuation goes without leaving a space, the words "a", "an" and "the" go,
spaces are squeezed. Two texts are the same when nothing else differs, and are compared as bags of words by F1.
"""

from __future__ import annotations

import re
import string
from collections import Counter

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> list[str]:
    """Return the words that count."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def squad_exact(answer: str, gold: str) -> bool:
    """Tell whether the answer is the gold and nothing beside it."""
    return normalised(answer) == normalised(gold)


def squad_f1(answer: str, gold: str) -> float:
    """Return the F1 of two bags of words, 0..1; of two empty ones 1."""
    got, expected = normalised(answer), normalised(gold)
    if not got or not expected:
        return float(got == expected)
    common = sum((Counter(got) & Counter(expected)).values())
    return 2 * common / (len(got) + len(expected))
