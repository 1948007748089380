"""What a turn says outright, with the questions that grammar alone gives for it. In English.

A small scribe writes many a question that nobody would ask. "My sister Paloma", "I'm a vet" and "a hen called Gerda"
need no model: who Paloma is, what my sister's name is, what I do for a living and what the hen is called are what
people ask first. What a reader does not find in the turn by such a question is left out, as with any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Literal

from locas_agent.study.scribe.callings import CALLED, callings_in
from locas_agent.study.spans import Word, more_of_name, without_owner, words_of

MOST_WORDS = 2
"""Words that say whose name one is at most: "best friend"."""
_OWN = frozenset("my our".split())
_SOME = frozenset("a an the".split())
_ENDS = re.compile(r"\s*(?:[,.;:!?)]|$)")
_SAID: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("my name is", ("What is my name?", "What am I called?")),
    ("i live in", ("Where do I live?", "Which place do I live in?")),
    ("we live in", ("Where do I live?", "Where do we live?")),
    *(
        (f"{who} {went} to", ("Where do I live?", "Where did I move to?"))
        for went in ("moved", "shifted", "relocated")
        for who in ("i", "i've", "we", "we've")
    ),
    ("i'm from", ("Where am I from?", "Where do I come from?")),
    ("i am from", ("Where am I from?", "Where do I come from?")),
    ("i work at", ("Where do I work?", "What is the name of my workplace?")),
    ("i work for", ("Who do I work for?", "Where do I work?")),
    ("i'm allergic to", ("What am I allergic to?", "Which allergy do I have?")),
    ("i am allergic to", ("What am I allergic to?", "Which allergy do I have?")),
)
"""What people say of themselves first, and how they ask for what stands behind it: a name, or else one word.

Who moved lives elsewhere: the same question answered otherwise is what replaces the old place."""
_OWN_WORK = ("What do I do for a living?", "What is my job?", "What is my profession?")


@dataclass(frozen=True, slots=True)
class Outright:
    """An answer as a turn spells it, and questions for it."""

    text: str
    kind: Literal["calling", "relation", "name"]
    """What somebody is, see `callings_in`; who somebody is to whom tells it; or a name, of a place too."""
    questions: tuple[str, ...]
    name: str = ""
    """Of a relation, whose it is: a reader who finds this name by "Who is my sister?" vouches for "Who is Paloma?"."""


def told_outright(text: str) -> list[Outright]:
    """Return what a turn says outright: what somebody is, who somebody is to whom tells it, and names."""
    text = unicodedata.normalize("NFC", text)
    words = words_of(text)
    callings = [Outright(each.text, "calling", _work_of(each.whose)) for each in callings_in(text)]
    return [*callings, *_relations(text, words), *_named(text, words), *_said_of_oneself(text, words)]


def asking_for_one_of_several(text: str) -> list[str]:
    """Return the questions for what a text tells outright of which there may be more: "Who is my friend?".

    Another friend takes nobody's place.
    """
    text = unicodedata.normalize("NFC", text)
    words = words_of(text)
    return [asked for one in (*_relations(text, words), *_named(text, words)) for asked in one.questions]


def _work_of(whose: str) -> tuple[str, ...]:
    """Return the questions for what somebody is; none where a turn says only "he" or "she"."""
    if not whose:
        return ()
    return _OWN_WORK if whose == "I" else (f"What does {whose} do for a living?", f"Who is {whose}?")


def _relations(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "my sister Paloma", "my son, Tymon," and "Dev, my cousin,"."""
    for at, word in enumerate(words):
        if word.key not in _OWN:
            continue
        what = list(takewhile(_may_say_whose, words[at + 1 : at + 1 + MOST_WORDS]))
        if not what or not _are_together(text, [word, *what]):
            continue
        behind = _name_at(words, at + 1 + len(what))
        name = behind if _follows(text, what[-1], behind) else _name_before(text, words, at, what[-1])
        if not name:
            continue
        shown = without_owner(text[name[0].start : name[-1].end])
        whose = text[what[0].start : what[-1].end]
        own = f"{word.key} {whose}"
        yield Outright(shown, "name", (f"What is {own}'s name?", f"Who is {own}?", f"What is {own} called?"))
        to_whom = "us" if word.key == "our" else "me"
        yield Outright(whose, "relation", (f"Who is {shown}?", f"Who is {shown} to {to_whom}?"), shown)


def _named(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "my boss is called Berend-Jan" and "a hen named Gerda"."""
    for at, word in enumerate(words):
        if word.key not in CALLED or at == 0:
            continue
        name = _name_at(words, at + 1)
        what = _named_thing(text, words, at)
        if not name or not what:
            continue
        shown = without_owner(text[name[0].start : name[-1].end])
        own = f"{what[0].key if what[0].key in _OWN else 'the'} {without_owner(text[what[1].start : what[-1].end])}"
        yield Outright(
            shown, "name", (f"What is {own} called?", f"What is {own}'s name?", f"What is the name of {own}?")
        )


def _said_of_oneself(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "my name is Ada", "I live in Bisbee" and "I'm allergic to wool"."""
    keys = [word.key.replace("’", "'") for word in words]
    for said, questions in _SAID:
        start = said.split()
        for at in range(len(start), len(words)):
            if keys[at - len(start) : at] == start:
                name = _name_at(words, at) or [word for word in words[at : at + 1] if word.carries]
                if name:
                    yield Outright(without_owner(text[name[0].start : name[-1].end]), "name", questions)


def _named_thing(text: str, words: Sequence[Word], called: int) -> list[Word]:
    """Return "my boss" or "a hen" before "called" or "is called"; none where something else stands there."""
    end = called - 1 if words[called - 1].key in ("is", "are") else called
    for start in range(end - 2, max(-1, end - 2 - MOST_WORDS), -1):
        found = list(words[start:end])
        if words[start].key in _OWN | _SOME:
            is_one = all(map(_may_say_whose, found[1:])) and _are_together(text, found)
            return found if is_one else []
    return []


def _may_say_whose(word: Word) -> bool:
    return word.carries and not word.is_name


def _are_together(text: str, words: Sequence[Word]) -> bool:
    """Tell whether nothing but one blank stands between each two words."""
    return all(text[one.end : other.start] == " " for one, other in pairwise(words))


def _name_at(words: Sequence[Word], at: int) -> list[Word]:
    """Return the words of the name that begins at a place, none where none does."""
    if at >= len(words) or not words[at].is_name:
        return []
    end = at + 1
    while further := more_of_name(words, end):
        end += further
    return [] if any(word.text[0].isdigit() for word in words[at:end]) else list(words[at:end])


def _follows(text: str, last: Word, name: Sequence[Word]) -> bool:
    """Tell whether a name stands behind a word, or between commas behind it."""
    if not name:
        return False
    between = text[last.end : name[0].start]
    return between == " " or (between == ", " and _ENDS.match(text, name[-1].end) is not None)


def _name_before(text: str, words: Sequence[Word], at: int, last: Word) -> list[Word]:
    """Return the name that stands before "my cousin," with a comma between, none where none does."""
    is_apart = at > 0 and text[words[at - 1].end : words[at].start] == ", " and _ENDS.match(text, last.end) is not None
    return [words[at - 1]] if is_apart and words[at - 1].is_name and not words[at - 1].text[0].isdigit() else []
