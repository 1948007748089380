"""Random backbones of four layers, and memories beside any of these."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import DOWN
from locas_agent.training.initialization import initialize
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build

PLACES = {"a lower one": (-3, -2), "the topmost": (-2, -1), "with a gap": (-4, -2), "the lowest": (-4,)}
"""Layers of a backbone of four."""


def deep(name: str) -> Engine:
    """A random backbone of four layers; where there are kinds of layers, of both kinds in turn."""
    options: dict[str, Any] = {"num_hidden_layers": 4}
    if "layer_types" in SUPPORTED[name][1]:
        options["layer_types"] = ["sliding_attention", "full_attention"] * 2
    return Engine(Backbone(build(name, **options), byte_tokenizer(), name=name))


def memory_at(backbone: Backbone, layers: tuple[int, ...], seed: int) -> LocasMemory:
    memory = initialize(backbone, [], width=4, layers=layers, method="random", scale_rule="none", seed=seed)
    slab = memory.slab.clone()
    slab[:, DOWN] = 0.3 * torch.randn(slab[:, DOWN].shape, generator=torch.Generator().manual_seed(seed))
    return replace(memory, slab=slab)
