"""Rows of a memory as int8 with one scale for each row, and back.

Shapes: L layers, W width, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from locas_agent.errors import CorruptPayload

MOST = 127
"""Largest value; -128 is not used, so that a row and its negative are kept alike."""
SMALLEST_SCALE = 2.0**-100
"""A row with a smaller scale is kept as zeros: it changes no logit, and below fp32's normal numbers products are not
exact."""
_SPARE_BITS = 7
"""Low bits of a scale that are zero: its 17 other bits times a value's 7 fit into fp32's 24, so each product is
exact."""


@dataclass(frozen=True, eq=False)
class Int8Rows:
    """Rows as small integers, in the one form that `of` gives: what is read and packed again is the same to the bit.

    Attributes:
        values: shape (L, 3, W, D), int8, -127..127; each row holds a value of that size, or zeros only.
        scales: what a row's values are multiplied by, shape (L, 3, W), fp32; 0 for a row of zeros.

    Raises:
        CorruptPayload: values and scales are none that `of` gives.
    """

    values: Tensor
    scales: Tensor

    def __post_init__(self) -> None:
        """Refuse scales that no row has: a wrong one multiplies a whole row."""
        bits = self.scales.view(torch.int32)
        largest = self.values.abs().amax(dim=-1)  # |-128| is -128
        is_zero = self.scales == 0
        fits = torch.where(is_zero, (largest == 0) & (bits == 0), (largest == MOST) & (self.scales >= SMALLEST_SCALE))
        is_canonical = (
            ((bits & ((1 << _SPARE_BITS) - 1)) == 0)
            & (self.scales <= _longest(self.values))
            & (self.values != -MOST - 1).all(dim=-1)
        )
        if not (fits & is_canonical).all():
            raise CorruptPayload(
                "int8 rows: a scale is negative, too large or not that of its row; restore them from a backup or an "
                "older revision"
            )

    @classmethod
    def of(cls, rows: Tensor) -> Int8Rows:
        """Round clipped rows to multiples of their scales, a scale being 1/127 of the largest number in its row.

        Rounding may lengthen a row at the clip; its scale is lowered then, since rows are kept in the length they are
        used in.

        Args:
            rows: shape (L, 3, W, D), fp32, finite, of norm 1 at most, on any device.

        Returns:
            On the CPU; off by at most half a scale for each number before that lowering.
        """
        rows = rows.detach().cpu()
        scales = _coarse(rows.abs().amax(dim=-1) / MOST, upwards=True)  # (L, 3, W)
        scales = torch.where(scales < SMALLEST_SCALE, torch.zeros_like(scales), scales)
        divisors = torch.where(scales == 0, torch.full_like(scales, torch.inf), scales)
        values = (rows / divisors[..., None]).round().to(torch.int8)
        return cls(values=values, scales=torch.minimum(scales, _longest(values)))

    def dense(self) -> Tensor:
        """Return the rows, shape (L, 3, W, D), fp32; every product is exact."""
        return self.values.float() * self.scales[..., None]


def _longest(values: Tensor) -> Tensor:
    """Largest scales with which rows of such values are no longer than 1, shape (L, 3, W)."""
    lengths = torch.linalg.vector_norm(values.double(), dim=-1).clamp_min(1.0)
    return _coarse((1.0 / lengths).float(), upwards=False)


def _coarse(scales: Tensor, *, upwards: bool) -> Tensor:
    """Round positive fp32 numbers to 17 significant bits."""
    spare = (1 << _SPARE_BITS) - 1
    bits = scales.contiguous().view(torch.int32) + (spare if upwards else 0)
    return (bits & ~spare).view(torch.float32)
