"""What a training on the bundled backbone has to show whatever the processor rounds to.

Shares and margins, never one greedy answer.

One training may lose a fact to the rounding of the machine it ran on. What no rounding changes: a memory that was read
makes what was told far more probable, and answers many of the questions it was taught, where the bare backbone answers
none.
"""

from __future__ import annotations

from locas_agent import AgentMemory, UserMemory
from locas_agent.study.items import QUESTION

LEARNT_NATS = 5.0
"""A factor of 150. The bundled backbone alone gives a name it was never told some -25 nats, a memory that learnt it
between -3 and 0."""


def gain_nats(user: UserMemory, question: str, value: str) -> float:
    """Return how much more probable the user's memory makes an answer, worded as the bundled backbone words it."""
    found = user.explain(f"It is {value}.", question=question)
    return found.logprob - found.logprob_without


def share_answered(agent: AgentMemory, user: UserMemory, value: str) -> float:
    """Return the share of the user's study questions about a value to which the memory answers it.

    There has to be one.
    """
    items = agent.store.study_items(user.key)
    asked = [item.question for item in items if item.kind == QUESTION and value in item.answer]
    return sum(value in user.recall(question).answer for question in asked) / len(asked)
