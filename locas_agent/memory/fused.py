"""The side FFN as one Triton kernel per layer: gate, up, activation and down of each row with its own memory.

In torch a layer takes some five launches and writes the slots to memory and back; here a program holds the slots of a
block of tokens. Slots are computed again in the backward instead of being kept. It needs the package triton, which
torch's builds for GPUs bring, and is imported where a tensor is on one.

Shapes: U memories, T tokens of one memory's rows, D hidden size, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SILU, GELU_TANH = 0, 1
"""Activations that the kernel computes."""
BLOCK_TOKENS, BLOCK_SIZE = 16, 64


@triton.jit
def _activation(gate, KIND: tl.constexpr):
    """Return the activation of gate products and its derivative."""
    if KIND == 0:
        sigmoid = 1.0 / (1.0 + tl.exp(-gate))
        return gate * sigmoid, sigmoid * (1.0 + gate * (1.0 - sigmoid))
    inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
    tanh = 2.0 / (1.0 + tl.exp(-2.0 * inner)) - 1.0
    slope = 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * gate * gate)
    return 0.5 * gate * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * gate * (1.0 - tanh * tanh) * slope


@triton.jit
def _product(left, right, KIND: tl.constexpr):
    """Multiply two blocks and sum in fp32; KIND 1 multiplies fp32 as it is, not as tf32."""
    if KIND == 1:
        return tl.dot(left, right, input_precision="ieee")
    return tl.dot(left, right)


@triton.jit
def _gate_up(
    hidden, rows, memory, token, slot, T, D, W, BT: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr, FULL: tl.constexpr
):
    """Return gate and up products of a block of tokens, shape (BT, BW) each, fp32."""
    gate = tl.zeros((BT, BW), dtype=tl.float32)
    up = tl.zeros((BT, BW), dtype=tl.float32)
    for start in range(0, D, BD):
        place = start + tl.arange(0, BD)
        states = tl.load(
            hidden + (memory * T + token[:, None]) * D + place[None, :],
            mask=(token[:, None] < T) & (place[None, :] < D),
            other=0.0,
        )
        at = (memory * 3 * W + slot[:, None]) * D + place[None, :]
        is_there = (slot[:, None] < W) & (place[None, :] < D)
        gate += _product(states, tl.trans(tl.load(rows + at, mask=is_there, other=0.0)), FULL)
        up += _product(states, tl.trans(tl.load(rows + at + W * D, mask=is_there, other=0.0)), FULL)
    return gate, up


@triton.jit
def _forward(
    hidden,
    output,
    rows,
    total,
    T,
    D,
    W,
    BT: tl.constexpr,
    BW: tl.constexpr,
    BD: tl.constexpr,
    KIND: tl.constexpr,
    FULL: tl.constexpr,
):
    memory = tl.program_id(0)
    token = tl.program_id(1) * BT + tl.arange(0, BT)
    slot = tl.arange(0, BW)
    gate, up = _gate_up(hidden, rows, memory, token, slot, T, D, W, BT, BW, BD, FULL)
    active, _ = _activation(gate, KIND)
    slots = (active * up).to(rows.dtype.element_ty)
    for start in range(0, D, BD):
        place = start + tl.arange(0, BD)
        down = tl.load(
            rows + ((memory * 3 + 2) * W + slot[:, None]) * D + place[None, :],
            mask=(slot[:, None] < W) & (place[None, :] < D),
            other=0.0,
        )
        at = (memory * T + token[:, None]) * D + place[None, :]
        is_there = (token[:, None] < T) & (place[None, :] < D)
        base = tl.load(output + at, mask=is_there, other=0.0).to(tl.float32)
        tl.store(total + at, (base + _product(slots, down, FULL)).to(total.dtype.element_ty), mask=is_there)


@triton.jit
def _backward_tokens(
    hidden,
    rows,
    above,
    below,
    slots_out,
    gate_out,
    up_out,
    T,
    D,
    W,
    BT: tl.constexpr,
    BW: tl.constexpr,
    BD: tl.constexpr,
    KIND: tl.constexpr,
    FULL: tl.constexpr,
):
    """Write the gradient of the hidden states, and per slot what the gradients of the rows are made of."""
    memory = tl.program_id(0)
    token = tl.program_id(1) * BT + tl.arange(0, BT)
    slot = tl.arange(0, BW)
    gate, up = _gate_up(hidden, rows, memory, token, slot, T, D, W, BT, BW, BD, FULL)
    active, slope = _activation(gate, KIND)
    of_slots = tl.zeros((BT, BW), dtype=tl.float32)
    for start in range(0, D, BD):
        place = start + tl.arange(0, BD)
        is_there = (token[:, None] < T) & (place[None, :] < D)
        gradient = tl.load(above + (memory * T + token[:, None]) * D + place[None, :], mask=is_there, other=0.0)
        down = tl.load(
            rows + ((memory * 3 + 2) * W + slot[:, None]) * D + place[None, :],
            mask=(slot[:, None] < W) & (place[None, :] < D),
            other=0.0,
        )
        of_slots += _product(gradient, tl.trans(down), FULL)
    kind = rows.dtype.element_ty
    of_gate, of_up = (of_slots * up * slope).to(kind), (of_slots * active).to(kind)
    at = (memory * T + token[:, None]) * W + slot[None, :]
    is_slot = (token[:, None] < T) & (slot[None, :] < W)
    tl.store(slots_out + at, (active * up).to(kind), mask=is_slot)
    tl.store(gate_out + at, of_gate, mask=is_slot)
    tl.store(up_out + at, of_up, mask=is_slot)
    for start in range(0, D, BD):
        place = start + tl.arange(0, BD)
        row = (memory * 3 * W + slot[:, None]) * D + place[None, :]
        is_row = (slot[:, None] < W) & (place[None, :] < D)
        gradient = _product(of_gate, tl.load(rows + row, mask=is_row, other=0.0), FULL)
        gradient += _product(of_up, tl.load(rows + row + W * D, mask=is_row, other=0.0), FULL)
        tl.store(
            below + (memory * T + token[:, None]) * D + place[None, :],
            gradient.to(below.dtype.element_ty),
            mask=(token[:, None] < T) & (place[None, :] < D),
        )


@triton.jit
def _backward_rows(
    hidden,
    above,
    slots_in,
    gate_in,
    up_in,
    of_rows,
    T,
    D,
    W,
    BT: tl.constexpr,
    BW: tl.constexpr,
    BD: tl.constexpr,
    FULL: tl.constexpr,
):
    """Sum the gradients of one memory's rows over its tokens, for a block of the hidden size."""
    memory = tl.program_id(0)
    place = tl.program_id(1) * BD + tl.arange(0, BD)
    slot = tl.arange(0, BW)
    of_gate = tl.zeros((BW, BD), dtype=tl.float32)
    of_up = tl.zeros((BW, BD), dtype=tl.float32)
    of_down = tl.zeros((BW, BD), dtype=tl.float32)
    for start in range(0, T, BT):
        token = start + tl.arange(0, BT)
        is_there = (token[:, None] < T) & (place[None, :] < D)
        states = tl.load(hidden + (memory * T + token[:, None]) * D + place[None, :], mask=is_there, other=0.0)
        gradient = tl.load(above + (memory * T + token[:, None]) * D + place[None, :], mask=is_there, other=0.0)
        at = (memory * T + token[None, :]) * W + slot[:, None]
        is_slot = (token[None, :] < T) & (slot[:, None] < W)
        of_gate += _product(tl.load(gate_in + at, mask=is_slot, other=0.0), states, FULL)
        of_up += _product(tl.load(up_in + at, mask=is_slot, other=0.0), states, FULL)
        of_down += _product(tl.load(slots_in + at, mask=is_slot, other=0.0), gradient, FULL)
    row = (memory * 3 * W + slot[:, None]) * D + place[None, :]
    is_row = (slot[:, None] < W) & (place[None, :] < D)
    tl.store(of_rows + row, of_gate.to(of_rows.dtype.element_ty), mask=is_row)
    tl.store(of_rows + row + W * D, of_up.to(of_rows.dtype.element_ty), mask=is_row)
    tl.store(of_rows + row + 2 * W * D, of_down.to(of_rows.dtype.element_ty), mask=is_row)


class FusedSideFfn(torch.autograd.Function):
    """FFN(A) plus the memories' answer, with gradients of hidden states, output and rows."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, output: Tensor, rows: Tensor, kind: int) -> Tensor:
        """Run the kernel.

        Args:
            ctx: keeps what the backward needs.
            hidden: FFN input, shape (U, T, D), contiguous.
            output: FFN(A), shape (U, T, D), contiguous.
            rows: effective rows, shape (U, 3, W, D), contiguous, dtype of `hidden`.
            kind: `SILU` or `GELU_TANH`.

        Returns:
            Shape (U, T, D), dtype of `output`.
        """
        total = torch.empty_like(output)
        sizes, options = _sizes(hidden, rows)
        _forward[_tokens(hidden)](hidden, output, rows, total, *sizes, **options, KIND=kind)
        ctx.save_for_backward(hidden, rows)
        ctx.kind = kind
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Run both kernels of the backward."""
        above = gradients[0].contiguous()
        hidden, rows = ctx.saved_tensors
        sizes, options = _sizes(hidden, rows)
        below, of_rows = torch.empty_like(hidden), torch.empty_like(rows)
        parts = [hidden.new_empty(*hidden.shape[:2], rows.shape[2]) for _ in range(3)]
        _backward_tokens[_tokens(hidden)](hidden, rows, above, below, *parts, *sizes, **options, KIND=ctx.kind)
        blocks = (rows.shape[0], triton.cdiv(rows.shape[3], BLOCK_SIZE))
        _backward_rows[blocks](hidden, above, *parts, of_rows, *sizes, **options)
        return below, above, of_rows, None


def kind_of(activation: object) -> int | None:
    """Return which of the kernel's activations a backbone's is; None where it is another one."""
    if isinstance(activation, torch.nn.SiLU) or type(activation).__name__ == "SiLUActivation":
        return SILU
    return GELU_TANH if type(activation).__name__ in ("GELUTanh", "PytorchGELUTanh") else None


def _sizes(hidden: Tensor, rows: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    width = rows.shape[2]
    slots = max(16, triton.next_power_of_2(width))
    is_full = int(hidden.dtype == torch.float32)
    return (hidden.shape[1], hidden.shape[2], width), {
        "BT": BLOCK_TOKENS,
        "BW": slots,
        "BD": BLOCK_SIZE,
        "FULL": is_full,
    }


def _tokens(hidden: Tensor) -> tuple[int, int]:
    return hidden.shape[0], triton.cdiv(hidden.shape[1], BLOCK_TOKENS)
