"""What a turn says outright, with the questions that grammar alone gives for it. In English.

A small scribe writes many a question that nobody would ask. "My sister Paloma", "I'm a vet" and "a hen called Gerda"
need no model: who Paloma is, what my sister's name is, what I do for a living and what the hen is called are what
people ask first. What a reader does not find in the turn by such a question is left out, as with any other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from locas_agent.study.scribe.callings import Calling, callings_in
from locas_agent.study.scribe.naming import (
    MOST_WORDS,
    OWN,
    are_together,
    follows,
    may_say_whose,
    name_at,
    name_before,
    named_in,
    plain,
)
from locas_agent.study.spans import Word, without_owner, words_of

MOST_DESCRIBING = 3
"""Words of a place or a thing at most: "lens grinder's workshop"."""
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
    ("i work at a", ("Where do I work?", "What kind of place do I work at?")),
    ("i work at the", ("Where do I work?", "What kind of place do I work at?")),
    ("i work in a", ("Where do I work?", "What kind of place do I work in?")),
    ("i work for", ("Who do I work for?", "Where do I work?")),
    ("i work for a", ("Who do I work for?", "Where do I work?")),
    ("i'm allergic to", ("What am I allergic to?", "Which allergy do I have?")),
    ("i am allergic to", ("What am I allergic to?", "Which allergy do I have?")),
)
"""What people say of themselves first, and how they ask for what stands behind it: a name, or else a few words.

Who moved lives elsewhere: the same question answered otherwise is what replaces the old place."""
_TRADES = frozenset(
    "build design edit farm interpret mend program proofread repair research restore sell subtitle teach translate "
    "treat tune upholster weave weld".split()
)
"""What people do for others, mostly to earn a living by it."""
_NO_WORK = frozenset(
    "bit lot sort kind type part fella fellow person man woman guy girl boy lad lass bloke chap child kid baby adult "
    "giant widow widower mother father mum mom dad parent fan lover believer mess wreck fool leaf".split()
)
"""What somebody may be that is no work: "I'm a private enough fella"."""
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
    callings = [Outright(each.text, "calling", _work_of(each)) for each in callings_in(text)]
    own = [*_trades(text, words), *_said_of_oneself(text, words)]
    return [*callings, *_relations(text, words), *_named(text, words), *own]


def asking_for_one_of_several(text: str) -> list[str]:
    """Return the questions for what a text tells outright of which there may be more: "Who is my friend?".

    Another friend takes nobody's place.
    """
    text = unicodedata.normalize("NFC", text)
    words = words_of(text)
    return [asked for one in (*_relations(text, words), *_named(text, words)) for asked in one.questions]


def _work_of(calling: Calling) -> tuple[str, ...]:
    """Return the questions for what somebody is; none where a turn says only "he" or "she", or tells of no work."""
    if not calling.whose or not _NO_WORK.isdisjoint(word.key for word in words_of(calling.text)):
        return ()
    whose = calling.whose
    return _OWN_WORK if whose == "I" else (f"What does {whose} do for a living?", f"Who is {whose}?")


def _relations(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "my sister Paloma", "my son, Tymon," and "Dev, my cousin,"."""
    for at, word in enumerate(words):
        if word.key not in OWN:
            continue
        what = list(takewhile(may_say_whose, words[at + 1 : at + 1 + MOST_WORDS]))
        if not what or not are_together(text, [word, *what]):
            continue
        behind = name_at(words, at + 1 + len(what))
        name = behind if follows(text, what[-1], behind) else name_before(text, words, at, what[-1])
        if not name:
            continue
        shown = without_owner(text[name[0].start : name[-1].end])
        whose = text[what[0].start : what[-1].end]
        own = f"{word.key} {whose}"
        yield Outright(shown, "name", (f"What is {own}'s name?", f"Who is {own}?", f"What is {own} called?"))
        to_whom = "us" if word.key == "our" else "me"
        yield Outright(whose, "relation", (f"Who is {shown}?", f"Who is {shown} to {to_whom}?"), shown)


def _named(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Ask for what things are called."""
    for thing, name in named_in(text, words):
        asked = (f"What is {thing} called?", f"What is {thing}'s name?", f"What is the name of {thing}?")
        yield Outright(name, "name", asked)


def _said_of_oneself(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "my name is Ada", "I live in Bisbee" and "I'm allergic to wool"."""
    keys = [plain(word) for word in words]
    for said, questions in _SAID:
        start = said.split()
        for at in range(len(start), len(words)):
            if keys[at - len(start) : at] == start:
                name = name_at(words, at) or _described_at(text, words, at)
                if name:
                    yield Outright(without_owner(text[name[0].start : name[-1].end]), "name", questions)


def _trades(text: str, words: Sequence[Word]) -> Iterator[Outright]:
    """Find "I repair lifts" and "I carve spoons for a living"."""
    for at in range(1, len(words) - 1):
        what = _described_at(text, words, at + 1)
        if words[at - 1].key != "i" or not words[at].carries or words[at].is_name or not what:
            continue
        verb, end = words[at].text, what[-1].end
        if words[at].key in _TRADES or text[end:].startswith(" for a living"):
            asked = (*_OWN_WORK, f"What do I {verb} for a living?")
            yield Outright(text[words[at].start : end], "calling", asked)


def _described_at(text: str, words: Sequence[Word], at: int) -> list[Word]:
    """Return the few telling words in a row, none of them a name, that begin at a place."""
    run = list(takewhile(may_say_whose, words[at : at + MOST_DESCRIBING]))
    return [word for place, word in enumerate(run) if are_together(text, run[: place + 1])]
