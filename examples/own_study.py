"""A way to study of one's own, handed to `AgentMemory`: "My dog is called Zorbin." becomes questions by rule.

Run by `python examples/own_study.py`, it tells the bundled backbone two facts, learns them, and asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from locas_agent import AgentMemory
from locas_agent.study.strategies import QUESTION, Candidate, Chunk, EarlierFact, GeneratedQuestions, Item, Teacher
from locas_agent.study.teacher import ScoredAnswer

CALLED = re.compile(r"\bmy (?P<thing>[\w' ]+?) (?:is|are) (?:called|named) (?P<name>\w[\w'-]*)", re.IGNORECASE)
QUESTIONS = ("What is my {} called?", "What is the name of my {}?", "Do you remember what my {} is called?")


class CalledStudy:
    """A `StudyStrategy`: asks what things are called, and answers with the name that was told."""

    def __init__(self, teacher: Teacher, settings: object) -> None:
        self._teacher = teacher

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """Ask about every sentence of that shape in each owner's chunk."""
        found = {}
        for owner, chunk in chunks.items():
            told = [(one, said) for one in chunk.excerpts if one.is_learnt for said in CALLED.finditer(one.text)]
            shapes = [(one.turn_seq, said, words) for one, said in told for words in QUESTIONS]
            asked = [Candidate(owner, chunk, turn, words.format(said["thing"]), "") for turn, said, words in shapes]
            answers = self._teacher.given([f"It is {said['name']}." for _, said, _ in shapes])
            items = self._teacher.to_items([(*pair, QUESTION) for pair in zip(asked, answers, strict=True)])
            turns = {one.turn_seq for one, _ in told}
            found[owner] = GeneratedQuestions(list(filter(None, items)), turns, turns, len(chunk.excerpts) - len(turns))
        return found

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: object) -> Sequence[Candidate]:
        """Put every old question to the new chunk."""
        return [Candidate(owner, chunk, item.turn_seq, item.question, item.answer) for item in fact.items]

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> Sequence[bool]:
        """Believe what the backbone reads when it is more likely than not."""
        return [answer.confidence >= 0.5 for _, answer in answers]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """Learn what the backbone reads."""
        return answer

    def negatives(self, chunks: object, known: object) -> list[tuple[Candidate, ScoredAnswer]]:
        """Ask nothing that was not told."""
        return []


if __name__ == "__main__":
    with AgentMemory.load(store="sqlite://", strategy=CalledStudy) as memory:
        ada = memory.for_user("ada")
        ada.add("user", "My dog is called Zorbin, and my boat is named Velka.")
        print(ada.consolidate(flush=True).status)
        print(*(ada.recall(f"What is the name of my {thing}?").answer for thing in ("dog", "boat")))
