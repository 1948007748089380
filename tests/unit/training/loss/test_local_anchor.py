"""The local anchor: what memories add to their layers on neutral text, and what it does to a training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from locas_agent.config import LocasConfig, TrainingSettings
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.initialization import ffn_inputs
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.loss.local_anchor import POSITIONS, LocalAnchor, neutral_inputs
from locas_agent.training.neutral import NeutralText, bare_examples
from locas_agent.training.schedule import schedule_of
from locas_agent.training.trainer import Trainer
from tests.unit.core.architectures import SUPPORTED
from tests.unit.core.deep import deep, memory_at
from tests.unit.evaluation.peer_tasks import neutral_text, training_task

LAYERS = (-3, -2)


@pytest.fixture
def neutral(llama: Engine) -> NeutralText:
    rows = bare_examples(llama, [[1, 5, 9, 7, 3, 8], [1, 4, 4, 2, 6]], top_k=4)
    return NeutralText(tuple(rows), (), ())


def slab_of(*memories: LocasMemory) -> tuple[Tensor, Tensor]:
    slab = torch.stack([memory.slab for memory in memories], dim=1)  # (L, U, 3, W, D)
    slab.grad = torch.zeros_like(slab)
    return slab, torch.stack([memory.scale for memory in memories], dim=1)


def test_it_is_what_memories_add_to_their_layers_beside_what_the_ffns_do(llama: Engine, neutral: NeutralText) -> None:
    """Read off a forward that observes nothing of the anchor's own arithmetic."""
    memory = memory_at(llama.backbone, LAYERS, 3)
    lower = replace(memory, slab=torch.stack([memory.slab[0], torch.zeros_like(memory.slab[1])]))
    slab, scale = slab_of(lower)
    (found,) = LocalAnchor(llama, neutral, LAYERS, weight=2.0).accumulate_gradients(slab, scale, step=0)
    site = llama.backbone.sites[LAYERS[0]]
    with_memory, bare = list[Tensor](), list[Tensor]()
    for row in neutral.anchors:
        ids = torch.tensor([[*row.prompt, *row.target][:-1]])
        for kept, batch in ((with_memory, MemoryBatch.of([lower], llama.backbone)), (bare, None)):
            hook = site.module.register_forward_hook(
                lambda _, __, out, kept=kept: kept.append(out.detach()[0]),  # type: ignore[misc]
                always_call=True,
            )
            llama.logits(ids, memory=batch)
            hook.remove()
    own = torch.cat(bare)
    added = (torch.cat(with_memory) - own).square().sum(-1).mean()
    assert float(added) > 0
    assert float(found) == pytest.approx(2 * float(added / own.square().sum(-1).median()), rel=1e-3)


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_every_backbone_has_one(name: str) -> None:
    engine = deep(name)
    memory = memory_at(engine.backbone, LAYERS, 3)
    slab, scale = slab_of(memory)
    (found,) = LocalAnchor(engine, neutral_text(engine), LAYERS, weight=1.0).accumulate_gradients(slab, scale, step=0)
    assert slab.grad is not None
    assert float(found) > 0
    assert torch.isfinite(slab.grad).all()
    assert slab.grad.any()


def test_every_user_gets_what_it_would_get_alone(llama: Engine, neutral: NeutralText) -> None:
    anchor = LocalAnchor(llama, neutral, LAYERS, weight=3.0)
    memories = [memory_at(llama.backbone, LAYERS, seed) for seed in (1, 2)]
    together, scale = slab_of(*memories)
    both = anchor.accumulate_gradients(together, scale, step=4)
    for at, memory in enumerate(memories):
        alone, own_scale = slab_of(memory)
        (one,) = anchor.accumulate_gradients(alone, own_scale, step=4)
        assert float(one) == pytest.approx(float(both[at]), rel=1e-5)
        assert alone.grad is not None
        assert together.grad is not None
        torch.testing.assert_close(together.grad[:, at], alone.grad[:, 0], rtol=1e-4, atol=1e-7)
        assert alone.grad.any()


def test_steps_together_look_at_every_position(llama: Engine) -> None:
    rows = bare_examples(llama, [[1, *(2 + (at * 7 + row) % 50 for at in range(60))] for row in range(10)], top_k=2)
    neutral = NeutralText(tuple(rows), (), ())
    inputs = ffn_inputs(llama, neutral.anchors, LAYERS)
    assert len(inputs[LAYERS[0]]) > 2 * POSITIONS
    anchor, memory = LocalAnchor(llama, neutral, LAYERS, weight=1.0), memory_at(llama.backbone, LAYERS, 3)
    steps = [float(anchor.accumulate_gradients(*slab_of(memory), step=step)) for step in range(60)]
    assert len(set(steps[:4])) == 4
    assert steps == [float(anchor.accumulate_gradients(*slab_of(memory), step=step)) for step in range(60)]
    looked_at = {place for step in range(3) for place in anchor.places(step)}
    assert looked_at == set(range(len(inputs[LAYERS[0]])))


def test_inputs_are_computed_once_for_a_backbone(llama: Engine, neutral: NeutralText) -> None:
    first = neutral_inputs(llama, neutral, LAYERS)[-2]
    assert neutral_inputs(llama, neutral, (-2, -1))[-2] is first
    torch.testing.assert_close(first, ffn_inputs(llama, neutral.anchors, [-2])[-2])


def added_on_neutral_text(engine: Engine, neutral: NeutralText, memory: LocasMemory) -> float:
    return float(LocalAnchor(engine, neutral, LAYERS, weight=1.0).accumulate_gradients(*slab_of(memory), step=0))


def test_a_training_with_it_adds_less_to_neutral_text_and_learns(llama: Engine) -> None:
    neutral, task = neutral_text(llama), training_task(llama, {"Dog?": "Rex", "City?": "Oslo"})

    def trained(weight: float | None) -> float:
        settings = {"max_steps": 48, "anchor_weight": 0.0, "learning_rate": 2e-2, "local_anchor_weight": weight}
        config = LocasConfig.model_validate({"memory": {"layers": [1, 2]}, "training": settings})
        (one,) = Trainer(llama, config, neutral, LastLayer.of(llama)).train([task])
        assert one.last_loss < 0.8 * one.first_loss
        return added_on_neutral_text(llama, neutral, one.memory)

    assert trained(None) < 0.3 * trained(0.0)


def test_beside_it_neutral_text_comes_less_often_and_where_there_is_none_as_before() -> None:
    def schedule(layers: tuple[int, ...], *, is_memory: bool = True, **training: object) -> tuple[float, int]:
        settings = TrainingSettings.model_validate(training)
        found = schedule_of(settings, layers, (), (), is_memory=is_memory)
        return found.local_anchor_weight, found.anchor_every

    assert schedule((-2, -1)) == (48.0, 6)
    assert schedule((-2, -1), local_anchor_weight=5.0) == (5.0, 6)
    assert schedule((-2, -1), local_anchor_weight=0.0) == (0.0, 2)
    assert schedule((-2, -1), objective="mix") == (0.0, 2)  # every token of a turn pulls; not measured there
    assert schedule((-2, -1), is_memory=False) == (0.0, 2)  # an adapter has no FFN of its own to be held
    assert schedule((-1,)) == (0.0, 1)
