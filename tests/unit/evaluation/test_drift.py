"""Drift is the KL divergence of whole forwards, whatever part of them is run once for all memories."""

from __future__ import annotations

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.initialization import initialize


@pytest.fixture
def engine(backbone: Backbone) -> Engine:
    return Engine(backbone)


def moved(engine: Engine, seed: int, layers: tuple[int, ...]) -> LocasMemory:
    """Return a memory beside these layers that changes much."""
    memory = initialize(
        engine.backbone, [], width=4, layers=layers, method="random_index", scale_rule="none", seed=seed
    )
    memory.down_rows.copy_(torch.randn(memory.down_rows.shape, generator=torch.Generator().manual_seed(seed)))
    memory.scale.fill_(1.0)
    return memory


@pytest.mark.parametrize("lowest", [0, 1])
def test_drift_is_that_of_whole_forwards(lowest: int, engine: Engine) -> None:
    layers = [tuple(range(lowest - engine.backbone.n_layers, 0)), (-1,)]
    memories = [moved(engine, at, layers[at % 2]) for at in range(10)]  # more than are run at once
    rows = neutral_rows(engine, seed=0)
    expected = []
    for row in rows:
        ids = torch.tensor([row])
        bare = engine.logits(ids).double().log_softmax(-1)
        for memory in memories:
            logits = engine.logits(ids, memory=MemoryBatch.of([memory], engine.backbone)).double()
            expected.append(torch.nn.functional.kl_div(logits.log_softmax(-1), bare, log_target=True, reduction="none"))
    tokens = torch.cat([one.sum(-1).flatten() for one in expected])
    average, p99 = drift(engine, memories, rows)
    assert average > 0.01
    assert average == pytest.approx(float(tokens.mean()), rel=1e-4)
    assert p99 == pytest.approx(float(tokens.quantile(0.99)), rel=1e-3)


def test_memory_that_adds_nothing_does_not_drift(engine: Engine) -> None:
    memory = moved(engine, 0, (-1,))
    memory.down_rows.zero_()
    assert drift(engine, [memory], neutral_rows(engine, seed=0)) == (0.0, 0.0)
