"""What memories are before their training: new ones and former ones get slots for what is new."""

from __future__ import annotations

from dataclasses import replace

import torch

from locas_agent.config import LocasConfig, MemorySettings
from locas_agent.inference import Engine
from locas_agent.training.starting import StartingMemories
from tests.unit.evaluation.peer_tasks import neutral_text, training_task


def test_a_deep_memory_grows_with_what_is_learnt_and_keeps_its_slots(llama: Engine) -> None:
    config = LocasConfig.model_validate({"memory": {"layers": [1, 2]}, "training": {"max_steps": 2}})
    starting = StartingMemories(llama, config, neutral_text(llama))
    told = training_task(llama, {"Dog?": "Rex", "City?": "Oslo"})
    first = starting.of([told])[0]
    assert first.initialization == "inputs"
    assert not first.down_rows.any()
    assert first.gate_rows.any(-1).all()
    again = replace(training_task(llama, {"Car?": "Fiat"}), memory=first)
    second = starting.of([again])[0]
    assert second.width > first.width
    assert torch.equal(second.slab[:, :, : first.width], first.slab)
    none = starting.of([replace(told, new=())])[0]
    assert not none.slab.any()
    given = config.model_copy(update={"memory": config.memory.model_copy(update={"width": 5})})
    fixed = StartingMemories(llama, given, neutral_text(llama))
    assert fixed.of([told])[0].width == 5
    last = given.model_copy(update={"memory": MemorySettings(layers=1)})
    assert StartingMemories(llama, last, neutral_text(llama)).of([told])[0].initialization == "random"
