"""Study sets: what the backbone asks itself about the overflow of one or many users.

For each chunk: *generate* questions about its turns (`question_generation.py`). Then *refresh*: earlier items are asked
again with the new chunk in context; those answered differently are replaced, negatives that are now answered are
retired. Then *negatives*: questions of the same kinds that the chunk leaves open. The teacher's distribution over each
answer is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import exchange, question
from locas_agent.study import prompts
from locas_agent.study.chunking import Chunk
from locas_agent.study.items import (
    NEGATIVE,
    PROBE,
    QUESTION,
    Coverage,
    EarlierFact,
    GeneratedQuestions,
    Item,
    StudyRequest,
    StudySet,
    fact_of,
)
from locas_agent.study.matching import same_answer, same_question
from locas_agent.study.question_generation import QuestionGenerator
from locas_agent.study.strategies import StudyStrategy
from locas_agent.study.teacher import Candidate, ScoredAnswer, Teacher
from locas_agent.types import Progress

_Fact = tuple[int, str, int, str]
"""Whose fact, and which: see `fact_of`."""


@dataclass(eq=False)
class _UserState:
    """Work in progress on one request."""

    request: StudyRequest
    earlier: list[Item]
    new: list[Item] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)
    generated: list[GeneratedQuestions] = field(default_factory=list)
    dropped: int = 0
    """Items beside those of the generated questions that no store would take."""

    @property
    def live(self) -> list[Item]:
        """Items that hold so far."""
        return [item for item in [*self.earlier, *self.new] if item.item_id not in self.retired]

    def news_of(self, chunk: Chunk) -> list[Item]:
        """Questions about a chunk that have an answer."""
        return [item for item in self.new if item.from_seq >= chunk.from_seq and item.kind == QUESTION]

    def fact(self, items: Sequence[Item]) -> EarlierFact:
        """Items about one turn with one answer, with what the turn said."""
        seq = items[0].turn_seq
        own = (one.text for chunk in self.request.chunks for one in chunk.excerpts if one.turn_seq == seq)
        return EarlierFact(tuple(items), self.request.told.get(seq) or next(own, ""))


@dataclass(eq=False)
class _Again:
    """An earlier item that is asked again with a new chunk in context, and what the teacher answers now."""

    state: _UserState
    item: Item
    candidate: Candidate
    answer: ScoredAnswer | None = None
    is_sure: bool = False

    @property
    def fact(self) -> _Fact:
        """Whose fact and which."""
        return self.candidate.owner, *fact_of(self.item)

    @property
    def said(self) -> str | None:
        """What the teacher answers now, as it is meant."""
        return None if self.answer is None else self.candidate.meant(self.answer.text)

    @property
    def _newer(self) -> list[Item]:
        return self.state.news_of(self.candidate.chunk)

    @property
    def sources(self) -> list[Item]:
        """Return new items whose answer the old question now has too, where that is not the old one."""
        said = self.said
        if said is None or prompts.abstains(said) or same_answer(said, self.item.answer):
            return []
        return [new for new in self._newer if same_answer(new.answer, said)]

    @property
    def is_told_anew(self) -> bool:
        """Tell whether the new chunk answers the old question otherwise.

        By the same question with another answer, or as the strategy is sure.
        """
        return self.is_sure or any(
            same_question(new.question, self.item.question) and not same_answer(new.answer, self.item.answer)
            for new in self._newer
        )

    def replacement(self, strategy: StudyStrategy) -> tuple[Candidate, ScoredAnswer, str] | None:
        """Return the old question with its new answer.

        None where the teacher does not give that, or the question had none.
        """
        sources = self.sources
        if self.answer is None or not sources or self.item.kind == NEGATIVE:
            return None
        told = strategy.retold(self.answer, sources[0])
        return replace(self.candidate, turn_seq=sources[0].turn_seq), told, self.item.kind


class SelfStudy:
    """Writes the study sets of many users side by side."""

    def __init__(
        self, teacher: Teacher, settings: StudySettings, *, seed: int, strategy: StudyStrategy | None = None
    ) -> None:
        """Take the parts.

        Args:
            teacher: the backbone.
            settings: of study.
            seed: of what is drawn.
            strategy: how questions come to be; the seed protocol of the bundled backbone unless given.
        """
        self._settings = settings
        self._seed = seed
        self._teacher = teacher
        self._strategy = QuestionGenerator(self._teacher, settings) if strategy is None else strategy

    def write(self, requests: Sequence[StudyRequest], *, progress: Progress | None = None) -> list[StudySet]:
        """Return one study set per request; the chunks of a user are studied oldest first.

        Args:
            requests: one for each user.
            progress: told of "study" after each round of questions and each further stage of a chunk; what it raises
                ends the study.
        """
        states = [_UserState(request, list(request.earlier)) for request in requests]
        chunks = max((len(request.chunks) for request in requests), default=0)
        stages = self._settings.max_rounds + 2  # of each chunk: the rounds of questions, refresh, negatives

        def done(turn: int, stage: int) -> None:
            if progress is not None:
                progress("study", turn * stages + stage, chunks * stages)

        for turn in range(chunks):
            active = [index for index, request in enumerate(requests) if turn < len(request.chunks)]
            for index, generated in self._strategy.generate(
                {index: requests[index].chunks[turn] for index in active}, partial(done, turn)
            ).items():
                states[index].generated.append(generated)
                known = {item.question for item in states[index].new}
                states[index].new += [item for item in generated.items if item.question not in known]
            self._refresh(states, active, turn)
            done(turn, stages - 1)
            self._negatives(states, active, turn)
            done(turn, stages)
        return [self._finish(state) for state in states]

    def _refresh(self, states: list[_UserState], active: list[int], turn: int) -> None:
        """Ask earlier items again with the new chunk in context.

        Replace what is answered differently, retire negatives now answered.
        """
        asked = self._asked_again(states, active, turn)
        for again, answer in zip(
            asked, self._teacher.answer_with_distribution([again.candidate for again in asked]), strict=True
        ):
            again.answer = answer
        otherwise = [(again, again.answer) for again in asked if again.answer is not None and again.sources]
        sure = self._strategy.are_sure([(again.candidate, answer) for again, answer in otherwise])
        for (again, _), is_sure in zip(otherwise, sure, strict=True):
            again.is_sure = is_sure
        changed = {again.fact: again for again in asked if again.is_told_anew}
        replaced = [again for again in asked if again.fact in changed]
        replaced += _other_wordings(changed, {again.item.item_id for again in asked})
        for again in replaced:
            again.state.retired.add(again.item.item_id)
        rewritten = [(again, entry) for again in replaced if (entry := again.replacement(self._strategy)) is not None]
        for (again, _), made in zip(rewritten, self._teacher.to_items([entry for _, entry in rewritten]), strict=True):
            state = again.state
            if made is None:
                state.dropped += 1
            elif made.question not in {new.question for new in state.new if new.item_id not in state.retired}:
                state.new.append(made)

    def _asked_again(self, states: list[_UserState], active: list[int], turn: int) -> list[_Again]:
        """Return what is put to the new chunks, in the order of the items."""
        asked = []
        for index in active:
            chunk = states[index].request.chunks[turn]
            items = {item.item_id: item for item in states[index].live if item.to_seq < chunk.from_seq}
            by_fact: dict[tuple[str, int, str], list[Item]] = {}
            for item in items.values():
                by_fact.setdefault(fact_of(item), []).append(item)
            put: dict[str, list[_Again]] = {item_id: [] for item_id in items}
            news = states[index].news_of(chunk)
            for wordings in by_fact.values():
                item_of = {item.question: item for item in wordings}
                for candidate in self._strategy.asked_again(index, chunk, states[index].fact(wordings), news):
                    item = item_of[candidate.question]
                    put[item.item_id].append(_Again(states[index], item, candidate))
            asked += [again for of_item in put.values() for again in of_item]
        return asked

    def _negatives(self, states: list[_UserState], active: list[int], turn: int) -> None:
        """Add questions that no chunk at hand and no memory answers."""
        still_open = self._strategy.negatives(
            {index: states[index].request.chunks[: turn + 1] for index in active},
            {index: {item.question for item in states[index].live} for index in active},
        )
        still_open = self._unknown_to_memory(states, still_open)
        for (candidate, _), item in zip(
            still_open, self._teacher.to_items([(c, a, NEGATIVE) for c, a in still_open]), strict=True
        ):
            if item is None:
                states[candidate.owner].dropped += 1
            else:
                states[candidate.owner].new.append(item)

    def _unknown_to_memory(
        self, states: list[_UserState], pairs: list[tuple[Candidate, ScoredAnswer]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """Leave out negatives that an earlier session told.

        The memory answers as an earlier item does, and that item's exchange answers them.

        What the memory merely invents, even with an answer it learnt for something else, stays: those are the negatives
        it needs most.
        """
        asked = [candidate for candidate, _ in pairs if states[candidate.owner].request.memory is not None]
        if not asked:
            return pairs
        memories = [states[candidate.owner].request.memory for candidate in asked]
        recalled = self._teacher.answer([question(candidate.question) for candidate in asked], memories=memories)
        sources = [
            (candidate, item)
            for candidate, answer in zip(asked, recalled, strict=True)
            if answer is not None
            for item in [
                item
                for item in states[candidate.owner].earlier
                if item.kind != NEGATIVE and same_answer(answer.text, item.answer)
            ][:1]
        ]
        told = self._teacher.answer(
            [[*exchange(item.question, item.answer), *question(candidate.question)] for candidate, item in sources]
        )
        known = {
            (candidate.owner, candidate.question)
            for (candidate, item), answer in zip(sources, told, strict=True)
            if answer is not None and same_answer(answer.text, item.answer)
        }
        return [pair for pair in pairs if (pair[0].owner, pair[0].question) not in known]

    def _finish(self, state: _UserState) -> StudySet:
        """Hold out one wording of some turns as probes, and add up the figures."""
        new = [item for item in state.new if item.item_id not in state.retired]
        rng = Random(f"{self._seed}:probes:{[item.question for item in new]}")
        probes = set()
        for turn_seq in sorted({item.turn_seq for item in new if item.kind == QUESTION}):
            wordings = [item for item in new if item.turn_seq == turn_seq and item.kind == QUESTION]
            if len(wordings) >= 3 and rng.random() < self._settings.probe_share:
                probes.add(rng.choice(wordings).item_id)
        items = tuple(replace(item, kind=PROBE) if item.item_id in probes else item for item in new)
        retired = frozenset(state.retired & {item.item_id for item in state.request.earlier})
        return StudySet(items, retired, _coverage(state))


def _other_wordings(changed: Mapping[_Fact, _Again], asked: set[str]) -> list[_Again]:
    """Return the wordings of changed facts that were not asked themselves: they are answered as those that were."""
    return [
        _Again(again.state, item, replace(again.candidate, question=item.question), again.answer)
        for again in changed.values()
        for item in again.state.live
        if fact_of(item) == again.fact[1:] and item.item_id not in asked
    ]


def _coverage(state: _UserState) -> Coverage:
    """Add up what question generation found."""
    return Coverage(
        turns=sum(excerpt.is_learnt for chunk in state.request.chunks for excerpt in chunk.excerpts),
        carrying=sum(len(generated.carrying) for generated in state.generated),
        covered=sum(len(generated.covered & generated.carrying) for generated in state.generated),
        nothing=sum(generated.nothing for generated in state.generated),
        sampled=sum(generated.sampled for generated in state.generated),
        dropped=state.dropped + sum(generated.dropped for generated in state.generated),
    )


def empty_study_set() -> StudySet:
    """Return a study set without items, for objectives that learn from the text itself."""
    return StudySet((), frozenset(), Coverage(0, 0, 0, 0, 0))
