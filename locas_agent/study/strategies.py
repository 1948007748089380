"""Ways to study: how questions about the turns of a piece come to be, and what is read to answer them again.

A new way is one class with the methods of `StudyStrategy`; what makes one of a teacher is handed to `AgentMemory` as
`strategy`. `examples/own_study.py` is one, and all names that it needs are imported from here. Two are built in: "seed"
asks the backbone in the format that the bundled one was trained on (`question_generation.py`), "opened" opens its
answers and reads one turn at a time (`opened.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from locas_agent.config import StudySettings
from locas_agent.study.chunking import Piece
from locas_agent.study.items import QUESTION, Item, Swept
from locas_agent.study.teacher import Candidate, Taught, Teacher

__all__ = [
    "QUESTION",
    "Candidate",
    "Item",
    "Piece",
    "StrategyFactory",
    "StudySettings",
    "StudyStrategy",
    "Swept",
    "Taught",
    "Teacher",
]


class StudyStrategy(Protocol):
    """Writes the questions of a study set, says what is read to answer an old one again, and what was never told."""

    def over(self, pieces: Mapping[int, Piece], done: Callable[[int], None]) -> dict[int, Swept]:
        """Return what was found in each owner's piece.

        Args:
            pieces: one for each owner, who is a number of the caller's.
            done: told of each finished round, from 1 on; what it raises ends the sweep.
        """
        ...

    def asked_again(self, owner: int, piece: Piece, items: Sequence[Item]) -> Sequence[Candidate]:
        """Return questions of an earlier fact as they are put to a new piece; none where the piece is not about it.

        What is found out by some wordings of a fact holds for all of them.

        Args:
            owner: whose fact it is.
            piece: what was said since.
            items: of an earlier piece, all about one turn with one answer.
        """
        ...

    def are_sure(self, answers: Sequence[tuple[Candidate, Taught]]) -> Sequence[bool]:
        """Tell which answers to old questions are sure enough to change what is known.

        Args:
            answers: with what was asked; a new item says the same, and not what was answered so far.
        """
        ...

    def retold(self, answer: Taught, source: Item) -> Taught:
        """Return the answer that an old question is learnt with from now on.

        Args:
            answer: the teacher's to the old question.
            source: the new item that says the same.
        """
        ...

    def negatives(
        self, pieces: Mapping[int, Sequence[Piece]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, Taught]]:
        """Return questions that none of an owner's pieces answers, with the answer that says so.

        Args:
            pieces: of each owner, the pieces at hand; questions are asked about the last.
            known: of each owner, questions that are items already.
        """
        ...


StrategyFactory = Callable[[Teacher, StudySettings], StudyStrategy]
"""Makes the strategy of one consolidation, on its teacher and with the settings of study."""
