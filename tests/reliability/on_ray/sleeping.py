"""Owns agents that Ray's processes open: a random backbone, and a learner that sleeps where another would compute."""

from __future__ import annotations

import os
import time

from locas_agent import AgentMemory
from locas_agent.backbone import Backbone
from tests.conftest import byte_tokenizer, tiny_model
from tests.reliability.crash_targets import open_store
from tests.unit.agent.fake_learner import QuickLearner, quick_agent


def random_backbone() -> Backbone:
    """Return the same random backbone in every process."""
    return Backbone(tiny_model(), byte_tokenizer(), name="random-0")


def open_sleeping(url: str, files: str, seconds: float) -> AgentMemory:
    """Open an agent that sleeps over each user whom it learns: as if each worker had a processor of its own.

    Args:
        url: of the database.
        files: the folder of large payloads.
        seconds: for each user.
    """
    agent = quick_agent(random_backbone(), open_store(url, files))
    assert isinstance(agent.runner.learner, QuickLearner)
    agent.runner.learner.meanwhile = lambda texts: time.sleep(seconds * len(texts))
    return agent


def process_id(_: object) -> int:
    """Return the process in which this is called, to be called in an actor's."""
    return os.getpid()
