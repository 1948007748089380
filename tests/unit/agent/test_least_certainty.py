"""How sure a memory has to be of an answer: what the settings say, or what follows from the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from locas_agent import AgentMemory, LocasConfig, UserKey
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.journals import commit
from locas_agent.memory import LocasMemory
from locas_agent.memory.placement import DEEP_FROM
from locas_agent.memory_cache import DEEP_CERTAINTY, MemoryCache
from locas_storage import InMemoryStore
from tests.conftest import MakeMemory


def certainties(
    backbone: Backbone, memories: Sequence[LocasMemory | None], **settings: dict[str, object]
) -> tuple[float, ...]:
    config = LocasConfig.model_validate(settings)
    batch = MemoryCache(backbone, InMemoryStore(), least_certainty=config.least_certainty).batch(memories)
    assert batch is not None
    return batch.certainties


def test_it_follows_from_the_backbone_unless_given(
    backbone: Backbone, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = make_memory(1)
    indices = None if deep.neuron_indices is None else deep.neuron_indices[-1:]
    last = replace(deep, slab=deep.slab[-1:], scale=deep.scale[-1:], layers=(-1,), neuron_indices=indices)
    memories = [deep, None, last]
    assert certainties(backbone, memories) == (0.0, 0.0, 0.0)  # a backbone of few layers
    monkeypatch.setattr(Backbone, "n_layers", DEEP_FROM)
    assert certainties(backbone, memories) == (DEEP_CERTAINTY, 0.0, 0.0)
    assert certainties(backbone, memories, window={"least_certainty": 0.25}) == (0.25, 0.0, 0.25)
    raw = certainties(backbone, memories, training={"objective": "ntp"})
    assert raw == (0.0, 0.0, 0.0)  # raw text teaches no first token


@pytest.mark.parametrize(("least", "is_bare"), [(0.0, False), (0.999999, True)])
def test_an_unsure_memory_leaves_recall_to_the_backbone(
    backbone: Backbone, make_memory: MakeMemory, least: float, is_bare: bool
) -> None:
    store, memory = InMemoryStore(), make_memory(1)
    config = LocasConfig.model_validate({"window": {"least_certainty": least}})
    with AgentMemory(backbone=backbone, store=store, config=config) as agent:
        agent.for_user("ada").add("user", "one")
        commit(store, UserKey("default", "ada"), memory, to_seq=1)
        found = agent.for_user("ada").recall("Who?")
    assert found.revision == 1
    assert (found.logprob == pytest.approx(found.logprob_without, abs=1e-3)) is is_bare
