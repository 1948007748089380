"""The memory of Locas-MLP: a key row and a value row for each slot and layer, and what it answers.

Shapes: L layers, W width, D hidden size; n any number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import relu

from locas_agent.errors import IncompatibleMemory
from locas_agent.memory.slab import clip_rows


@dataclass(frozen=True, eq=False)
class MlpMemory:
    """Slots beside every FFN of one ReLU backbone.

    Attributes:
        keys: shape (L, W, D), fp32; may require grad.
        values: shape (L, W, D), fp32; may require grad.
        scale: output scale tau of each layer, shape (L,), fp32; a constant.
    """

    keys: Tensor
    values: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        """Refuse shapes and dtypes that do not fit each other, and values that are not finite."""
        shape = tuple(self.keys.shape)
        if len(shape) != 3 or min(shape) < 1 or self.values.shape != self.keys.shape or self.scale.shape != shape[:1]:
            raise IncompatibleMemory(
                f"keys and values have one shape (L, W, D) with W >= 1, scale has (L,); got {shape}, "
                f"{tuple(self.values.shape)} and "
                f"{tuple(self.scale.shape)}"
            )
        if any(part.dtype != torch.float32 for part in (self.keys, self.values, self.scale)):
            raise IncompatibleMemory(
                f"a memory is kept as fp32, got {self.keys.dtype}, {self.values.dtype} and {self.scale.dtype}"
            )
        if not all(bool(torch.isfinite(part).all()) for part in (self.keys, self.values, self.scale)):
            raise IncompatibleMemory(
                "the memory holds values that are not finite; go back to the one before the last step"
            )

    @property
    def width(self) -> int:
        """W, slots per layer."""
        return self.keys.shape[1]

    @property
    def parameter_count(self) -> int:
        """Numbers it holds, 2 * L * W * D."""
        return self.keys.numel() + self.values.numel()

    def output(self, hidden: Tensor, layer: int) -> Tensor:
        """What the slots of one layer add to its FFN: tau * V^T ReLU(K^T A).

        Rows longer than 1 are used at length 1, as in the gated variant.

        Args:
            hidden: FFN input A, shape (n, D), any float dtype.
            layer: 0..L-1.

        Returns:
            Shape (n, D), dtype of `hidden`.

        Source: arXiv 2602.05085, Locas-MLP.
        """
        keys, values = clip_rows(self.keys[layer]).to(hidden.dtype), clip_rows(self.values[layer]).to(hidden.dtype)
        return relu(hidden @ keys.t()) @ values * self.scale[layer].to(hidden.dtype)

    def joined(self, slots: MlpMemory) -> MlpMemory:
        """Return both memories' slots side by side; what they add to an FFN adds up.

        Raises:
            IncompatibleMemory: other layers, another hidden size or another scale.
        """
        if self.keys.shape[::2] != slots.keys.shape[::2] or not torch.equal(self.scale, slots.scale):
            raise IncompatibleMemory(
                f"slots of {tuple(slots.keys.shape)} cannot join a memory of {tuple(self.keys.shape)} with another "
                "scale or size"
            )
        return replace(
            self, keys=torch.cat([self.keys, slots.keys], dim=1), values=torch.cat([self.values, slots.values], dim=1)
        )
