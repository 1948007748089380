"""The local anchor: what a memory adds to its own layers on neutral text, held small without running the backbone.

Divergence on neutral text takes the layers above a memory, the output projection and their backward for every row, so a
training sees little of it. What enters the FFNs of the bare backbone on such text is known beforehand. A memory whose
slots add nothing there leaves the text alone, and a few hundred positions a step cost next to nothing.

Shapes: L layers that carry a memory, U users, n positions, W width, D hidden size.
Origin: `docs/decisions.md`, local anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from locas_agent.inference import Engine
from locas_agent.memory.attach import side_ffn
from locas_agent.memory.slab import effective_rows
from locas_agent.training.initialization import ffn_inputs
from locas_agent.training.neutral import NeutralText

POSITIONS, SIZED = 256, 512
"""Positions of neutral text that one step looks at, and by which the size of an FFN's output is told."""


class LocalAnchor:
    """Mean squared output of memories on neutral text, layer by layer, relative to that of the layer's own FFN."""

    def __init__(self, engine: Engine, neutral: NeutralText, layers: Sequence[int], *, weight: float) -> None:
        """Take what enters the FFNs on the anchors, which is computed once for each backbone.

        Args:
            engine: of the backbone.
            neutral: whose anchors are looked at.
            layers: beside which the memories stand, numbered from the last (-1).
            weight: of the penalty in the loss.
        """
        self._weight = weight
        sites = engine.backbone.sites
        self._activations = [sites[layer].activation for layer in layers]
        known = neutral_inputs(engine, neutral, layers)
        dtype, device = engine.backbone.dtype, engine.backbone.device
        self._inputs = torch.stack([known[layer] for layer in layers]).to(device=device, dtype=dtype)  # (L, n, D)
        n_positions = self._inputs.shape[1]
        self._order = Random("local anchor").sample(range(n_positions), n_positions)
        some = self._order[:SIZED]
        with torch.no_grad():
            # The median: at the first token of a row a FFN may put out a thousand times what it does elsewhere.
            self._sizes = [
                float(sites[layer].module(own[None, some]).float().square().sum(-1).median())
                for layer, own in zip(layers, self._inputs, strict=True)
            ]

    def accumulate_gradients(self, slab: Tensor, scale: Tensor, *, step: int) -> Tensor:
        """Add the gradient of the weighted penalty to `slab.grad`; return each user's penalty, shape (U,), on the CPU.

        Users do not share anything: each gets what it would get alone.

        Args:
            slab: master rows under training, shape (L, U, 3, W, D), with a gradient.
            scale: output scales, shape (L, U).
            step: of the training, from 0; it says which positions are looked at.
        """
        assert slab.grad is not None
        part = slab.detach().requires_grad_(True)
        penalty = self._weight * self._outputs(self._inputs[:, self.places(step)], part, scale).sum(0)  # (U,)
        penalty.sum().backward()  # type: ignore[no-untyped-call]
        assert part.grad is not None
        slab.grad += part.grad
        return penalty.detach().cpu()

    def places(self, step: int) -> list[int]:
        """Return which positions a step looks at: all steps together look at each as often, whatever their number."""
        start, count = step * POSITIONS, min(POSITIONS, len(self._order))
        return [self._order[at % len(self._order)] for at in range(start, start + count)]

    def _outputs(self, inputs: Tensor, slab: Tensor, scale: Tensor) -> Tensor:
        """Mean over positions of squared outputs, relative to the FFN's; shape (L, U), fp32."""
        rows = effective_rows(slab, scale).to(inputs.dtype)
        found = []
        for own, memories, activation, size in zip(inputs, rows, self._activations, self._sizes, strict=True):
            hidden = own.expand(len(memories), -1, -1)  # (U, n, D)
            added = side_ffn(hidden, torch.zeros_like(hidden), memories, activation)
            found.append(added.float().square().sum(-1).mean(-1) / size)
        return torch.stack(found)


def neutral_inputs(engine: Engine, neutral: NeutralText, layers: Sequence[int]) -> dict[int, Tensor]:
    """Return what enters the FFNs of layers on the anchors; computed at first use and kept with the neutral text.

    Args:
        engine: of the backbone.
        neutral: whose anchors are run.
        layers: numbered from the last (-1).

    Returns:
        By layer, shape (n, D), fp32, on the CPU.
    """
    missing = [layer for layer in layers if layer not in neutral.inputs]
    if missing:
        neutral.inputs.update(ffn_inputs(engine, neutral.anchors, missing))
    return neutral.inputs
