"""The phrases that mean a date, as patterns, and the arithmetic behind each."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

from locas_agent.conversation.messages import MONTHS, day_in_words
from locas_agent.study.dates.tense import is_habit, is_past

Match = re.Match[str]
Meaning = Callable[[Match, date], str | None]
"""From a match in a turn and the day of the turn to the date in words; None where none is certain."""

_UNITS = "one two three four five six seven eight nine".split()
_TENS = {word: 10 * at for at, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_NUMBERS = {word: at for at, word in enumerate([*_UNITS, *_TEENS], 1)} | _TENS
_NUMBERS |= {f"{ten} {one}": _TENS[ten] + at for ten in _TENS for at, one in enumerate(_UNITS, 1)}
_NUMBERS |= {"a": 1, "an": 1, "a couple": 2, "a couple of": 2, "couple of": 2}
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth".split()
)
_ORDINALS += [*(f"twenty {word}" for word in _ORDINALS[:9]), "thirtieth", "thirty first"]
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_OFFSETS = {"yesterday": -1, "today": 0, "now": 0, "tomorrow": 1}
_STEPS = {"last": -1, "this": 0, "next": 1}
_DAYS = {"day": 1, "week": 7, "fortnight": 14}
_DAY_WORDS = {
    **dict.fromkeys(["the day before yesterday", "day before yesterday", "the night before last"], -2),
    **dict.fromkeys(["yesterday", "last night"], -1),
    **dict.fromkeys(["today", "tonight", "tonite", "this very day"], 0),
    **{f"this{very} {part}": 0 for very in ("", " very") for part in ("morning", "afternoon", "evening")},
    **dict.fromkeys(["tomorrow", "tmrw", "tomorow"], 1),
    **dict.fromkeys(["the day after tomorrow", "day after tomorrow"], 2),
}


def _either(words: Iterable[str]) -> str:
    """Return a pattern for any of some phrases, the longest first; a hyphen may stand for a blank."""
    return "|".join(word.replace(" ", r"[\s-]+") for word in sorted(words, key=len, reverse=True))


_NUMBER = rf"(?P<number>\d{{1,3}}|{_either(_NUMBERS)})\s+"
_UNIT = r"(?P<unit>day|week|fortnight|month|year)s?"
_ORDINAL = rf"(?P<day>\d{{1,2}}(?:st|nd|rd|th)?|{_either(_ORDINALS)})"
_SURE_ORDINAL = rf"(?P<day>\d{{1,2}}(?:st|nd|rd|th)|{_either(_ORDINALS[9:])})"
"""Without a month behind them "first" to "ninth" are no days: "on the second try"."""
_NOTHING_COUNTED = (
    r"(?=\s*(?:[.,;:!?)\n]|$)|\s+(?:at|in the|with|and|so|but|because|if|when|then|from|for|to|we|i|he|she|they)\b)"
)
_WEEKDAY = rf"(?P<weekday>{_either(_WEEKDAYS)}|mon|tues?|weds|thu(?:rs?)?|fri|(?-i:Sat|Sun|Wed))"
_MONTHS = _either(name for name in MONTHS if name not in ("March", "May"))  # these two are words, too
_MONTH = rf"(?P<month>{_MONTHS}|jan|feb|apr|jun|jul|aug|sept?|oct|nov|dec)\b"
_SURE_MONTH = _MONTH.replace("(?P<month>", "(?P<month>(?-i:May|MAY|March|MARCH|Mar)|")
_ANY_MONTH = _MONTH.replace("(?P<month>", "(?P<month>may|march|mar|")
_YEAR = r"(?:\.?,?\s+(?P<year>(?:19|20)\d\d)\b)?"
_NO_DATE_BEHIND = (
    r"(?!\s*,?\s*(?:the\s+)?(?:\d+\b(?!\s*(?:[ap]\.?m|o['’]clock)|[:.]\d)|\d+(?:st|nd|rd|th)\b"
    rf"|(?:{_either(_ORDINALS)})\b|(?:{_either(MONTHS)})\s+\d))"
)
_NO_OTHER_BEHIND = rf"(?!(?:\s+(?:or|and|to|till|through)\s+|\s?[-–/&]\s?)(?:{_either(_WEEKDAYS)}))"
_NO_HABIT_BEHIND = r"(?!\s+(?:mornings|afternoons|evenings|nights)\b)"
_ONE_DAY = rf"{_WEEKDAY}\b{_NO_DATE_BEHIND}{_NO_OTHER_BEHIND}{_NO_HABIT_BEHIND}"
_NO_RANGE = r"(?!\s?[-–/]\s?\d)(?![:.]\d)"
_EXACTLY = r"(?:(?:exactly|precisely)\s+)?"
_TO_THE_DAY = r"(?P<exact>\s+today|\s+to\s+the\s+day)?(?:\s+(?:exactly|precisely))?"

_ROUGH = re.compile(r"\b(?:around|roughly|approximately|maybe|perhaps|probably|circa|every|each)\s+(?:the\s+)?$", re.I)
_ROUGH_COUNT = re.compile(
    r"(?:\b(?:about|some|nearly|almost|over|under|than|or|to|least|most|like|half|and|good|well|once|twice|times"
    r"|days|hours|nights|evenings)\s+|\d[-–.,/]\s*)$",
    re.IGNORECASE,
)
_OPEN_COUNT = re.compile(r"\s+(?:or\b|and\s+a\s+half|of\b|since\b)", re.IGNORECASE)
_SO_LONG = re.compile(r"\b(?:haven|hasn|hadn|didn|couldn|not|first|only|best|worst|times?|once|twice)\b", re.IGNORECASE)
"""Said of a time that something took or did not happen in, "the first time in three years"."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of phrase: its pattern, whose group `said` is the phrase if there is one, and what a match means."""

    pattern: re.Pattern[str]
    meaning: Meaning


def _key(words: str) -> str:
    return re.sub(r"[\s-]+", " ", words.casefold())


def _weekday(match: Match) -> int:
    return next(at for at, name in enumerate(_WEEKDAYS) if name.startswith(match["weekday"].casefold()[:3]))


def _coming(day: date, weekday: int) -> date:
    """Return the first such day of the week after a day."""
    return day + timedelta(days=(weekday - day.weekday() - 1) % 7 + 1)


def _latest(day: date, weekday: int) -> date:
    """Return the last such day of the week before a day."""
    return day - timedelta(days=(day.weekday() - weekday - 1) % 7 + 1)


def _counted(match: Match, day: date, sign: int, *, exact: bool = False) -> str | None:
    """Count from a day: to a day, or to a month or a year where those are counted and the day is not said."""
    before, behind = match.string[: match.start()], match.string[match.end() :]
    if _ROUGH_COUNT.search(before) or _OPEN_COUNT.match(behind):
        return None
    number = sign * (int(match["number"]) if match["number"].isdigit() else _NUMBERS[_key(match["number"])])
    unit = match["unit"].casefold()
    if unit in _DAYS:
        return day_in_words(day + timedelta(days=number * _DAYS[unit]))
    year, month = _months_from(day, number * (12 if unit == "year" else 1))
    if exact:
        return day_in_words(date(year, month, min(day.day, calendar.monthrange(year, month)[1])))
    return str(year) if unit == "year" else _month_in_words(year, month)


def _months_from(day: date, count: int) -> tuple[int, int]:
    """Return year and month so many months from that of a day."""
    months = 12 * day.year + day.month - 1 + count
    return months // 12, months % 12 + 1


def _month_in_words(year: int, month: int) -> str:
    return f"{MONTHS[month - 1]} {year}"


def _day_word(match: Match, day: date) -> str:
    return day_in_words(day + timedelta(days=_DAY_WORDS[_key(match[0])]))


def _ago(match: Match, day: date) -> str | None:
    return _counted(match, day, -1, exact=match["exact"] is not None)


def _in(match: Match, day: date) -> str | None:
    before = match.string[: match.start()]
    if is_past(match.string, *match.span()) or is_habit(match.string, *match.span()) or _SO_LONG.search(before[-40:]):
        return None
    return _counted(match, day, 1)


def _from(match: Match, day: date) -> str | None:
    """Count from today, tomorrow or a day of the week to come."""
    if match["weekday"]:
        return _counted(match, _coming(day, _weekday(match)), 1)
    return _counted(match, day + timedelta(days=_OFFSETS[match["anchor"].casefold()]), 1)


def _week_after(match: Match, day: date) -> str:
    """Return a week after today, tomorrow or a day of the week to come."""
    if match["weekday"]:
        return day_in_words(_coming(day, _weekday(match)) + timedelta(days=7))
    return day_in_words(day + timedelta(days=7 + _OFFSETS[match["anchor"].casefold()]))


def _last_weekday(match: Match, day: date, *, weeks: int = 0) -> str:
    return day_in_words(_latest(day, _weekday(match)) - timedelta(days=7 * weeks))


def _next_weekday(match: Match, day: date) -> str | None:
    """Return the coming one where it is also of the next week."""
    coming = _coming(day, _weekday(match))
    return day_in_words(coming) if coming.weekday() < day.weekday() or coming - day == timedelta(days=7) else None


def _nearest_weekday(match: Match, day: date) -> str | None:
    if is_habit(match.string, *match.span()):
        return None
    word = match["word"].casefold()
    was = word == "since" or (word in ("on", "this") and is_past(match.string, *match.span()))
    return day_in_words((_latest if was else _coming)(day, _weekday(match)))


def _weekday_of_week(match: Match, day: date) -> str:
    monday = day + timedelta(days=7 * _STEPS[match["step"].casefold()] - day.weekday())
    return day_in_words(monday + timedelta(days=_weekday(match)))


def _month_or_year(match: Match, day: date) -> str:
    step = _STEPS[match["step"].casefold()]
    is_year = match["period"].casefold() == "year"
    return str(day.year + step) if is_year else _month_in_words(*_months_from(day, step))


def _calendar_date(match: Match, day: date) -> str | None:
    """Return a date that is said as such, in the one spelling; without a year where none is said."""
    number = _number_of_day(match["day"])
    named = match["month"].casefold()[:3]
    month = int(named) if named.isdigit() else [name.casefold()[:3] for name in MONTHS].index(named) + 1
    year = int(match["year"]) if match["year"] else None
    if re.search(r"\d(?:st|nd|rd|th)?\s+(?:to|and|or|&)\s+(?:the\s+)?$", match.string[: match.start("said")]):
        return None  # the end of several days
    if not 1 <= month <= 12 or not 1 <= number <= calendar.monthrange(year or 2024, month)[1]:
        return None
    return day_in_words(date(year, month, number)) if year else f"{number} {MONTHS[month - 1]}"


def _day_of_month(match: Match, day: date) -> str | None:
    """Return the nearest such day to come, or the last one where the sentence speaks of what was."""
    if is_habit(match.string, *match.span()):
        return None
    was = match["word"].casefold() == "since" or is_past(match.string, *match.span())
    step = -1 if was else 1
    number = _number_of_day(match["day"])
    is_here = (number - day.day) * step >= 0
    return day_in_words(date(*_months_from(day, 0 if is_here else step), number))


def _day_of_named_month(match: Match, day: date) -> str:
    return day_in_words(date(*_months_from(day, _STEPS[match["step"].casefold()]), _number_of_day(match["day"])))


def _number_of_day(said: str) -> int:
    digits = re.match(r"\d+", said)
    return int(digits[0]) if digits else _ORDINALS.index(_key(said)) + 1


def _nothing(match: Match, day: date) -> None:
    """Mean nothing, so that no shorter phrase is found inside."""


def _rule(pattern: str, meaning: Meaning) -> Rule:
    return Rule(re.compile(rf"(?<![\w.\-–'’])(?:{pattern})(?!\w)", re.IGNORECASE), meaning)


def is_rough(text: str, start: int) -> bool:
    """Tell whether what stands before a phrase makes it a guess or a habit."""
    return _ROUGH.search(text[:start]) is not None


RULES = (
    _rule(_either(_DAY_WORDS), _day_word),
    _rule(rf"{_EXACTLY}{_NUMBER}{_UNIT}\s+ago{_TO_THE_DAY}(?!\s+(?:on|last|this)\b)", _ago),
    _rule(rf"{_EXACTLY}{_NUMBER}{_UNIT}\s+ago\s+(?:on|last|this)", _nothing),
    _rule(
        rf"(?:in|within)\s+{_EXACTLY}{_NUMBER}{_UNIT}(?:['’]?\s+time|['’]s\s+time)?(?:\s+(?:exactly|precisely))?", _in
    ),
    _rule(rf"{_EXACTLY}{_NUMBER}{_UNIT}\s+from\s+(?:(?P<anchor>now|today|tomorrow)|{_WEEKDAY})", _from),
    _rule(rf"{_NUMBER}(?P<unit>week)s?\s+(?:(?:on|from)\s+{_WEEKDAY}|(?P<anchor>tomorrow))", _from),
    _rule(rf"{_NUMBER}{_UNIT}\s+today", _nothing),
    _rule(rf"a\s+week\s+last\s+{_WEEKDAY}", partial(_last_weekday, weeks=1)),
    _rule(rf"the\s+{_WEEKDAY}\s+before\s+last", partial(_last_weekday, weeks=1)),
    _rule(rf"(?:on\s+)?(?P<said>(?:{_WEEKDAY}|(?P<anchor>today|tomorrow))\s+week)", _week_after),
    _rule(rf"last\s+{_ONE_DAY}(?!\s+(?:of|in)\b)", _last_weekday),
    _rule(rf"next\s+{_ONE_DAY}", _next_weekday),
    _rule(rf"(?P<word>this(?:\s+coming)?|(?:the\s+)?coming)\s+{_ONE_DAY}", _nearest_weekday),
    _rule(rf"(?P<word>on|since|until|till|til|by|for|from)\s+(?P<said>{_ONE_DAY})", _nearest_weekday),
    _rule(rf"(?:on\s+)?(?P<said>{_WEEKDAY}\s+(?:of\s+)?(?P<step>last|this|next)\s+week)", _weekday_of_week),
    _rule(rf"(?P<step>last|this|next)\s+week\s+(?:on\s+)?{_WEEKDAY}", _weekday_of_week),
    _rule(r"(?<!the\s)(?P<step>last|this|next)\s+(?P<period>month|year)", _month_or_year),
    _rule(rf"(?P<said>{_ORDINAL}\s+(?:of\s+)?{_SURE_MONTH}{_YEAR})", _calendar_date),
    _rule(rf"(?P<said>{_ORDINAL}\s+of\s+{_ANY_MONTH}{_YEAR})", _calendar_date),
    _rule(rf"(?:on|since|until|till|by)\s+(?P<said>{_ORDINAL}\s+{_ANY_MONTH}{_YEAR})", _calendar_date),
    _rule(rf"(?P<said>{_SURE_MONTH}\.?\s+(?:the\s+)?{_ORDINAL}\b{_NO_RANGE}{_YEAR})", _calendar_date),
    _rule(
        rf"(?P<said>{_ANY_MONTH}\.?\s+(?:the\s+)?(?P<day>\d{{1,2}}(?:st|nd|rd|th))\b{_NO_RANGE}{_YEAR})", _calendar_date
    ),
    _rule(rf"the\s+{_ORDINAL}\s+of\s+(?P<step>last|this|next)\s+month", _day_of_named_month),
    _rule(
        rf"(?P<word>on|since|until|till|by|is|that['’]s|it['’]s)\s+(?P<said>the\s+{_SURE_ORDINAL}){_NOTHING_COUNTED}",
        _day_of_month,
    ),
    _rule(r"(?P<said>(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d))", _calendar_date),
)
"""All kinds of phrases. Of those that begin at one place the longest holds."""
