"""The tools and resources, asked in process by the protocol's own client: what they do, for whom, and what they refuse.

A stand-in learns in no time; the store is a real file.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import TextContent, TextResourceContents

from locas_agent import AgentMemory, Backbone
from locas_agent.mcp_server.tools import create_server
from locas_storage import SqlMemoryStore
from tests.unit.agent.fake_learner import quick_agent

Call = Callable[..., Any]


@pytest.fixture
def agent(backbone: Backbone, tmp_path: Path) -> Iterator[AgentMemory]:
    with quick_agent(backbone, SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as memory:
        yield memory


@asynccontextmanager
async def client_of(agent: AgentMemory, user: str) -> AsyncIterator[Client]:
    async with Client(create_server(lambda: agent.for_user(user))) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Return what a tool answers."""
    answered = await client.call_tool(tool, arguments)
    assert not answered.is_error, answered.content
    content = answered.structured_content
    assert content is not None
    return content["result"] if set(content) == {"result"} else content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Return how a call is refused."""
    answered = await client.call_tool(tool, arguments)
    assert answered.is_error
    (said,) = answered.content
    assert isinstance(said, TextContent)
    return said.text


async def read(client: Client, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


async def test_tools_say_what_they_do_and_take_no_user(agent: AgentMemory) -> None:
    async with client_of(agent, "ada") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {
            "remember",
            "recall",
            "search_memory",
            "forget_memory",
            "list_memories",
            "memory_status",
        }
        for name, tool in tools.items():
            assert tool.description
            assert tool.output_schema
            assert tool.annotations is not None
            assert tool.annotations.destructive_hint is {"forget_memory": True, "remember": False}.get(name)
            assert bool(tool.annotations.read_only_hint) == (name not in ("forget_memory", "remember"))
            assert not {"user", "user_id", "tenant"} & set(tool.input_schema.get("properties", {}))


async def test_what_is_remembered_is_found_learnt_recalled_and_forgotten(agent: AgentMemory) -> None:
    async with client_of(agent, "ada") as client:
        assert (await call(client, "recall", question="What is my dog called?"))["answer"] is None
        for text in ("My dog is called Rex.", "I row."):
            made = await call(client, "remember", text=text)
        assert made["turn"] == 2
        (found,) = await call(client, "search_memory", query="dog")
        assert (found["turn"], found["text"], found["is_learnt"]) == (1, "My dog is called Rex.", False)
        agent.for_user("ada").consolidate(flush=True)
        status = await call(client, "memory_status")
        assert (status["last_turn"], status["learnt_up_to"], status["revision"]) == (2, 2, 1)
        recalled = await call(client, "recall", question="What is my dog called?")
        assert recalled["why_none"] is None
        assert recalled["gain_nats"] is not None
        assert [turn["is_learnt"] for turn in await call(client, "list_memories")] == [True, True]
        gone = await call(client, "forget_memory", turns=[1])
        assert (gone["turns"], gone["revisions"], gone["study_items"] > 0, gone["relearnt_up_to"]) == (
            [1],
            [1],
            True,
            2,
        )
        assert [turn["text"] for turn in await call(client, "list_memories")] == ["I row."]
        assert (await call(client, "memory_status"))["revision"] is None  # what saw it answers no more
        assert (await call(client, "forget_memory", turns=[1]))["turns"] == []  # and says that nothing went


async def test_nobody_sees_or_forgets_what_another_said(agent: AgentMemory) -> None:
    async with client_of(agent, "ada") as ada, client_of(agent, "ben") as ben:
        await call(ada, "remember", text="My code is 5512.")
        assert await call(ben, "search_memory", query="code") == []
        assert await call(ben, "list_memories") == []
        assert "no turns" in await refused(ben, "forget_memory", turns=[1])
        assert await read(ben, "memory://turns") == []
        assert len(await call(ada, "list_memories")) == 1


async def test_turns_are_listed_page_by_page(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    for number in range(1, 8):
        ada.add("user", f"fact {number}")
    async with client_of(agent, "ada") as client:
        assert [turn["turn"] for turn in await call(client, "list_memories", limit=3)] == [5, 6, 7]
        assert [turn["turn"] for turn in await call(client, "list_memories", limit=3, before=5)] == [2, 3, 4]
        assert [turn["turn"] for turn in await call(client, "list_memories", before=1)] == []


async def test_resources_show_the_status_and_the_turns(agent: AgentMemory) -> None:
    agent.for_user("ada").add("user", "I row.", name="Ada")
    async with client_of(agent, "ada") as client:
        assert {str(one.uri) for one in (await client.list_resources()).resources} == {
            "memory://status",
            "memory://turns",
        }
        (template,) = (await client.list_resource_templates()).resource_templates
        assert template.uri_template == "memory://turns/{turn}"
        assert (await read(client, "memory://status"))["last_turn"] == 1
        (turn,) = await read(client, "memory://turns")
        assert (turn["text"], turn["said_by"]) == ("I row.", "Ada")
        assert await read(client, "memory://turns/1") == turn
        for uri in ("memory://turns/9", "memory://turns/x", "memory://turns/0", "memory://other"):
            with pytest.raises(Exception, match=r"(?i)turn|resource|unknown|error"):
                await client.read_resource(uri)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("remember", {}, "text"),
        ("remember", {"text": 7}, "text"),
        ("remember", {"text": "a\x00b"}, "NUL"),
        ("remember", {"text": "word " * 9000}, "tokens"),
        ("recall", {"question": "word " * 9000}, "room|tokens"),
        ("search_memory", {"query": "x", "limit": 0}, "limit"),
        ("search_memory", {"query": "x", "limit": 10**9}, "limit"),
        ("forget_memory", {"turns": []}, "turns"),
        ("forget_memory", {"turns": ["all"]}, "turns"),
        ("forget_memory", {"turns": list(range(1, 200))}, "turns"),
        ("forget_memory", {"turns": [1, 99]}, "no turn 99"),
        ("list_memories", {"before": 0}, "before"),
    ],
)
async def test_what_cannot_be_done_is_told_and_changes_nothing(
    agent: AgentMemory, tool: str, arguments: dict[str, Any], said: str
) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "I row.")
    before = ada.turns()
    async with client_of(agent, "ada") as client:
        answer = await refused(client, tool, **arguments)
    assert any(one in answer for one in said.split("|")), answer
    assert ada.turns() == before


async def test_an_erased_user_is_told_so(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.add("user", "I row.")
    ada.erase()
    async with client_of(agent, "ada") as client:
        assert "erased" in await refused(client, "remember", text="I sing.")
        assert await call(client, "list_memories") == []
