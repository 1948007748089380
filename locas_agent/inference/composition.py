"""Two memories of one backbone used as one, and how much they get in each other's way.

An example is the memory of a team with that of a user.

What is composed is made for one forward and thrown away: stored it would hold two owners' data, and forgetting would
not reach the other's half.

Shapes: L layers that carry a memory, W width, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.inference.engine import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.slab import DOWN, clip_rows


def compose(first: LocasMemory, second: LocasMemory) -> LocasMemory:
    """Put two memories side by side.

    Their slots concatenated, so that each side FFN adds what it would add alone to the same input.

    In a layer the sum is exact. What the model makes of it is not the sum of what it makes of each: norms and later
    layers see both. Neither was trained beside the other; measure with `interaction` before relying on it.

    Args:
        first: any memory.
        second: another one of the same backbone; widths and layers may differ.

    Returns:
        A memory of both widths together. Each layer has one output scale, the larger; down rows of the memory with the
        smaller one are made shorter by the ratio, so no row passes the clip. `initialization` is the first's, a label
        and no more.

    Raises:
        IncompatibleMemory: they belong to different backbones.
    """
    if first.fingerprint != second.fingerprint or first.hidden_size != second.hidden_size:
        raise IncompatibleMemory(
            f"the memories belong to the backbones {first.fingerprint[:12]} and {second.fingerprint[:12]}; only two of "
            "one backbone can be composed"
        )
    layers = tuple(sorted({*first.layers, *second.layers}))
    both = [_padded(memory, layers) for memory in (first, second)]
    scale = torch.maximum(both[0].scale, both[1].scale.to(both[0].scale.device))
    device = scale.device
    slabs = [_rescaled(memory.slab.to(device), memory.scale.to(device), scale) for memory in both]
    return LocasMemory(
        slab=torch.cat(slabs, dim=2),
        scale=scale,
        neuron_indices=torch.cat([memory.neuron_indices.to(device) for memory in both], dim=1),
        fingerprint=first.fingerprint,
        initialization=first.initialization,
        layers=layers,
    )


@dataclass(frozen=True, slots=True)
class Interaction:
    """How two memories act together on some texts: means over all tokens, nats, over the whole vocabulary.

    Attributes:
        drift_first: KL(bare || first), how far the first alone moves these texts.
        drift_second: KL(bare || second).
        drift_both: KL(bare || both).
        moved_first: KL(first || both), what the second changes in what the first says. On the first's own questions
            this is the damage.
        moved_second: KL(second || both).
        beyond_sum: KL(sum || both), where "sum" adds each memory's shift of the log-probabilities to the bare
            backbone's: what can be explained by neither alone. 0 means that they do not interact.
        tokens: positions looked at.
    """

    drift_first: float
    drift_second: float
    drift_both: float
    moved_first: float
    moved_second: float
    beyond_sum: float
    tokens: int


@torch.inference_mode()
def interaction(engine: Engine, first: LocasMemory, second: LocasMemory, texts: Sequence[Sequence[int]]) -> Interaction:
    """Measure two memories alone and together.

    Args:
        engine: runs their backbone; each text runs once, as a batch of four rows.
        first: one memory.
        second: the other one.
        texts: token sequences that matter, such as questions with their answers about what either was told; none empty,
            each within the context.

    Raises:
        ConfigurationError: no text, or an empty one.
        IncompatibleMemory: a memory belongs to another backbone.
    """
    if not texts or not all(texts):
        raise ConfigurationError("interaction is measured on at least one text, none of them empty")
    batch = MemoryBatch.of([None, first, second, compose(first, second)], engine.backbone)
    sums, tokens = torch.zeros(6, dtype=torch.float64), 0
    for text in texts:
        logits = engine.logits(torch.tensor([list(text)]).expand(4, -1), memory=batch)  # (4, T, V)
        bare, one, two, both = log_softmax(logits.double(), dim=-1)
        expected = log_softmax(one + two - bare, dim=-1)
        pairs = ((bare, one), (bare, two), (bare, both), (one, both), (two, both), (expected, both))
        sums += torch.stack([_divergence(p, q) for p, q in pairs]).cpu()
        tokens += len(text)
    drift_first, drift_second, drift_both, moved_first, moved_second, beyond_sum = (sums / tokens).tolist()
    return Interaction(drift_first, drift_second, drift_both, moved_first, moved_second, beyond_sum, tokens)


def _padded(memory: LocasMemory, layers: tuple[int, ...]) -> LocasMemory:
    """The same function standing beside more layers: zero slots in those it did not stand beside."""
    if memory.layers == layers:
        return memory
    at = [layers.index(layer) for layer in memory.layers]
    slab = memory.slab.new_zeros(len(layers), *memory.slab.shape[1:])
    scale = memory.scale.new_zeros(len(layers))
    neurons = memory.neuron_indices.new_full((len(layers), memory.width), -1)
    slab[at], scale[at], neurons[at] = memory.slab, memory.scale, memory.neuron_indices
    return LocasMemory(slab, scale, neurons, memory.fingerprint, memory.initialization, layers)


def _rescaled(slab: Tensor, own: Tensor, common: Tensor) -> Tensor:
    """Clipped rows that do under the common scale what they did under their own, shape (L, 3, W, D)."""
    rows = clip_rows(slab.detach())
    rows[:, DOWN] *= (own / torch.where(common > 0, common, torch.ones_like(common)))[:, None, None]
    return rows


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Sum over tokens of KL(p || q), both log-probabilities of shape (T, V)."""
    return (p.exp() * (p - q)).sum()
