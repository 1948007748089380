"""How evaluations put questions: prompts that fit, turns found by BM25, answers in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from locas_agent.agent import AgentMemory
from locas_agent.conversation import messages
from locas_agent.conversation.messages import Message
from locas_agent.conversation.messages import question as asked_alone
from locas_agent.conversation.window import first_of_window
from locas_agent.errors import MissingExtra
from locas_agent.memory import LocasMemory
from locas_agent.study.forms.reading import CHAT, ReadingForm
from locas_storage import Turn

ROWS = 64
"""Prompts handed to the engine at once."""
HELD_TOKENS = 65_536
"""Tokens of all prompts handed to the engine at once, where these have beginnings in common: each row holds a past of
its own, 1.5 GB together on a backbone of 30 layers and three heads."""


def reading_forms(agent: AgentMemory) -> tuple[ReadingForm, ReadingForm]:
    """Return the forms in which an agent's backbone reads best what stands near, one turn, and wide, a session."""
    calibration = agent.learner.calibration
    return calibration.near, calibration.wide


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What the backbone said, and how many tokens its prompt took."""

    text: str
    prompt_tokens: int


def prompt(turns: Sequence[Turn], text: str, reading: ReadingForm = CHAT) -> list[Message]:
    """Return a question behind turns in a form; without turns it stands alone."""
    return reading.prompt(messages.conversation(turns), text) if turns else asked_alone(text)


def fitting(
    agent: AgentMemory, turns: Sequence[Turn], text: str, *, answer_tokens: int, reading: ReadingForm = CHAT
) -> list[Turn]:
    """Return as many of the newest turns as fit before a question and its answer; the oldest are dropped first."""
    room = agent.backbone.context_tokens - answer_tokens
    low, high = 0, len(turns)
    if len(agent.backbone.encode_chat(prompt(turns, text, reading))) <= room:
        return list(turns)
    while low < high:
        middle = (low + high) // 2
        if len(agent.backbone.encode_chat(prompt(turns[middle:], text, reading))) <= room:
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
    order = list(range(len(encoded)))
    at_once = ROWS
    if groups is not None:
        order.sort(key=lambda row: groups[row])  # a group that is cut runs its beginning twice
        at_once = max(1, min(ROWS, HELD_TOKENS // max(map(len, encoded), default=1)))
    found: dict[int, ArmAnswer] = {}
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        made = agent.engine.generate(
            [encoded[row] for row in rows],
            memory=agent.batch_of([memories[row] for row in rows]),
            max_new_tokens=answer_tokens,
            groups=None if groups is None else [groups[row] for row in rows],
        )
        for row, one in zip(rows, made, strict=True):
            found[row] = ArmAnswer(agent.backbone.decode(one.ids).strip(), len(encoded[row]))
    return [found[row] for row in range(len(encoded))]
