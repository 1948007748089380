"""Ways to study: how questions about the turns of a chunk come to be, and what is read to answer them again.

A new way is one class with the methods of `StudyStrategy`; what makes one of a teacher is handed to `AgentMemory` as
`strategy`. `examples/own_study.py` is one; all names that one needs can be imported from here. Two are built in: "seed"
asks the backbone in the format that the bundled one was trained on (`question_generation.py`), "opened" opens its
answers and reads one turn at a time (`opened.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from locas_agent.config import StudySettings
from locas_agent.study.chunking import Chunk
from locas_agent.study.items import QUESTION, EarlierFact, GeneratedQuestions, Item
from locas_agent.study.teacher import Candidate, ScoredAnswer, Teacher

__all__ = [
    "QUESTION",
    "Candidate",
    "Chunk",
    "EarlierFact",
    "GeneratedQuestions",
    "Item",
    "ScoredAnswer",
    "StrategyFactory",
    "StudySettings",
    "StudyStrategy",
    "Teacher",
]


class StudyStrategy(Protocol):
    """Writes the questions of a study set, says what is read to answer an old one again, and what was never told."""

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """Return what was found in each owner's chunk.

        Args:
            chunks: one for each owner, who is a number of the caller's.
            done: told of each finished round, from 1 on; what it raises ends the generation.
        """
        ...

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> Sequence[Candidate]:
        """Return questions of an earlier fact as they are put to a new chunk; none where the chunk is not about it.

        What is found out by some wordings of a fact holds for all of them.

        Args:
            owner: whose fact it is.
            chunk: what was said since.
            fact: of an earlier chunk.
            news: items of this chunk; only what one of them answers can take the place of what is known.
        """
        ...

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> Sequence[bool]:
        """Tell which answers to old questions are sure enough to change what is known.

        Args:
            answers: with what was asked, of all owners and facts together; a new item says the same, and not what was
                answered so far.
        """
        ...

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """Return the answer that an old question is learnt with from now on.

        Args:
            answer: the teacher's to the old question.
            source: the new item that says the same.
        """
        ...

    def negatives(
        self, chunks: Mapping[int, Sequence[Chunk]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """Return questions that none of an owner's chunks answers, with the answer that says so.

        Args:
            chunks: of each owner, the chunks at hand; questions are asked about the last.
            known: of each owner, questions that are items already.
        """
        ...


StrategyFactory = Callable[[Teacher, StudySettings], StudyStrategy]
"""Makes the strategy of one consolidation, on its teacher and with the settings of study."""
