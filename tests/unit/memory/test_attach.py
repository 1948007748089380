"""A memory beside the FFN: exact where it must be, on every architecture, for exactly the rows of one forward."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor

from locas_agent.backbone import Backbone
from locas_agent.errors import IncompatibleMemory, UnsupportedBackbone
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.memory.slab import DOWN, GATE, UP, effective_rows
from locas_agent.training.initialization import initialize
from tests.conftest import MakeBackbone, MakeMemory, byte_tokenizer
from tests.unit.core.architectures import REFUSED, SUPPORTED, build


@pytest.fixture(params=sorted(SUPPORTED))
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(Backbone(build(request.param), byte_tokenizer(), name=request.param))


def some_ids(rows: int, tokens: int = 12) -> Tensor:
    return torch.randint(0, 256, (rows, tokens), generator=torch.Generator().manual_seed(5))


def test_memory_changes_logits_only_once_its_down_rows_do(any_engine: Engine, make_memory: MakeMemory) -> None:
    ids = some_ids(2)
    bare = any_engine.logits(ids)
    fresh = initialize(any_engine, ids.tolist(), width=4)
    assert torch.equal(any_engine.logits(ids, memory=MemoryBatch.of([fresh, fresh], any_engine.backbone)), bare)
    used = make_memory(1, on=any_engine.backbone)
    with_memory = any_engine.logits(ids, memory=MemoryBatch.of([used, None], any_engine.backbone))
    assert (with_memory[0] - bare[0]).abs().max() > 0.1
    assert torch.equal(with_memory[1], bare[1])
    assert torch.equal(any_engine.logits(ids), bare)


def test_bare_logits_are_those_of_transformers(any_engine: Engine) -> None:
    ids = some_ids(2)
    with torch.no_grad():
        expected = any_engine.backbone.model(input_ids=ids).logits
    assert torch.equal(any_engine.logits(ids), expected)  # Gemma 2: soft-capped as well


def test_merged_into_dense_weights_is_the_same_function(any_engine: Engine, make_memory: MakeMemory) -> None:
    ids, memory = some_ids(1), make_memory(2, on=any_engine.backbone)
    attached = any_engine.logits(ids, memory=MemoryBatch.of([memory], any_engine.backbone))
    merged = merge(any_engine.backbone, memory)
    # fp32: the sum over N + W neurons runs in another order than N and W apart
    torch.testing.assert_close(merged.logits(ids), attached, atol=1e-5, rtol=1e-5)


def merge(backbone: Backbone, memory: LocasMemory) -> Engine:
    """An independent rendering: rows appended to the dense weights, written with plain torch operations."""
    model = copy.deepcopy(backbone.model)
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for layer, site in enumerate(Backbone(model, byte_tokenizer(), name="merged").sites):
        rows = memory.slab[layer]
        rows = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1.0)
        gate, up, down = rows[GATE], rows[UP], memory.scale[layer] * rows[DOWN]
        site.down_proj.weight.data = torch.cat([site.down_proj.weight.data, down.t()], dim=1)
        if len(site.gate_up) == 2:
            for linear, extra in zip(site.gate_up, (gate, up), strict=True):
                linear.weight.data = torch.cat([linear.weight.data, extra])
                if linear.bias is not None:
                    linear.bias.data = torch.cat([linear.bias.data, torch.zeros(memory.width)])
        else:
            first, second = site.gate_up[0].weight.data.chunk(2)
            site.gate_up[0].weight.data = torch.cat([first, gate, second, up])
    return Engine(Backbone(model, byte_tokenizer(), name="merged"))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_backbone_without_dense_gated_ffn_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedBackbone, match=r"looked for.*found"):
        Backbone(build(name), byte_tokenizer(), name=name)


def test_gemma_side_ffn_uses_its_own_gelu() -> None:
    site = Backbone(build("gemma"), byte_tokenizer(), name="gemma").sites[0]
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(site.activation(x), torch.nn.functional.gelu(x, approximate="tanh"))


def test_row_of_a_mixed_batch_equals_the_row_alone(engine: Engine, make_memory: MakeMemory) -> None:
    memories = [make_memory(1, width=2), None, make_memory(2, width=7), make_memory(3, width=4)]
    ids = some_ids(8)  # two rows per memory
    mixed = engine.logits(ids, memory=MemoryBatch.of(memories, engine.backbone, rows_per_memory=2))
    for row in range(8):
        memory = memories[row // 2]
        alone = None if memory is None else MemoryBatch.of([memory], engine.backbone)
        # fp32 rounding of batched against single GEMMs
        torch.testing.assert_close(mixed[row], engine.logits(ids[row : row + 1], memory=alone)[0], atol=1e-5, rtol=1e-5)


def test_selected_rows_keep_their_memory(engine: Engine, make_memory: MakeMemory) -> None:
    batch = MemoryBatch.of([make_memory(1), make_memory(2), make_memory(3)], engine.backbone, rows_per_memory=2)
    ids = some_ids(6)
    whole = engine.logits(ids, memory=batch)
    for rows, shared in (([4, 5, 0, 1], 2), ([3, 0, 5], 1), ([0, 1, 2, 3, 4, 5], 2), ([1, 2, 4], 1)):
        chosen = batch.select(rows)
        assert chosen.rows_per_memory == shared
        torch.testing.assert_close(engine.logits(ids[rows], memory=chosen), whole[rows], atol=1e-5, rtol=1e-5)


def test_memories_for_another_number_of_rows_are_refused(engine: Engine, make_memory: MakeMemory) -> None:
    with pytest.raises(IncompatibleMemory, match="serves 2 input rows, got 3"):
        engine.logits(some_ids(3), memory=MemoryBatch.of([make_memory(1)], engine.backbone, rows_per_memory=2))


def test_memory_of_another_backbone_is_refused(
    engine: Engine, make_memory: MakeMemory, make_backbone: MakeBackbone
) -> None:
    with pytest.raises(IncompatibleMemory, match="fingerprint"):
        MemoryBatch.of([make_memory(1, on=make_backbone(seed=7))], engine.backbone)


def test_threads_with_different_memories_do_not_mix(engine: Engine, make_memory: MakeMemory) -> None:
    ids = some_ids(1, 24)
    batches = [None, *(MemoryBatch.of([make_memory(seed)], engine.backbone) for seed in (1, 2, 3))]
    expected = [engine.logits(ids, memory=batch).detach() for batch in batches]
    assert all((expected[0] - other).abs().max() > 0.1 for other in expected[1:])
    start, wrong = threading.Barrier(len(batches)), []

    def work(which: int) -> None:
        start.wait()
        for _ in range(15):
            if not torch.equal(engine.logits(ids, memory=batches[which]), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_failed_forward_leaves_no_memory_behind(engine: Engine, make_memory: MakeMemory) -> None:
    ids, batch = some_ids(1), MemoryBatch.of([make_memory(1)], engine.backbone)
    bare = engine.logits(ids)
    with pytest.raises(IncompatibleMemory):
        engine.logits(some_ids(2), memory=batch)
    assert torch.equal(engine.logits(ids), bare)


def test_gradient_reaches_memory_rows_only_and_each_user_its_own(
    make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    backbone = make_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    memories = [make_memory(1), make_memory(2)]
    slab = torch.stack([memory.slab for memory in memories], dim=1).requires_grad_()  # (L, U, 3, W, D)
    scale = torch.stack([memory.scale for memory in memories], dim=1)
    batch = MemoryBatch.training(slab, scale, backbone)
    logits = Engine(backbone).logits(some_ids(2), memory=batch, positions=torch.tensor([3, 5]))  # both of row 0
    logits.logsumexp(-1).sum().backward()
    assert slab.grad is not None
    assert bool((slab.grad[:, 0].flatten(1).abs().amax(dim=1) > 0).all())  # every layer of user 0
    assert not slab.grad[:, 1].any()  # nothing of user 1
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    torch.optim.AdamW([slab], lr=0.1).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


def test_effective_rows_are_clipped_and_scaled_in_the_graph() -> None:
    slab = (3.0 * torch.randn(2, 3, 4, 8)).requires_grad_()
    rows = effective_rows(slab, torch.tensor([0.5, 2.0]))
    norms = rows.detach().norm(dim=-1)
    torch.testing.assert_close(norms[:, DOWN], torch.tensor([[0.5], [2.0]]).expand(2, 4))
    torch.testing.assert_close(norms[:, :DOWN], torch.ones(2, 2, 4))
    (rows * rows).sum().backward()
    assert slab.grad is not None
    # a clipped row has constant norm, so the gradient of its squared norm vanishes
    assert slab.grad.abs().max() < 1e-5
