"""`LocasSession`: items come back as they were, users and sessions apart; what is popped is forgotten.

The SDK itself runs where it is installed, on a model that is a script.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from locas_agent import AgentMemory, Fleet
from locas_agent.errors import ConfigurationError, InvalidTurn
from locas_frameworks.openai_agents import LocasSession
from locas_storage import InMemoryStore, UserKey
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import quick_agent


def output(text: str, number: int = 1) -> dict[str, Any]:
    """Return an answer as the SDK hands it to a session."""
    block = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [block],
    }


CALL = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": '{"q": "Rex"}', "id": "fc_1"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "a page " * 400}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
PICTURE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:x", "detail": "auto"}]}
CITED = output("See the page.", 3) | {
    "content": [{"type": "output_text", "text": "See the page.", "annotations": [{"type": "url_citation"}]}]
}
ITEMS: list[Any] = [
    {"role": "user", "content": "My dog is called Rex."},
    THOUGHT,
    CALL,
    RESULT,
    output("Nice to meet Rex."),
    {"type": "message", "role": "user", "content": "I row."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "I sing."}]},
    PICTURE,
    CITED,
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": "half a \ud83d"},
    {"role": "user", "content": "word " * 5000},
    {"role": "system", "content": ""},
]


async def test_every_item_comes_back_as_it_was(agent: AgentMemory) -> None:
    session = LocasSession(agent, "ada", "s1")
    await session.add_items(ITEMS[:5])
    await session.add_items(ITEMS[5:])
    assert await session.get_items() == ITEMS
    assert await session.get_items(limit=2) == ITEMS[-2:]
    assert await session.get_items(limit=0) == []
    assert await session.get_items(limit=99) == ITEMS
    assert await LocasSession(agent, "ada", "s1").get_items() == ITEMS  # and in another process


async def test_words_are_turns_that_are_found_and_learnt_and_the_rest_is_not(agent: AgentMemory) -> None:
    session = LocasSession(agent, "ada", "s1")
    await session.add_items(ITEMS)
    learnt = [turn.content for turn in agent.for_user("ada").turns() if turn.learn]
    assert learnt == ["My dog is called Rex.", "Nice to meet Rex.", "I row.", "I sing.", ""]
    assert agent.for_user("ada").search("dog")[0].content == "My dog is called Rex."
    quiet = LocasSession(agent, "ben", "s1", learn=False)
    await quiet.add_items(ITEMS)
    assert not any(turn.learn for turn in agent.for_user("ben").turns())


async def test_users_tenants_and_sessions_are_apart(agent: AgentMemory) -> None:
    sessions = [
        LocasSession(agent, "ada", "s1"),
        LocasSession(agent, "ada", "s2"),
        LocasSession(agent, "ben", "s1"),
        LocasSession(agent, "ada", "s1", tenant="acme"),
    ]
    for number, session in enumerate(sessions):
        await session.add_items([{"role": "user", "content": f"said in {number}"}])
    agent.for_user("ada").add("user", "said elsewhere", session="s1")
    await sessions[2].clear_session()
    for number, session in enumerate(sessions):
        said = [{"role": "user", "content": f"said in {number}"}]
        assert await session.get_items() == ([] if number == 2 else said)
    assert agent.for_user("ben").turns() == []


async def test_what_is_popped_is_forgotten(agent: AgentMemory) -> None:
    session = LocasSession(agent, "ada", "s1")
    await session.add_items(ITEMS[:5])
    agent.for_user("ada").consolidate(flush=True)
    assert await session.pop_item() == ITEMS[4]
    assert agent.for_user("ada").search("nice") == []
    assert agent.store.study_items(agent.for_user("ada").key) == []
    assert [await session.pop_item() for _ in range(5)] == [*ITEMS[3::-1], None]


async def test_calls_at_once_lose_and_repeat_nothing(agent: AgentMemory) -> None:
    sessions = [LocasSession(agent, "ada", "s1"), LocasSession(agent, "ada", "s1"), LocasSession(agent, "ben", "s1")]
    pairs = [[{"role": "user", "content": f"{n}"}, output(f"answer {n}", n)] for n in range(12)]
    await asyncio.gather(*(sessions[n % 3].add_items(pair) for n, pair in enumerate(pairs)))  # type: ignore[arg-type]
    kept = await sessions[0].get_items()
    assert len(kept) == 16
    for at in range(0, 16, 2):
        assert kept[at : at + 2] in pairs  # what was added at once stands together
    popped = await asyncio.gather(*(sessions[n % 2].pop_item() for n in range(20)))
    assert sorted(str(item) for item in popped if item) == sorted(map(str, kept))
    assert len(await sessions[2].get_items()) == 8


async def test_calls_at_one_time_by_the_clock_stay_whole(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)
    for module in ("store", "user_data"):
        monkeypatch.setattr(f"locas_storage.in_memory.{module}.utc_now", lambda: now)
    agent = quick_agent(make_backbone(), InMemoryStore())
    session = LocasSession(agent, "ada", "s1")
    await session.add_items(ITEMS[:5])
    await session.add_items(ITEMS[5:])
    assert await session.get_items() == ITEMS
    ada = agent.for_user("ada")
    ada.correct(6, "I dive.")
    assert (await session.get_items())[5] == {"type": "message", "role": "user", "content": "I dive."}


async def test_a_corrected_turn_stands_in_its_old_place_and_a_forgotten_one_is_gone(agent: AgentMemory) -> None:
    session = LocasSession(agent, "ada", "s1")
    await session.add_items(ITEMS[:5])
    await session.add_items([{"role": "user", "content": "I row."}])
    ada = agent.for_user("ada")
    ada.correct(1, "My dog is called Quill.")
    ada.forget(6)
    assert await session.get_items() == [{"role": "user", "content": "My dog is called Quill."}, *ITEMS[1:5]]


async def test_what_no_journal_takes_is_refused_and_nothing_is_added(agent: AgentMemory) -> None:
    session = LocasSession(agent, "ada", "s1")
    with pytest.raises(ConfigurationError, match="no JSON"):
        await session.add_items([ITEMS[0], {"type": "x", "data": object()}])  # type: ignore[list-item]
    with pytest.raises(InvalidTurn, match="bytes"):
        await session.add_items([ITEMS[0], {"type": "x", "data": "y" * (2 << 20)}])  # type: ignore[list-item]
    assert await session.get_items() == []
    await session.add_items([])
    assert agent.users() == []


async def test_the_sdk_runs_an_agent_over_it(agent: AgentMemory) -> None:
    agents = pytest.importorskip("agents", reason="the OpenAI Agents SDK is not installed: its own run is not tested")
    from agents.models.interface import Model
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    assert isinstance(LocasSession(agent, "ada", "s1"), agents.Session)
    seen: list[Any] = []

    class Scripted(Model):
        async def get_response(self, system_instructions: Any, input: Any, *more: Any, **named: Any) -> Any:
            seen.append(input)
            text = ResponseOutputText(type="output_text", text="Noted.", annotations=[], logprobs=[])
            said = ResponseOutputMessage(
                id=f"msg_{len(seen)}", type="message", role="assistant", status="completed", content=[text]
            )
            return agents.ModelResponse(output=[said], usage=agents.Usage(), response_id=None)

        def stream_response(self, *more: Any, **named: Any) -> Any:
            raise NotImplementedError

    runner = agents.Agent(name="helper", model=Scripted())
    quiet = agents.RunConfig(tracing_disabled=True)
    for user, text in (("ada", "My dog is called Rex."), ("ben", "I row."), ("ada", "Who is Rex?")):
        session = LocasSession(agent, user, "s1")
        done = await agents.Runner.run(runner, text, session=session, run_config=quiet)
        assert done.final_output == "Noted."
    assert [item.get("content") for item in seen[-1] if item["role"] == "user"] == [
        "My dog is called Rex.",
        "Who is Rex?",
    ]
    assert [turn.role for turn in agent.for_user("ada").turns()] == ["user", "assistant"] * 2
    assert [turn.content for turn in agent.for_user("ben").turns()] == ["I row.", "Noted."]


async def test_session_over_a_fleet_counts_with_the_backbone_of_the_user(
    agent: AgentMemory, make_backbone: MakeBackbone
) -> None:
    other = quick_agent(make_backbone(seed=1), agent.store)
    for each, name in ((agent, "ada"), (other, "ben")):
        each.for_user(name).add("user", "My dog is Rex.")
        each.for_user(name).consolidate(flush=True)
    fleet = Fleet([agent, other])
    for name in ("ada", "ben"):
        session = LocasSession(fleet, name, "s1")
        await session.add_items(ITEMS)
        assert await session.get_items() == ITEMS
        assert await session.pop_item() == ITEMS[-1]
        assert fleet.runtime_of(UserKey("default", name)) is (agent if name == "ada" else other)
