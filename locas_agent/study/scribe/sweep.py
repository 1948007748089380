"""The sweep of a scribe: it writes answers with questions about each turn, and reads them back.

Of each turn: *write* some texts of pairs, one greedy and others sampled; *keep* the pairs whose answer stands in the
turn and not in the question; ask for *more wordings* of answers with few; *read* each question with the turn before it,
and drop what is answered otherwise; leave out what the bare backbone says by itself. What is learnt is the span as the
turn spells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.memory import LocasMemory
from locas_agent.study import prompts
from locas_agent.study.chunking import Piece, Quote
from locas_agent.study.items import QUESTION, Item, Swept
from locas_agent.study.matching import agree
from locas_agent.study.scribe.forms import Pair, opening_of, pairs_in, to_read, to_write
from locas_agent.study.scribe.lessons import lesson_turns
from locas_agent.study.spans import words_of
from locas_agent.study.teacher import Candidate, Opening, Taught, Teacher

TEXTS = 5
"""Texts of pairs that are written about a turn, the first of them greedy."""
TEMPERATURE = 0.8
TEXT_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 96, 20, 12
MOST_ANSWER_WORDS, MOST_QUESTION_WORDS = 6, 24
LEAST_TEXTS = 2
"""Sampled texts that must hold an answer before it is asked for, where the greedy one does not hold it."""
READ_AGAIN = 2
"""Turns of a new piece that are read to see whether they answer an old question otherwise."""


@dataclass(eq=False)
class _Span:
    """One answer that a turn holds, as the turn spells it, and the questions written for it."""

    text: str
    questions: dict[str, int] = field(default_factory=dict)
    texts: set[int] = field(default_factory=set)

    def ask(self, text: str, number: int) -> None:
        """Note a question, and which of the texts it stands in."""
        self.questions[text] = self.questions.get(text, 0) + 1
        self.texts.add(number)

    @property
    def is_told(self) -> bool:
        """Whether enough of the texts hold it."""
        return 0 in self.texts or len(self.texts) >= LEAST_TEXTS


@dataclass(eq=False)
class _Asking:
    """One turn being asked about."""

    owner: int
    piece: Piece
    quote: Quote
    spans: dict[tuple[str, ...], _Span] = field(default_factory=dict)

    def take(self, pairs: Iterable[Pair], number: int) -> None:
        """Note the pairs of one text whose answer stands in the turn and not in the question."""
        for pair in pairs:
            span = self._standing(pair.answer)
            if span is not None and _is_open(pair.question, span):
                key = tuple(word.key for word in words_of(span))
                self.spans.setdefault(key, _Span(span)).ask(pair.question, number)

    def _standing(self, answer: str) -> str | None:
        """Return an answer as the turn spells it, None where it does not stand there."""
        text, wanted = self.quote.text, [word.key for word in words_of(answer)]
        told = words_of(text)
        if not wanted or len(wanted) > MOST_ANSWER_WORDS:
            return None
        for at in range(len(told) - len(wanted) + 1):
            run = told[at : at + len(wanted)]
            if [word.key for word in run] == wanted and any(word.carries for word in run):
                return text[run[0].start : run[-1].end]
        return None


class ScribeSweep:
    """Asks about the pieces of many users side by side, with a scribe that writes and reads."""

    def __init__(self, teacher: Teacher, settings: StudySettings, scribe: LocasMemory) -> None:
        self._teacher = teacher
        self._settings = settings
        self._scribe = scribe

    def over(self, pieces: Mapping[int, Piece], done: Callable[[int], None]) -> dict[int, Swept]:
        """See `StudyStrategy.over`."""
        found = {owner: Swept() for owner in pieces}
        turns = [
            _Asking(owner, piece, quote)
            for owner, piece in pieces.items()
            for quote in piece.quotes
            if quote.is_learnt and len(words_of(quote.text)) > 1
        ]
        self._write(turns, found)
        self._reword(turns, found)
        done(1)
        self._finish(turns, found)
        return found

    @property
    def min_confidence(self) -> float:
        """See `StudyStrategy.min_confidence`."""
        return self._settings.min_confidence

    def retold(self, answer: Taught, source: Item) -> Taught:
        """See `StudyStrategy.retold`: the span that the new item has."""
        return Taught(source.answer_ids[:-1], source.answer, answer.confidence, source.teacher)

    def asked_again(self, owner: int, piece: Piece, item: Item) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: the turns with most of the old question's words are read, each alone."""
        wanted = {word.key for word in words_of(item.question) if word.carries}
        shared = [
            (len(wanted & {word.key for word in words_of(quote.text)}), quote)
            for quote in piece.quotes
            if quote.is_learnt
        ]
        best = sorted((each for each in shared if each[0]), key=lambda each: -each[0])[:READ_AGAIN]
        return [
            Candidate(owner, piece, item.turn_seq, item.question, item.answer, context=(piece.messages[quote.at],))
            for _, quote in best
        ]

    def negatives(
        self, pieces: Mapping[int, Sequence[Piece]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, Taught]]:
        """See `StudyStrategy.negatives`: what other people might ask, where no piece has a telling word of it."""
        asked = [text for turn in lesson_turns() for fact in turn.facts for text in fact.questions]
        found = []
        for owner, own in pieces.items():
            said = {word.key for piece in own for quote in piece.quotes for word in words_of(quote.text)}
            free = [
                text
                for text in asked
                if text not in known[owner] and not said & {word.key for word in words_of(text) if word.carries}
            ]
            drawn = Random(f"{own[-1].messages}").sample(free, min(len(free), self._settings.negatives_per_piece))
            found += [Candidate(owner, own[-1], own[-1].to_seq, text, prompts.ABSTENTION) for text in drawn]
        return list(zip(found, self._teacher.given([prompts.ABSTENTION] * len(found)), strict=True))

    def _write(self, turns: Sequence[_Asking], found: Mapping[int, Swept]) -> None:
        """Have some texts written about every turn, and note their pairs."""
        for number, temperature in enumerate([0.0] + [TEMPERATURE] * (TEXTS - 1)):
            openings = [
                Opening(to_write(asking.quote.text), "", f"{asking.quote.turn_seq} {number}") for asking in turns
            ]
            written = self._teacher.open(
                openings, length=TEXT_TOKENS, temperature=temperature, scribe=self._scribe
            )
            for asking, text in zip(turns, written, strict=True):
                pairs = pairs_in(text)
                found[asking.owner].sampled += len(pairs)
                asking.take(pairs, number)

    def _reword(self, turns: Sequence[_Asking], found: Mapping[int, Swept]) -> None:
        """Ask for more questions where an answer has fewer than are wanted."""
        wanting = [
            (asking, span, number)
            for asking in turns
            for span in asking.spans.values()
            if span.is_told
            for number in range(2 * max(0, self._settings.wordings_per_turn - len(span.questions)))
        ]
        openings = [
            Opening(to_write(asking.quote.text), opening_of(span.text), f"{asking.quote.turn_seq} {span.text} {number}")
            for asking, span, number in wanting
        ]
        written = self._teacher.open(openings, length=QUESTION_TOKENS, temperature=TEMPERATURE, scribe=self._scribe)
        for (asking, span, _), text in zip(wanting, written, strict=True):
            first, mark, _ = text.partition("?")
            asking_for = pairs_in(first + mark)
            found[asking.owner].sampled += 1
            for pair in asking_for:
                if _is_open(pair.question, span.text):
                    span.questions.setdefault(pair.question, 1)

    def _finish(self, turns: Sequence[_Asking], found: Mapping[int, Swept]) -> None:
        """Read back, leave out what the bare backbone says, and make items of the rest."""
        asked = [
            (asking, span, text)
            for asking in turns
            for span in asking.spans.values()
            if span.is_told
            for text in sorted(span.questions, key=lambda each: -span.questions[each])
        ]
        read = self._teacher.read(
            [to_read(asking.quote.text, text) for asking, _, text in asked],
            [id(asking) for asking, _, _ in asked],
            length=ANSWER_TOKENS,
            scribe=self._scribe,
        )
        kept: list[tuple[_Asking, _Span, str]] = []
        for (asking, span, text), answer in zip(asked, read, strict=True):
            wordings = sum(other is span for _, other, _ in kept)
            if answer is not None and agree(answer.text, span.text) and wordings < self._settings.wordings_per_turn:
                kept.append((asking, span, text))
        bare = self._teacher.answer([question(text) for _, _, text in kept])
        new = [
            each
            for each, said in zip(kept, bare, strict=True)
            if said is None or not agree(said.text, each[1].text)
        ]
        marked = self._teacher.given([span.text for _, span, _ in new])
        items = self._teacher.items(
            [
                (Candidate(asking.owner, asking.piece, asking.quote.turn_seq, text, ""), answer, QUESTION)
                for (asking, _, text), answer in zip(new, marked, strict=True)
            ]
        )
        for (asking, _, _), item in zip(new, items, strict=True):
            swept = found[asking.owner]
            if item is None:
                swept.dropped += 1
            elif item.question not in {other.question for other in swept.items}:
                swept.items.append(item)
                swept.covered.add(asking.quote.turn_seq)
        telling = {id(asking) for asking, _, _ in kept}
        for asking in turns:
            if id(asking) in telling:
                found[asking.owner].carrying.add(asking.quote.turn_seq)
            else:
                found[asking.owner].nothing += 1


def _is_open(asked: str, span: str) -> bool:
    """Tell whether a question is of bearable length and leaves open what a span says."""
    words = [word.key for word in words_of(asked)]
    answer = {word.key for word in words_of(span) if word.carries}
    return len(words) <= MOST_QUESTION_WORDS and bool(answer - set(words))
