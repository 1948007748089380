"""The side FFN beside each frozen FFN, for the duration of one forward.

Memory is an argument, never state of a module: a forward carries it as an `Intercept` through the hooks of its
backbone.

Shapes: B input rows, T tokens, D hidden size, U memories, R rows per memory (B = U * R), W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.backbone.ffn import GatedFfn
from locas_agent.backbone.hooks import Intercept, carrying
from locas_agent.errors import IncompatibleMemory
from locas_agent.memory.batch import MemoryBatch

Activation = Callable[[Tensor], Tensor]


class SideFfns(Intercept):
    """Adds the answers of a batch of memories to the FFNs of one forward.

    Args:
        batch: one memory per group of input rows.
        sites: the backbone's FFNs, each with its own activation.
    """

    def __init__(self, batch: MemoryBatch, sites: Sequence[GatedFfn]) -> None:
        self._batch = batch
        self._sites = sites
        self._at = {len(sites) + layer: at for at, layer in enumerate(batch.layers)}

    def ffn(self, layer: int, hidden: Tensor, output: Tensor) -> Tensor | None:
        """Return the output of a layer's FFN with the memories' answer added; None where it carries no memory."""
        batch = self._batch
        if hidden.shape[0] != batch.n_rows:
            raise IncompatibleMemory(
                f"a batch of {batch.n_memories} memories with {batch.rows_per_memory} rows each serves {batch.n_rows} "
                f"input rows, got {hidden.shape[0]}; build it for these rows or use MemoryBatch.select"
            )
        at = self._at.get(layer)
        return None if at is None else side_ffn(hidden, output, batch.rows[at], self._sites[layer].activation)


@contextmanager
def attached(backbone: Backbone, batch: MemoryBatch | None) -> Iterator[None]:
    """Let the forwards inside the block, in this thread or task, use a batch of memories.

    Used inside `Engine` around exactly one forward; never keep it open across a `yield` to a caller.

    Args:
        backbone: whose FFNs are meant.
        batch: one memory per group of input rows; None leaves the backbone bare, bit for bit.
    """
    with carrying(backbone.hook_key, None if batch is None else SideFfns(batch, backbone.sites)):
        yield


def side_ffn(hidden: Tensor, output: Tensor, rows: Tensor, activation: Activation) -> Tensor:
    """Add the memories' answer to the output of one frozen FFN.

    Gate and up rows lie side by side in the slab, so both products are one GEMM per memory.

    Args:
        hidden: FFN input A, shape (B, T, D).
        output: FFN(A), shape (B, T, D).
        rows: effective rows of this layer, shape (U, 3, W, D) with U dividing B.
        activation: the backbone's own gate activation.

    Returns:
        FFN(A) + tau * down^T (act(gate A) * (up A)), shape (B, T, D), dtype of `output`.

    Source: arXiv 2602.05085, Locas-GLU; tau is already inside the down rows.
    """
    memories, _, width, size = rows.shape
    rows = rows.to(hidden.dtype)
    flat = hidden.reshape(memories, -1, size)  # (U, R*T, D)
    gate_up = rows[:, :2].reshape(memories, 2 * width, size)  # (U, 2W, D)
    gate, up = torch.bmm(flat, gate_up.transpose(1, 2)).chunk(2, dim=-1)  # (U, R*T, W) each
    slots = activation(gate) * up  # (U, R*T, W)
    total = torch.baddbmm(output.reshape(memories, -1, size), slots, rows[:, 2])  # (U, R*T, D)
    return total.view(output.shape)
