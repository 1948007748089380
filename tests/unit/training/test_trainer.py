"""Training: it learns in the middle of a backbone, former slots move less, one that runs away is begun again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from locas_agent.config import LocasConfig
from locas_agent.inference import Engine
from locas_agent.memory.slab import DOWN
from locas_agent.training.initialization import own_activation
from locas_agent.training.loss.last_layer import LastLayer
from locas_agent.training.starting import StartingMemories
from locas_agent.training.trainer import Trainer
from tests.unit.core.deep import deep
from tests.unit.evaluation.peer_tasks import neutral_text, training_task


def trained_at(engine: Engine, **training: Any) -> Any:
    memory = {"layers": [1, 2]}
    fast = {"max_steps": 24, "items_per_step": 4} | training
    config = LocasConfig.model_validate({"memory": memory, "training": fast})
    told = [training_task(engine, {"Dog?": "Rex", "City?": "Oslo"}), training_task(engine, {"Dog?": "Ada"})]
    return Trainer(engine, config, neutral_text(engine), LastLayer.of(engine)).train(told)


def test_training_in_the_middle_of_a_backbone_learns(llama: Engine) -> None:
    for one in trained_at(llama, learning_rate=2e-2):
        assert one.memory.layers == (-3, -2)
        assert one.last_loss < 0.7 * one.first_loss
        assert (one.restarts, one.learning_rate) == (0, 2e-2)


def test_slots_of_former_consolidations_move_a_fifth_as_fast_as_new_ones(llama: Engine) -> None:
    config = LocasConfig.model_validate({"memory": {"layers": [1, 2]}, "training": {"max_steps": 1}})
    trainer = Trainer(llama, config, neutral_text(llama), LastLayer.of(llama))
    first, second = training_task(llama, {"Dog?": "Rex"}), training_task(llama, {"City?": "Oslo"})
    (learnt,) = trainer.train([first])
    task = replace(second, earlier=first.new, memory=learnt.memory)
    (before,), (after,) = StartingMemories(llama, config, neutral_text(llama)).of([task]), trainer.train([task])
    moved = (after.memory.slab - before.slab).abs().amax(dim=(0, 1, 3))  # (W,): one step of AdamW moves by the rate
    holds = before.slab[:, DOWN].any(dim=-1).any(dim=0)
    assert 0 < int(holds.sum()) < before.width
    assert 0.15 < float(moved[holds].max() / moved[~holds].max()) < 0.25
    (shared,) = trainer.train([replace(task, memory=replace(learnt.memory, initialization="random"))])
    moved = (shared.memory.slab - learnt.memory.slab).abs()
    assert float(moved.max()) > 0.9 * float((after.memory.slab - before.slab).abs().max())  # all slots are of all facts


def test_a_training_that_runs_away_is_begun_again_at_half_the_rate(llama: Engine) -> None:
    for one in trained_at(llama, learning_rate=1e38):  # beyond what a row can hold after a few steps
        assert (one.restarts, one.learning_rate, one.steps) == (1, 5e37, 24)


def stretched(factor: float) -> Engine:
    """A backbone that computes the same whatever the factor, with inputs of its FFNs as many times as large."""
    engine = deep("llama")
    with torch.no_grad():
        for layer in engine.backbone.decoder.layers:
            layer.post_attention_layernorm.weight *= factor
            layer.mlp.gate_proj.weight /= factor
            layer.mlp.up_proj.weight /= factor
    return engine


def test_training_goes_as_well_however_large_the_inputs_of_ffns_are() -> None:
    """Slots that start from inputs answer with the square of these; scale and rate were chosen on one backbone."""
    usual, large = (stretched(factor) for factor in (1.0, 100.0))
    ids = torch.tensor([[7, 3, 9, 4]])
    torch.testing.assert_close(usual.logits(ids), large.logits(ids), rtol=1e-3, atol=1e-3)
    assert own_activation(large, (-3, -2)) > 1000 * own_activation(usual, (-3, -2))
    for one, other in zip(trained_at(usual), trained_at(large), strict=True):
        assert other.first_loss == pytest.approx(one.first_loss, rel=0.01)
        assert other.last_loss == pytest.approx(one.last_loss, rel=0.1)
        assert one.last_loss < 0.7 * one.first_loss
