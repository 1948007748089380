"""Locas-GLU on every family: structure, clip, scale, initialisation and gradient against the equations in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.inference import Engine
from locas_agent.inference.composition import compose
from locas_agent.memory import MemoryBatch
from locas_agent.memory.attach import side_ffn
from locas_agent.memory.slab import DOWN, GATE, UP, clip_rows, effective_rows
from locas_agent.training.initialization import initialize, mean_activations, output_scale
from tests.conformance import equations
from tests.conformance.samples import trained
from tests.conftest import byte_tokenizer
from tests.unit.core.architectures import SUPPORTED, build

TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8]]
ROUNDING = {"atol": 2e-5, "rtol": 2e-5}
"""fp32 against float64: sums of some 50 products of numbers up to about 5."""


@pytest.fixture(scope="module", params=sorted(SUPPORTED))
def family(request: pytest.FixtureRequest) -> tuple[str, Backbone]:
    return request.param, Backbone(build(request.param), byte_tokenizer(), name=request.param)


def mlps(backbone: Backbone) -> list[Any]:
    return [layer.mlp for layer in backbone.decoder.layers]


def seen_by(backbone: Backbone, ids: Tensor, memory: MemoryBatch | None) -> list[tuple[Tensor, Tensor]]:
    """Of each layer the FFN's input A and what leaves the FFN's place, both (B, T, d), from a forward of ours."""
    seen: list[tuple[Tensor, Tensor]] = []
    handles = [
        mlp.register_forward_hook(lambda _m, args, out: seen.append((args[0].detach(), out.detach())))
        for mlp in mlps(backbone)
    ]
    Engine(backbone).logits(ids, memory=memory)
    for handle in handles:
        handle.remove()
    return seen


def test_structure_is_ffn_plus_tau_times_locas_for_each_row_its_own_memory(family: tuple[str, Backbone]) -> None:
    name, backbone = family
    memories = [trained(backbone, 3, 1), None, trained(backbone, 5, 2, layers=1)]
    ids = torch.randint(0, 256, (3, 9))
    act = equations.activation_of(name)
    seen = seen_by(backbone, ids, MemoryBatch.of(memories, backbone))
    largest = 0.0
    for layer, (mlp, (a, out)) in enumerate(zip(mlps(backbone), seen, strict=True)):
        for row, memory in enumerate(memories):
            expected = equations.ffn(mlp, a[row], act)
            at = -1 if memory is None else layer - (backbone.n_layers - memory.n_layers)
            if memory is not None and at >= 0:
                added = equations.locas(a[row], *(memory.slab[at, kind] for kind in (GATE, UP, DOWN)), act)
                expected = expected + float(memory.scale[at]) * added
                largest = max(largest, float((memory.scale[at] * added).abs().max()))
            torch.testing.assert_close(out[row].double(), expected, **ROUNDING)
    assert largest > 0.1  # without the added term the comparison fails


def test_clip_is_division_by_the_norm_where_that_exceeds_1() -> None:
    rows = torch.randn(2, 3, 4, 16) * torch.tensor([0.05, 0.2, 0.5, 3.0])[:, None]
    assert ((rows.norm(dim=-1) > 1).any(), (rows.norm(dim=-1) < 1).any()) == (True, True)
    torch.testing.assert_close(
        clip_rows(rows).double(), equations.clip(rows), atol=1e-6, rtol=1e-5
    )  # fp32 rounding of one quotient


def test_output_scale_is_the_mean_column_norm_of_down_proj_over_r(family: tuple[str, Backbone]) -> None:
    _, backbone = family
    for r in (1, 16):
        expected = torch.tensor([equations.tau(mlp, r) for mlp in mlps(backbone)], dtype=torch.float64)
        torch.testing.assert_close(output_scale(backbone, width=r, rule="width").double(), expected, atol=0, rtol=1e-5)
        # the other two rules are ours: the same mean, divided by the root of r and undivided
        torch.testing.assert_close(
            output_scale(backbone, width=r, rule="sqrt").double(), expected * r**0.5, atol=0, rtol=1e-5
        )
        torch.testing.assert_close(
            output_scale(backbone, width=r, rule="none").double(), expected * r, atol=0, rtol=1e-5
        )


def test_importance_is_the_mean_absolute_activation(family: tuple[str, Backbone]) -> None:
    name, backbone = family
    expected = alphas(name, backbone)
    for got, alpha in zip(mean_activations(backbone, [TEXTS])[0], expected, strict=True):
        torch.testing.assert_close(got, alpha, atol=1e-6, rtol=1e-5)  # fp32 activations, summed in float64


@pytest.mark.parametrize("method", ["highest", "lowest"])
def test_rows_are_normalised_clones_of_the_ranked_neurons_and_values_are_zero(
    family: tuple[str, Backbone], method: str
) -> None:
    name, backbone = family
    memory = initialize(backbone, TEXTS, width=6, method=method)  # type: ignore[arg-type]
    for layer, (mlp, alpha) in enumerate(zip(mlps(backbone), alphas(name, backbone), strict=True)):
        ranked = sorted(range(len(alpha)), key=lambda j: float(alpha[j]), reverse=method == "highest")[:6]
        assert memory.neuron_indices[layer].tolist() == ranked
        w_gate, w_up, _ = equations.ffn_weights(mlp)
        for slot, j in enumerate(ranked):
            torch.testing.assert_close(
                memory.gate_rows[layer, slot].double(), w_gate[j] / w_gate[j].norm(), atol=1e-6, rtol=1e-5
            )
            torch.testing.assert_close(
                memory.up_rows[layer, slot].double(), w_up[j] / w_up[j].norm(), atol=1e-6, rtol=1e-5
            )
    assert not memory.down_rows.any()


def alphas(name: str, backbone: Backbone) -> list[Tensor]:
    act = equations.activation_of(name)
    found: list[list[Tensor]] = [[] for _ in range(backbone.n_layers)]
    for text in TEXTS:
        for layer, (mlp, (a, _)) in enumerate(
            zip(mlps(backbone), seen_by(backbone, torch.tensor([text]), None), strict=True)
        ):
            found[layer].append(equations.intermediate(mlp, a[0], act).abs())
    return [torch.cat(parts).mean(dim=0) for parts in found]


def test_random_rows_are_normalised_gaussian_ones() -> None:
    backbone = Backbone(build("qwen3"), byte_tokenizer(), name="qwen3")
    rows = initialize(backbone, [], width=48, method="random", seed=3).slab[:, :DOWN].double()
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2, 2, 48, dtype=torch.float64), atol=1e-6, rtol=0)
    # 192 directions drawn without preference: their mean is as long as that of 192 random unit vectors, 1 / sqrt(192) =
    # 0.07
    assert rows.reshape(-1, 32).mean(dim=0).norm() < 0.15


def test_a_memory_holds_3_l_d_r_numbers(family: tuple[str, Backbone]) -> None:
    _, backbone = family
    assert initialize(backbone, [], width=7, method="random").parameter_count == 3 * 2 * 32 * 7


@pytest.mark.parametrize("name", ["qwen3", "gemma"])
def test_gradient_is_that_of_the_equation_through_clip_and_scale(name: str) -> None:
    act = equations.activation_of(name)
    site = Backbone(build(name), byte_tokenizer(), name=name).sites[0]
    generator = torch.Generator().manual_seed(0)
    a, probe = torch.randn(1, 6, 32, generator=generator), torch.randn(6, 32, generator=generator)
    slab = torch.randn(1, 1, 3, 4, 32, generator=generator) * torch.tensor([0.1, 0.15, 0.5, 2.0])[:, None]
    ours = slab.clone().requires_grad_()
    rows = effective_rows(ours, torch.tensor([[0.7]]))[0]
    (side_ffn(a, torch.zeros_like(a), rows, site.activation)[0] * probe).sum().backward()
    theirs = slab[0, 0].double().requires_grad_()
    clipped = theirs / theirs.norm(dim=-1, keepdim=True).clamp_min(1.0)
    g, k, v = clipped[GATE], clipped[UP], clipped[DOWN]
    (0.7 * (act(a[0].double() @ g.T) * (a[0].double() @ k.T)) @ v * probe.double()).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert theirs.grad.abs().max() > 0.1
    torch.testing.assert_close(ours.grad[0, 0].double(), theirs.grad, **ROUNDING)


def test_composed_memories_add_up_in_a_layer(family: tuple[str, Backbone]) -> None:
    name, backbone = family
    act = equations.activation_of(name)
    first, second = trained(backbone, 3, 1), trained(backbone, 2, 2, layers=1)
    both = compose(first, second)
    a = torch.randn(5, 32)
    for layer, mlp in enumerate(mlps(backbone)):
        site = backbone.sites[layer]
        got = side_ffn(
            a[None], mlp(a[None]), effective_rows(both.slab, both.scale)[layer : layer + 1], site.activation
        )[0]
        expected = equations.ffn(mlp, a, act)
        for memory in (first, second):
            at = layer - (backbone.n_layers - memory.n_layers)
            if at >= 0:
                expected = expected + float(memory.scale[at]) * equations.locas(
                    a, *(memory.slab[at, kind] for kind in (GATE, UP, DOWN)), act
                )
        torch.testing.assert_close(got.double(), expected, **ROUNDING)
