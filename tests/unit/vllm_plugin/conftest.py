"""A padded backbone, and an agent whose learner is a stand-in, on a real file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone
from locas_agent.exports.padded import write_padded_base
from locas_storage import SqlMemoryStore
from locas_vllm.adapters import ServedMemories
from tests.unit.agent.fake_learner import quick_agent


@pytest.fixture(scope="session")
def padded(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_padded_base(backbone, tmp_path_factory.mktemp("padded") / "base", slots=4)


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    with quick_agent(backbone, SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}"), "inline") as memory:
        yield memory


@pytest.fixture
def memories(agent: AgentMemory, tmp_path: Path) -> Iterator[ServedMemories]:
    """What a server of the tenant `default` on the same store has."""
    (tmp_path / "adapters").mkdir()
    served = ServedMemories(SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}"), "default", tmp_path / "adapters")
    yield served
    served.close()


def tell(agent: AgentMemory, user: str, text: str, *, tenant: str = "default") -> int:
    """Let a user say something and have it learnt; return the number of the revision."""
    handle = agent.for_user(user, tenant=tenant)
    handle.add("user", text)
    revision = handle.consolidate(flush=True).revision
    assert revision is not None
    return revision.number
