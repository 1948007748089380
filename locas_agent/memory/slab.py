"""The memory of one user as tensors, and the clip and scale that belong to it.

Shapes: L layers that carry a memory; W width (slots per layer), D hidden size. Axis 1 of a slab is gate, up, down.

Layers are numbered from the last, which is -1: so a memory is the same whatever is counted below it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from locas_agent.errors import IncompatibleMemory
from locas_agent.types import Initialization

GATE, UP, DOWN = 0, 1, 2
"""Index of each kind of row in a slab. Files name the three kinds instead; see `serialization.py`."""

INITIALIZATIONS: tuple[str, ...] = get_args(Initialization)
"""How the rows of a new memory are chosen; see `types.Initialization`."""

NORM_SLACK = 2.0**-18
"""A norm up to 1 + this counts as 1. It covers the fp32 rounding of a norm, and makes the clip exactly idempotent."""


def topmost(layers: int) -> tuple[int, ...]:
    """The numbers of so many topmost layers, ascending: -1 is the last."""
    return tuple(range(-layers, 0))


def clip_rows(slab: Tensor) -> Tensor:
    """Use every row w as w / max(||w||, 1), in fp32.

    Args:
        slab: rows along the last axis, shape (..., D), any float dtype.

    Returns:
        The clipped rows, shape (..., D), fp32; differentiable.

    Source: arXiv 2602.05085, row clipping. Read as part of the forward pass, and written to the database.
    """
    rows = slab.float()
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)  # (..., 1)
    return rows / torch.where(norms > 1.0 + NORM_SLACK, norms, torch.ones_like(norms))


def effective_rows(slab: Tensor, scale: Tensor) -> Tensor:
    """The rows as a forward uses them: clipped, down rows multiplied by the output scale.

    Args:
        slab: master rows, shape (L, 3, W, D) or, for a batch, (L, U, 3, W, D).
        scale: output scale per layer (and memory), shape (L,) or (L, U).

    Returns:
        Effective rows, shape of `slab`, fp32; differentiable in `slab`.
    """
    if slab.shape[:-3] != scale.shape:
        raise IncompatibleMemory(f"scale of shape {tuple(scale.shape)} for a slab of shape {tuple(slab.shape)}")
    factors = torch.ones(*slab.shape[:-2], 1, 1, dtype=torch.float32, device=slab.device)  # (..., 3, 1, 1)
    factors[..., DOWN, 0, 0] = scale.to(device=slab.device, dtype=torch.float32)
    return clip_rows(slab) * factors


def check_layers(layers: tuple[int, ...], expected: int) -> None:
    """Refuse numbers that are not so many layers, ascending, from the last.

    Raises:
        IncompatibleMemory: they are not.
    """
    if len(layers) != expected or layers[-1] >= 0 or any(a >= b for a, b in pairwise(layers)):
        raise IncompatibleMemory(
            f"{expected} layers need as many numbers, ascending and counted from the last, which is -1; got {layers}"
        )


@dataclass(frozen=True, eq=False)
class LocasMemory:
    """All tensors of one user on one backbone.

    Attributes:
        slab: master rows, shape (L, 3, W, D), fp32; axis 1 is gate, up, down.
        scale: output scale tau of each layer, shape (L,), fp32; a constant, not trained.
        neuron_indices: backbone neuron each slot was cloned from, shape (L, W), int64; -1 where none was.
        fingerprint: fingerprint of the backbone it belongs to.
        initialization: one of `INITIALIZATIONS`.
        layers: the layers beside which it stands, L numbers from the last (-1), ascending; the L topmost unless given.
    """

    slab: Tensor
    scale: Tensor
    neuron_indices: Tensor
    fingerprint: str
    initialization: str
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse shapes and dtypes that do not fit each other."""
        if self.slab.dim() != 4 or self.slab.shape[1] != 3 or self.slab.shape[2] < 1:
            raise IncompatibleMemory(f"a slab has shape (L, 3, W, D) with W >= 1, got {tuple(self.slab.shape)}")
        layers, _, width, _ = self.slab.shape
        if self.scale.shape != (layers,) or self.neuron_indices.shape != (layers, width):
            raise IncompatibleMemory(
                f"slab {tuple(self.slab.shape)} needs scale {(layers,)} and neuron_indices {(layers, width)}, "
                f"got {tuple(self.scale.shape)} and {tuple(self.neuron_indices.shape)}"
            )
        dtypes = (self.slab.dtype, self.scale.dtype, self.neuron_indices.dtype)
        if dtypes != (torch.float32, torch.float32, torch.int64):
            raise IncompatibleMemory(f"a memory is kept as fp32, fp32 and int64, got {dtypes}")
        if not self.layers:
            object.__setattr__(self, "layers", topmost(layers))
        check_layers(self.layers, layers)

    @property
    def n_layers(self) -> int:
        """L, the number of layers that carry it."""
        return self.slab.shape[0]

    @property
    def width(self) -> int:
        """W, slots per layer."""
        return self.slab.shape[2]

    @property
    def hidden_size(self) -> int:
        """D, the backbone's hidden size."""
        return self.slab.shape[3]

    @property
    def parameter_count(self) -> int:
        """Trained numbers, 3 * L * W * D."""
        return self.slab.numel()

    @property
    def gate_rows(self) -> Tensor:
        """View of the gate rows, shape (L, W, D)."""
        return self.slab[:, GATE]

    @property
    def up_rows(self) -> Tensor:
        """View of the up rows, shape (L, W, D)."""
        return self.slab[:, UP]

    @property
    def down_rows(self) -> Tensor:
        """View of the down rows, shape (L, W, D)."""
        return self.slab[:, DOWN]

    def clipped(self) -> LocasMemory:
        """The same function with every row already clipped; clipping twice changes no bit."""
        return replace(self, slab=clip_rows(self.slab.detach()))

    def with_slots(self, gate_up: Tensor, *, grows: bool) -> LocasMemory:
        """The same function with new slots whose down rows are zero; they stand in slots that hold nothing first.

        Args:
            gate_up: gate rows, which are the up rows too, shape (L, S, D).
            grows: whether slots beyond the width are added; else those are left out.
        """
        free = torch.nonzero(self.slab.detach().abs().amax(dim=(0, 1, 3)) == 0)[:, 0].tolist()
        missing = max(0, gate_up.shape[1] - len(free)) if grows else 0
        slab = torch.cat([self.slab, self.slab.new_zeros(self.n_layers, 3, missing, self.hidden_size)], dim=2)
        neurons = self.neuron_indices.new_full((self.n_layers, missing), -1)
        at = [*free, *range(self.width, self.width + missing)][: gate_up.shape[1]]
        rows = gate_up[:, : len(at), None].to(slab).expand(-1, -1, 2, -1)  # (L, S, 2, D)
        slab[:, GATE:DOWN, at] = rows.transpose(1, 2)
        return replace(self, slab=slab, neuron_indices=torch.cat([self.neuron_indices, neurons], dim=1))

    def row_norms(self) -> Tensor:
        """L2 norm of every master row, shape (L, 3, W)."""
        norms: Tensor = torch.linalg.vector_norm(self.slab.detach(), dim=-1)
        return norms

    def clipped_share(self) -> float:
        """Share of all rows at or above norm 1, where the clip binds: how saturated the memory is.

        Cloned gate and up rows start at norm 1, so a fresh memory reads 2/3; `row_norms()[:, DOWN]` tells the down
        rows apart.
        """
        return float((self.row_norms() >= 1.0 - NORM_SLACK).float().mean())
