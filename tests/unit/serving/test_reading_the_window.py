"""How much of a journal a reply reads: what it needs, and nothing that grows with the history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.benchmarks.journals import commit, fill
from locas_agent.config import LocasConfig, PolicySettings, WindowSettings
from locas_agent.serving import prompt
from locas_storage import InMemoryStore, UserKey
from tests.conftest import MakeMemory

ADA = UserKey("default", "ada")
CONFIG = LocasConfig(window=WindowSettings(window_tokens=100, max_new_tokens=4), policy=PolicySettings(automatic=False))


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with closing(InMemoryStore()) as store:
        yield AgentMemory(backbone=backbone, store=store, config=CONFIG)


def tell(agent: AgentMemory, make_memory: MakeMemory, *, turns: int, learnt: int) -> None:
    fill(agent.store, ADA, agent.backbone, turns=turns, words=3, repeats=50)
    if learnt:
        commit(agent.store, ADA, make_memory(), to_seq=learnt)


@pytest.mark.parametrize(
    ("turns", "learnt"), [(3, 0), (40, 0), (40, 5), (40, 36), (40, 40), (200, 0), (200, 150), (200, 199)]
)
def test_window_and_overflow_are_those_of_the_whole_journal(
    agent: AgentMemory, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch, turns: int, learnt: int
) -> None:
    tell(agent, make_memory, turns=turns, learnt=learnt)
    monkeypatch.setattr(prompt, "FIRST_TURNS", 10_000)
    whole = agent.prompts.build(ADA).layout
    monkeypatch.setattr(prompt, "FIRST_TURNS", 2)
    assert agent.prompts.build(ADA).layout == whole
    assert whole.window
    assert whole.pending_turns == max(0, turns - len(whole.window) - learnt)


def test_long_journal_is_read_no_further_than_a_short_one(
    agent: AgentMemory, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(agent, make_memory, turns=1000, learnt=990)
    turns, asked = agent.store.turns, list[int]()

    def counting(key: UserKey, **options: Any) -> Any:
        found = turns(key, **options)
        asked.append(len(found))
        return found

    monkeypatch.setattr(agent.store, "turns", counting)
    assert agent.prompts.build(ADA).layout.window
    assert asked == [prompt.FIRST_TURNS]
