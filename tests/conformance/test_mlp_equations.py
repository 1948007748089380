"""Locas-MLP on OPT against its equations, written from the paper's side in float64.

Keys, values, the side FFN, one write as a step, NL-SVD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from locas_agent.paper.mlp import MlpMemory, ReluBackbone, clone, compress, write
from tests.conformance.equations import clip
from tests.unit.core.architectures import build

TEXT = torch.tensor([72, 3, 141, 59, 26, 53, 58, 97, 93])
PAIR = torch.tensor([72, 3])
"""One token that predicts one token: a write acts at one place only."""


@pytest.fixture(scope="module")
def backbone() -> ReluBackbone:
    return ReluBackbone(build("opt"), name="opt")


@pytest.fixture(scope="module")
def model() -> Any:
    """The same weights in float64, with no hook of ours."""
    return build("opt").double().eval().requires_grad_(False)


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def locas_mlp(a: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """V^T ReLU(K^T A) with clipped rows, slot by slot; a (n, d)."""
    return sum((relu(a @ k)[:, None] * v for k, v in zip(clip(keys), clip(values), strict=True)), torch.zeros_like(a))


@contextmanager
def ffns(model: Any, add: Any) -> Iterator[list[Tensor]]:
    """Collect A of every layer, and replace each FFN's output H by H + add(layer, A)."""
    inputs: list[Tensor] = []
    hooks = []
    for layer, block in enumerate(model.get_decoder().layers):
        hooks.append(block.fc1.register_forward_pre_hook(lambda _module, args: inputs.append(args[0])))
        hooks.append(
            block.fc2.register_forward_hook(lambda _module, _args, h, layer=layer: h + add(layer, inputs[layer]))
        )
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def log_p(model: Any, ids: Tensor, add: Any) -> tuple[Tensor, list[Tensor]]:
    """Log-likelihood of every token after the first, and A of every layer."""
    with ffns(model, add) as inputs:
        logits = model(input_ids=ids[None]).logits[0]
    shifted = logits - logits.exp().sum(-1, keepdim=True).log()
    return shifted[torch.arange(len(ids) - 1), ids[1:]], inputs


def gradients(model: Any, ids: Tensor, token: int) -> tuple[Tensor, Tensor]:
    """A and the gradient of log p(x_token | what is before) at every FFN output, both (L, T, d)."""
    at = [torch.zeros(len(ids), 32, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    likelihood, inputs = log_p(model, ids, lambda layer, _a: at[layer])
    return torch.stack(inputs).detach(), torch.stack(torch.autograd.grad(likelihood[token - 1], at))


def one(memory: MlpMemory, slot: int) -> MlpMemory:
    return MlpMemory(memory.keys[:, slot : slot + 1], memory.values[:, slot : slot + 1], memory.scale)


def rise(backbone: ReluBackbone, ids: Tensor, memory: MlpMemory, token: int) -> float:
    with torch.no_grad():
        return float(
            backbone.compute_nll(ids[None])[0, token - 1] - backbone.compute_nll(ids[None], memory)[0, token - 1]
        )


def test_keys_are_activations_and_values_globally_normalised_likelihood_gradients(
    backbone: ReluBackbone, model: Any
) -> None:
    memory = write(backbone, TEXT, epsilon=0.7)
    assert memory.width == len(TEXT) - 1  # one slot per token that is predicted
    for token in range(1, len(TEXT)):
        a, g = gradients(model, TEXT, token)
        place, slot = token - 1, token - 1
        norm = (
            sum(float((g[layer, place] ** 2).sum()) for layer in range(2)) ** 0.5
        )  # over layers and hidden size together
        for layer in range(2):
            torch.testing.assert_close(
                memory.keys[layer, slot].double(), a[layer, place] / a[layer, place].norm(), atol=2e-6, rtol=1e-5
            )
            torch.testing.assert_close(
                memory.values[layer, slot].double(), 0.7 * g[layer, place] / norm, atol=2e-5, rtol=1e-4
            )
    assert torch.allclose(
        memory.values.double().pow(2).sum((0, 2)).sqrt(), torch.tensor(0.7, dtype=torch.float64), atol=1e-5
    )


def test_side_ffn_adds_tau_times_values_of_the_keys_that_fire(backbone: ReluBackbone, model: Any) -> None:
    torch.manual_seed(1)
    memory = MlpMemory(torch.randn(2, 5, 32) / 3, torch.randn(2, 5, 32) / 3, torch.tensor([0.6, 1.3]))
    assert (memory.keys.norm(dim=-1) > 1).any()  # some rows are clipped

    def add(layer: int, a: Tensor) -> Tensor:
        return float(memory.scale[layer]) * locas_mlp(a, memory.keys[layer], memory.values[layer])

    expected, _ = log_p(model, TEXT, add)
    got = -backbone.compute_nll(TEXT[None], memory)[0]
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-5)
    assert (got + backbone.compute_nll(TEXT[None])[0]).abs().max() > 0.1  # the memory has a say in it


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_one_write_is_a_gradient_step_on_the_ffn_outputs(backbone: ReluBackbone, model: Any, epsilon: float) -> None:
    """With one place to act at, a write and the step H += ||A|| epsilon G / ||G|| are the same, whatever the size."""
    a, g = gradients(model, PAIR, 1)
    norm = float(g[:, 0].pow(2).sum().sqrt())
    steps = [epsilon * float(a[layer, 0].norm()) * g[layer, :1] / norm for layer in range(2)]
    before, _ = log_p(model, PAIR, lambda _layer, a: torch.zeros_like(a))
    # A of the second layer moves with the first layer's step, so the write there is scaled by what A has become along
    # its key
    _, moved = log_p(
        model,
        PAIR,
        lambda layer, _a: torch.cat([steps[layer], torch.zeros(1, 32)]) if layer == 0 else torch.zeros(2, 32),
    )
    along = float(moved[1][0] @ a[1, 0] / a[1, 0].norm())
    steps[1] = epsilon * max(along, 0.0) * g[1, :1] / norm
    after, _ = log_p(model, PAIR, lambda layer, _a: torch.cat([steps[layer], torch.zeros(1, 32)]))
    expected = float(after[0] - before[0])
    assert expected > 0
    assert rise(backbone, PAIR, write(backbone, PAIR, epsilon=epsilon), 1) == pytest.approx(
        expected, rel=2e-3, abs=2e-6
    )


def test_likelihood_rises_at_the_rate_of_the_gradient_and_no_other_direction_of_that_size_does_better(
    backbone: ReluBackbone, model: Any
) -> None:
    epsilon = 0.003
    a, g = gradients(model, PAIR, 1)
    norm = float(g[:, 0].pow(2).sum().sqrt())
    expected = epsilon * sum(float(a[layer, 0].norm()) * float(g[layer, 0].pow(2).sum()) for layer in range(2)) / norm
    slot = write(backbone, PAIR, epsilon=epsilon)
    risen = rise(backbone, PAIR, slot, 1)
    assert risen == pytest.approx(expected, rel=0.02)
    lengths = slot.values.norm(dim=-1, keepdim=True)
    for seed in range(20):
        other = (
            torch.nn.functional.normalize(
                torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(seed)), dim=-1
            )
            * lengths
        )
        assert rise(backbone, PAIR, MlpMemory(slot.keys, other, slot.scale), 1) < 0.8 * risen


def test_in_a_text_a_write_moves_its_token_as_the_gradient_foretells_at_every_place_its_key_fires(
    backbone: ReluBackbone, model: Any
) -> None:
    written = write(backbone, TEXT, epsilon=0.003)
    for token in range(1, len(TEXT)):
        slot = one(written, token - 1)
        a, g = gradients(model, TEXT, token)
        foretold = sum(
            float((locas_mlp(a[layer], slot.keys[layer].double(), slot.values[layer].double()) * g[layer]).sum())
            for layer in range(2)
        )
        assert foretold > 0
        assert rise(backbone, TEXT, slot, token) == pytest.approx(foretold, rel=0.05, abs=5e-6)


def test_nl_svd_keeps_the_strongest_directions_and_what_the_memory_answers_there() -> None:
    torch.manual_seed(2)
    memory = MlpMemory(torch.randn(2, 12, 32) / 8, torch.randn(2, 12, 32) / 8, torch.tensor([0.5, 2.0]))
    small = compress(memory, keep=4)
    assert small.width == 4
    assert torch.equal(small.scale, memory.scale)
    for layer in range(2):
        k, v = clip(memory.keys[layer]), clip(memory.values[layer])
        s = k.norm(dim=-1) * v.norm(dim=-1)
        c = (s / k.norm(dim=-1))[:, None] * k  # columns s_i k_i of unit k, as rows
        gram = sum(torch.outer(row, row) for row in c)
        probes = torch.linalg.eigh(gram).eigenvectors.T.flip(0)[:4]  # strongest first
        for got, value, probe in zip(small.keys[layer].double(), small.values[layer].double(), probes, strict=True):
            assert abs(float(got @ probe)) == pytest.approx(1.0, abs=1e-5)
            torch.testing.assert_close(value, locas_mlp(got[None], k, v)[0], atol=1e-6, rtol=1e-5)
            assert value.norm() >= locas_mlp(-got[None], k, v)[0].norm()
            for factor in (0.3, 5.0):  # old and new memory agree on every positive multiple
                torch.testing.assert_close(
                    small.output(factor * got[None].float(), layer),
                    memory.output(factor * got[None].float(), layer),
                    atol=1e-5,
                    rtol=1e-4,
                )


def test_slots_that_share_a_direction_are_one_slot_after_nl_svd() -> None:
    """Forty slots over three orthogonal keys are three slots, exactly.

    Nothing is lost where nothing is there to lose.
    """
    torch.manual_seed(3)
    directions = torch.linalg.qr(torch.randn(32, 3))[0].T
    weights = torch.tensor([0.9, 0.5, 0.2]).repeat(14)[:40]
    keys = directions.repeat(14, 1)[:40]
    values = weights[:, None] * torch.nn.functional.normalize(torch.randn(3, 32), dim=-1).repeat(14, 1)[:40] / 16
    memory = MlpMemory(keys[None], values[None], torch.ones(1))
    hidden = torch.randn(50, 3).abs() @ directions  # where only these keys fire
    torch.testing.assert_close(
        compress(memory, keep=3).output(hidden, 0), memory.output(hidden, 0), atol=1e-5, rtol=1e-4
    )


def test_cloned_keys_are_those_of_the_neurons_a_text_activates_most(backbone: ReluBackbone, model: Any) -> None:
    memory = clone(backbone, TEXT, width=5)
    _, inputs = log_p(model, TEXT, lambda _layer, a: torch.zeros_like(a))
    for layer, block in enumerate(model.get_decoder().layers):
        alpha = relu(inputs[layer] @ block.fc1.weight.T + block.fc1.bias).mean(dim=0)
        ranked = sorted(range(48), key=lambda j: -float(alpha[j]))[:5]
        for slot, j in enumerate(ranked):
            w = block.fc1.weight[j]
            torch.testing.assert_close(memory.keys[layer, slot].double(), w / w.norm(), atol=1e-6, rtol=1e-5)
        columns = block.fc2.weight
        assert float(memory.scale[layer]) == pytest.approx(
            sum(float(columns[:, j].norm()) for j in range(48)) / 48 / 5, rel=1e-5
        )
    assert not memory.values.any()
