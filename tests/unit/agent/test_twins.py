"""Async twins of the verbs: there is one of each, and it does the same."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone, UserMemory
from locas_agent.results import WorkSummary
from tests.unit.agent.fake_learner import MakeAgent, quick_agents


@pytest.fixture
def make_agent(backbone: Backbone, tmp_path: Path) -> Iterator[MakeAgent]:
    """Agents on one file, each as a process of its own would have it; `agent.runner.learner` is the stand-in."""
    with quick_agents(backbone, tmp_path, "background") as make:
        yield make


@pytest.fixture
def agent(make_agent: MakeAgent) -> AgentMemory:
    return make_agent()


def test_twins_do_the_same(agent: AgentMemory) -> None:
    async def all_of_them() -> None:
        ada = agent.for_user("ada")
        await ada.aadd("user", "one")
        assert (await ada.aprompt("x"))[-1]["content"] == "x"
        stream = ada.astream("two")
        pieces = [piece async for piece in stream]
        assert stream.reply is not None
        assert "".join(pieces).strip() == stream.reply.text == ada.turns()[-1].content
        await ada.aconsolidate(flush=True)
        assert (await ada.aforget(1)).turns == (1,)
        assert await agent.awork() == WorkSummary(admitted=1)
        await ada.aerase()
        await ada.areinstate()
        assert ada.turns() == []

    asyncio.run(all_of_them())


def test_every_verb_has_its_twin() -> None:
    of_user = {
        name for name, value in vars(UserMemory).items() if inspect.isfunction(value) and not name.startswith("_")
    }
    twins = {name for name in of_user if name.startswith("a") and name[1:] in of_user}
    of_agent = {"reply_many", "prefetch", "consolidate_many", "users", "work", "close"}
    assert len(twins) > 15
    assert {f"a{verb}" for verb in of_user - twins} == twins
    assert all(callable(getattr(AgentMemory, f"a{verb}")) for verb in of_agent)
