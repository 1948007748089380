"""Two memories as one: what each does is kept, and what they do to each other is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, IncompatibleMemory
from locas_agent.inference import Engine
from locas_agent.inference.composition import compose, interaction
from locas_agent.memory import MemoryBatch
from locas_agent.memory.serialization import from_bytes, to_bytes
from tests.conftest import MakeBackbone, MakeMemory

TEXTS = [[3, 1, 4, 1, 5, 9], [2, 7, 1, 8]]
IDS = torch.tensor([TEXTS[0]])


def test_memory_composed_with_one_that_does_nothing_is_the_same_function(
    backbone: Backbone, engine: Engine, make_memory: MakeMemory
) -> None:
    used, idle = make_memory(1, width=3, down=4.0), make_memory(2, width=2, down=0.0)
    used.scale.fill_(
        0.3
    )  # and the other's scale of 1 is the larger one: down rows are made shorter, but not below what they did
    expected = engine.logits(IDS, memory=MemoryBatch.of([used], backbone))
    assert (expected - engine.logits(IDS)).abs().max() > 0.1
    for both in (compose(used, idle), compose(idle, used)):
        assert both.width == 5
        torch.testing.assert_close(
            engine.logits(IDS, memory=MemoryBatch.of([both], backbone)), expected, atol=1e-5, rtol=1e-5
        )
    figures = interaction(engine, used, idle, TEXTS)
    assert figures.beyond_sum == pytest.approx(0.0, abs=1e-9)
    assert figures.moved_first == pytest.approx(0.0, abs=1e-9)
    assert figures.moved_second == pytest.approx(
        figures.drift_first
    )  # all that the idle one sees changed is the other's doing
    assert figures.drift_first > 1e-3
    assert figures.drift_second == 0.0


def test_order_of_the_two_does_not_matter(backbone: Backbone, engine: Engine, make_memory: MakeMemory) -> None:
    first, second = make_memory(1, width=3), make_memory(2, width=4)
    one, other = (
        engine.logits(IDS, memory=MemoryBatch.of([both], backbone))
        for both in (compose(first, second), compose(second, first))
    )
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    figures, mirrored = interaction(engine, first, second, TEXTS), interaction(engine, second, first, TEXTS)
    assert figures.moved_first == pytest.approx(mirrored.moved_second, rel=1e-4)
    assert figures.beyond_sum > 1e-3
    assert figures.tokens == 10


def test_memories_beside_more_and_fewer_layers_can_be_composed(backbone: Backbone, make_memory: MakeMemory) -> None:
    whole, made = make_memory(1), make_memory(2)
    last = replace(
        made,
        slab=made.slab[-1:].contiguous(),
        scale=made.scale[-1:],
        neuron_indices=made.neuron_indices[-1:],
        layers=(-1,),
    )
    both = compose(last, whole)
    assert both.slab.shape == (2, 3, 8, 32)
    assert both.neuron_indices.tolist() == [
        [-1] * 4 + whole.neuron_indices[0].tolist(),
        last.neuron_indices[0].tolist() + whole.neuron_indices[1].tolist(),
    ]
    assert torch.equal(from_bytes(to_bytes(both)).slab, both.clipped().slab)  # a memory like any other
    assert torch.equal(both.clipped().slab, both.slab)  # no row passes the clip


def test_memories_of_two_backbones_are_refused(make_backbone: MakeBackbone, make_memory: MakeMemory) -> None:
    with pytest.raises(IncompatibleMemory, match="only two of one backbone"):
        compose(make_memory(1), make_memory(1, on=make_backbone(seed=7)))


@pytest.mark.parametrize("texts", [[], [[1, 2], []]])
def test_interaction_needs_texts(engine: Engine, make_memory: MakeMemory, texts: list[list[int]]) -> None:
    with pytest.raises(ConfigurationError, match="at least one text"):
        interaction(engine, make_memory(1), make_memory(2), texts)
