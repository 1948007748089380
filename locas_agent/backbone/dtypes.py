"""In which dtype a backbone computes, and which one is fast here.

It changes no model: the cast is `loading.py`'s.
"""

from __future__ import annotations

from functools import cache
from time import perf_counter

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SMALL = 32_000_000
"""Backbones of fewer parameters compute in fp32: a forward takes milliseconds, and its products are the lesser part."""
_WORTH_IT = 0.8
"""The share of fp32's time under which bf16 is called fast."""
_SIZES = {"cpu": (256, 1024), "other": (4096, 4096)}
"""Rows and columns of the product that is timed; on a GPU a small one would time its launch."""
_REPEATS = 5


def fast_dtype(device: torch.device, n_parameters: int) -> torch.dtype:
    """Return what "auto" stands for: bf16 where the device is fast at it and the backbone is not small, else fp32."""
    if n_parameters < SMALL or not is_fast_at_bfloat16(str(device)):
        return torch.float32
    return torch.bfloat16


@cache
def is_fast_at_bfloat16(device: str) -> bool:
    """Time a product of matrices in bf16 and in fp32; measured once in a process for each device, in about 0.1 s.

    A name or a flag of a processor would not do: some compute bf16 by widening it, at a fraction of fp32's speed.
    """
    rows, size = _SIZES.get(torch.device(device).type, _SIZES["other"])
    try:
        with torch.inference_mode():
            pairs = [
                (torch.ones(rows, size, device=device, dtype=dtype), torch.ones(size, size, device=device, dtype=dtype))
                for dtype in (torch.bfloat16, torch.float32)
            ]
            # in turns, the best of each: another process on the same cores slows both down
            times = [[product_seconds(*pair) for pair in pairs] for _ in range(_REPEATS + 1)][1:]
    except RuntimeError:  # a device without bf16, or without room
        return False
    half, full = (min(column) for column in zip(*times, strict=True))
    return bool(half < _WORTH_IT * full)


def product_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """Time the product of two matrices."""
    begin = perf_counter()
    float((left @ right)[0, 0])  # reading a number waits for the device
    return perf_counter() - begin
