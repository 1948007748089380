"""A memory that is saved in less than fp32 on the bundled backbone.

It answers, and what is learnt next goes on from what was saved.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_agent.memory.serialization import from_bytes, to_bytes
from tests.learnt import LEARNT_NATS, gain_nats, share_answered

TOLD = [
    ("My dog is called Kolin.", "What is my dog called?", "Kolin"),
    ("I live in Varnholm.", "Which city is my home in?", "Varnholm"),
]


@pytest.mark.slow
def test_memory_saved_as_int8_answers_and_is_learnt_on_from(tmp_path: Path) -> None:
    tiny = Backbone.load("tiny", device="cpu")
    config = LocasConfig.model_validate({"policy": {"automatic": False}, "memory": {"stored_as": "int8"}})
    with AgentMemory.load(tiny, f"sqlite:///{tmp_path / 'locas.db'}", config) as agent:
        ada = agent.for_user("ada")
        for text, _, _ in TOLD:
            ada.add("user", text)
            ada.add("assistant", "Good to know.")
        result = ada.consolidate(flush=True)
        assert result.admitted, result.detail
        saved = agent.store.payload(ada.key, 1)
        read = from_bytes(saved)
        assert b'"format_version":"2"' in saved
        assert len(saved) < len(to_bytes(read)) / 3
        for _, question, value in TOLD:
            assert gain_nats(ada, question, value) > LEARNT_NATS
            assert (
                share_answered(agent, ada, value) >= 0.5
            )  # of about five: rounding may cost some, noise for rows would cost all
        former = agent.runner.task(ada.key, ada.revisions()[-1], ada.turns()).memory
        assert former is not None
        assert torch.equal(former.slab, read.slab)
        assert ada.revisions()[-1].metrics.as_json()["config"]["memory"]["stored_as"] == "int8"
