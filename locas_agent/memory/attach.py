"""The side FFN beside each frozen FFN, for the duration of one forward.

Knows nothing of users, tokens or training: it sees hidden states and the rows it is handed.

Memory is an argument, never state of a module. Hooks are installed once per backbone and never change; what they read
is a ContextVar that is set for exactly one forward, so forwards of several threads or tasks on one backbone do not
see each other's memories. Swapping hooks per call instead would race with a forward under way in another thread.

Shapes: B input rows, T tokens, D hidden size, U memories, R rows per memory (B = U * R), W width, N neurons of the
backbone's FFN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from locas_agent.errors import IncompatibleMemory

if TYPE_CHECKING:
    from locas_agent.backbone import Backbone
    from locas_agent.memory.batch import MemoryBatch

Activation = Callable[[Tensor], Tensor]
Observer = Callable[[int, Tensor], None]
"""Receives a layer index and the intermediate activations act(gate A) * (up A), shape (B, T, N)."""
Recorder = Callable[[str, Tensor], None]
"""Receives "ffn_input" and "ffn_output" of the last layer and "residual", what enters the final norm; shape (B, T, D) each."""


@dataclass(frozen=True)
class _Forward:
    """What the hooks of one backbone read during one forward."""

    key: object
    batch: MemoryBatch | None = None
    observer: Observer | None = None
    recorder: Recorder | None = None


_FORWARD: ContextVar[_Forward | None] = ContextVar("locas_forward", default=None)


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


def install(backbone: Backbone) -> object:
    """Register the hooks of one backbone, once in its life.

    Args:
        backbone: its sites are already known.

    Returns:
        The key by which this backbone's hooks know that a forward is theirs.
    """
    key = object()
    for layer, site in enumerate(backbone.sites):
        site.module.register_forward_hook(_add_side_ffn(key, layer, len(backbone.sites), site.activation))
        site.down_proj.register_forward_pre_hook(_show_intermediate(key, layer))
    backbone.sites[-1].module.register_forward_hook(_record_ffn(key))
    if isinstance(norm := getattr(backbone.decoder, "norm", None), nn.Module):
        norm.register_forward_pre_hook(_record_residual(key))
    return key


def uninstall(model: nn.Module) -> None:
    """Take what `install` registered off a copy of a model, which carries it along; hooks of others stay."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number in [number for number, hook in hooks.items() if getattr(hook, "__module__", None) == __name__]:
                del hooks[number]


@contextmanager
def attached(backbone: Backbone, batch: MemoryBatch | None) -> Iterator[None]:
    """Let the forwards inside the block, in this thread or task, use a batch of memories.

    Used inside `Engine` around exactly one forward; never keep it open across a `yield` to a caller.

    Args:
        backbone: whose FFNs are meant.
        batch: one memory per group of input rows; None leaves the backbone bare, bit for bit.
    """
    with _entered(_Forward(backbone.hook_key, batch=batch)):
        yield


@contextmanager
def observed(backbone: Backbone, observer: Observer) -> Iterator[None]:
    """Show every FFN's intermediate activations of the bare backbone to an observer.

    Args:
        backbone: whose FFNs are meant.
        observer: called once per layer and forward with shape (B, T, N).
    """
    with _entered(_Forward(backbone.hook_key, observer=observer)):
        yield


@contextmanager
def recorded(backbone: Backbone, recorder: Recorder) -> Iterator[None]:
    """Show the last FFN's input and output, and what enters the final norm, of the bare backbone to a recorder.

    Args:
        backbone: whose last layer is meant.
        recorder: called three times per forward; never with "residual" where the decoder has no final norm by that name.
    """
    with _entered(_Forward(backbone.hook_key, recorder=recorder)):
        yield


@contextmanager
def _entered(forward: _Forward) -> Iterator[None]:
    token = _FORWARD.set(forward)
    try:
        yield
    finally:
        _FORWARD.reset(token)


def _add_side_ffn(key: object, layer: int, layers: int, activation: Activation) -> Callable[[nn.Module, Any, Any], Tensor | None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        forward = _FORWARD.get()
        if forward is None or forward.key is not key or forward.batch is None:
            return None
        batch, hidden = forward.batch, args[0]
        if hidden.shape[0] != batch.n_rows:
            raise IncompatibleMemory(
                f"a batch of {batch.n_memories} memories with {batch.rows_per_memory} rows each serves {batch.n_rows} "
                f"input rows, got {hidden.shape[0]}; build it for these rows or use MemoryBatch.select"
            )
        # a batch has rows for the top layers only, as many as its memories have
        at = layer - (layers - batch.rows.shape[0])
        return side_ffn(hidden, output, batch.rows[at], activation) if at >= 0 else None

    return hook


def _record_ffn(key: object) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        forward = _FORWARD.get()
        if forward is not None and forward.key is key and forward.recorder is not None:
            forward.recorder("ffn_input", args[0])
            forward.recorder("ffn_output", output)

    return hook


def _record_residual(key: object) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        forward = _FORWARD.get()
        if forward is not None and forward.key is key and forward.recorder is not None:
            forward.recorder("residual", args[0])

    return hook


def _show_intermediate(key: object, layer: int) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        forward = _FORWARD.get()
        if forward is not None and forward.key is key and forward.observer is not None:
            forward.observer(layer, args[0])

    return hook
