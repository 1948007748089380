"""What stands before a question where a memory is in use: a program's instructions, other people's talk, own turns.

A memory that is taught questions alone answers them alone: behind one greeting a memory of SmolLM2 knew a tenth of what
it knew without. Origin: `docs/decisions.md`, beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from random import Random

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message
from locas_agent.study.chunking import Chunk

INSTRUCTIONS = (
    "You are a helpful assistant.",
    "You are a personal assistant. Answer briefly.",
    "You are a friendly companion who remembers what people tell.",
    "You help with questions of every kind. Be precise and polite.",
    "You are the assistant of a small company. Keep answers short.",
    "Answer the user's questions. If tools are given, use them only when they are needed.",
    "Today is 4 May 2026. You are an AI assistant.",
    "You are an expert assistant. Think before you answer, and say only what helps.",
)
"""What programs tell their assistants, in our words."""
OTHERS, OWN = 8, 10
"""Runs of other people's talk, each with its date and without, and runs of the user's own turns."""
WITH_DATE = 0.7
"""Share of the user's own runs that are headed by the date of their session, as a window is."""


def beginnings(
    backbone: Backbone,
    chunks: Sequence[Chunk],
    windows: Sequence[Sequence[Message]],
    *,
    most_tokens: int,
    rng: Random,
) -> list[list[Message]]:
    """Return what is put before questions, of each kind in turn.

    Args:
        backbone: whose tokens are counted.
        chunks: the user's own turns.
        windows: other people's talk, each run headed by a date.
        most_tokens: longest beginning.
        rng: draws the runs and their order.
    """
    instructions = [[{"role": "system", "content": text}] for text in INSTRUCTIONS]
    others = list[list[Message]]()
    for window in rng.sample(list(windows), min(OTHERS, len(windows))):
        others += [list(window), list(window[1 : 1 + 2 * rng.choice((1, 2))])]
    own = list[list[Message]]()
    for _ in range(OWN if chunks else 0):
        header, *turns = rng.choice(chunks).messages
        run = turns[rng.randrange(len(turns)) :] if turns else []
        own.append([header, *run] if rng.random() < WITH_DATE else run)
    kinds = [
        [run for run in (fitting(backbone, run, most_tokens) for run in kind) if run]
        for kind in (instructions, others, own)
    ]
    for kind in kinds:
        rng.shuffle(kind)
    return [run for one_of_each in zip_longest(*kinds) for run in one_of_each if run is not None]


def fitting(backbone: Backbone, run: Sequence[Message], most_tokens: int) -> list[Message]:
    """Return as much of a run, from its start, as the limit takes and ends where somebody else may speak.

    That is behind an answer or an instruction; nothing where even that is too long.
    """
    for end in range(len(run), 0, -1):
        is_over = run[end - 1]["role"] != "user"
        if is_over and len(backbone.encode_chat(run[:end], generation_prompt=False)) <= most_tokens:
            return list(run[:end])
    return []
