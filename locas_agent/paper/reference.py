"""The paper's own terms on any of our backbones: the reference implementation's memory tensor and its three verbs.

For experiments by people who know the paper; `AgentMemory` does not need it.

The tensor has shape (L, B, M, H, 3): layers, different memories, slots, hidden size, and key, gate, value in that
order. Key is our up row, gate our gate row, value our down row. It is for interchange only: here a memory is kept as
one slab, see `memory/batch.py`. The output scale tau is no part of it; the paper computes it from backbone and M.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.exports.dense import merge
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.batch import check_fits
from locas_agent.memory.slab import DOWN, GATE, UP
from locas_agent.training.initialization import initialize_many, output_scale
from locas_agent.training.loss.losses import next_token_loss
from locas_agent.types import NeuronChoice

_ROWS_OF = (UP, GATE, DOWN)
"""Our row kind at each index of the reference's last axis: key, gate, value. The names are the reference's; which index
each has is our reading."""


class LocasModel:
    """A backbone with the reference's verbs. Memory is an argument and a result, never state."""

    def __init__(self, backbone: Backbone) -> None:
        """Take a backbone; nothing is allocated."""
        self.backbone = backbone
        self._engine = Engine(backbone)

    def memorize(
        self,
        input_ids: Tensor,
        keep_top: int,
        memory_init: NeuronChoice = "highest",
        *,
        attention_mask: Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Make one new memory for each row from the neurons its text activates.

        It changes no logit until it is trained.

        Args:
            input_ids: shape (B, T), int64.
            keep_top: M, slots per layer.
            memory_init: clone the `keep_top` neurons of "highest" or "lowest" mean activation, any ("random_index"), or
                Gaussian rows ("random").
            attention_mask: 1 for tokens, 0 for padding, shape (B, T).
            seed: of the two random choices.

        Returns:
            Shape (L, B, M, H, 3), fp32, on the backbone's device, for all layers as in the paper; a leaf: call
            `requires_grad_()` to train it.

        Raises:
            ConfigurationError: a row without a token, or an argument out of bounds.
        """
        _check_ids(input_ids, attention_mask)
        keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        texts = [[row[mask.bool()].tolist()] for row, mask in zip(input_ids.cpu(), keep.cpu(), strict=True)]
        memories = initialize_many(
            self.backbone, texts, width=keep_top, method=memory_init, scale_rule="width", seed=seed
        )
        return to_reference(memories, self.backbone)[0]

    def compute_nll(
        self,
        input_ids: Tensor,
        memory: Tensor | None,
        *,
        scale: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Negative log-likelihood of every token after the first; row b runs with memory b.

        For a perplexity add these up over the whole text, divide once by the number of tokens, and take the exponential
        last.

        Args:
            input_ids: shape (B, T), int64, T at least 2.
            memory: shape (L, B, M, H, 3), or fewer layers, which are then the topmost; gradients flow into it. None is
                the bare backbone.
            scale: tau of each layer and memory, shape (L, B); None is the paper's, mean norm of the backbone's output
                vectors divided by M.
            attention_mask: 1 for tokens, 0 for padding, shape (B, T).

        Returns:
            Shape (B, T - 1), fp32, nats; 0 where the token is padding.

        Raises:
            ConfigurationError: shapes that are no batch of texts.
            IncompatibleMemory: the memory has another shape, or holds values that are not finite.
        """
        _check_ids(input_ids, attention_mask)
        rows, tokens = input_ids.shape
        if tokens < 2:
            raise ConfigurationError(f"a text has at least 2 tokens, the first predicts the second; got {tokens}")
        batch = None if memory is None else self._batch(memory, scale)
        logits = self._engine.logits(input_ids, attention_mask=attention_mask, memory=batch)[:, :-1]  # (B, T - 1, V)
        targets = input_ids[:, 1:].to(logits.device)
        losses = next_token_loss(logits.flatten(0, 1), targets.flatten()).view(rows, tokens - 1)
        if attention_mask is None:
            return losses
        counts = (attention_mask[:, 1:].bool() & attention_mask[:, :-1].bool()).to(losses.device)
        return torch.where(counts, losses, 0.0)

    def to_dense(self, memory: Tensor, *, scale: Tensor | None = None, multiple: int = 1) -> PreTrainedModel:
        """Merge one memory into a copy of the backbone; see `exports.dense.merge`.

        Args:
            memory: shape (L, 1, M, H, 3); of several take `memory[:, b : b + 1]`. A merged checkpoint is one person's.
            scale: as in `compute_nll`, shape (L, 1).
            multiple: the FFN's width is rounded up to a multiple of this.

        Returns:
            A plain transformers model.
        """
        memories = from_reference(memory, self.backbone, scale=scale)
        if len(memories) != 1:
            raise ConfigurationError(
                f"one memory is merged into a checkpoint, got {len(memories)}; take memory[:, b : b + 1]"
            )
        return merge(self.backbone, memories[0], multiple=multiple)

    def _batch(self, memory: Tensor, scale: Tensor | None) -> MemoryBatch:
        slab = _slab(memory, self.backbone)
        return MemoryBatch.training(slab, _scale(slab, scale, self.backbone), self.backbone)


def to_reference(memories: Sequence[LocasMemory], backbone: Backbone) -> tuple[Tensor, Tensor]:
    """Memories in the reference's form.

    Those that do not stand beside all layers get zero slots in the others, narrower ones zero slots up to the
    widest: exact, since a slot whose value row is zero adds nothing.

    Args:
        memories: at least one, of this backbone.
        backbone: gives the number of layers.

    Returns:
        The tensor, shape (L, B, M, H, 3), and tau, shape (L, B), both fp32 on the backbone's device. Keep tau beside
        the tensor: a memory made with another scale rule than the paper's is another function without it.

    Raises:
        ConfigurationError: no memory.
        IncompatibleMemory: one belongs to another backbone.
    """
    if not memories:
        raise ConfigurationError("at least one memory is converted, got none")
    for memory in memories:
        check_fits(memory, backbone)
    width = max(memory.width for memory in memories)
    tensor = torch.zeros(backbone.n_layers, len(memories), width, backbone.hidden_size, 3, device=backbone.device)
    scale = output_scale(backbone, width=width)[:, None].repeat(
        1, len(memories)
    )  # where no slot stands, it multiplies zeros
    for at, memory in enumerate(memories):
        slab = memory.slab.detach().to(backbone.device)
        layers = list(memory.layers)
        tensor[layers, at, : memory.width] = slab[:, _ROWS_OF].permute(0, 2, 3, 1)
        scale[layers, at] = memory.scale.to(backbone.device)
    return tensor, scale


def from_reference(
    tensor: Tensor, backbone: Backbone, *, scale: Tensor | None = None, initialization: NeuronChoice = "highest"
) -> list[LocasMemory]:
    """Memories of ours from a tensor of the reference.

    Args:
        tensor: shape (L, B, M, H, 3), any float dtype; with fewer layers than the backbone they are the topmost.
        backbone: whose memories they are; the tensor cannot say, so only its shape is checked.
        scale: tau, shape (L, B); None is the paper's for this backbone and M.
        initialization: what is noted as the way their first rows were chosen.

    Returns:
        One memory per B. Which neurons they were cloned from is not known any more.

    Raises:
        IncompatibleMemory: another shape than the backbone's, no slot at all, or values that are not finite.
    """
    slab = _slab(tensor.detach(), backbone)
    tau = _scale(slab, scale, backbone)
    layers, count, _, width, _ = slab.shape
    unknown = torch.full((layers, width), -1, dtype=torch.int64, device=slab.device)
    return [
        LocasMemory(
            slab[:, at].contiguous(), tau[:, at].contiguous(), unknown.clone(), backbone.fingerprint, initialization
        )
        for at in range(count)
    ]


def _slab(tensor: Tensor, backbone: Backbone) -> Tensor:
    """The rows in our order, shape (L, B, 3, M, H), fp32, on the backbone's device; part of the graph."""
    shape = tuple(tensor.shape)
    fits = (
        len(shape) == 5
        and 1 <= shape[0] <= backbone.n_layers
        and min(shape) >= 1
        and shape[3:] == (backbone.hidden_size, 3)
    )
    if not fits:
        raise IncompatibleMemory(
            f"a memory of {backbone.name!r} has shape (L, B, M, H, 3) with L up to {backbone.n_layers}, at least one "
            "slot M and "
            f"H = {backbone.hidden_size}, got {shape}"
        )
    if not torch.isfinite(tensor).all():
        raise IncompatibleMemory(
            "the memory holds values that are not finite; go back to the one before the last training step"
        )
    order = [_ROWS_OF.index(kind) for kind in (GATE, UP, DOWN)]
    return tensor.to(backbone.device, torch.float32)[..., order].permute(0, 1, 4, 2, 3)


def _scale(slab: Tensor, scale: Tensor | None, backbone: Backbone) -> Tensor:
    """Tau of each layer and memory, shape (L, B), fp32."""
    layers, count, _, width, _ = slab.shape
    if scale is None:
        return output_scale(backbone, width=width)[-layers:, None].expand(layers, count)
    if scale.shape != (layers, count) or not torch.isfinite(scale).all():
        raise IncompatibleMemory(
            f"scale is finite and of shape {(layers, count)}, one tau for each layer and memory, got "
            f"{tuple(scale.shape)}"
        )
    return scale.to(backbone.device, torch.float32)


def _check_ids(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    is_batch = input_ids.dim() == 2 and input_ids.numel() > 0 and not input_ids.is_floating_point()
    if not is_batch or (attention_mask is not None and attention_mask.shape != input_ids.shape):
        mask = None if attention_mask is None else tuple(attention_mask.shape)
        raise ConfigurationError(
            f"input_ids are token ids of shape (B, T), the attention mask alike, got {tuple(input_ids.shape)} and "
            f"{mask}"
        )
