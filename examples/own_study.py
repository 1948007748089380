"""A way to study of one's own, handed to `AgentMemory`: "My dog is called Zorbin." becomes questions by rule.

Run by `python examples/own_study.py`, it tells the bundled backbone two facts, learns them, and asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from locas_agent import AgentMemory
from locas_agent.study.strategies import QUESTION, Candidate, Item, Piece, StudySettings, Swept, Taught, Teacher

CALLED = re.compile(r"\bmy (?P<thing>[\w' ]+?) (?:is|are) (?:called|named) (?P<name>\w[\w'-]*)", re.IGNORECASE)
QUESTIONS = ("What is my {} called?", "What is the name of my {}?", "Do you remember what my {} is called?")


class CalledStudy:
    """A `StudyStrategy`: asks what things are called, and answers with the name that was told."""

    def __init__(self, teacher: Teacher, settings: StudySettings) -> None:
        self._teacher = teacher

    def over(self, pieces: Mapping[int, Piece], done: Callable[[int], None]) -> dict[int, Swept]:
        """Ask about every sentence of that shape in each owner's piece."""
        found = {}
        for owner, piece in pieces.items():
            told = [(quote, said) for quote in piece.quotes if quote.is_learnt for said in CALLED.finditer(quote.text)]
            shapes = [(quote.turn_seq, said, words) for quote, said in told for words in QUESTIONS]
            asked = [Candidate(owner, piece, turn, words.format(said["thing"]), "") for turn, said, words in shapes]
            answers = self._teacher.given([f"It is {said['name']}." for _, said, _ in shapes])
            items = self._teacher.items([(*pair, QUESTION) for pair in zip(asked, answers, strict=True)])
            turns = {quote.turn_seq for quote, _ in told}
            found[owner] = Swept([item for item in items if item], turns, turns, len(piece.quotes) - len(turns))
        return found

    def asked_again(self, owner: int, piece: Piece, items: Sequence[Item]) -> Sequence[Candidate]:
        """Put every old question to the new piece."""
        return [Candidate(owner, piece, item.turn_seq, item.question, item.answer) for item in items]

    def are_sure(self, answers: Sequence[tuple[Candidate, Taught]]) -> Sequence[bool]:
        """Believe what the backbone reads when it is more likely than not."""
        return [answer.confidence >= 0.5 for _, answer in answers]

    def retold(self, answer: Taught, source: Item) -> Taught:
        """Learn what the backbone reads."""
        return answer

    def negatives(self, pieces: object, known: object) -> list[tuple[Candidate, Taught]]:
        """Ask nothing that was not told."""
        return []


if __name__ == "__main__":
    with AgentMemory.load(store="sqlite://", strategy=CalledStudy) as memory:
        ada = memory.for_user("ada")
        ada.add("user", "My dog is called Zorbin, and my boat is named Velka.")
        print(ada.consolidate(flush=True).status)
        print(*(ada.recall(f"What is the name of my {thing}?").answer for thing in ("dog", "boat")))
