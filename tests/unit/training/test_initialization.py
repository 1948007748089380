"""The first rows: which neurons are chosen, and what is made of them; checked against a computation written anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.initialization import Method, initialize, initialize_many, special_directions

TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [8]]


def importance(backbone: Backbone, texts: list[list[int]]) -> Tensor:
    """Alpha by hand, shape (L, N): one sequence at a time, the FFN's inputs taken from the layer norm before it."""
    inputs: dict[int, list[Tensor]] = {0: [], 1: []}
    handles = [
        layer.post_attention_layernorm.register_forward_hook(lambda _m, _i, out, at=at: inputs[at].append(out[0]))
        for at, layer in enumerate(backbone.model.model.layers)
    ]
    with torch.no_grad():
        for text in texts:
            backbone.model(input_ids=torch.tensor([text]))
    for handle in handles:
        handle.remove()
    alphas = []
    for at, layer in enumerate(backbone.model.model.layers):
        a = torch.cat(inputs[at])  # (tokens, D)
        gate, up = a @ layer.mlp.gate_proj.weight.T, a @ layer.mlp.up_proj.weight.T
        alphas.append((gate * torch.sigmoid(gate) * up).abs().mean(0))
    return torch.stack(alphas)


@pytest.mark.parametrize("method", ["highest", "lowest"])
def test_neurons_are_ranked_by_mean_absolute_activation(backbone: Backbone, method: Method) -> None:
    memory = initialize(backbone, TEXTS, width=6, method=method)
    order = importance(backbone, TEXTS).argsort(dim=1, descending=method == "highest")
    assert torch.equal(memory.neuron_indices, order[:, :6])
    for layer, block in enumerate(backbone.model.model.layers):
        chosen = order[layer, :6]
        gate, up = block.mlp.gate_proj.weight[chosen], block.mlp.up_proj.weight[chosen]
        torch.testing.assert_close(memory.gate_rows[layer], gate / gate.norm(dim=1, keepdim=True))
        torch.testing.assert_close(memory.up_rows[layer], up / up.norm(dim=1, keepdim=True))
    assert not memory.down_rows.any()


@pytest.mark.parametrize("method", ["highest", "lowest", "random", "random_index"])
def test_new_memory_has_unit_rows_and_changes_no_logit(backbone: Backbone, method: Method) -> None:
    memory = initialize(backbone, TEXTS, width=5, method=method, seed=1)
    torch.testing.assert_close(memory.row_norms()[:, :2], torch.ones(2, 2, 5))
    assert bool((memory.neuron_indices >= 0).all()) is (method != "random")
    assert memory.initialization == method
    ids = torch.tensor([TEXTS[0]])
    engine = Engine(backbone)
    assert torch.equal(engine.logits(ids, memory=MemoryBatch.of([memory], backbone)), engine.logits(ids))


def test_random_choices_follow_the_seed(backbone: Backbone) -> None:
    def slab(method: Method, seed: int) -> Tensor:
        return initialize(backbone, [], width=5, method=method, seed=seed).slab

    for method in ("random", "random_index"):
        assert torch.equal(slab(method, 1), slab(method, 1))
        assert not torch.equal(slab(method, 1), slab(method, 2))
    indices = initialize(backbone, [], width=48, method="random_index").neuron_indices
    assert torch.equal(indices.sort(dim=1).values, torch.arange(48).expand(2, 48))  # all different


def test_scale_starts_from_the_mean_norm_of_output_vectors(backbone: Backbone) -> None:
    mean = torch.stack([layer.mlp.down_proj.weight.norm(dim=0).mean() for layer in backbone.model.model.layers])
    for rule, divisor in (("width", 16.0), ("sqrt", 4.0), ("none", 1.0)):
        memory = initialize(backbone, TEXTS, width=16, scale_rule=rule)  # type: ignore[arg-type]
        torch.testing.assert_close(memory.scale, mean.detach() / divisor)


def test_many_users_get_what_each_would_get_alone(backbone: Backbone) -> None:
    users = [TEXTS, [[200, 201, 202, 203]], [[7] * 40, [9, 8]]]
    together = initialize_many(Engine(backbone), users, width=4, max_batch_tokens=50)
    assert [len(together), together[0].width] == [3, 4]

    def same(one: LocasMemory, other: LocasMemory) -> bool:
        return torch.equal(one.slab, other.slab) and torch.equal(one.neuron_indices, other.neuron_indices)

    assert all(
        same(initialize(backbone, texts, width=4), memory) for texts, memory in zip(users, together, strict=True)
    )
    assert not same(together[0], together[1])


def test_wrong_arguments_are_named(backbone: Backbone) -> None:
    with pytest.raises(ConfigurationError, match=r"1\.\.48"):
        initialize(backbone, TEXTS, width=49)
    with pytest.raises(ConfigurationError, match="unheard_of"):
        initialize(backbone, TEXTS, width=4, method="unheard_of")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="scale rule"):
        initialize(backbone, TEXTS, width=4, scale_rule="cube")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no token"):
        initialize(backbone, [[]], width=4)


def test_rows_from_inputs_answer_to_their_own_and_hardly_to_neutral_text() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.1, 3.0, 32)  # common text moves some directions much and others little
    common, inputs = (torch.randn(count, 32, generator=generator) * spread for count in (400, 5))
    rows = special_directions(inputs, common)
    few = special_directions(inputs, common[:20])  # fewer than directions: solved among texts
    twice = special_directions(inputs, common[:20].repeat(2, 1))  # the same spread, and more texts than directions
    torch.testing.assert_close(few, twice, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(torch.linalg.vector_norm(rows, dim=-1), torch.ones(5))
    own, others = (inputs * rows).sum(-1), (common @ rows.T).abs().mean()
    assert float(own.min()) > 3 * float(others)
    plain = inputs / torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    assert float(own.mean() / others) > float((inputs * plain).sum(-1).mean() / (common @ plain.T).abs().mean())
