"""Question generation over a chunk: ask about every turn until each that carries a fact has kept questions.

A question is kept when the backbone with the chunk in context answers it as it was written, does not abstain, and could
not answer it without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.study import prompts
from locas_agent.study.chunking import EXCERPT_CHARACTERS, Chunk, TurnExcerpt
from locas_agent.study.items import QUESTION, EarlierFact, GeneratedQuestions, Item
from locas_agent.study.matching import normalized_words, same_answer, stands_in
from locas_agent.study.teacher import Candidate, Request, ScoredAnswer, Teacher


@dataclass(eq=False)
class _AskedTurn:
    """One turn being asked about."""

    owner: int
    chunk: Chunk
    at: int
    asked: set[str] = field(default_factory=set)
    kept: list[Item] = field(default_factory=list)

    @property
    def excerpt(self) -> TurnExcerpt:
        return self.chunk.excerpts[self.at]

    def keep(self, item: Item) -> None:
        if item.question not in {other.question for other in self.kept}:
            self.kept.append(item)


class QuestionGenerator:
    """Asks about the chunks of many users side by side."""

    def __init__(self, teacher: Teacher, settings: StudySettings) -> None:
        self._teacher = teacher
        self._settings = settings

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """Return what was found in each owner's chunk.

        Args:
            chunks: one for each owner, who is a number of the caller's.
            done: told of each finished round, from 1 on; what it raises ends the generation.
        """
        wanted = self._settings.wordings_per_turn
        found = {owner: GeneratedQuestions() for owner in chunks}
        turns = {
            (owner, at): _AskedTurn(owner, chunk, at)
            for owner, chunk in chunks.items()
            for at, excerpt in enumerate(chunk.excerpts)
            if excerpt.is_learnt
        }
        waiting = list(turns.values())
        for round_number in range(self._settings.max_rounds):
            if not waiting:
                break
            candidates = self._ask(waiting, round_number, found)
            for (turn, _), item in zip(candidates, self._supported(candidates, found), strict=True):
                at = told_in(turn.chunk.excerpts, turn.at, item) if item is not None else None
                if item is not None and at is not None:
                    turns[turn.owner, at].keep(replace(item, turn_seq=turn.chunk.excerpts[at].turn_seq))
            carrying = [turn for turn in waiting if turn.excerpt.turn_seq in found[turn.owner].carrying]
            waiting = [turn for turn in (carrying if round_number == 0 else waiting) if len(turn.kept) < wanted]
            done(round_number + 1)
        for turn in turns.values():
            known = {item.question for item in found[turn.owner].items}
            found[turn.owner].items += [item for item in turn.kept[: 2 * wanted] if item.question not in known]
            found[turn.owner].covered.update(item.turn_seq for item in turn.kept)
        return found

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> list[bool]:
        """See `StudyStrategy.are_sure`: by their confidence."""
        return [answer.confidence >= self._settings.min_confidence for _, answer in answers]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """See `StudyStrategy.retold`: what the teacher said."""
        return answer

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: every wording, and the whole chunk is read."""
        return [Candidate(owner, chunk, item.turn_seq, item.question, item.answer) for item in fact.items]

    def negatives(
        self, chunks: Mapping[int, Sequence[Chunk]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """See `StudyStrategy.negatives`: sampled, and kept where no chunk makes the backbone answer."""
        count = self._settings.negatives_per_piece
        requests = [
            Request(own[-1], prompts.unanswerable_prompt(), f"untold {sample}")
            for own in chunks.values()
            for sample in range(count)
        ]
        # the answer is always the same, so questions may be as diverse as the backbone writes them
        texts = self._teacher.sample(requests, temperature=max(1.0, self._settings.temperature))
        candidates = []
        for number, (owner, own) in enumerate(chunks.items()):
            asked = set(known[owner])
            for text in texts[number * count : (number + 1) * count]:
                written = prompts.parse_question_answer(text)
                if written is not None and written.question not in asked:
                    asked.add(written.question)
                    candidates.append(Candidate(owner, own[-1], own[-1].to_seq, written.question, written.answer))
        answers = self._teacher.answer_with_distribution(candidates)
        still_open = [
            (c, a) for c, a in zip(candidates, answers, strict=True) if a is not None and prompts.abstains(a.text)
        ]
        for other in range(max((len(own) - 1 for own in chunks.values()), default=0)):
            again = self._teacher.answer(
                [[*chunks[c.owner][other].messages, *question(c.question)] for c, _ in still_open]
            )
            still_open = [
                pair for pair, a in zip(still_open, again, strict=True) if a is None or prompts.abstains(a.text)
            ]
        return still_open

    def _ask(
        self, waiting: Sequence[_AskedTurn], round_number: int, found: Mapping[int, GeneratedQuestions]
    ) -> list[tuple[_AskedTurn, Candidate]]:
        """Sample questions about every waiting turn.

        Return those not asked before that have an answer, and note which turns carry a fact.
        """
        settings = self._settings
        samples = settings.samples_per_turn if round_number else settings.first_samples
        requests = [
            Request(
                turn.chunk,
                prompts.question_prompt(turn.excerpt.text[:EXCERPT_CHARACTERS], speaker=turn.excerpt.speaker),
                f"{turn.at} {round_number} {sample}",
            )
            for turn in waiting
            for sample in range(samples)
        ]
        texts = self._teacher.sample(requests, temperature=settings.temperature)
        candidates = []
        for number, turn in enumerate(waiting):
            own, generated = texts[number * samples : (number + 1) * samples], found[turn.owner]
            questions = [written for text in own if (written := prompts.parse_question_answer(text))]
            generated.sampled += samples
            if questions:
                generated.carrying.add(turn.excerpt.turn_seq)
            elif round_number == 0:
                generated.nothing += any(prompts.says_nothing(text) for text in own)
            for written in questions:
                if written.question not in turn.asked and not prompts.abstains(written.answer):
                    turn.asked.add(written.question)
                    candidates.append(
                        (
                            turn,
                            Candidate(turn.owner, turn.chunk, turn.excerpt.turn_seq, written.question, written.answer),
                        )
                    )
        return candidates

    def _supported(
        self, asked: Sequence[tuple[_AskedTurn, Candidate]], found: Mapping[int, GeneratedQuestions]
    ) -> list[Item | None]:
        """Put each question to the teacher, with its chunk and without.

        Keep what only the chunk answers, and as it was written.
        """
        candidates = [candidate for _, candidate in asked]
        with_chunk = self._teacher.answer_with_distribution(candidates)
        without = self._teacher.answer([question(candidate.question) for candidate in candidates])
        good = {}
        for at, (candidate, answer, bare) in enumerate(zip(candidates, with_chunk, without, strict=True)):
            if answer is None or prompts.abstains(answer.text):
                continue
            # A rare name is written with little confidence although it stands in the turn: how little, rounding
            # decides.
            told = asked[at][0].excerpt.text
            if answer.confidence < self._settings.min_confidence and not stands_in(
                answer.text, candidate.question, told
            ):
                continue
            if same_answer(answer.text, candidate.written) and not (
                bare is not None and same_answer(bare.text, answer.text)
            ):
                good[at] = (candidate, answer, QUESTION)
        items = dict(zip(good, self._teacher.to_items(list(good.values())), strict=True))
        for at, item in items.items():
            found[candidates[at].owner].dropped += item is None
        return [items.get(at) for at in range(len(candidates))]


def told_in(excerpts: Sequence[TurnExcerpt], asked: int, item: Item) -> int | None:
    """Return which turn tells the answer: the one asked about, unless its text has no word of it and another's has.

    Asked about one turn, a small backbone now and then writes about its neighbour. Counted for the wrong turn, such an
    item would leave the neighbour's own questions out as known, and hide that the turn asked about still has none. None
    where a turn that is not to be learnt from says more of the answer than every turn that is: it is that turn's claim,
    no matter which turn was asked about.
    """
    wanted = set(normalized_words(item.answer)) - set(normalized_words(item.question))
    shared = [len(wanted & set(normalized_words(excerpt.text))) for excerpt in excerpts]
    own = [share if excerpt.is_learnt else 0 for share, excerpt in zip(shared, excerpts, strict=True)]
    best = own[asked] or max(own)
    if max(shared) > best:
        return None
    return asked if own[asked] or not best else own.index(best)
