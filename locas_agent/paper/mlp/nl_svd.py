"""NL-SVD: many slots of a Locas-MLP memory compressed to few.

Shapes: L layers, W width, n kept slots, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from locas_agent.errors import ConfigurationError
from locas_agent.memory.slab import clip_rows
from locas_agent.paper.mlp.memory import MlpMemory


def compress(memory: MlpMemory, *, keep: int) -> MlpMemory:
    """Replace the slots of every layer by fewer that answer alike along the directions that carry most of them.

    With s_i = |k_i| |v_i| the columns s_i k_i / |k_i| have left singular vectors p_j, the eigenvectors of their Gram
    matrix. The new keys are the `keep` strongest of them, the new values what the old memory answers on them: on any
    positive multiple of a p_j old and new memory agree.

    Args:
        memory: at least `keep` slots.
        keep: n, slots per layer afterwards; no more than D, since new keys are orthogonal.

    Returns:
        Width n, the same scale, fp32, cut off from autograd. Values longer than 1 are clipped in use, as any.

    Raises:
        ConfigurationError: `keep` is out of bounds.

    Source: arXiv 2602.05085, NL-SVD. Behind a ReLU p and -p are different keys; the side on which the old memory
        answers more is our choice.
    """
    _, width, size = memory.keys.shape
    if not 1 <= keep <= min(width, size):
        raise ConfigurationError(
            f"NL-SVD keeps 1..{min(width, size)} of {width} slots at hidden size {size}, got {keep}"
        )
    layers = [
        _compressed(keys, values, keep)
        for keys, values in zip(clip_rows(memory.keys.detach()), clip_rows(memory.values.detach()), strict=True)
    ]
    return MlpMemory(
        torch.stack([keys for keys, _ in layers]), torch.stack([values for _, values in layers]), memory.scale
    )


def _compressed(keys: Tensor, values: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one layer, shape (n, D) each.

    In float64 inside, since small singular values decide about directions.
    """
    keys, values = keys.double(), values.double()
    weighted = keys * torch.linalg.vector_norm(values, dim=-1, keepdim=True)  # rows |v_i| k_i = s_i k_i / |k_i|, (W, D)
    probes = torch.linalg.svd(weighted, full_matrices=False).Vh[:keep]  # (n, D)
    forward, backward = relu(probes @ keys.t()) @ values, relu(-probes @ keys.t()) @ values  # (n, D) each
    is_forward = torch.linalg.vector_norm(forward, dim=-1, keepdim=True) >= torch.linalg.vector_norm(
        backward, dim=-1, keepdim=True
    )
    return torch.where(is_forward, probes, -probes).float(), torch.where(is_forward, forward, backward).float()
