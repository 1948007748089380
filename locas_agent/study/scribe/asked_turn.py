"""One turn as a scribe is asked about it: spans that were named, dates in it, and which of them are asked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.dates.found import Dated, asks_for_day, date_meant, dates_in
from locas_agent.study.scribe.forms import opening_of
from locas_agent.study.scribe.outright import told_outright
from locas_agent.study.spans import is_whole, places_of, telling, words_of
from locas_agent.study.speakers import may_be_about_who_tells, names_among_others, put_among_others, speaks_of_itself

MOST_SPANS, WORDS_PER_SPAN = 8, 8
"""Spans of one turn that are asked for at most; one for so many of its words, and two more."""
MOST_DATES = 2
"""Dates of one turn that are asked for beside these spans."""
ASKED = ("", " Which", " What")
"""How questions begin, in turn: a scribe begins a third itself, and then asks by the verb of the turn; behind "Which"
and "What" it says of what kind the answer is, as who asks later does: "Which dish", "What's my employer's name"."""
DAY_ASKED = (" When", " On what date", " What day")
"""How questions for a dating phrase begin, in turn: of six that a scribe begins itself, often none asks for a day."""
CALLING_ASKED = ("", " What does", " What do", "", " What is", " What's")
"""How questions for what somebody is begin, in turn; a scribe begins two of six itself."""
QUESTIONS, MORE_QUESTIONS = 6, 12
"""Questions sampled for a span; and for what somebody is, and where a text is not about who tells it: the lessons are
talk, and every other question says "my"."""
MOST_ANSWER_WORDS, MOST_QUESTION_WORDS = 6, 24


@dataclass(eq=False)
class Span:
    """One answer that a turn holds, as the turn spells it, how often it was named, and the questions for it."""

    text: str
    votes: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    date: Dated | None = None
    """What it means, where it is a phrase that dates something."""
    read: dict[str, float] = field(default_factory=dict)
    """How probable it is, by what a scribe reads, after each of these questions that was put to the turn."""
    is_calling: bool = False
    """Whether the turn says that it is what somebody is; see `callings_in`."""
    ready: tuple[str, ...] = ()
    """Questions for it that need no scribe; see `told_outright`."""
    name: str = ""
    """Whose it is, where it is who somebody is to whom tells it."""

    @property
    def answer(self) -> str:
        """What is learnt."""
        return self.text if self.date is None else self.date.answer

    @property
    def readings(self) -> list[str]:
        """How an answer that means it may begin: a date by any of its words, in the turn's spelling or as a date."""
        if self.date is None:
            return [self.text]
        told = [word.text for word in words_of(f"{self.text} {self.answer}") if word.carries]
        return [self.text, f"the {self.text}", *told]

    @property
    def is_likely(self) -> bool:
        """Whether it is what somebody is likely to be asked for: named more than once, or see `_is_of_a_kind`."""
        return self.votes > 1 or self._is_of_a_kind

    @property
    def is_worth_more(self) -> bool:
        """Whether little reading will do: named at all, or see `_is_of_a_kind`."""
        return self.votes > 0 or self._is_of_a_kind

    @property
    def _is_of_a_kind(self) -> bool:
        """Whether it is told outright, a date, a name, a figure, or what somebody is."""
        return bool(self.ready) or self.date is not None or self.is_calling or is_whole(self.text)

    def take(self, other: Span) -> None:
        """Take in another span that shares a word: what is told outright has its votes, the longer name its text."""
        if self.is_calling or self.ready:
            self.votes += other.votes
            self.ready = tuple(dict.fromkeys([*self.ready, *other.ready]))
        if not self.is_calling and is_whole(other.text) and len(other.text) > len(self.text):
            self.text = other.text

    def opening(self, number: int) -> str:
        """Return the words behind which a scribe writes one of the questions for it."""
        begun = DAY_ASKED if self.date is not None else CALLING_ASKED if self.is_calling else ASKED
        return opening_of(self.text) + begun[number % len(begun)]

    def is_asked_by(self, asked: str) -> bool:
        """Tell whether a question is of bearable length and leaves open what the span says."""
        words = [word.key for word in words_of(asked)]
        if len(words) > MOST_QUESTION_WORDS:
            return False
        return bool(telling(self.text) - set(words)) if self.date is None else asks_for_day(asked)


@dataclass(eq=False)
class AskedTurn:
    """One turn being asked about."""

    owner: int
    chunk: Chunk
    excerpt: TurnExcerpt
    spans: dict[tuple[str, ...], Span] = field(default_factory=dict)
    relations: list[Span] = field(default_factory=list)
    """Who people are to whom tells it. A small reader answers "Who is Paloma?" with what she does; so they are learnt
    where their names are read."""

    @cached_property
    def may_be_about_who_tells(self) -> bool:
        """Whether a question in the teller's own person may be meant, see `speakers.may_be_about_who_tells`."""
        return may_be_about_who_tells(self.chunk)

    @property
    def is_among_others(self) -> bool:
        """Whether somebody with a name says it, and others talk too."""
        return self.excerpt.speaker in names_among_others(self.chunk)

    def name(self, answer: str) -> None:
        """Note an answer that stands in the turn."""
        span = self._standing(answer)
        if span is not None:
            key = tuple(word.key for word in words_of(span))
            self.spans.setdefault(key, Span(span)).votes += 1

    def settle(self, cues: Sequence[str]) -> None:
        """Choose what is asked for: what is told outright, the most named, cues, dates. Of spans that share a word one.

        Args:
            cues: words of the turn that might be named as well.
        """
        outright = [
            Span(each.text, is_calling=each.kind == "calling", ready=each.questions, name=each.name)
            for each in told_outright(self.excerpt.said)
        ]
        self.relations = [span for span in outright if span.name]
        told = [span for span in outright if not span.name]
        named = sorted(self.spans.values(), key=lambda span: -span.votes)
        dates = dates_in(self.excerpt.said, self.excerpt.day)
        dated: dict[str, Span] = {}
        for each in dates:
            dated.setdefault(each.answer, Span(each.text, date=each))
        chosen = list[Span]()
        for span in [*told, *named, *map(Span, cues)]:
            date = date_meant(span.text, self.excerpt.said, dates)
            if date is not None:
                dated[date.answer].votes += span.votes
                continue
            other = next((each for each in chosen if telling(each.text) & telling(span.text)), None)
            if other is None:
                chosen.append(span)
            else:
                other.take(span)
        most = min(MOST_SPANS, 2 + len(words_of(self.excerpt.said)) // WORDS_PER_SPAN)
        most_dated = sorted(dated.values(), key=lambda span: -span.votes)[:MOST_DATES]
        self.spans = {tuple(word.key for word in words_of(s.text)): s for s in [*chosen[:most], *most_dated]}

    def _standing(self, answer: str) -> str | None:
        """Return an answer as the turn spells it, None where it does not stand there."""
        text = unicodedata.normalize("NFC", self.excerpt.said)  # as `words_of` counts places
        wanted, told = words_of(answer), words_of(text)
        if len(wanted) > MOST_ANSWER_WORDS:
            return None
        for at in places_of(wanted, told):
            run = told[at : at + len(wanted)]
            if any(word.carries for word in run):
                return text[run[0].start : run[-1].end]
        return None

    def samples_of(self, span: Span) -> int:
        """How many questions a scribe is to write for a span."""
        return QUESTIONS if self.may_be_about_who_tells and not span.is_calling else MORE_QUESTIONS

    def takes(self, asked: str) -> bool:
        """Tell whether somebody may ask a question about the turn: none in their own person about what was read out."""
        return self.may_be_about_who_tells or not speaks_of_itself(asked)

    def put(self, asked: str) -> str:
        """Return a question as it is learnt: about somebody by name, where several people talk."""
        return put_among_others(asked, self.chunk, self.excerpt.speaker) if self.is_among_others else asked

    def rivals(self, span: Span) -> list[str]:
        """Return the telling words of the turn that are none of a span's."""
        own = {word.key for word in words_of(span.text)}
        return [word.text for word in words_of(self.excerpt.said) if word.carries and word.key not in own]


Asked = tuple[AskedTurn, Span, str]
"""A turn, a span of it, and a question for that."""
