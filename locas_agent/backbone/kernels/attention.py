"""Attention in half precision on a processor, for short texts through which gradients flow.

The backward of torch's kernel for the CPU takes four times what plain products take there. Everything else is left to
that kernel, as transformers calls it.

Shapes: B rows, H query heads, h key heads, T queries, S keys, d numbers of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "locas_half"
"""Under which transformers finds it."""
LONGEST = 256
"""Queries of a row up to which plain products are faster; their scores, T * S a head, leave the caches beyond."""


def register() -> str:
    """Make it known to transformers, as often as one likes, and return its name."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend; called by layers of transformers.

    Args:
        module: the layer.
        query: shape (B, H, T, d).
        key: shape (B, h, S, d), as `value`.
        value: see `key`.
        attention_mask: True where a query looks, or numbers added to the scores, shape (B or 1, 1, T, S); None lets a
            query look at all up to itself.
        dropout: of the weights; a frozen backbone has none.
        scaling: of the scores.
        is_causal: where there is no mask; None leaves it to the layer.
        options: of other kinds of attention.

    Returns:
        Shape (B, T, H, d), and nothing.
    """
    is_short = 1 < query.shape[2] <= LONGEST and key.shape[2] == query.shape[2]
    looks_back = getattr(module, "is_causal", True) if is_causal is None else is_causal
    is_plain = not dropout and options.get("position_bias") is None and options.get("softcap") is None
    if query.requires_grad and is_short and is_plain and (attention_mask is not None or looks_back):
        return _products(query, key, value, attention_mask, scaling), None
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **options
    )
    return found


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Two products and a softmax; the queries that share a key head stand side by side."""
    rows, heads, length, size = query.shape
    shared = key.shape[1]
    side_by_side = query.reshape(rows, shared, heads // shared * length, size)
    scores = (side_by_side @ key.transpose(2, 3)).view(rows, shared, heads // shared, length, key.shape[2])
    scores = scores * (size**-0.5 if scaling is None else scaling)
    if mask is None:
        later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    elif mask.dtype == torch.bool:
        # a row of padding looks at nothing: a least number instead of infinity keeps it a number
        scores = scores.masked_fill(~mask[:, :, None], torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask[:, :, None]
    weights = scores.softmax(dim=-1).view(rows, shared, heads // shared * length, key.shape[2])
    return (weights @ value).view(rows, heads, length, value.shape[3]).transpose(1, 2).contiguous()
