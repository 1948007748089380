"""The pasts of users' conversations.

Taken up at the next turn, dropped with the revision, with what is forgotten, and for want of room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from locas_agent import memory_cache
from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.journals import commit
from locas_agent.config import LocasConfig, PolicySettings, WindowSettings
from locas_agent.inference.prefix_cache import PrefixSlot
from locas_agent.memory.serialization import to_bytes
from locas_storage import InMemoryStore, RevisionDraft, UserKey
from tests.conftest import MakeMemory

ADA = UserKey("default", "ada")
CONFIG = LocasConfig(window=WindowSettings(window_tokens=400, max_new_tokens=6), policy=PolicySettings(automatic=False))
SAID = ("My dog is Rex.", "It barks.", "Who barks?", "And why?")


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with closing(InMemoryStore()) as store:
        yield AgentMemory(backbone=backbone, store=store, config=CONFIG)


def kept(agent: AgentMemory) -> PrefixSlot:
    return agent.memories.past(ADA, agent.store.revision(ADA))


def without_pasts(agent: AgentMemory, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patch:
        patch.setattr(agent.memories, "keep_past", lambda *_: None)
        return [agent.for_user(name).reply(text).text for text in SAID]


def test_turns_take_up_what_was_run_and_say_the_same(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_pasts(agent, "bob", monkeypatch)
    assert agent.cache_info().prefixes == 0
    user, shared = agent.for_user("ada"), []
    generate = agent.engine.generate

    def watching(prompts, *, kept, **options):  # type: ignore[no-untyped-def]
        shared.append(0 if kept[0].past is None else kept[0].past.shared_with(prompts[0]))
        return generate(prompts, kept=kept, **options)

    monkeypatch.setattr(agent.engine, "generate", watching)
    assert [user.reply(text).text for text in SAID] == expected
    assert shared[0] == 0
    assert all(later > earlier for earlier, later in pairwise(shared))
    assert agent.cache_info().prefixes == 1
    past = kept(agent).past
    assert past is not None
    assert agent.cache_info().prefix_bytes == past.n_bytes


def test_streamed_turns_take_it_up_too(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_pasts(agent, "bob", monkeypatch)
    user = agent.for_user("ada")
    for text in SAID:
        list(user.stream(text))
    assert [turn.content for turn in user.turns() if turn.role == "assistant"] == expected
    past = kept(agent).past
    assert past is not None
    assert len(past.ids) > 50


def test_another_revision_has_no_past(agent: AgentMemory, make_memory: MakeMemory) -> None:
    user = agent.for_user("ada")
    user.reply(SAID[0])
    assert kept(agent).past is not None
    commit(agent.store, ADA, make_memory(1), to_seq=1)
    assert kept(agent).past is None
    assert agent.cache_info().prefixes == 0
    user.reply(SAID[1])
    assert kept(agent).past is not None
    draft = RevisionDraft(
        parent=1,
        fingerprint=agent.backbone.fingerprint,
        config_hash="test",
        code_version="test",
        seed=0,
        from_seq=2,
        to_seq=2,
        payload=to_bytes(make_memory(2)),
    )
    agent.store.commit(ADA, draft)
    assert kept(agent).past is None


def test_nobody_elses_past_is_found(agent: AgentMemory) -> None:
    agent.for_user("ada").reply(SAID[0])
    for other in (UserKey("default", "bob"), UserKey("work", "ada")):
        assert agent.memories.past(other, None).past is None
    assert kept(agent).past is not None


@pytest.mark.parametrize("ends", ["forget", "erase"])
def test_what_is_forgotten_leaves_no_past(agent: AgentMemory, ends: str) -> None:
    user = agent.for_user("ada")
    user.reply(SAID[0])
    assert agent.cache_info().prefixes == 1
    if ends == "forget":
        user.forget([1])
    else:
        user.erase()
    assert agent.cache_info().prefixes == 0


def test_least_recently_used_makes_room(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.reply_many([("ada", "Hello."), ("bob", "Hello.")])
    assert agent.cache_info().prefixes == 2
    monkeypatch.setattr(memory_cache, "PAST_BYTES", 1)
    agent.for_user("eve").reply("Hello.")
    assert agent.cache_info().prefixes == 1
    assert kept(agent).past is None


def test_prefetched_memory_is_found_by_the_reply(
    agent: AgentMemory, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.for_user("ada").add("user", SAID[0])
    commit(agent.store, ADA, make_memory(1), to_seq=1)
    agent.prefetch(["ada", "nobody"])
    assert agent.cache_info().misses == 1
    monkeypatch.setattr(memory_cache, "from_bytes", lambda *_, **__: pytest.fail("read again"))
    monkeypatch.setattr(memory_cache, "ready_rows", lambda *_: pytest.fail("made ready again"))
    assert agent.for_user("ada").reply(SAID[1]).used_memory
