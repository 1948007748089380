"""A memory asked alone and shown at work, on the random backbone and a learner that makes a memory in no time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from locas_agent import AgentMemory, Backbone, UserMemory
from locas_agent.errors import ConfigurationError
from locas_agent.memory.serialization import to_bytes
from locas_storage import InMemoryStore, RevisionDraft
from tests.conftest import MakeMemory
from tests.unit.agent.fake_learner import quick_agent


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with quick_agent(backbone, InMemoryStore()) as made:
        yield made


@pytest.fixture
def ada(agent: AgentMemory, make_memory: MakeMemory) -> UserMemory:
    """Ada, of whose turns two have study items, each answered "I did."; her memory changes what the backbone says."""
    handle = agent.for_user("ada")
    for text in ("one", "two"):
        handle.add("user", text)
    assert handle.consolidate(flush=True).admitted
    handle.add("user", "three")
    memory = make_memory()
    draft = RevisionDraft(
        parent=1,
        fingerprint=memory.fingerprint,
        config_hash="test",
        code_version="test",
        seed=0,
        from_seq=3,
        to_seq=3,
        payload=to_bytes(memory),
    )
    agent.store.commit(handle.key, draft)
    return handle


def test_recall_reads_no_turn_and_stores_none(agent: AgentMemory, ada: UserMemory) -> None:
    before = ada.turns()
    found = ada.recall("Who said one?")
    assert (ada.turns(), found.revision) == (before, 2)
    other = agent.for_user("ben")  # the same question without a memory
    bare = other.recall("Who said one?")
    assert bare.revision is None
    assert bare.logprob == pytest.approx(bare.logprob_without, abs=1e-3)
    assert found.logprob != pytest.approx(found.logprob_without, abs=1e-3)


def test_citations_are_the_turns_whose_items_are_answered_so(
    agent: AgentMemory, ada: UserMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ada.recall("Who said one?").citations == ()  # the random backbone says something else
    monkeypatch.setattr(agent.backbone, "decode", lambda ids: "I did.")
    one, two, _ = ada.turns()
    assert ada.recall("Who said one?").citations == (one,)  # the item asked most alike
    assert ada.recall("And what else?").citations == (one, two)
    assert agent.for_user("ben").recall("Who said one?").citations == ()


def test_explanation_weighs_each_token_with_the_memory_and_without(agent: AgentMemory, ada: UserMemory) -> None:
    found = ada.explain("abc", question="Who?")
    assert [token.text for token in found.tokens] == ["a", "b", "c"]
    assert found.logprob == pytest.approx(sum(token.logprob for token in found.tokens))
    assert found.logprob != pytest.approx(found.logprob_without, abs=1e-3)
    assert (found.revision, len(found.layers)) == (2, 2)
    bare = agent.for_user("ben").explain("abc", question="Who?")
    assert (bare.revision, bare.layers, bare.logprob) == (None, (), bare.logprob_without)
    assert bare.logprob_without == pytest.approx(found.logprob_without, abs=1e-4)


def test_text_of_one_token_alone_cannot_be_explained(ada: UserMemory) -> None:
    assert len(ada.explain("a", question="Who?").tokens) == 1  # behind a question it can
    with pytest.raises(ConfigurationError, match="at least one token after its beginning"):
        ada.explain("a")
