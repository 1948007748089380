"""Words of a turn that carry what it tells: cues to ask by, and the span of a turn that an answer points at.

A language model writes better questions when it is handed the words they are about, and a memory learns a short answer
better than a sentence that repeats the question. Both are found by looking at the words alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from locas_agent.study.chunking import Chunk, TurnExcerpt

_CURRENCIES = "£$€¥"
_WORD = re.compile(rf"[{_CURRENCIES}]?\w+(?:[.,:'’/-]\w+)*", re.UNICODE)
_SENTENCE_START = re.compile(r"(?:^|[.!?…:\n]\s+|[\"“(]\s*)(\w)")
_FUNCTION_WORDS = frozenset(
    "a about after again all already also always am an and another any anything are as at away back be "
    "because been before being both but by came can come could did do does doing done down during each "
    "else enough even ever every everything few for from gave get gets getting give go goes going gone "
    "got had has have having he hello hence her here hers hey hi him his how however i if in into is it "
    "its itself just keep kept know last later let like little look lot made make makes many may me might "
    "mine more most much must my myself need never no nobody nor not nothing now of off often oh ok okay "
    "on once one only or other our out over own perhaps please put quite rather really said same saw say "
    "see seen shall she should since so some somebody something sometimes soon still such sure take than "
    "thank thanks that the their them then there these they thing things think this those though through "
    "to today told tomorrow too took true two under until up upon us use used very want was way we well "
    "went were what when where which while who whole whom whose why will with without would yes yesterday "
    "yet you your yours d ll m re s t ve im ive id dont cant isnt its thats lol haha hmm".split()
)
"""Words that carry nothing by themselves; nobody asks by them."""

_SHORTENED = re.compile(r"['’](?:d|ll|m|re|t|ve)$")
"""A pronoun or auxiliary and a verb in one word, "she'd", "can't": nobody answers with it."""
_NUMBERS = frozenset(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million".split()
)
"""Numbers that are written in letters; the last word of what they count belongs to them."""
_HOURS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_CLOCK = re.compile(
    rf"(?<![\w-])(?:half|quarter|(?:twenty[\s-]five|twenty|ten|five|\d{{1,2}})(?:\s+minutes)?)\s+(?:past|to)\s+"
    rf"(?:{_HOURS}|\d{{1,2}})(?![\w:-])",
    re.IGNORECASE,
)
"""A time of day in words: "half past nine", "quarter to 7"; in English."""
_JOINING = frozenset("of da das de del della der di do dos du la le van von".split())
"""Words that stand inside a name, between two that are written with a capital: "Petals of Blood", "Rio de Janeiro"."""
MOST_DESCRIBING = 3
"""Telling words of one description at most."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text with its place in it."""

    text: str
    start: int
    end: int
    is_name: bool
    """Written with a capital inside a sentence, or holding a digit."""

    @property
    def key(self) -> str:
        """What it is compared by."""
        return _key(self.text)

    @property
    def carries(self) -> bool:
        """Whether it says something by itself."""
        return self.is_name or (len(self.key) > 2 and self.key not in _FUNCTION_WORDS)


def words_of(text: str) -> list[Word]:
    """Return the words of a text in order."""
    text = unicodedata.normalize("NFC", text)  # a letter and its mark, written apart, would be cut in two
    opening = {match.start(1) for match in _SENTENCE_START.finditer(text)}
    return [
        Word(
            match.group(),
            match.start(),
            match.end(),
            any(letter.isdigit() for letter in match.group())
            or (match.group()[0].isupper() and match.start() not in opening and _bare(match.group()) != "i"),
        )
        for match in _WORD.finditer(text)
    ]


def worth_asking(chunk: Chunk) -> list[TurnExcerpt]:
    """Return the turns of a chunk that are asked about: those that are learnt and have more than one word."""
    return [excerpt for excerpt in chunk.excerpts if excerpt.is_learnt and len(words_of(excerpt.said)) > 1]


def telling(text: str) -> set[str]:
    """Return the keys of the words of a text that carry something."""
    return {word.key for word in words_of(text) if word.carries}


def is_name(text: str) -> bool:
    """Tell whether every word of a text is written with a capital, or holds a digit; "of" and "de" inside it aside."""
    words = words_of(text)
    inside = words[1:-1]
    return all(word.is_name or word.text[0].isupper() or (word in inside and word.key in _JOINING) for word in words)


def is_figure(text: str) -> bool:
    """Tell whether a text is a number with what it counts, or a time of day: "34 people", "half past nine"."""
    return text.lstrip(_CURRENCIES)[:1].isdigit() or _CLOCK.fullmatch(text) is not None


def is_spelled_number(text: str) -> bool:
    """Tell whether a text begins with a number in letters: "forty-two", "three fixes"; in English."""
    first = next(iter(words_of(text)), None)
    return first is not None and _is_spelled(first)


def is_whole(text: str) -> bool:
    """Tell whether a text is a name or a figure, of which no part will do."""
    return is_name(text) or is_figure(text)


def places_of(wanted: Sequence[Word], told: Sequence[Word]) -> list[int]:
    """Return where a run of words stands among others: the number of its first word at each place."""
    keys = [word.key for word in wanted]
    places = range(len(told) - len(keys) + 1) if keys else range(0)
    return [at for at in places if [word.key for word in told[at : at + len(keys)]] == keys]


def most_about(text: str, excerpts: Iterable[TurnExcerpt], *, most: int) -> list[TurnExcerpt]:
    """Return the turns that share most telling words with a text, the best first; none that share no word."""
    wanted = telling(text)
    shared = [(len(wanted & {word.key for word in words_of(excerpt.text)}), excerpt) for excerpt in excerpts]
    best = sorted((each for each in shared if each[0]), key=lambda each: -each[0])[:most]
    return [excerpt for _, excerpt in best]


def cues_of(text: str, *, most: int) -> list[str]:
    """Return the words or runs of names that a text may be asked by: names and numbers first, then the longer words."""
    text = unicodedata.normalize("NFC", text)
    found: dict[str, tuple[int, str]] = {}
    for run in _runs(words_of(text)):
        shown = text[run[0].start : run[-1].end]
        rank = 1000 if run[0].is_name else len(shown)
        found.setdefault(_key(shown), (rank, without_owner(shown)))
    ordered = sorted(found.values(), key=lambda each: -each[0])
    return [shown for _, shown in ordered[:most]]


def answers_in(text: str) -> list[str]:
    """Return the words of a text with which somebody may answer a question about it, in the order of the text.

    Runs of names and numbers, and times of day, whole; a run of other telling words from each of its last words on,
    since where a description begins the words alone do not say: "strict young woman", "young woman" and "woman".
    """
    text = unicodedata.normalize("NFC", text)
    times = [match.span() for match in _CLOCK.finditer(text)]
    words = [word for word in words_of(text) if not _SHORTENED.search(word.key)]
    spans = list(times)
    for run in _phrases([word for word in words if not any(a <= word.start < b for a, b in times)]):
        starts = [0] if run[0].is_name or _is_spelled(run[0]) else range(max(0, len(run) - MOST_DESCRIBING), len(run))
        spans += [(run[start].start, run[-1].end) for start in starts]
    found: dict[str, str] = {}
    for start, end in sorted(spans):
        shown = without_owner(text[start:end])
        found.setdefault(_key(shown), shown)
    return list(found.values())


def pointed_at(answer: str, question: str, text: str, *, most_words: int = 6) -> str | None:
    """Return the span of a text that an answer gives to a question; None where it gives none.

    The span is the longest run of words that stands in both, in the same order, has something that the question does
    not say, and neither begins nor ends with a function word or a word of the question.

    Args:
        answer: what a reader said.
        question: what it was asked.
        text: the turns it had before it.
        most_words: a longer run is a recital, no answer.
    """
    text = unicodedata.normalize("NFC", text)
    told, said = words_of(text), [word.key for word in words_of(answer)]
    asked = {stem(word.key) for word in words_of(question)}
    best: tuple[int, int, int] | None = None
    for start in range(len(told)):
        for at in range(len(said)):
            length = 0
            while (
                start + length < len(told) and at + length < len(said) and told[start + length].key == said[at + length]
            ):
                length += 1
            trimmed = _trimmed(told[start : start + length], asked)
            if trimmed is not None:
                low, high = trimmed
                weight = sum(word.carries and stem(word.key) not in asked for word in told[start + low : start + high])
                if best is None or weight > best[0]:
                    best = (weight, start + low, start + high)
    if best is None or best[2] - best[1] > most_words:
        return None
    return without_owner(text[told[best[1]].start : told[best[2] - 1].end])


def foreign(answer: str, known: Iterable[str]) -> list[str]:
    """Return the words of an answer that carry something and stand in none of the known texts."""
    seen = {word.key for text in known for word in words_of(text)}
    return [word.text for word in words_of(answer) if word.carries and word.key not in seen]


def _trimmed(run: list[Word], asked: set[str]) -> tuple[int, int] | None:
    """Return where a run begins and ends without function words and words of the question at its ends."""
    low, high = 0, len(run)
    while low < high and (not run[low].carries or stem(run[low].key) in asked):
        low += 1
    while high > low and (not run[high - 1].carries or stem(run[high - 1].key) in asked):
        high -= 1
    return (low, high) if low < high else None


def _runs(words: list[Word]) -> list[list[Word]]:
    """Return runs of neighbouring names, a number with the word it counts, and other telling words alone."""
    runs: list[list[Word]] = []
    at = 0
    while at < len(words):
        word = words[at]
        if not word.carries:
            at += 1
            continue
        end = at + 1
        while word.is_name and (further := more_of_name(words, end)):
            end += further
        is_number = word.text[-1].isdigit() and word.text[0] not in _CURRENCIES
        if is_number and end == at + 1 and end < len(words) and _is_counted(words[end]):
            end += 1
        runs.append(words[at:end])
        at = end
    return runs


def more_of_name(words: Sequence[Word], end: int) -> int:
    """Return how many words from a place on go on with a name: 1, more with an "of" or a "van der" before it, or 0."""
    for more in (1, 2, 3):
        run = words[end - 1 : end + more]
        is_close = len(run) == more + 1 and all(b.start - a.end == 1 for a, b in pairwise(run))
        is_joined = all(word.key in _JOINING and not word.is_name for word in run[1:-1])
        is_number = more > 1 and any(word.text[0].isdigit() for word in (run[0], run[-1]))
        if is_close and run[-1].is_name and is_joined and not is_number:
            return more
    return 0


def _phrases(words: list[Word]) -> list[list[Word]]:
    """Return runs as `_runs` does, numbers that are spelled out as one, and other neighbouring words together."""
    phrases: list[list[Word]] = []
    for run in _runs(words):
        last = phrases[-1] if phrases else None
        if last is None or run[0].is_name or last[-1].is_name:
            phrases.append(run)
            continue
        between = words[words.index(last[-1]) + 1 : words.index(run[0])]
        is_next = not between and run[0].start - last[-1].end == 1
        is_sum = [word.key for word in between] == ["and"] and _is_spelled(last[-1]) and _is_spelled(run[0])
        is_open = _is_spelled(last[-1]) or not (_is_spelled(last[0]) or _is_spelled(run[0]))
        if is_next and is_open:
            last += run
        elif is_sum:
            last += [*between, *run]
        else:
            phrases.append(run)
    return phrases


def _is_spelled(word: Word) -> bool:
    """Tell whether a word is a number in letters: "forty-two"; in English."""
    return all(part in _NUMBERS for part in word.key.split("-"))


def _is_counted(word: Word) -> bool:
    """Tell whether a word behind a number may be what is counted or its unit, however short: "3 mm"."""
    return word.key not in _FUNCTION_WORDS


def stem(key: str) -> str:
    """Return what "move", "moved" and "moves" have in common: enough to see that a question says a word already."""
    return re.sub(r"(?:ing|ed|es|s|e)$", "", key) if len(key) > 4 else key.rstrip("e")


def without_owner(text: str) -> str:
    """Return a name without the 's of what it owns."""
    return re.sub(r"['’]s$", "", text)


def _bare(text: str) -> str:
    return re.split(r"['’]", text, maxsplit=1)[0].casefold()


def _key(text: str) -> str:
    return without_owner(unicodedata.normalize("NFC", text).casefold()).lstrip(_CURRENCIES)
