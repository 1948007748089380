"""Question generation by a scribe: it writes answers with questions about each turn, and reads them back.

Of each turn: *name* answers, and take the spans of the turn that are named most; *ask* for each in several wordings;
*read* each question with the turn before it, and drop what is answered otherwise, and what suits any turn; leave out
what the bare backbone says by itself. What is learnt is the span as the turn spells it. A phrase that dates something
from the day of the turn is asked for always, by questions for a day, and what is learnt is the date.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.dates.found import Dated, asks_for_day, date_meant, dates_in
from locas_agent.study.forms.reading import ReadingForm
from locas_agent.study.forms.untold import draw_untold
from locas_agent.study.items import QUESTION, GeneratedQuestions, Item
from locas_agent.study.scribe.forms import MARK, answer_in, opening_of, question_in, to_read, to_write
from locas_agent.study.scribe.lessons import lesson_questions
from locas_agent.study.spans import cues_of, is_name, most_about, places_of, telling, words_of, worth_asking
from locas_agent.study.teacher import Candidate, Opening, ScoredAnswer, Teacher

ANSWERS, ANSWER_HEAT = 10, 0.9
"""Answers sampled about a turn, and their temperature: how many name a span says how much it is worth asking."""
MOST_SPANS, WORDS_PER_SPAN = 8, 8
"""Spans of one turn that are asked for at most; one for so many of its words, and two more."""
MOST_DATES = 2
"""Dates of one turn that are asked for beside these spans."""
BELIEVED, SURE = 0.1, 0.2
"""Probability of an answer's first token from which a question is kept, where the scribe named the answer and where
not."""
LIKELIEST, AHEAD = 0.02, 2.0
"""Least probability, and how many times that of any other telling word of the turn, from which one is kept of an answer
that is named, dated, or a name, where none is kept otherwise. A rare name of several tokens is read with little
probability, and yet before all else that the turn holds."""
SAID_ANYWAY = 0.5
"""Probability of an answer's first token from which the bare backbone would say it by itself."""
MOST_CUES, WORTH = 12, 0.005
"""Cues of a turn that are looked at, and the probability of being named from which one is asked for."""
QUESTIONS, QUESTION_HEAT = 6, 0.7
"""Questions sampled for a span, and their temperature."""
DAY_ASKED = (" When", " On what date", " What day")
"""How questions for a dating phrase begin, in turn: of six that a scribe begins itself, often none asks for a day."""
ANSWER_TOKENS, QUESTION_TOKENS = 10, 20
MOST_ANSWER_WORDS, MOST_QUESTION_WORDS = 6, 24
MOST_UNTOLD = 8
"""Questions never answered, of one chunk."""
READ_AGAIN, ASKED_AGAIN = 3, 2
"""Turns of a new chunk that are read to see whether they answer an old question otherwise, those with most words of the
fact, and how many wordings of it are put to each, those with most words of the turn."""
RETOLD = 0.5
"""Least probability of the least likely token of an answer that does."""
ABOUT, RETOLD_ABOUT = 0.5, 0.75
"""Least advantage in nats a token of a question after a turn over `SMALL_TALK`, from which it is about the turn. A new
question has to be, so as not to answer whatever is asked; an old one more so, since a scribe always answers."""
SMALL_TALK = "ok thanks"
"""A turn after which no question is to be expected: what is as likely there as after a turn is not about the turn."""
READ_BY_SCRIBE = ReadingForm("scribe", lambda messages, asked: list(to_read(messages[-1]["content"], asked)))
"""How one turn stands before a question that a scribe reads."""


@dataclass(eq=False)
class _Span:
    """One answer that a turn holds, as the turn spells it, how often it was named, and the questions for it."""

    text: str
    votes: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    date: Dated | None = None
    """What it means, where it is a phrase that dates something."""

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
    def is_worth_more(self) -> bool:
        """Whether it was named, dates something, or is a name or a number: what somebody is likely to be asked for."""
        return bool(self.votes) or self.date is not None or is_name(self.text)

    def opening(self, number: int) -> str:
        """Return the words behind which a scribe writes one of the questions for it."""
        return opening_of(self.text) + (DAY_ASKED[number % len(DAY_ASKED)] if self.date is not None else "")

    def is_asked_by(self, asked: str) -> bool:
        """Tell whether a question is of bearable length and leaves open what the span says."""
        words = [word.key for word in words_of(asked)]
        if len(words) > MOST_QUESTION_WORDS:
            return False
        return bool(telling(self.text) - set(words)) if self.date is None else asks_for_day(asked)


@dataclass(eq=False)
class _AskedTurn:
    """One turn being asked about."""

    owner: int
    chunk: Chunk
    excerpt: TurnExcerpt
    spans: dict[tuple[str, ...], _Span] = field(default_factory=dict)

    def name(self, answer: str) -> None:
        """Note an answer that stands in the turn."""
        span = self._standing(answer)
        if span is not None:
            key = tuple(word.key for word in words_of(span))
            self.spans.setdefault(key, _Span(span)).votes += 1

    def settle(self, cues: Sequence[str]) -> None:
        """Choose what is asked for: the most named first, then cues; of spans that share a word one. Then dates.

        Args:
            cues: words of the turn that might be named as well.
        """
        named = sorted(self.spans.values(), key=lambda span: -span.votes)
        dates = dates_in(self.excerpt.text, self.excerpt.day)
        dated: dict[str, _Span] = {}
        for each in dates:
            dated.setdefault(each.answer, _Span(each.text, date=each))
        chosen = list[_Span]()
        for span in [*named, *map(_Span, cues)]:
            date = date_meant(span.text, self.excerpt.text, dates)
            if date is not None:
                dated[date.answer].votes += span.votes
                continue
            other = next((each for each in chosen if telling(each.text) & telling(span.text)), None)
            if other is None:
                chosen.append(span)
            elif is_name(span.text) and len(span.text) > len(other.text):
                other.text = span.text
        most = min(MOST_SPANS, 2 + len(words_of(self.excerpt.text)) // WORDS_PER_SPAN)
        most_dated = sorted(dated.values(), key=lambda span: -span.votes)[:MOST_DATES]
        self.spans = {tuple(word.key for word in words_of(s.text)): s for s in [*chosen[:most], *most_dated]}

    def _standing(self, answer: str) -> str | None:
        """Return an answer as the turn spells it, None where it does not stand there."""
        text = unicodedata.normalize("NFC", self.excerpt.text)  # as `words_of` counts places
        wanted, told = words_of(answer), words_of(text)
        if len(wanted) > MOST_ANSWER_WORDS:
            return None
        for at in places_of(wanted, told):
            run = told[at : at + len(wanted)]
            if any(word.carries for word in run):
                return text[run[0].start : run[-1].end]
        return None


class ScribeQuestionGenerator:
    """Asks about the chunks of many users side by side, with a scribe that writes and reads."""

    def __init__(self, teacher: Teacher, settings: StudySettings, scribe: LocasMemory) -> None:
        self._teacher = teacher
        self._settings = settings
        self._scribe = scribe

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """See `StudyStrategy.generate`."""
        found = {owner: GeneratedQuestions() for owner in chunks}
        turns = [
            _AskedTurn(owner, chunk, excerpt) for owner, chunk in chunks.items() for excerpt in worth_asking(chunk)
        ]
        self._name(turns)
        self._ask(turns, found)
        done(1)
        self._finish(turns, found)
        return found

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> list[bool]:
        """See `StudyStrategy.are_sure`: where the scribe would also have asked the old question about the new turn."""
        probable = [at for at, (_, answer) in enumerate(answers) if answer.confidence >= RETOLD]
        about = self._about(
            [
                (candidate.read[-1]["content"], answer.text, candidate.question)
                for candidate, answer in (answers[at] for at in probable)
            ]
        )
        sure = {at for at, much in zip(probable, about, strict=True) if much >= RETOLD_ABOUT}
        return [at in sure for at in range(len(answers))]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """See `StudyStrategy.retold`: the span that the new item has."""
        return ScoredAnswer(source.answer_ids[:-1], source.answer, answer.confidence, source.teacher)

    def asked_again(self, owner: int, chunk: Chunk, items: Sequence[Item]) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: some wordings, to the turns with most of the fact's words, each alone."""
        told = [excerpt for excerpt in chunk.excerpts if excerpt.is_learnt]
        near = most_about(" ".join(item.question for item in items), told, most=READ_AGAIN)
        return [
            Candidate(
                owner,
                chunk,
                item.turn_seq,
                item.question,
                item.answer,
                form=READ_BY_SCRIBE,
                context=(chunk.messages[excerpt.at],),
                scribe=self._scribe,
                excerpt=excerpt,
            )
            for excerpt in near
            for item in _nearest(items, excerpt)
        ]

    def negatives(
        self, chunks: Mapping[int, Sequence[Chunk]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """See `StudyStrategy.negatives`: what other people might ask, where no chunk has a telling word of it."""
        most = min(MOST_UNTOLD, self._settings.negatives_per_piece)
        return draw_untold(self._teacher, lesson_questions(), chunks, known, most=most)

    def _about(self, asked: Sequence[tuple[str, str, str]]) -> list[float]:
        """Return how much more likely questions are after a turn than after small talk, in nats a token.

        Args:
            asked: a turn, an answer that stands in it, and a question for that answer, each.
        """
        behind = [(opening_of(answer), f" {text}") for _, answer, text in asked]
        own = [to_write(turn) for turn, _, _ in asked]
        told, anyway = (
            self._teacher.fitting(list(zip(prompts, behind, strict=True)), scribe=self._scribe)
            for prompts in (own, [to_write(SMALL_TALK)] * len(asked))
        )
        return [after - before for after, before in zip(told, anyway, strict=True)]

    def _name(self, turns: Sequence[_AskedTurn]) -> None:
        """Sample answers that every turn holds."""
        naming = [(turn, number) for turn in turns for number in range(ANSWERS)]
        openings = [
            Opening(to_write(turn.excerpt.text), "", f"{turn.excerpt.turn_seq} answer {number}")
            for turn, number in naming
        ]
        written = self._teacher.open(
            openings, length=ANSWER_TOKENS, until=MARK, temperature=ANSWER_HEAT, scribe=self._scribe
        )
        for (turn, _), text in zip(naming, written, strict=True):
            turn.name(answer_in(text))
        cues = [cues_of(turn.excerpt.text, most=MOST_CUES) for turn in turns]
        worth = self._teacher.believed(
            [(to_write(turn.excerpt.text), texts) for turn, texts in zip(turns, cues, strict=True)],
            scribe=self._scribe,
        )
        for turn, texts, beliefs in zip(turns, cues, worth, strict=True):
            names = {word.key for word in words_of(turn.excerpt.text) if word.is_name}
            worthy = zip(texts, beliefs, strict=True)
            turn.settle([cue for cue, belief in worthy if belief >= WORTH or telling(cue) <= names])

    def _ask(self, turns: Sequence[_AskedTurn], found: Mapping[int, GeneratedQuestions]) -> None:
        """Sample questions for every span that is worth it."""
        wanting = [
            (turn, span, number) for turn in turns for span in turn.spans.values() for number in range(QUESTIONS)
        ]
        openings = [
            Opening(to_write(turn.excerpt.text), span.opening(number), f"{turn.excerpt.turn_seq} {span.text} {number}")
            for turn, span, number in wanting
        ]
        written = self._teacher.open(
            openings, length=QUESTION_TOKENS, until="?", temperature=QUESTION_HEAT, scribe=self._scribe
        )
        for (turn, span, _), text in zip(wanting, written, strict=True):
            found[turn.owner].sampled += 1
            asked = question_in(text)
            if asked is not None and span.is_asked_by(asked):
                span.questions[asked] = span.questions.get(asked, 0) + 1

    def _finish(self, turns: Sequence[_AskedTurn], found: Mapping[int, GeneratedQuestions]) -> None:
        """Read back, leave out what the bare backbone says, and make items of the rest."""
        asked = [
            (turn, span, text)
            for turn in turns
            for span in turn.spans.values()
            for text in sorted(span.questions, key=lambda each: -span.questions[each])
        ]
        read = self._teacher.believed(
            [(to_read(turn.excerpt.text, text), (*span.readings, *_rivals(turn, span))) for turn, span, text in asked],
            [id(turn) for turn, _, _ in asked],
            scribe=self._scribe,
        )
        kept = self._pertinent(self._best(asked, read))
        said = self._teacher.believed([(question(text), (span.answer,)) for _, span, text in kept])
        new = [each for each, (belief,) in zip(kept, said, strict=True) if belief < SAID_ANYWAY]
        marked = self._teacher.given([span.answer for _, span, _ in new])
        items = self._teacher.to_items(
            [
                (Candidate(turn.owner, turn.chunk, turn.excerpt.turn_seq, text, ""), answer, QUESTION)
                for (turn, _, text), answer in zip(new, marked, strict=True)
            ]
        )
        for (turn, _, _), item in zip(new, items, strict=True):
            found[turn.owner].take(turn.excerpt.turn_seq, item)
        told = {id(turn) for turn, _, _ in kept}
        for turn in turns:
            found[turn.owner].tell(turn.excerpt.turn_seq, something=id(turn) in told)

    def _best(
        self, asked: Sequence[tuple[_AskedTurn, _Span, str]], read: Sequence[Sequence[float]]
    ) -> list[tuple[_AskedTurn, _Span, str]]:
        """Choose the wordings of each span whose answer is read best, where it is read well enough.

        Args:
            asked: turns, spans of them, and questions for these.
            read: how probable the first tokens of the span's readings are then, and those of each of its rivals.
        """
        by_span: dict[int, list[tuple[float, int]]] = {}
        ahead: dict[int, list[tuple[float, int]]] = {}
        for at, ((_, span, _), beliefs) in enumerate(zip(asked, read, strict=True)):
            own = len(span.readings)
            belief, others = max(beliefs[:own]), beliefs[own:]
            if belief >= (BELIEVED if span.votes else SURE):
                by_span.setdefault(id(span), []).append((-belief, at))
            elif span.is_worth_more and belief >= max(LIKELIEST, AHEAD * max(others, default=0.0)):
                ahead.setdefault(id(span), []).append((-belief, at))
        most = self._settings.wordings_per_turn
        return [asked[at] for found in (ahead | by_span).values() for _, at in sorted(found)[:most]]

    def _pertinent(self, kept: Sequence[tuple[_AskedTurn, _Span, str]]) -> list[tuple[_AskedTurn, _Span, str]]:
        """Leave out wordings that suit any turn as well ("Where am I?"), but of each span the most pertinent."""
        about = self._about([(turn.excerpt.text, span.text, text) for turn, span, text in kept])
        most: dict[int, float] = {}
        for (_, span, _), much in zip(kept, about, strict=True):
            most[id(span)] = max(much, most.get(id(span), much))
        return [each for each, much in zip(kept, about, strict=True) if much >= min(ABOUT, most[id(each[1])])]


def _nearest(items: Sequence[Item], excerpt: TurnExcerpt) -> list[Item]:
    """Return the wordings of a fact that share most telling words with a turn."""
    said = {word.key for word in words_of(excerpt.text)}
    return sorted(items, key=lambda item: -len(telling(item.question) & said))[:ASKED_AGAIN]


def _rivals(turn: _AskedTurn, span: _Span) -> list[str]:
    """Return the telling words of a turn that are none of a span's."""
    own = {word.key for word in words_of(span.text)}
    return [word.text for word in words_of(turn.excerpt.text) if word.carries and word.key not in own]
