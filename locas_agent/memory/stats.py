"""Looking into a memory: norms and saturation of its rows, layer by layer.

What a memory does to a text is `UserMemory.explain`.
"""

from __future__ import annotations

from dataclasses import dataclass

from locas_agent.memory.slab import DOWN, GATE, NORM_SLACK, UP, LocasMemory


@dataclass(frozen=True, slots=True)
class LayerStats:
    """The rows of one layer.

    Attributes:
        layer: number from the top of the backbone, 0 is the last layer.
        scale: output scale tau.
        gate_norm, up_norm, down_norm: mean L2 norm of the rows as trained; a row is used as if it were at most 1 long.
        clipped_gate, clipped_up, clipped_down: share of rows at or above norm 1, where the clip binds. Gate and up rows
            of a new memory start there; down rows start at 0, and their share tells how full the memory is.
        largest_push: the largest length of a slot's output vector, tau times its down row: at most tau.
    """

    layer: int
    scale: float
    gate_norm: float
    up_norm: float
    down_norm: float
    clipped_gate: float
    clipped_up: float
    clipped_down: float
    largest_push: float


def layer_stats(memory: LocasMemory) -> tuple[LayerStats, ...]:
    """Return the figures of every layer that carries the memory, the lowest first."""
    norms = memory.row_norms().double().cpu()  # (L, 3, W)
    means, shares = norms.mean(dim=-1), (norms >= 1.0 - NORM_SLACK).double().mean(dim=-1)  # (L, 3)
    pushes = norms[:, DOWN].clamp_max(1.0).amax(dim=-1) * memory.scale.double().cpu()  # (L,)
    return tuple(
        LayerStats(
            -1 - memory.layers[at],
            float(memory.scale[at]),
            float(means[at, GATE]),
            float(means[at, UP]),
            float(means[at, DOWN]),
            float(shares[at, GATE]),
            float(shares[at, UP]),
            float(shares[at, DOWN]),
            float(pushes[at]),
        )
        for at in range(memory.n_layers)
    )
