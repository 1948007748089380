"""Threads of the async twins.

What waits behind what, and that there are none before they are needed and none after they were.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from locas_agent import AgentMemory, Backbone
from locas_storage import InMemoryStore
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

PATIENCE_SECONDS = 20.0
MANY = 60
"""More than any crew has threads."""


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with quick_agent(backbone, InMemoryStore(), "inline") as made:
        for number in range(MANY):
            made.for_user(f"user {number}").add("user", "something")
        yield made


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("locas-")]


async def behind(
    begin: Callable[[int], Awaitable[object]], let_go: threading.Event, meanwhile: Callable[[], Awaitable[object]]
) -> None:
    """Begin many calls that are held back, and make others meanwhile."""
    calls = [asyncio.ensure_future(begin(number)) for number in range(MANY)]
    try:
        await asyncio.sleep(0.1)  # they have taken every thread they can get
        await asyncio.wait_for(meanwhile(), PATIENCE_SECONDS)
        assert not any(call.done() for call in calls)
    finally:
        let_go.set()
        await asyncio.gather(*calls)


def test_journal_and_answers_do_not_wait_behind_training(agent: AgentMemory) -> None:
    let_go, learner = threading.Event(), agent.runner.learner
    assert isinstance(learner, QuickLearner)
    learner.meanwhile = lambda _: None if let_go.wait(PATIENCE_SECONDS) else pytest.fail("never let go")

    async def removal() -> None:
        ada = agent.for_user("ada")
        await ada.aadd("user", "one")
        await ada.areply("two")
        assert len(await ada.aturns()) == 3
        forgetting = asyncio.ensure_future(ada.aforget([1]))
        for _ in range(200):
            if len(await ada.aturns()) == 2:
                break
            await asyncio.sleep(0.01)
        assert [turn.seq for turn in await ada.aturns()] == [2, 3]
        assert (await forgetting).turns == (1,)

    asyncio.run(behind(lambda number: agent.for_user(f"user {number}").aconsolidate(flush=True), let_go, removal))
    assert all(len(agent.for_user(f"user {number}").revisions()) == 1 for number in range(MANY))


def test_journal_does_not_wait_behind_answers(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, generate = threading.Event(), agent.engine.generate

    def held(*args: Any, **options: Any) -> Any:
        assert let_go.wait(PATIENCE_SECONDS)
        return generate(*args, **options)

    monkeypatch.setattr(agent.engine, "generate", held)

    async def meanwhile() -> None:
        assert (await agent.for_user("user 0").aadd("user", "more")).seq > 1

    asyncio.run(behind(lambda number: agent.for_user(f"user {number}").areply("Hello."), let_go, meanwhile))


def test_there_are_no_threads_before_the_first_call_and_after_the_end(backbone: Backbone) -> None:
    before = ours()
    agent = quick_agent(backbone, InMemoryStore(), "inline")
    ada = agent.for_user("ada")
    ada.reply("Hello.")
    assert ours() == before

    async def talk() -> None:
        await ada.aadd("user", "one")
        await ada.aconsolidate(flush=True)
        assert {name.rpartition("_")[0] for name in set(ours()) - set(before)} == {"locas-journal", "locas-training"}
        await agent.aclose()

    asyncio.run(talk())
    assert ours() == before


def test_closed_agent_makes_threads_anew(agent: AgentMemory) -> None:
    async def twice() -> None:
        await agent.for_user("ada").aadd("user", "one")
        agent.close()
        await agent.for_user("ada").aadd("user", "two")

    asyncio.run(twice())
