"""Asking about passages: the questions, and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.agent import AgentMemory
from locas_agent.conversation.messages import question
from locas_agent.evaluation import asking
from locas_agent.evaluation.passages.data import Passage
from locas_agent.memory import LocasMemory
from locas_agent.user import UserMemory

ANSWER_TOKENS = 24
"""Longest answer, in tokens: as long as an answer that is studied."""
SHORT = "Answer in a few words."


@dataclass(frozen=True, slots=True)
class PassageAsked:
    """One question; `passage` is the place of its passage."""

    passage: int
    text: str
    gold: str


def questions_of(passages: Sequence[Passage], *, short: bool) -> list[PassageAsked]:
    """Return every question in the order of the passages, with the request for a few words where it is wanted."""
    return [
        PassageAsked(at, f"{one.question} {SHORT}" if short else one.question, one.answer)
        for at, passage in enumerate(passages)
        for one in passage.questions
    ]


def without_passage(
    agent: AgentMemory, asked: Sequence[PassageAsked], memories: Sequence[LocasMemory | None]
) -> list[str]:
    """Answer with nothing in the prompt but the question.

    Args:
        agent: whose backbone answers.
        asked: the questions.
        memories: of each passage, by its place; None is the bare backbone.
    """
    found = asking.answers(
        agent,
        [question(one.text) for one in asked],
        [memories[one.passage] for one in asked],
        answer_tokens=ANSWER_TOKENS,
        groups=[one.passage for one in asked],
    )
    return [answer.text for answer in found]


def with_passage(agent: AgentMemory, asked: Sequence[PassageAsked], handles: Sequence[UserMemory]) -> list[str]:
    """Answer with the passage before the question, in the form in which the backbone reads a session best.

    Args:
        agent: whose backbone answers.
        asked: the questions.
        handles: of each passage, by its place, who told it and nothing else.
    """
    _, wide = asking.reading_forms(agent)
    journals = [handle.turns() for handle in handles]
    before = [
        asking.fitting(agent, journals[one.passage], one.text, answer_tokens=ANSWER_TOKENS, reading=wide)
        for one in asked
    ]
    found = asking.answers(
        agent,
        [asking.prompt(turns, one.text, wide) for turns, one in zip(before, asked, strict=True)],
        [None] * len(asked),
        answer_tokens=ANSWER_TOKENS,
    )
    return [answer.text for answer in found]
