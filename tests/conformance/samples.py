"""Memories that are far from where they started, for whoever compares them with the equations."""

from __future__ import annotations

import torch

from locas_agent.backbone import Backbone
from locas_agent.memory import LocasMemory
from locas_agent.training.initialization import initialize


def trained(backbone: Backbone, width: int, seed: int, *, layers: int | None = None) -> LocasMemory:
    """A memory with rows shorter and longer than 1 in all three parts."""
    memory = initialize(backbone, [], width=width, layers=layers, method="random_index", scale_rule="sqrt", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = 0.3 + 2.0 * torch.rand(*memory.slab.shape[:3], 1, generator=generator)
    memory.down_rows.copy_(
        torch.nn.functional.normalize(torch.randn(memory.down_rows.shape, generator=generator), dim=-1)
    )
    memory.slab.mul_(lengths)
    return memory
