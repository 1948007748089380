"""Which questions a memory had a chance to answer: those whose answer is that of an item it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from locas_agent.agent import AgentMemory
from locas_agent.evaluation.passages.asking import PassageAsked
from locas_agent.evaluation.passages.data import Passage
from locas_agent.study.items import NEGATIVE
from locas_agent.study.matching import contains
from locas_agent.user import UserMemory


def covered(
    agent: AgentMemory, handles: Sequence[UserMemory], passages: Sequence[Passage], asked: Sequence[PassageAsked]
) -> list[bool]:
    """Tell of each question whether the answer of an item about its passage holds the gold answer.

    Args:
        agent: whose store holds the items; those of refused consolidations are in none.
        handles: who told the passages, each as a session named by its id.
        passages: what was told.
        asked: the questions about them.
    """
    answers: dict[str | None, list[str]] = {}
    for handle in handles:
        told_in = {turn.seq: turn.session for turn in handle.turns()}
        for item in agent.store.study_items(handle.key, with_retired=True):
            if item.kind != NEGATIVE:
                answers.setdefault(told_in[item.turn_seq], []).append(item.answer)
    return [any(contains(answer, one.gold) for answer in answers.get(passages[one.passage].id, ())) for one in asked]
