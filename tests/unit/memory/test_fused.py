"""The fused side FFN beside the torch reference, by Triton's interpreter: no GPU is needed, the package triton is."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the fused kernel needs the package triton (extra triton)"
)


@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize(("users", "tokens", "width", "size"), [(3, 1, 5, 48), (2, 20, 16, 96), (1, 37, 33, 130)])
def test_kernel_is_the_side_ffn_with_its_gradients(
    activation: str, users: int, tokens: int, width: int, size: int
) -> None:
    from locas_agent.memory.attach import side_ffn
    from locas_agent.memory.fused import FusedSideFfn, kind_of

    act = ACT2FN[activation]
    kind = kind_of(act)
    assert kind is not None
    found = []
    drawn = [
        torch.randn(users, tokens, size),
        torch.randn(users, tokens, size),
        torch.randn(users, 3, width, size) / size**0.5,
    ]
    weights = torch.randn(users, tokens, size)
    for is_fused in (True, False):
        hidden, output, rows = (part.clone().requires_grad_(True) for part in drawn)
        total = FusedSideFfn.apply(hidden, output, rows, kind) if is_fused else side_ffn(hidden, output, rows, act)
        (total * weights).sum().backward()
        found.append([total.detach(), hidden.grad, output.grad, rows.grad])
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)  # fp32 sums of up to 130 in another order
    moved = found[1][0] - drawn[1]
    assert float(moved.abs().max()) > 0.01  # the memory does something


def test_other_activations_are_left_to_torch() -> None:
    from locas_agent.memory.fused import kind_of

    assert kind_of(nn.ReLU()) is None
