"""The equations of the method (arXiv 2602.05085) in plain torch and float64.

They are written from the paper's side and import nothing of ours.

Rows of a memory are given as the paper names them: gate G, key K, value V, each (r, d), one slot a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def activation_of(family: str) -> Activation:
    """The gate activation of an architecture as its paper names it: GeGLU for Gemma, SwiGLU for the others."""
    return gelu_tanh if family.startswith("gemma") else silu


def ffn_weights(mlp: Any) -> tuple[Tensor, Tensor, Tensor]:
    """W_gate and W_up (m, d), W_down (d, m), float64; taken by the names that transformers gives them."""
    down = mlp.down_proj.weight.detach().double()
    if hasattr(mlp, "gate_up_proj"):
        both = mlp.gate_up_proj.weight.detach().double()
        return both[: down.shape[1]], both[down.shape[1] :], down
    return mlp.gate_proj.weight.detach().double(), mlp.up_proj.weight.detach().double(), down


def intermediate(mlp: Any, a: Tensor, act: Activation) -> Tensor:
    """M = act(W_gate A) * (W_up A), biases where the architecture has them; a (T, d), result (T, m)."""
    w_gate, w_up, _ = ffn_weights(mlp)
    gate, up = a.double() @ w_gate.T, a.double() @ w_up.T
    if getattr(getattr(mlp, "gate_proj", None), "bias", None) is not None:
        gate, up = gate + mlp.gate_proj.bias.detach().double(), up + mlp.up_proj.bias.detach().double()
    return act(gate) * up


def ffn(mlp: Any, a: Tensor, act: Activation) -> Tensor:
    """FFN(A) = W_down M; (T, d)."""
    out = intermediate(mlp, a, act) @ ffn_weights(mlp)[2].T
    return out if mlp.down_proj.bias is None else out + mlp.down_proj.bias.detach().double()


def clip(w: Tensor) -> Tensor:
    """Each row by itself: w / max(||w||, 1)."""
    return torch.stack([row / max(float(row.norm()), 1.0) for row in w.double().reshape(-1, w.shape[-1])]).reshape(
        w.shape
    )


def locas(a: Tensor, gate: Tensor, key: Tensor, value: Tensor, act: Activation) -> Tensor:
    """V^T (act(G A) * (K A)) with clipped rows, slot by slot; (T, d)."""
    out = torch.zeros_like(a, dtype=torch.float64)
    for g, k, v in zip(clip(gate), clip(key), clip(value), strict=True):
        out += (act(a.double() @ g) * (a.double() @ k))[:, None] * v
    return out


def tau(mlp: Any, r: int) -> float:
    """(1 / r) (1 / m) sum over the m columns of W_down of their L2 norms."""
    w_down = ffn_weights(mlp)[2]
    m = w_down.shape[1]
    return sum(float(w_down[:, j].pow(2).sum().sqrt()) for j in range(m)) / m / r


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of two rows of logits or log-probabilities, in nats; (..., V) -> (...)."""
    p, q = p.double(), q.double()
    p, q = p - p.exp().sum(-1, keepdim=True).log(), q - q.exp().sum(-1, keepdim=True).log()
    return (p.exp() * (p - q)).sum(-1)
