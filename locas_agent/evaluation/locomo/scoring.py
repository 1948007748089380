"""LoCoMo's scorer, written again from the rules of its published code.

The rules: commas go, letters become small, ASCII punctuation goes without leaving a space, the words "a", "an", "the"
and "and" go, spaces are squeezed, each token is stemmed (Porter, as NLTK does it by default); two texts are compared as
bags of tokens by F1.

| category | score |
|---|---|
| 1 multi-hop | both are cut at commas; mean over the gold's parts of the best F1 with a part of the answer |
| 2 temporal, 4 single-hop | F1 |
| 3 open-domain | F1 with the gold up to its first semicolon |
| 5 adversarial | 1 if the answer holds "no information available" or "not mentioned", else 0 |
"""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from random import Random
from typing import Any

from locas_agent.errors import MissingExtra
from locas_agent.evaluation.scoring import mean
from locas_agent.study.matching import contains
from locas_agent.study.prompts import abstains

NOT_MENTIONED = "Not mentioned in the conversation"
"""The right one of the two answers that category 5 offers."""
_REFUSALS = ("no information available", "not mentioned")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DROPPED = re.compile(r"\b(?:a|an|the|and)\b")
_LETTER = re.compile(r"\(([ab])\)")


def normalised(text: str) -> list[str]:
    """Return the stemmed tokens that count."""
    spaced = _DROPPED.sub(" ", text.lower().translate(_NO_PUNCTUATION))
    return [_stem(word) for word in spaced.split()]


def stemmed_f1(answer: str, gold: str) -> float:
    """Return the F1 of two bags of tokens; 0 when they share none."""
    got, expected = normalised(answer), normalised(gold)
    common = sum((Counter(got) & Counter(expected)).values())
    return 2 * common / (len(got) + len(expected)) if common else 0.0


def parts_f1(answer: str, gold: str) -> float:
    """Return the score of category 1, where both may be lists."""
    guesses = answer.split(",")
    return mean([max(stemmed_f1(guess, part) for guess in guesses) for part in gold.split(",")])


def refuses(answer: str) -> bool:
    """Tell whether an answer holds one of the two phrases that category 5 looks for."""
    return any(phrase in answer.lower() for phrase in _REFUSALS)


def official(category: int, answer: str, gold: str | None) -> float:
    """Return the score of one answer.

    Args:
        category: 1 to 5.
        answer: what was said; in category 5 the text of the option that was chosen, see `chosen`.
        gold: what is right; not looked at in category 5.
    """
    if gold is None:
        return float(refuses(answer))
    match category:
        case 1:
            return parts_f1(answer, gold)
        case 3:
            return stemmed_f1(answer, _before_semicolon(gold))
        case _:
            return stemmed_f1(answer, gold)


def exact(category: int, answer: str, gold: str | None) -> bool:
    """Tell whether the answer holds the gold, its words together and in order.

    In category 5, whether it says that it does not know.
    """
    if gold is None:
        return abstains(answer)
    return contains(answer, _before_semicolon(gold) if category == 3 else gold)


def options(trap: str, *, trap_first: bool) -> tuple[str, str]:
    """Return the two answers that category 5 offers, as (a) and (b)."""
    return (trap, NOT_MENTIONED) if trap_first else (NOT_MENTIONED, trap)


def offer(text: str, trap: str, *, trap_first: bool) -> str:
    """Return a question of category 5 with its two answers."""
    first, second = options(trap, trap_first=trap_first)
    return f"{text}\nChoose one answer: (a) {first} (b) {second}"


def chosen(reply: str, trap: str, *, trap_first: bool) -> str:
    """Return the text of the option a reply names; a reply that names none, or both, stands for itself.

    A reply without a letter is not counted as "(b)": rambling would be right half of the time.
    """
    bare = reply.strip().strip("().:").lower()
    letters = {bare} if bare in ("a", "b") else set(_LETTER.findall(reply.lower()))
    if len(letters) != 1:
        return reply
    return options(trap, trap_first=trap_first)["ab".index(letters.pop())]


def trap_comes_first(seed: int, dialogue: str, number: int) -> bool:
    """Draw the order in which the published script would have offered the two answers, once for each question."""
    return Random(f"{seed}:{dialogue}:{number}").random() < 0.5


def _before_semicolon(gold: str) -> str:
    return gold.split(";")[0].strip()


@cache
def _stemmer() -> Any:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise MissingExtra.of("eval", "LoCoMo's scorer") from error
    return PorterStemmer()


@cache
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))
