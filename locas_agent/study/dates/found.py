"""Dates found in a text, a span that means one of them, and questions that one of them answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

from locas_agent.study.dates.phrases import RULES, Rule, is_rough
from locas_agent.study.spans import places_of, words_of

_ASKS = re.compile(
    r"(?:and |so |around |about |by |since |until |till |from |for |on |at |in )?"
    r"(?:when(?:['’]?s)?\b|(?:what|which) (?:exact )?(?:day|date|month|year)\b(?! of the week)"
    r"|what(?:['’]?s| is| was) the (?:exact )?(?:day|date)\b|how long ago\b)",
    re.IGNORECASE,
)
_OPEN_BETWEEN = re.compile(r"\s*,?\s*(?:or|to|[-–/])\s*(?:on\s+|maybe\s+)?(?:the\s+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dated:
    """A phrase of a text that means a date.

    Attributes:
        text: the phrase as the text spells it.
        start, end: where it stands in the text, composed to NFC.
        answer: the date in words: "24 February 2026"; "February 2026", "2026" or "9 May" where the phrase says no more.
    """

    text: str = field(repr=False)
    start: int
    end: int
    answer: str = field(repr=False)


def dates_in(text: str, day: date | None) -> tuple[Dated, ...]:
    """Return the phrases of a text that mean a date, in order, none over another.

    Args:
        text: of a turn.
        day: on which it was said; without it nothing is found.
    """
    if day is None:
        return ()
    text = unicodedata.normalize("NFC", text)
    matches = [(match, rule) for rule in RULES for match in rule.pattern.finditer(text)]
    chosen: list[tuple[re.Match[str], Rule]] = []
    for match, rule in sorted(matches, key=lambda each: (each[0].start(), -each[0].end())):
        if not chosen or match.start() >= chosen[-1][0].end():
            chosen.append((match, rule))
    pairs = enumerate(pairwise(match for match, _ in chosen))
    joined = {at for at, (one, other) in pairs if _OPEN_BETWEEN.fullmatch(text[one.end() : other.start()])}
    found = []
    for at, (match, rule) in enumerate(chosen):
        if joined & {at - 1, at} or is_rough(text, match.start()):  # "today or tomorrow" is neither
            continue
        start, end = match.span("said" if "said" in rule.pattern.groupindex else 0)
        meant = _meant(rule, match, day)
        if meant is not None:
            found.append(Dated(text[start:end], start, end, meant))
    return tuple(found)


def _meant(rule: Rule, match: re.Match[str], day: date) -> str | None:
    """Return what a match means, None also where the calendar has no such day."""
    try:
        return rule.meaning(match, day)
    except (ValueError, OverflowError):
        return None


def date_meant(span: str, text: str, dates: Sequence[Dated]) -> Dated | None:
    """Return the dating phrase that a span of a text is: the first one in it, else the one that holds all of it.

    Args:
        span: words of the text, or an answer that repeats such words.
        text: where the phrases stand.
        dates: phrases of the text.
    """
    said, told = words_of(span), words_of(text)
    for each in dates:
        if places_of(words_of(each.text), said):
            return each
    places = [(told[at].start, told[at + len(said) - 1].end) for at in places_of(said, told)]
    holders = [next((each for each in dates if each.start <= a and b <= each.end), None) for a, b in places]
    return holders[0] if holders and None not in holders else None


def date_said(span: str, text: str, day: date | None) -> Dated | None:
    """Return the dating phrase of a text that a span of it is, if it is one; see `date_meant` and `dates_in`."""
    return date_meant(span, text, dates_in(text, day))


def asks_for_day(question: str) -> bool:
    """Tell whether a question begins like one for a day, and speaks of no day itself.

    "When did I see Bo last Friday?" is true in one week only.
    """
    return _ASKS.match(question) is not None and not any(rule.pattern.search(question) for rule in RULES)
