"""Memories beside any layers: in one batch, composed, stored, and with new slots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from locas_agent.errors import CorruptPayload, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.inference.composition import compose
from locas_agent.memory import MemoryBatch
from locas_agent.memory.serialization import from_bytes, to_bytes
from locas_agent.memory.slab import topmost
from tests.unit.core.deep import PLACES, memory_at


def test_memories_at_different_places_share_a_batch(llama: Engine) -> None:
    backbone = llama.backbone
    memories = [memory_at(backbone, layers, seed) for seed, layers in enumerate(PLACES.values())]
    ids = torch.randint(0, 256, (5, 7), generator=torch.Generator().manual_seed(5))
    together = llama.logits(ids, memory=MemoryBatch.of([*memories, None], backbone))
    for row, memory in enumerate([*memories, None]):
        one = None if memory is None else MemoryBatch.of([memory], backbone)
        torch.testing.assert_close(
            together[row : row + 1], llama.logits(ids[row : row + 1], memory=one), atol=1e-5, rtol=1e-5
        )
    bare = llama.logits(ids)
    assert all(float((together[row] - bare[row]).abs().max()) > 1e-3 for row in range(4))


def test_composed_memories_stand_where_both_stood(llama: Engine) -> None:
    low, high = memory_at(llama.backbone, (-4, -3), 1), memory_at(llama.backbone, (-3, -1), 2)
    both = compose(low, high)
    assert both.layers == (-4, -3, -1)
    torch.testing.assert_close(both.slab[0, :, :4], low.clipped().slab[0])
    torch.testing.assert_close(both.slab[2, :, 4:], high.clipped().slab[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_memory_comes_back_to_its_layers(llama: Engine, dtype: Any) -> None:
    for layers in PLACES.values():
        memory = memory_at(llama.backbone, layers, 3)
        data = to_bytes(memory, dtype=dtype)
        assert from_bytes(data).layers == layers
        assert (b'"layers"' in data) == (layers != topmost(len(layers)))
    elsewhere, top = memory_at(llama.backbone, (-3, -2), 3), memory_at(llama.backbone, (-2, -1), 3)
    assert to_bytes(elsewhere) != to_bytes(replace(top, slab=elsewhere.slab))
    assert from_bytes(to_bytes(elsewhere)).slab.equal(elsewhere.clipped().slab)


def test_altered_layers_in_a_payload_are_refused(llama: Engine) -> None:
    data = to_bytes(memory_at(llama.backbone, (-3, -2), 3))
    assert b'"layers":"-3,-2"' in data
    for other in (b'"layers":"-4,-2"', b'"layers":"-2,-3"', b'"layers":"-2,-1"', b'"layers":"-3,+2"'):
        with pytest.raises(CorruptPayload):
            from_bytes(data.replace(b'"layers":"-3,-2"', other))
    many = to_bytes(memory_at(llama.backbone, (-2, -1), 3)).replace(b'"n_layers":"2"', b'"n_layers":"999999999"')
    length = int.from_bytes(many[:8], "little") + 8
    with pytest.raises(CorruptPayload, match="shapes"):  # before anything so long is made
        from_bytes(length.to_bytes(8, "little") + many[8:])


def test_numbers_that_name_no_layers_are_refused(llama: Engine) -> None:
    memory = memory_at(llama.backbone, (-2, -1), 0)
    for wrong in ((-1, -2), (-2, -2), (-1, 0), (-1,)):
        with pytest.raises(IncompatibleMemory, match="counted from the last"):
            replace(memory, layers=wrong)
    with pytest.raises(IncompatibleMemory):
        MemoryBatch.of([replace(memory, layers=(-5, -1))], llama.backbone)


def test_new_slots_change_no_logit_and_stand_in_empty_ones_first(llama: Engine) -> None:
    memory = memory_at(llama.backbone, (-3, -2), 1)
    slab = memory.slab.clone()
    slab[:, :, 1] = 0  # a slot that holds nothing
    memory = replace(memory, slab=slab)
    rows = torch.nn.functional.normalize(torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(2)), dim=-1)
    ids = torch.randint(0, 256, (1, 9), generator=torch.Generator().manual_seed(5))
    for grows, width in ((True, 6), (False, 4)):
        wider = memory.with_slots(rows, grows=grows)
        assert (wider.width, wider.layers) == (width, (-3, -2))
        assert torch.equal(wider.gate_rows[:, 1], rows[:, 0])
        assert torch.equal(
            wider.up_rows, torch.where(wider.down_rows.any(-1)[..., None], wider.up_rows, wider.gate_rows)
        )
        one, other = (llama.logits(ids, memory=MemoryBatch.of([each], llama.backbone)) for each in (memory, wider))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert from_bytes(to_bytes(wider)).slab.equal(wider.clipped().slab)
