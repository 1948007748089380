"""Who speaks in a message and what it says, the same for an answer, the middleware, histories and classic memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langgraph.checkpoint.memory import InMemorySaver

from langchain_locas import ChatLocas, LocasChainMemory, LocasChatMessageHistory, LocasMemoryMiddleware
from langchain_locas.messages import role_of, text_of, to_chat, turn_key
from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError, InvalidTurn
from locas_agent.serving.tool_calls import read
from locas_storage.records.turns import ROLES


class Spoken(HumanMessage):
    """A subclass of a program's own."""


SPEAKERS: list[tuple[BaseMessage, str]] = [
    (HumanMessage("x"), "user"),
    (HumanMessageChunk("x"), "user"),
    (Spoken("x"), "user"),
    (AIMessage("x"), "assistant"),
    (AIMessageChunk("x"), "assistant"),
    (SystemMessage("x"), "system"),
    (SystemMessageChunk("x"), "system"),
    (ToolMessage("x", tool_call_id="c"), "tool"),
    (ToolMessageChunk("x", tool_call_id="c"), "tool"),
    (FunctionMessage("x", name="f"), "tool"),
    *((ChatMessage(role=role, content="x"), role) for role in ROLES),
    (ChatMessageChunk(role="user", content="x"), "user"),
    (ChatMessage(role="human", content="x"), "user"),
    (ChatMessage(role="ai", content="x"), "assistant"),
    (ChatMessage(role="developer", content="x"), "system"),
    (ChatMessage(role="function", content="x"), "tool"),
]
NOBODYS: list[BaseMessage] = [
    ChatMessage(role="critic", content="x"),
    ChatMessage(role="User", content="x"),
    RemoveMessage(id="1"),
]


@pytest.mark.parametrize(
    ("message", "role"), SPEAKERS, ids=lambda one: getattr(one, "role", None) or type(one).__name__
)
def test_everything_agrees_who_speaks(agent: AgentMemory, message: BaseMessage, role: str) -> None:
    assert role_of(message) == role
    assert to_chat([message])[0]["role"] == role
    kept = [role] if role in ("user", "assistant") else []
    LocasChatMessageHistory("ada", "monday", memory=agent).add_messages([message])
    assert [turn.role for turn in agent.for_user("ada").turns()] == kept
    LocasChainMemory(memory=agent, user_id="ben").save_context({"input": message}, {"output": "Good."})
    assert [turn.role for turn in agent.for_user("ben").turns()] == [*kept, "assistant"]


@pytest.mark.parametrize("message", NOBODYS, ids=lambda message: type(message).__name__)
def test_a_role_that_nobody_has_is_refused_everywhere(agent: AgentMemory, message: BaseMessage) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    classic = LocasChainMemory(memory=agent, user_id="ada")
    for refused in (
        lambda: ChatLocas(memory=agent).invoke([HumanMessage("Hello."), message], user_id="ada"),
        lambda: history.add_messages([HumanMessage("Hello."), message]),
        lambda: classic.save_context({"input": "Hello."}, {"output": [AIMessage("Good."), message]}),
    ):
        with pytest.raises(ConfigurationError, match="no place in a chat"):
            refused()
    assert agent.for_user("ada").turns() == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_chat_message_in_a_thread_is_journalled_like_a_human_one(agent: AgentMemory, is_async: bool) -> None:
    graph = create_agent(
        ChatLocas(memory=agent), middleware=[LocasMemoryMiddleware(agent)], checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"user_id": "ada", "thread_id": "t"}}
    said = {"messages": [ChatMessage(role="user", content="My boat is called Quill.", name="Ada")]}
    asyncio.run(graph.ainvoke(said, config)) if is_async else graph.invoke(said, config)
    turn, answer = agent.for_user("ada").turns()
    assert (turn.role, turn.content, turn.session, answer.role) == (
        "user",
        "My boat is called Quill.",
        "t",
        "assistant",
    )


# Text
# --------------------------------------------------------------------------------------------------------------------

CONTENTS: list[Any] = [
    "plain",
    ["one", "two"],
    [{"type": "text", "text": "un"}, {"type": "text", "text": "broken"}],
    [{"type": "text", "text": None}],
    [{"type": "text"}],
    [{"text": "typeless"}],
    [{"type": None, "text": "typeless"}],
    ["a", {"text": "b"}, {"type": "text", "text": "c"}],
    [],
    [{"type": "text", "text": 5}, "d"],
]


@pytest.mark.parametrize("content", CONTENTS, ids=str)
@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, SystemMessage, HumanMessageChunk])
def test_text_is_what_langchain_takes_for_it(kind: type[BaseMessage], content: Any) -> None:
    message = kind(content=content)
    assert text_of(message) == str(message.text)
    assert type(text_of(message)) is str
    assert to_chat([message]) == [{"role": role_of(message), "content": str(message.text)}]


def test_what_is_no_text_is_refused_of_a_person_and_left_out_of_a_model() -> None:
    picture: list[str | dict[Any, Any]] = ["Look.", {"type": "image_url", "image_url": {"url": "x"}}]
    assert text_of(AIMessage(picture)) == text_of(ChatMessage(role="assistant", content=picture)) == "Look."
    for message in (
        HumanMessage(picture),
        ChatMessage(role="user", content=picture),
        ToolMessage(picture, tool_call_id="c"),
    ):
        with pytest.raises(ConfigurationError, match="'image_url': a backbone reads text only"):
            text_of(message)


def test_blocks_are_kept_unbroken_and_none_is_nothing(agent: AgentMemory) -> None:
    history = LocasChatMessageHistory("ada", "monday", memory=agent)
    halves: list[str | dict[Any, Any]] = [{"type": "text", "text": "The bo"}, {"type": "text", "text": "at sails."}]
    history.add_messages([HumanMessage(halves), HumanMessage([{"type": "text", "text": None}])])
    assert [message.content for message in history.messages] == ["The boat sails."]


# Text that no turn can hold
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["half \ud83d", "\udc00", "nul \x00"], ids=ascii)
def test_what_no_turn_can_hold_is_refused_as_everywhere(agent: AgentMemory, text: str) -> None:
    model = ChatLocas(memory=agent, user_id="ada")
    for refused in (
        lambda: model.invoke(text),
        lambda: model.invoke([SystemMessage(text), HumanMessage("Hello.")]),
        lambda: list(model.stream(text)),
        lambda: asyncio.run(model.ainvoke(text)),
        lambda: model.get_num_tokens(text),
        lambda: model.get_token_ids(text),
        lambda: model.get_num_tokens_from_messages([HumanMessage(text)]),
        lambda: LocasChatMessageHistory("ada", "monday", memory=agent).add_messages([HumanMessage(text)]),
    ):
        with pytest.raises(InvalidTurn, match=r"lone surrogate|NUL") as caught:
            refused()
        assert text not in str(caught.value)


def test_what_a_tool_or_a_model_wrote_never_stops_a_thread(agent: AgentMemory) -> None:
    calls = [{"name": "look", "args": {}, "id": "c", "type": "tool_call"}]
    thread: list[BaseMessage] = [
        HumanMessage("Look."),
        AIMessage("so\ud83d\x00", tool_calls=calls),
        ToolMessage("it\udc00 is\x00", tool_call_id="c"),
    ]
    assert ChatLocas(memory=agent).invoke(thread, user_id="ada").response_metadata["finish_reason"]
    assert [entry["content"] for entry in to_chat(thread)] == ["Look.", "so", "it is"]
    (call,), _ = read('<tool_call>{"name": "look", "arguments": {"at": "\\ud83d"}}</tool_call>')
    assert call.arguments == '{"at": ""}'


def test_any_id_makes_a_key() -> None:
    odd = ["", "\ud800", "\x00", "x" * 5_000]
    keys = [turn_key(session, name, again=again) for session in (None, "s") for name in odd for again in (0, 1, 12)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) < 100 and key.isascii() for key in keys)
