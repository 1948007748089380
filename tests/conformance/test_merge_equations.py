"""Merging and the LoRA equivalence, weight by weight against the equations, on every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.exports.dense import merge
from locas_agent.exports.lora import adapter_tensors
from locas_agent.exports.widening import folded_rows
from locas_agent.memory import LocasMemory
from locas_agent.memory.slab import DOWN, GATE, UP
from tests.conformance import equations
from tests.conformance.samples import trained
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build

WIDTH, SLOTS = 5, 16
"""48 neurons and 5 slots, rounded up to a multiple of 32: 64."""


@pytest.fixture(scope="module", params=sorted(SUPPORTED))
def merged(request: pytest.FixtureRequest) -> tuple[Backbone, LocasMemory, dict[str, Tensor]]:
    backbone = Backbone(build(request.param), byte_tokenizer(), name=request.param)
    memory = trained(backbone, WIDTH, 4)
    return backbone, memory, merge(backbone, memory, multiple=32).state_dict()


def expected_rows(memory: LocasMemory, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped gate and key rows, clipped value rows times tau, zeros up to the multiple; (SLOTS, d) each."""
    rows = []
    for kind, factor in ((GATE, 1.0), (UP, 1.0), (DOWN, float(memory.scale[layer]))):
        own = factor * equations.clip(memory.slab[layer, kind])
        rows.append(torch.cat([own, torch.zeros(SLOTS - WIDTH, own.shape[1], dtype=torch.float64)]))
    return rows[0], rows[1], rows[2]


def test_rows_are_appended_to_gate_and_up_and_columns_to_down(
    merged: tuple[Backbone, LocasMemory, dict[str, Tensor]],
) -> None:
    backbone, memory, dense = merged
    for layer, block in enumerate(backbone.decoder.layers):
        w_gate, w_up, w_down = equations.ffn_weights(block.mlp)
        gate, up, down = expected_rows(memory, layer)
        base = f"model.layers.{layer}.mlp."
        torch.testing.assert_close(
            dense[base + "down_proj.weight"].double(), torch.cat([w_down, down.T], dim=1), atol=1e-7, rtol=1e-6
        )
        if base + "gate_up_proj.weight" in dense:
            expected = torch.cat([w_gate, gate, w_up, up])
            torch.testing.assert_close(dense[base + "gate_up_proj.weight"].double(), expected, atol=1e-7, rtol=1e-6)
        else:
            torch.testing.assert_close(
                dense[base + "gate_proj.weight"].double(), torch.cat([w_gate, gate]), atol=1e-7, rtol=1e-6
            )
            torch.testing.assert_close(
                dense[base + "up_proj.weight"].double(), torch.cat([w_up, up]), atol=1e-7, rtol=1e-6
            )


def test_nothing_else_of_the_backbone_changes(merged: tuple[Backbone, LocasMemory, dict[str, Tensor]]) -> None:
    backbone, _, dense = merged
    before = backbone.model.state_dict()
    assert set(dense) == set(before)
    # biases of a wider layer are their old values and zeros
    for name, tensor in before.items():
        if ".mlp." not in name:
            assert torch.equal(dense[name], tensor)
        elif name.endswith("bias"):
            assert torch.equal(dense[name][: len(tensor)], tensor)
            assert not dense[name][len(tensor) :].any()


def test_padded_base_plus_b_times_a_is_the_merged_weight(
    merged: tuple[Backbone, LocasMemory, dict[str, Tensor]],
) -> None:
    backbone, memory, dense = merged
    adapter = adapter_tensors(backbone, folded_rows(backbone, memory, SLOTS), memory)
    modules = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in adapter}
    assert len(modules) == len(adapter) / 2 == 2 * (2 if any("gate_up" in name for name in adapter) else 3)
    for module in modules:
        a, b = (adapter[f"base_model.model.{module}.lora_{letter}.weight"].double() for letter in "AB")
        original = backbone.model.get_submodule(module).weight.detach().double()
        padded = torch.zeros(dense[f"{module}.weight"].shape, dtype=torch.float64)
        if module.endswith("gate_up_proj"):  # zeros after the gate half and after the up half
            half, new = original.shape[0] // 2, padded.shape[0] // 2
            padded[:half], padded[new : new + half] = original[:half], original[half:]
        else:
            padded[: original.shape[0], : original.shape[1]] = original
        assert (b @ a).abs().max() > 0.1
        assert torch.equal(
            padded + b @ a, dense[f"{module}.weight"].double()
        )  # identities and zeros: no rounding at all
