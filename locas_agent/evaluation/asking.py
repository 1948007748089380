"""How evaluations put questions: prompts that fit, turns found by BM25, answers in batches.

Knows no arm, no score and no data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.agent import AgentMemory
from locas_agent.conversation import messages
from locas_agent.conversation.messages import Message, question
from locas_agent.conversation.window import first_of_window
from locas_agent.errors import MissingExtra
from locas_agent.memory import LocasMemory
from locas_storage import Turn

ROWS = 64
"""Prompts handed to the engine at once."""


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What the backbone said, and how many tokens its prompt took."""

    text: str
    prompt_tokens: int


def prompt(turns: Sequence[Turn], text: str) -> list[Message]:
    """Return a question behind turns; without turns it stands alone."""
    return [*messages.conversation(turns), *question(text)]


def fitting(agent: AgentMemory, turns: Sequence[Turn], text: str, *, answer_tokens: int) -> list[Turn]:
    """Return as many of the newest turns as fit before a question and its answer; the oldest are dropped first."""
    room = agent.backbone.context_tokens - answer_tokens
    low, high = 0, len(turns)
    if len(agent.backbone.encode_chat(prompt(turns, text))) <= room:
        return list(turns)
    while low < high:
        middle = (low + high) // 2
        if len(agent.backbone.encode_chat(prompt(turns[middle:], text))) <= room:
            high = middle
        else:
            low = middle + 1
    return list(turns[low:])


def window(agent: AgentMemory, journal: Sequence[Turn]) -> Sequence[Turn]:
    """Return the newest turns, as many as the window takes."""
    return journal[first_of_window(journal, agent.config.window.window_tokens) :]


def searched(journal: Sequence[Turn], texts: Sequence[str], *, limit: int) -> list[list[Turn]]:
    """Return, for each text, the journal's best turns by BM25, in the order they were said.

    Raises:
        MissingExtra: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra.of("eval", "the arm that searches") from error
    if not texts:
        return []
    index = bm25s.BM25()
    index.index(bm25s.tokenize([turn.content for turn in journal], show_progress=False), show_progress=False)
    found = []
    for text in texts:
        best, _ = index.retrieve(
            bm25s.tokenize([text], show_progress=False), k=min(limit, len(journal)), show_progress=False
        )
        found.append([journal[at] for at in sorted(int(at) for at in best[0])])
    return found


def answers(
    agent: AgentMemory,
    prompts: Sequence[list[Message]],
    memories: Sequence[LocasMemory | None],
    *,
    answer_tokens: int,
    groups: Sequence[int] | None = None,
) -> list[ArmAnswer]:
    """Answer each prompt with its own memory, greedily.

    Args:
        agent: whose backbone answers.
        prompts: what it sees.
        memories: one for each prompt; None is the bare backbone.
        answer_tokens: longest answer.
        groups: one number for each prompt; those of a group have a memory in common and a beginning that is run once.
    """
    encoded = [agent.backbone.encode_chat(each) for each in prompts]
    found: list[ArmAnswer] = []
    for start in range(0, len(encoded), ROWS):
        rows = encoded[start : start + ROWS]
        memory = agent.batch_of(memories[start : start + ROWS])
        chosen = groups[start : start + ROWS] if groups is not None else None
        made = agent.engine.generate(rows, memory=memory, max_new_tokens=answer_tokens, groups=chosen)
        found += [
            ArmAnswer(agent.backbone.decode(one.ids).strip(), len(row)) for one, row in zip(made, rows, strict=True)
        ]
    return found
