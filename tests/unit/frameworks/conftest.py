"""An agent memory whose learner is a stand-in, on a real file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone
from locas_storage import SqlMemoryStore
from tests.unit.agent.fake_learner import quick_agent


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    with quick_agent(backbone, SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as memory:
        yield memory
