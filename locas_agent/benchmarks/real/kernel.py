"""The fused side FFN beside the torch one, on a GPU: the kernel that may replace it once it is seen to be faster."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from locas_agent.benchmarks.bench import GPU, Bench, largest_difference
from locas_agent.benchmarks.measuring import Goal, Row, interleaved
from locas_agent.memory.attach import side_ffn

ROUNDS, REPEATS = 15, 28
"""Rounds, and calls timed in each: as many as Qwen3-0.6B has layers."""
TOKENS = 1
_SAME = (
    f"{REPEATS} layers of side FFNs, {GPU.users} users of {GPU.width} slots, {TOKENS} token each, bf16, on a GPU alone"
)
FUSED = Goal("side-ffn-fused", f"{_SAME}; peer: the side FFN in torch", "ms", "peer/ours", 1.0, 3.0)


def fused(bench: Bench) -> list[Row]:
    """Measure the row; no row without a GPU or without triton.

    Raises:
        RuntimeError: the kernel gives other numbers than the torch one.
    """
    if bench.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return []
    from locas_agent.memory.fused import FusedSideFfn, kind_of

    activation = nn.SiLU()
    kind = kind_of(activation)
    shapes = ((GPU.users, TOKENS, GPU.hidden), (GPU.users, TOKENS, GPU.hidden), (GPU.users, 3, GPU.width, GPU.hidden))
    hidden, output, rows = (torch.randn(shape, device=bench.device, dtype=torch.bfloat16) for shape in shapes)
    rows = rows / GPU.hidden**0.5

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        for _ in range(REPEATS):
            found: torch.Tensor = FusedSideFfn.apply(hidden, output, rows, kind)  # type: ignore[no-untyped-call]
        return found

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        for _ in range(REPEATS):
            found = side_ffn(hidden, output, rows, activation)
        return found

    if (difference := largest_difference(theirs(), ours())) > 0.05:
        raise RuntimeError(f"the kernel differs by {difference:.2g} of the largest number: nothing was measured")
    taken = interleaved({"ours": ours, "theirs": theirs}, rounds=bench.rounds(ROUNDS), device=bench.device)
    return [FUSED.row(taken["ours"], taken["theirs"])]
