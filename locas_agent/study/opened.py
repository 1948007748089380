"""Questions of backbones that follow no format: answers are opened, one turn is read at a time, spans are kept.

Of each turn: *write* questions behind many openings; *read* each with nothing but the turn before it, and where that
says nothing with the turn before it too; *keep* those whose answer points at a span of the turn that the question does
not say, that the teacher believes, and that the bare backbone does not say by itself. What is learnt is the span: a
short answer that begins with what matters, in nobody's person. Of a phrase that dates something it is the date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import Message, question
from locas_agent.study import prompts
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.dates.found import asks_for_day, date_said
from locas_agent.study.forms.calibration import Calibration
from locas_agent.study.forms.untold import UNTOLD, draw_untold
from locas_agent.study.forms.writing import Wanted, WritingForm, cloze, is_of_kind, openings_for, question_of
from locas_agent.study.items import QUESTION, EarlierFact, GeneratedQuestions, Item
from locas_agent.study.matching import same_answer
from locas_agent.study.spans import cues_of, foreign, most_about, pointed_at, words_of, worth_asking
from locas_agent.study.teacher import Candidate, Opening, ScoredAnswer, Teacher

QUESTION_TOKENS = 16
"""Tokens written after an opening; what has not come to its question mark by then is dropped."""
WORDS_PER_CUE = 6
"""Words of a turn for each cue that it is asked by: a long turn tells more."""
MOST_CUES = 12
MOST_CLOZES = 4
"""Gaps of one turn at most."""
FOREIGN_SHARE = 0.5
"""Share of the telling words of an answer that may stand neither in what was read nor in the question."""
READ_AGAIN = 2
"""Turns of a new chunk that are read to see whether they answer an old question otherwise."""


@dataclass(eq=False)
class _AskedTurn:
    """One turn being asked about, and what has been kept of it."""

    owner: int
    chunk: Chunk
    excerpt: TurnExcerpt
    asked: set[str] = field(default_factory=set)
    kept: list[_Kept] = field(default_factory=list)

    @property
    def header(self) -> tuple[Message, ...]:
        return tuple(message for message in self.chunk.messages[:1] if message["role"] == "system")

    @property
    def alone(self) -> tuple[Message, ...]:
        return (*self.header, self.chunk.messages[self.excerpt.at])

    @property
    def with_neighbour(self) -> tuple[Message, ...]:
        start = max(len(self.header), self.excerpt.at - 1)
        return (*self.header, *self.chunk.messages[start : self.excerpt.at + 1])


@dataclass(frozen=True, slots=True)
class _Written:
    """A question written about a turn, and the kind of answer that its opening wants."""

    turn: _AskedTurn
    candidate: Candidate
    wants: Wanted

    def read_with(self, context: tuple[Message, ...]) -> _Written:
        return replace(self, candidate=replace(self.candidate, context=context))

    def takes(self, span: str) -> bool:
        """Tell whether a span is of the kind wanted; who writes no capitals writes no names."""
        if self.wants == "name" and not any(word.is_name for word in words_of(self.turn.excerpt.text)):
            return True
        return is_of_kind(span, self.wants)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A question that the teacher answered with a span of the turn, and what is learnt of it."""

    candidate: Candidate
    span: str
    answer: str
    worth: float


class OpenedQuestionGenerator:
    """Asks about the chunks of many users side by side, in the forms that were measured for the backbone."""

    def __init__(self, teacher: Teacher, settings: StudySettings, calibration: Calibration) -> None:
        self._teacher = teacher
        self._settings = settings
        self._calibration = calibration

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """See `StudyStrategy.generate`."""
        found = {owner: GeneratedQuestions() for owner in chunks}
        turns = [
            _AskedTurn(owner, chunk, excerpt) for owner, chunk in chunks.items() for excerpt in worth_asking(chunk)
        ]
        waiting = turns
        for number, writer in enumerate(self._calibration.writers[: self._settings.max_rounds]):
            if not waiting:
                break
            written = self._write(waiting, writer, number, found)
            self._read([each.read_with(each.turn.alone) for each in written])
            self._read([each.read_with(each.turn.with_neighbour) for each in written if not each.turn.kept])
            waiting = [turn for turn in waiting if self._is_wanting(turn)]
            done(number + 1)
        self._finish(turns, found)
        return found

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> list[bool]:
        """See `StudyStrategy.are_sure`: by their confidence, as the calibration has it."""
        return [answer.confidence >= self._calibration.chosen.min_confidence for _, answer in answers]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """See `StudyStrategy.retold`: the span that the new item has."""
        return ScoredAnswer(source.answer_ids[:-1], source.answer, answer.confidence, source.teacher)

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: the turns with most of a question's words are read, each alone."""
        told = [excerpt for excerpt in chunk.excerpts if excerpt.is_learnt]
        near = self._calibration.near
        return [
            Candidate(
                owner,
                chunk,
                item.turn_seq,
                item.question,
                item.answer,
                near,
                _AskedTurn(0, chunk, excerpt).alone,
                excerpt=excerpt,
            )
            for item in fact.items
            for excerpt in most_about(item.question, told, most=READ_AGAIN)
        ]

    def negatives(
        self, chunks: Mapping[int, Sequence[Chunk]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """See `StudyStrategy.negatives`: questions about oneself of which no chunk has a telling word."""
        return draw_untold(self._teacher, UNTOLD, chunks, known, most=self._settings.negatives_per_piece)

    def _is_wanting(self, turn: _AskedTurn) -> bool:
        return len(turn.kept) < self._settings.wordings_per_turn

    def _write(
        self, waiting: Sequence[_AskedTurn], form: WritingForm, number: int, found: Mapping[int, GeneratedQuestions]
    ) -> list[_Written]:
        """Write on from every opening about every waiting turn; return the questions not asked before."""
        openings: list[Opening] = []
        owners: list[tuple[_AskedTurn, Wanted]] = []
        for turn in waiting:
            text = turn.excerpt.text
            cues = _cues(text)
            prompt = tuple(form.build(text))
            for at, opening in enumerate(openings_for(cues)):
                openings.append(Opening(prompt, opening.words, f"{turn.excerpt.turn_seq} {number} {at}"))
                owners.append((turn, opening.wants))
        written = self._teacher.open(openings, length=QUESTION_TOKENS, until="?", temperature=0.0)
        questions = []
        for (turn, wants), made in zip(owners, written, strict=True):
            found[turn.owner].sampled += 1
            asked = question_of(made)
            if asked is not None and asked not in turn.asked:
                turn.asked.add(asked)
                near = self._calibration.near
                candidate = Candidate(turn.owner, turn.chunk, turn.excerpt.turn_seq, asked, "", near)
                questions.append(_Written(turn, candidate, wants))
        return questions

    def _read(self, written: Sequence[_Written]) -> None:
        """Answer each question from what it is to be read with, and keep those that point at a span of the turn."""
        answers = self._teacher.answer_with_distribution([each.candidate for each in written])
        for each, answer in zip(written, answers, strict=True):
            if (
                answer is None
                or answer.confidence < self._calibration.chosen.min_confidence
                or prompts.abstains(answer.text)
            ):
                continue
            told = each.turn.excerpt
            span = pointed_at(answer.text, each.candidate.question, told.text)
            date = date_said(span or answer.text, told.text, told.day)
            if date is not None:
                span = date.text if asks_for_day(each.candidate.question) else None
            if span is not None and each.takes(span) and not self._is_invented(answer, each.candidate):
                learnt = span if date is None else date.answer
                each.turn.kept.append(_Kept(each.candidate, span, learnt, answer.confidence))

    @staticmethod
    def _is_invented(answer: ScoredAnswer, candidate: Candidate) -> bool:
        """Tell whether too much of an answer stands neither in what was read nor in the question."""
        known = [*(message["content"] for message in candidate.read), candidate.question]
        telling = sum(word.carries for word in words_of(answer.text))
        return len(foreign(answer.text, known)) > FOREIGN_SHARE * max(1, telling)

    def _finish(self, turns: Sequence[_AskedTurn], found: Mapping[int, GeneratedQuestions]) -> None:
        """Choose wordings of each fact, leave out what the bare backbone says, and make items of the rest."""
        chosen = [(turn, kept) for turn in turns for kept in [*self._chosen(turn), *self._clozes(turn)]]
        bare = self._teacher.answer([question(kept.candidate.question) for _, kept in chosen])
        new = [
            (turn, kept)
            for (turn, kept), said in zip(chosen, bare, strict=True)
            if said is None or not same_answer(said.text, kept.answer)
        ]
        marked = self._teacher.given([kept.answer for _, kept in new])
        items = self._teacher.to_items(
            [(kept.candidate, answer, QUESTION) for (_, kept), answer in zip(new, marked, strict=True)]
        )
        for (turn, _), item in zip(new, items, strict=True):
            found[turn.owner].take(turn.excerpt.turn_seq, item)
        telling = {id(turn) for turn, _ in chosen}
        for turn in turns:
            found[turn.owner].tell(turn.excerpt.turn_seq, something=id(turn) in telling)

    def _chosen(self, turn: _AskedTurn) -> Iterable[_Kept]:
        """Return the best wordings of each span of a turn."""
        by_span: dict[str, list[_Kept]] = {}
        for kept in sorted(turn.kept, key=lambda each: -each.worth):
            by_span.setdefault(" ".join(word.key for word in words_of(kept.span)), []).append(kept)
        return [kept for group in by_span.values() for kept in group[: self._settings.wordings_per_turn]]

    def _clozes(self, turn: _AskedTurn) -> list[_Kept]:
        """Return, for what no kept question asks for, the words around it with a gap."""
        text = turn.excerpt.text
        known = {word.key for kept in turn.kept for word in words_of(kept.span)}
        missed = [cue for cue in _cues(text) if not known & {word.key for word in words_of(cue)}]
        if not turn.kept:  # a turn about which no question held tells something only if it names something
            names = {word.key for word in words_of(text) if word.is_name}
            missed = [cue for cue in missed if names & {word.key for word in words_of(cue)}]
        found = []
        for cue in missed[:MOST_CLOZES]:
            asked = cloze(text, cue)
            if asked is not None:
                candidate = Candidate(turn.owner, turn.chunk, turn.excerpt.turn_seq, asked, cue)
                found.append(_Kept(candidate, cue, cue, 0.0))
        return found


def _cues(text: str) -> list[str]:
    """Return what a turn is asked by, the more the longer it is."""
    return cues_of(text, most=min(MOST_CUES, max(4, len(text.split()) // WORDS_PER_CUE)))
