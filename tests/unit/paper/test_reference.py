"""The reference's tensor and verbs.

Nothing is lost on the way there and back, and a memory can be trained in that form.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.slab import DOWN, GATE, UP
from locas_agent.paper.reference import LocasModel, from_reference, to_reference
from locas_agent.training.initialization import initialize
from tests.conftest import MakeBackbone, MakeMemory

IDS = torch.randint(0, 256, (3, 14), generator=torch.Generator().manual_seed(2))


def top(memory: LocasMemory) -> LocasMemory:
    return replace(
        memory,
        slab=memory.slab[-1:].contiguous(),
        scale=memory.scale[-1:],
        neuron_indices=memory.neuron_indices[-1:],
        layers=(-1,),
    )


def test_last_axis_is_key_gate_value(backbone: Backbone, make_memory: MakeMemory) -> None:
    memories = [make_memory(1), make_memory(2)]
    tensor, scale = to_reference(memories, backbone)
    assert tensor.shape == (2, 2, 4, 32, 3)
    for at, memory in enumerate(memories):
        for index, kind in enumerate((UP, GATE, DOWN)):
            assert torch.equal(tensor[:, at, :, :, index], memory.slab[:, kind])
        assert torch.equal(scale[:, at], memory.scale)


def test_there_and_back_changes_no_bit(backbone: Backbone, make_memory: MakeMemory) -> None:
    memories = [make_memory(1), make_memory(2)]
    tensor, scale = to_reference(memories, backbone)
    for memory, back in zip(
        memories, from_reference(tensor, backbone, scale=scale, initialization="random_index"), strict=True
    ):
        assert torch.equal(back.slab, memory.slab)
        assert torch.equal(back.scale, memory.scale)
        assert back.fingerprint == memory.fingerprint
        assert (back.neuron_indices == -1).all()


def test_memory_beside_the_last_layer_and_a_narrow_one_are_filled_with_slots_that_do_nothing(
    backbone: Backbone, make_memory: MakeMemory
) -> None:
    memories = [top(make_memory(1, width=2)), make_memory(2, width=5), make_memory(3, width=1)]
    tensor, scale = to_reference(memories, backbone)
    assert tensor.shape == (2, 3, 5, 32, 3)
    assert not tensor[0, 0].any()
    got = LocasModel(backbone).compute_nll(IDS, tensor, scale=scale)
    logits = Engine(backbone).logits(IDS, memory=MemoryBatch.of(memories, backbone))
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none")
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_paper_scale_is_taken_where_none_is_given(backbone: Backbone) -> None:
    memory = initialize(backbone, [], width=4, method="random_index", scale_rule="width")
    tensor, scale = to_reference([memory], backbone)
    assert torch.equal(from_reference(tensor, backbone)[0].scale, scale[:, 0])


def test_memorize_makes_what_initialize_makes_and_changes_no_logit(backbone: Backbone) -> None:
    model = LocasModel(backbone)
    mask = torch.ones_like(IDS)
    mask[1, 9:] = 0
    memory = model.memorize(IDS, 3, "lowest", attention_mask=mask)
    assert memory.shape == (2, 3, 3, 32, 3)
    alone = initialize(backbone, [IDS[1, :9].tolist()], width=3, method="lowest")
    assert torch.equal(from_reference(memory, backbone)[1].slab, alone.slab)
    assert torch.equal(model.compute_nll(IDS, memory), model.compute_nll(IDS, None))


def test_padding_costs_nothing_and_changes_nothing(backbone: Backbone, make_memory: MakeMemory) -> None:
    model = LocasModel(backbone)
    tensor, scale = to_reference([make_memory(1)] * 2, backbone)
    mask = torch.ones(2, 14, dtype=torch.int64)
    mask[0, 9:], mask[1, :5] = 0, 0
    got = model.compute_nll(IDS[:2], tensor, scale=scale, attention_mask=mask)
    assert not got[0, 8:].any()
    assert not got[1, :5].any()  # the first real token has nothing before it
    for row, span in ((0, slice(0, 9)), (1, slice(5, 14))):
        alone = model.compute_nll(IDS[row : row + 1, span], tensor[:, :1], scale=scale[:, :1])
        torch.testing.assert_close(got[row, span.start : span.stop - 1], alone[0], atol=1e-5, rtol=1e-5)


def test_memory_is_refined_by_gradients_and_merged(backbone: Backbone) -> None:
    model = LocasModel(backbone)
    memory = model.memorize(IDS[:1], 8).requires_grad_()
    scale = torch.ones(2, 1)
    first = float(model.compute_nll(IDS[:1], None).detach().mean())
    optimizer = torch.optim.AdamW([memory], lr=0.05, weight_decay=0.0)
    for _ in range(12):
        optimizer.zero_grad()
        model.compute_nll(IDS[:1], memory, scale=scale).mean().backward()
        optimizer.step()
    last = float(model.compute_nll(IDS[:1], memory, scale=scale).detach().mean())
    assert last < first - 1.0
    dense: Any = model.to_dense(memory.detach(), scale=scale, multiple=64)
    with torch.no_grad():
        logits = dense(input_ids=IDS[:1]).logits
    merged = torch.nn.functional.cross_entropy(logits[0, :-1], IDS[0, 1:])
    assert float(merged) == pytest.approx(last, abs=1e-4)
    assert dense.config.intermediate_size == 64


@pytest.mark.parametrize(
    "shape", [(2, 1, 0, 32, 3), (2, 0, 4, 32, 3), (3, 1, 4, 32, 3), (2, 1, 4, 31, 3), (2, 1, 4, 32, 2), (2, 4, 32, 3)]
)
def test_tensor_of_another_shape_or_without_a_slot_is_refused(backbone: Backbone, shape: tuple[int, ...]) -> None:
    with pytest.raises(IncompatibleMemory, match=r"has shape \(L, B, M, H, 3\)"):
        from_reference(torch.zeros(shape), backbone)


def test_values_that_are_not_finite_are_refused(backbone: Backbone, make_memory: MakeMemory) -> None:
    tensor, scale = to_reference([make_memory(1)], backbone)
    broken = tensor.clone()
    broken[1, 0, 2, 5, 0] = float("nan")
    model = LocasModel(backbone)
    for call in (
        lambda: from_reference(broken, backbone),
        lambda: model.compute_nll(IDS[:1], broken),
        lambda: model.to_dense(broken),
    ):
        with pytest.raises(IncompatibleMemory, match="not finite"):
            call()
    for wrong in (scale[:1], scale * float("inf")):
        with pytest.raises(IncompatibleMemory, match="scale is finite"):
            from_reference(tensor, backbone, scale=wrong)


def test_what_is_no_text_and_no_memory_is_refused(
    backbone: Backbone, make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    model = LocasModel(backbone)
    tensor, _ = to_reference([make_memory(1), make_memory(2)], backbone)
    for ids in (IDS[0], torch.zeros(1, 0, dtype=torch.int64), IDS.float()):
        with pytest.raises(ConfigurationError, match="input_ids"):
            model.memorize(ids, 2)
    with pytest.raises(ConfigurationError, match="at least 2 tokens"):
        model.compute_nll(IDS[:2, :1], tensor)
    with pytest.raises(IncompatibleMemory, match="serves 2"):
        model.compute_nll(IDS, tensor)
    with pytest.raises(ConfigurationError, match="one memory is merged"):
        model.to_dense(tensor)
    with pytest.raises(ConfigurationError, match="got none"):
        to_reference([], backbone)
    with pytest.raises(IncompatibleMemory, match="fingerprint"):
        to_reference([make_memory(1)], make_backbone(seed=7))
    with pytest.raises(ConfigurationError, match="initialization is one of"):
        model.memorize(IDS, 2, "best")  # type: ignore[arg-type]
