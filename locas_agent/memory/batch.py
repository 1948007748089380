"""The batch of memories one forward takes.

Shapes: L layers that carry a memory, numbered from the last (-1); U memories of a batch,
B input rows, W width (slots per layer), D hidden size. Axis 3 of every slab
is gate, up, down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.memory.slab import LocasMemory, check_layers, effective_rows, topmost

if TYPE_CHECKING:
    from locas_agent.backbone import Backbone


class ReadyRows(NamedTuple):
    """The effective rows of one memory where and as a forward takes them.

    Attributes:
        rows: shape (L, 3, W, D), compute dtype, on the device.
        layers: the layers they stand beside, numbered from the last (-1), ascending.
        certainty: how sure it has to be of an answer's first token, see `MemoryBatch.certainties`.
    """

    rows: Tensor
    layers: tuple[int, ...]
    certainty: float = 0.0


@dataclass(frozen=True, eq=False)
class MemoryBatch:
    """The memories of one forward, ready for the device: input row b uses memory b // rows_per_memory.

    Attributes:
        rows: effective rows, shape (L, U, 3, W, D), compute dtype, on the device; may require grad.
        rows_per_memory: R, how many consecutive input rows share a memory, so that B = U * R.
        layers: the layers they stand beside, numbered from the last (-1), ascending; the L topmost unless given.
        certainties: of each memory, how probable it has to make the first token of an answer to be the one that writes
            it; below that the bare backbone answers (`inference/decoding.py`). 0 for all unless given.
    """

    rows: Tensor
    rows_per_memory: int = 1
    layers: tuple[int, ...] = ()
    certainties: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse anything that is not a slab of slabs."""
        if self.rows.dim() != 5 or self.rows.shape[2] != 3:
            raise IncompatibleMemory(f"rows have shape (L, U, 3, W, D), got {tuple(self.rows.shape)}")
        if self.rows_per_memory < 1:
            raise ConfigurationError(f"rows_per_memory is at least 1, got {self.rows_per_memory}")
        if not self.layers:
            object.__setattr__(self, "layers", topmost(self.rows.shape[0]))
        check_layers(self.layers, self.rows.shape[0])
        if not self.certainties:
            object.__setattr__(self, "certainties", (0.0,) * self.rows.shape[1])
        if len(self.certainties) != self.rows.shape[1]:
            raise ConfigurationError(
                f"certainties: one for each of {self.rows.shape[1]} memories, got {len(self.certainties)}"
            )

    @property
    def n_memories(self) -> int:
        """U, memories in the batch."""
        return self.rows.shape[1]

    @property
    def n_rows(self) -> int:
        """B = U * R, the input rows this batch serves."""
        return self.n_memories * self.rows_per_memory

    @classmethod
    def of(cls, memories: Sequence[LocasMemory | None], backbone: Backbone, rows_per_memory: int = 1) -> MemoryBatch:
        """Stack memories for one forward on a backbone.

        Narrower memories and those beside fewer or other layers get zero slots, which is exact; None is a memory of
        zero slots only, so its rows get the bare backbone. Where every entry is None, pass None to the engine instead:
        that skips the side FFN. Build a batch when its memories change, not per step: it copies every slab.

        Args:
            memories: one entry per group of `rows_per_memory` input rows, at least one.
            backbone: the backbone all of them belong to.
            rows_per_memory: consecutive input rows per memory.

        Returns:
            The batch in the backbone's dtype on its device, cut off from autograd.

        Raises:
            IncompatibleMemory: fingerprint or shape differs from the backbone's.
            ConfigurationError: `memories` is empty.
        """
        ready = [None if memory is None else ready_rows(memory, backbone) for memory in memories]
        return cls.stacked(ready, backbone, rows_per_memory)

    @classmethod
    def stacked(cls, ready: Sequence[ReadyRows | None], backbone: Backbone, rows_per_memory: int = 1) -> MemoryBatch:
        """Stack rows that are ready already, for a caller that keeps those of memories that come again; see `of`.

        Args:
            ready: from `ready_rows` on this backbone; None is a memory of zero slots only.
            backbone: gives dtype and device.
            rows_per_memory: consecutive input rows per memory.
        """
        if not ready:
            raise ConfigurationError(
                "a batch needs at least one memory, got none; pass memory=None for the bare backbone"
            )
        own = [each for each in ready if each is not None]
        layers = tuple(sorted({layer for each in own for layer in each.layers} or {-1}))
        width = max((each.rows.shape[2] for each in own), default=1)
        rows = torch.zeros(
            len(layers), len(ready), 3, width, backbone.hidden_size, dtype=backbone.dtype, device=backbone.device
        )
        for index, each in enumerate(ready):
            if each is not None:
                at = [layers.index(layer) for layer in each.layers]
                rows[at, index, :, : each.rows.shape[2]] = each.rows  # (L, 3, W, D)
        certainties = tuple(0.0 if each is None else each.certainty for each in ready)
        return cls(rows=rows, rows_per_memory=rows_per_memory, layers=layers, certainties=certainties)

    @classmethod
    def joined(cls, parts: Sequence[tuple[MemoryBatch | None, int]], backbone: Backbone) -> MemoryBatch | None:
        """Put batches behind one another, for rows that come to others.

        Args:
            parts: each a batch, or None for the bare backbone, and how many input rows it serves.
            backbone: gives dtype and device.

        Returns:
            A batch that serves all of them; None where all of them are bare.
        """
        if all(batch is None for batch, _ in parts):
            return None
        ready = [own for batch, rows in parts for own in ([None] * rows if batch is None else batch._ready_rows())]
        return cls.stacked(ready, backbone)

    @classmethod
    def training(
        cls,
        slab: Tensor,
        scale: Tensor,
        backbone: Backbone,
        rows_per_memory: int = 1,
        *,
        layers: tuple[int, ...] = (),
    ) -> MemoryBatch:
        """The batch of master rows under training; gradients flow back to `slab` through the clip.

        Args:
            slab: master rows of all users, shape (L, U, 3, W, D), fp32.
            scale: output scales, shape (L, U).
            backbone: gives dtype and device.
            rows_per_memory: consecutive input rows per memory.
            layers: the layers they stand beside, numbered from the last (-1); the L topmost unless given.

        Returns:
            The batch, part of the autograd graph.
        """
        rows = effective_rows(slab, scale).to(device=backbone.device, dtype=backbone.dtype)
        return cls(rows=rows, rows_per_memory=rows_per_memory, layers=layers)

    def certainty(self, row: int) -> float:
        """How sure an input row's memory has to be of an answer's first token."""
        return self.certainties[row // self.rows_per_memory]

    def _ready_rows(self) -> list[ReadyRows]:
        """What each input row uses."""
        memories = [row // self.rows_per_memory for row in range(self.n_rows)]
        return [ReadyRows(self.rows[:, memory], self.layers, self.certainties[memory]) for memory in memories]

    def select(self, indices: Sequence[int]) -> MemoryBatch:
        """The batch for a choice of input rows, in the order given.

        Args:
            indices: input rows, each 0..B-1, at least one.

        Returns:
            A batch serving `len(indices)` rows. Equal runs of rows of one memory stay shared, others get a copy each.
        """
        chosen = [index // self.rows_per_memory for index in indices]
        if not chosen or min(indices) < 0 or max(indices) >= self.n_rows:
            raise ConfigurationError(f"row indices are 0..{self.n_rows - 1} and at least one, got {list(indices)}")
        starts = [at for at, memory in enumerate(chosen) if at == 0 or memory != chosen[at - 1]]
        lengths = [end - start for start, end in zip(starts, [*starts[1:], len(chosen)], strict=True)]
        shared = math.gcd(*lengths)
        memories = chosen[::shared]
        certainties = tuple(self.certainties[memory] for memory in memories)
        if memories == list(range(self.n_memories)):
            return MemoryBatch(self.rows, shared, self.layers, certainties)
        at = torch.tensor(memories, dtype=torch.int64, device=self.rows.device)
        return MemoryBatch(self.rows.index_select(1, at), shared, self.layers, certainties)


def ready_rows(memory: LocasMemory, backbone: Backbone) -> ReadyRows:
    """The effective rows of one memory in the backbone's dtype, on its device, cut off from autograd.

    Raises:
        IncompatibleMemory: fingerprint or shape differs from the backbone's.
    """
    check_fits(memory, backbone)
    rows = effective_rows(memory.slab.detach(), memory.scale).to(device=backbone.device, dtype=backbone.dtype)
    return ReadyRows(rows, memory.layers)


def check_fits(memory: LocasMemory, backbone: Backbone) -> None:
    """Raise unless a memory has the backbone's shape and fingerprint; the shape first, because it is free.

    Raises:
        IncompatibleMemory: it has not.
    """
    lowest = -memory.layers[0]
    if lowest > backbone.n_layers or memory.hidden_size != backbone.hidden_size:
        raise IncompatibleMemory(
            f"the memory has {lowest} layers of hidden size {memory.hidden_size}, "
            f"backbone {backbone.name!r} has {backbone.n_layers} of {backbone.hidden_size}"
        )
    if memory.fingerprint != backbone.fingerprint:
        raise IncompatibleMemory(
            f"the memory belongs to the backbone with fingerprint {memory.fingerprint[:12]}, {backbone.name!r} has "
            f"{backbone.fingerprint[:12]}; load the backbone it was trained on, or consolidate the journal anew"
        )
