"""A memory's own facts: the clip, its sizes, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from locas_agent.errors import IncompatibleMemory
from locas_agent.memory import LocasMemory, MemoryBatch
from tests.conftest import MakeBackbone, MakeMemory


def test_clip_shrinks_long_rows_only_and_is_idempotent_to_the_bit(make_memory: MakeMemory) -> None:
    memory = make_memory(1, width=16, down=0.2)  # norms of down rows about 0.2 * sqrt(32) = 1.13, on both sides of 1
    once = memory.clipped()
    norms, clipped = memory.row_norms(), once.row_norms()
    assert bool((norms > 1.05).any())
    assert bool((norms < 0.95).any())
    torch.testing.assert_close(clipped, norms.clamp_max(1.0))
    short = norms <= 1.0
    assert torch.equal(once.slab[short], memory.slab[short])
    assert torch.equal(once.clipped().slab, once.slab)


def test_clipped_share_counts_rows_at_the_limit(make_memory: MakeMemory) -> None:
    assert make_memory(1, down=0.0).clipped_share() == pytest.approx(2 / 3)  # gate and up rows start at norm 1
    assert make_memory(1, down=100.0).clipped_share() == 1.0


def test_views_and_sizes(make_memory: MakeMemory) -> None:
    memory = make_memory(1, width=5)
    assert (memory.n_layers, memory.width, memory.hidden_size) == (2, 5, 32)
    assert memory.parameter_count == 3 * 2 * 5 * 32
    assert torch.equal(torch.stack([memory.gate_rows, memory.up_rows, memory.down_rows], dim=1), memory.slab)


def test_memory_of_the_wrong_dtype_is_refused(make_memory: MakeMemory) -> None:
    memory = make_memory(1)
    with pytest.raises(IncompatibleMemory, match="fp32"):
        dataclasses.replace(memory, slab=memory.slab.half())
    with pytest.raises(IncompatibleMemory, match="neuron_indices"):
        dataclasses.replace(memory, neuron_indices=memory.neuron_indices[:, :2])


def test_memory_of_another_size_is_refused(make_memory: MakeMemory, make_backbone: MakeBackbone) -> None:
    backbone, memory = make_backbone(), make_memory(1)
    wide = LocasMemory(
        slab=torch.zeros(2, 3, 4, 64),
        scale=memory.scale,
        neuron_indices=memory.neuron_indices,
        fingerprint=memory.fingerprint,
        initialization="random",
    )
    with pytest.raises(IncompatibleMemory, match="hidden size 64"):
        MemoryBatch.of([wide], backbone)
