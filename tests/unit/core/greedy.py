"""Whether tokens are those that greedy decoding takes, without asking two computations to round alike.

Products of another shape sum in another order, so a batch and its rows, or a past and a forward from scratch, agree on
logits within rounding, and on tokens only where the first is further ahead than that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch

ROUNDING = 1e-3
"""In logits. Ten times the tolerance of the tests that compare logits, a hundredth of what the best token is ahead by
on most steps."""


def is_greedy(engine: Engine, prompt: Sequence[int], answer: Sequence[int], memory: LocasMemory | None) -> bool:
    """Tell whether each token of an answer is a best one within rounding, by a forward of this row alone, uncached."""
    batch = None if memory is None else MemoryBatch.of([memory], engine.backbone)
    logits = engine.logits(torch.tensor([[*prompt, *answer]]), memory=batch)[0, len(prompt) - 1 : -1].detach()
    behind = logits.max(dim=-1).values - logits[range(len(answer)), list(answer)]
    return bool((behind < ROUNDING).all())
