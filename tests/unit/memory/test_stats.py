"""What a memory looks like inside."""

from __future__ import annotations

import pytest
import torch

from locas_agent.memory.slab import DOWN
from locas_agent.memory.stats import layer_stats
from tests.conftest import MakeMemory


def test_figures_of_a_layer_are_means_and_shares_of_its_rows(make_memory: MakeMemory) -> None:
    memory = make_memory(1)
    memory.slab[0, DOWN] = torch.eye(4, 32) * torch.tensor([0.25, 0.5, 1.0, 3.0])[:, None]
    memory.scale.copy_(torch.tensor([0.5, 2.0]))
    lower, last = layer_stats(memory)
    assert (lower.layer, last.layer) == (1, 0)
    assert lower.down_norm == pytest.approx((0.25 + 0.5 + 1.0 + 3.0) / 4)
    assert (lower.clipped_gate, lower.clipped_up, lower.clipped_down) == (1.0, 1.0, 0.5)
    assert lower.gate_norm == pytest.approx(1.0)
    assert (lower.scale, lower.largest_push) == (0.5, 0.5)  # the longest row counts as 1
    assert last.largest_push == pytest.approx(2.0 * min(1.0, float(memory.down_rows[1].norm(dim=-1).max())))
