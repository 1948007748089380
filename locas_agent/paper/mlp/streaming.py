"""A text learnt while it is read: each chunk is scored first, then learnt, by writing slots or by plain backprop.

Shapes: L layers, T tokens of the text, W width, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from locas_agent.errors import ConfigurationError
from locas_agent.paper.mlp.backbone import ReluBackbone
from locas_agent.paper.mlp.memory import MlpMemory
from locas_agent.paper.mlp.nl_svd import compress
from locas_agent.paper.mlp.writing import clone, slots_of


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading a text came to.

    Attributes:
        memory: after the last chunk.
        nll: negative log-likelihood of every token after the first, each under the memory before its chunk, shape (T -
            1,), fp32, nats.
    """

    memory: MlpMemory
    nll: Tensor


def learn_by_writing(
    backbone: ReluBackbone,
    input_ids: Tensor,
    *,
    epsilon: float,
    capacity: int,
    keep: int,
    chunk_tokens: int = 1,
    window_tokens: int = 128,
) -> Reading:
    """Add a slot for each token; at `capacity` slots compress them to `keep` by NL-SVD, and go on.

    Args:
        backbone: frozen.
        input_ids: the text, shape (T,), int64.
        epsilon: size of a write, see `write`.
        capacity: most slots per layer.
        keep: slots left by a compression, about half of the capacity in the paper.
        chunk_tokens: tokens written under one memory; 1 is the paper's token by token, more is faster.
        window_tokens: tokens before a chunk that it can attend to.

    Raises:
        ConfigurationError: an argument out of bounds, or a text of fewer than 2 tokens.
    """
    if not 1 <= keep < capacity:
        raise ConfigurationError(
            f"a compression keeps at least 1 slot and fewer than the capacity, got {keep} of {capacity}"
        )
    memory: MlpMemory | None = None
    losses = []
    for ids, first in _chunks(backbone, input_ids, chunk_tokens, window_tokens):
        traced = backbone.traced(ids, memory)
        losses.append(traced.nll.detach()[first - 1 :])
        slots = slots_of(traced, epsilon=epsilon, first=first)
        memory = slots if memory is None else memory.joined(slots)
        if memory.width >= capacity:
            memory = compress(memory, keep=keep)
    assert memory is not None  # there is at least one chunk
    return Reading(memory, torch.cat(losses))


def learn_by_backprop(
    backbone: ReluBackbone,
    input_ids: Tensor,
    *,
    width: int,
    learning_rate: float,
    chunk_tokens: int = 128,
    window_tokens: int = 128,
) -> Reading:
    """Train keys and values of a fixed width, one step of AdamW on the next-token loss of each chunk.

    What the paper recommends.

    Args:
        backbone: frozen.
        input_ids: the text, shape (T,), int64; its first chunk chooses the cloned keys.
        width: slots per layer.
        learning_rate: of AdamW, without weight decay.
        chunk_tokens: tokens of one step.
        window_tokens: tokens before a chunk that it can attend to.

    Raises:
        ConfigurationError: an argument out of bounds, or a text of fewer than 2 tokens.
    """
    chunks = list(_chunks(backbone, input_ids, chunk_tokens, window_tokens))
    memory = clone(backbone, chunks[0][0], width=width)
    memory = replace(memory, keys=memory.keys.requires_grad_(), values=memory.values.requires_grad_())
    optimizer = torch.optim.AdamW([memory.keys, memory.values], lr=learning_rate, weight_decay=0.0)
    losses = []
    for ids, first in chunks:
        nll = backbone.compute_nll(ids[None], memory)[0, first - 1 :]
        losses.append(nll.detach())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([nll.mean()], inputs=[memory.keys, memory.values])
        optimizer.step()
    return Reading(replace(memory, keys=memory.keys.detach(), values=memory.values.detach()), torch.cat(losses))


def _chunks(
    backbone: ReluBackbone, input_ids: Tensor, chunk_tokens: int, window_tokens: int
) -> Iterator[tuple[Tensor, int]]:
    """Yield the tokens of one forward and the place of the first new one; each token after the first is new once."""
    if input_ids.dim() != 1 or len(input_ids) < 2:
        raise ConfigurationError(
            f"a text has shape (T,) with at least 2 tokens, the first predicts the second; got {tuple(input_ids.shape)}"
        )
    if chunk_tokens < 1 or window_tokens < 1 or chunk_tokens + window_tokens > backbone.context_tokens:
        raise ConfigurationError(
            f"a chunk and the window before it take 1 token at least each and {backbone.context_tokens} at most "
            f"together on {backbone.name!r}, "
            f"got {chunk_tokens} and {window_tokens}"
        )
    for start in range(1, len(input_ids), chunk_tokens):
        context = max(0, start - window_tokens)
        yield input_ids[context : start + chunk_tokens], start - context
