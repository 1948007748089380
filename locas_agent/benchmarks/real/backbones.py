"""The backbones of real shapes, memories beside them, and token ids.

Shapes: L layers that carry a memory, W width, D hidden size.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from locas_agent.backbone import Backbone
from locas_agent.backbone.dtypes import fast_dtype
from locas_agent.benchmarks.bench import GPU, SMALL, Bench, random_model, wrapped
from locas_agent.config import Layers
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import placement

QUICK_LAYERS = 3
"""Layers of the small backbone of quick runs, where a memory stands beside two: more than the last, and not all."""
CONTEXT_TOKENS = 32768
LARGE_PARAMETERS = 596_000_000
LOUD = 100.0
"""Output scale with which random rows of norm 1 move the logits of a deep backbone far beyond rounding."""
WIDTH = 32
"""Slots beside each layer: those of some ten facts."""


def backbone_of(bench: Bench) -> Backbone:
    """Return the backbone of this run, in the dtype that "auto" stands for; it never ends an answer by itself.

    Raises:
        MissingExtra: `smollm2`, whose weights another distribution brings, which is not installed.
    """
    if bench.real == "smollm2" and not bench.is_quick:
        backbone = Backbone.load("smollm2", device=bench.device)
        backbone.stop_ids = frozenset()
        return backbone
    if bench.is_quick:
        model = random_model(replace(SMALL, layers=QUICK_LAYERS), seed=bench.seed, context_tokens=2048)
        backbone = wrapped(model.to(bench.device), name="random Qwen3")
    else:
        dtype = fast_dtype(bench.device, LARGE_PARAMETERS)  # drawn in it: in fp32 the weights would take twice the room
        model = random_model(GPU, seed=bench.seed, context_tokens=CONTEXT_TOKENS, dtype=dtype)
        backbone = wrapped(model.to(bench.device), name="random Qwen3-0.6B")
    write_words(backbone)
    return backbone


@torch.no_grad()
def write_words(backbone: Backbone) -> None:
    """Let random weights write nothing but words of the tokenizer: marks and blanks alone would make an empty reply."""
    tokenizer, rows = backbone.tokenizer, backbone.model.get_input_embeddings().weight
    rows[len(tokenizer) :] = 0.0  # what is likeliest lies above 0; they are read as before
    rows[[token for token in range(len(tokenizer)) if not backbone.decode([token]).strip()]] = 0.0


def bare_copy(backbone: Backbone) -> Backbone:
    """Return the same model without our hooks; it shares the weights, so that both sides fill caches with the same."""
    kept = {id(each): each for each in (*backbone.model.parameters(), *backbone.model.buffers())}
    bare = Backbone(copy.deepcopy(backbone.model, kept), backbone.tokenizer, name=f"bare {backbone.name}")
    bare.stop_ids = frozenset()
    return bare


def memories_of(
    bench: Bench, backbone: Backbone, count: int, *, layers: Layers = "auto", strength: float = 1.0
) -> list[LocasMemory]:
    """Draw memories.

    Args:
        bench: gives the seed.
        backbone: beside which they stand.
        count: how many.
        layers: where; see `MemorySettings.layers`.
        strength: 1 changes logits a lot; a hundredth leaves the backbone's text as it is.
    """
    placed = placement(2 if bench.is_quick and layers == "auto" else layers, backbone.n_layers)
    generator = torch.Generator().manual_seed(bench.seed)
    shape = (len(placed), 3, WIDTH, backbone.hidden_size)
    return [
        LocasMemory(
            slab=torch.randn(shape, generator=generator) / backbone.hidden_size**0.5,
            scale=torch.full((len(placed),), LOUD * strength),
            neuron_indices=torch.full((len(placed), WIDTH), -1),
            fingerprint=backbone.fingerprint,
            initialization="random",
            layers=placed,
        )
        for _ in range(count)
    ]


def ids_of(bench: Bench, backbone: Backbone, lengths: list[int]) -> list[list[int]]:
    """Draw token ids, a row of each length."""
    generator = torch.Generator().manual_seed(bench.seed)
    return [
        torch.randint(1, len(backbone.tokenizer) - 64, (length,), generator=generator).tolist() for length in lengths
    ]


def tolerance_of(backbone: Backbone) -> float:
    """Largest difference of logits, relative to the largest logit, that is rounding."""
    return 1e-4 if backbone.dtype.itemsize >= 4 else 0.05
