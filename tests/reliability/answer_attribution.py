"""Tells whose memory answered a row of a batch, by running every row again, alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from locas_agent.inference import Engine
from locas_agent.inference.generation import Generation
from locas_agent.memory import LocasMemory, MemoryBatch

ROUNDING = 1e-3
"""Largest difference that batched against single products may make in fp32: 2e-5 was seen."""
APART = 1e-1
"""Least difference, somewhere in a row, between the answers of two memories of these tests."""


def alone(engine: Engine, memory: LocasMemory | None) -> MemoryBatch | None:
    """Return the batch of one row."""
    return None if memory is None else MemoryBatch.of([memory], engine.backbone)


def misattributed(logits: Tensor, of_each: Tensor, expected: Sequence[int]) -> list[int]:
    """Return the rows that are not the answer of the memory they belong to, or are somebody else's as well.

    Args:
        logits: of a batch in which all rows were asked the same, shape (B, T, V).
        of_each: the same prompt alone under each memory, shape (U, T, V).
        expected: whose each row is, as an index into `of_each`.
    """
    distances = torch.cdist(logits.flatten(1), of_each.flatten(1), p=float("inf"))  # (B, U)
    rows = torch.arange(len(expected))
    own = distances[rows, list(expected)]
    distances[rows, list(expected)] = torch.inf
    return torch.nonzero((own > ROUNDING) | (distances.min(dim=1).values < APART)).flatten().tolist()


def strangers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    generations: Sequence[Generation],
    memories: Sequence[LocasMemory | None],
) -> list[int]:
    """Return the rows whose tokens are not as probable as their own memory makes them, alone.

    The tokens are scored and not drawn again: two equally probable ones may change places by rounding.
    """
    found = []
    for row, (prompt, generation, memory) in enumerate(zip(prompts, generations, memories, strict=True)):
        expected = engine.score([prompt], [generation.ids], memory=alone(engine, memory))[0]
        if (torch.tensor(generation.logprobs) - expected).abs().max() > ROUNDING:
            found.append(row)
    return found
