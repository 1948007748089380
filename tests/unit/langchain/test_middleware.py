"""`LocasMemoryMiddleware`: who speaks, what the model sees, and that each message becomes one turn, whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_locas import ChatLocas, LocasMemoryMiddleware, memory_tools
from langchain_locas import chat_model as module
from langchain_locas.recording import Thread, live, record
from locas_agent import AgentMemory, LocasConfig
from locas_agent.engine import Engine
from locas_agent.errors import ConfigurationError
from tests.unit.langchain.conftest import MakeAgent, Teach, tool_backbone
from tests.unit.langchain.scripted import ScriptedEngine


class FlakyEngine(Engine):
    """Fails when it is told to, half-way through an answer."""

    failures = 0

    def stream(self, prompt: Sequence[int], **options: Any) -> Iterator[int]:
        for at, token in enumerate(super().stream(prompt, **options)):
            if at == 2 and self.failures:
                self.failures -= 1
                raise ConnectionError("broken")
            yield token


@dataclass
class Context:
    user_id: str | None = None


def build(memory: AgentMemory, *, tools: bool = False, before: Sequence[Any] = (), **options: Any) -> Any:
    return create_agent(
        ChatLocas(memory=memory), tools=memory_tools(memory) if tools else [], middleware=[*before, LocasMemoryMiddleware(memory)],
        checkpointer=InMemorySaver(), context_schema=Context, **options,
    )  # fmt: skip


def thread(user: str, thread_id: str = "t") -> Any:
    return {"configurable": {"user_id": user, "thread_id": thread_id}}


def asks(text: str) -> Any:
    return {"messages": [("human", text)]}


def said(memory: AgentMemory, user: str) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in memory.for_user(user).turns()]


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each prompt that reached the backbone."""
    seen: list[list[str]] = []

    class Noting(module.Answer):
        def __init__(self, agent: AgentMemory, question: module.Question) -> None:
            seen.append([str(message["content"]) for message in question.messages])
            super().__init__(agent, question)

    monkeypatch.setattr(module, "Answer", Noting)
    return seen


# Who speaks ------------------------------------------------------------------------------------------------------------


def test_context_goes_before_configurable(agent: AgentMemory) -> None:
    graph = build(agent)
    graph.invoke(asks("One."), thread("ben"), context=Context("ada"))
    graph.invoke(asks("Two."), thread("ben", "other"), context=Context())
    assert next(text for _, text in said(agent, "ada")) == "One."
    assert next(text for _, text in said(agent, "ben")) == "Two."


def test_nobody_is_refused_and_nothing_is_written(agent: AgentMemory) -> None:
    with pytest.raises(ConfigurationError, match="no user_id"):
        build(agent).invoke(asks("One."), {"configurable": {"thread_id": "ada"}})
    assert agent.users() == []


async def test_two_interleaved_users_keep_to_themselves(agent: AgentMemory, teach: Teach) -> None:
    teach("ada", seed=1)
    teach("ben", seed=2)
    model, graph = ChatLocas(memory=agent), build(agent)
    expected = {user: model.invoke("Who am I?", user_id=user).content for user in ("ada", "ben")}
    configs = [thread(user, f"{user} {number}") for number in range(3) for user in ("ada", "ben")]
    answers = await asyncio.gather(*(graph.ainvoke(asks("Who am I?"), config) for config in configs))
    assert [answer["messages"][-1].content for answer in answers] == [expected["ada"], expected["ben"]] * 3
    for user in ("ada", "ben"):
        assert sorted(said(agent, user)[1:]) == sorted([("user", "Who am I?"), ("assistant", str(expected[user]))] * 3)


def test_foreign_model_is_refused(agent: AgentMemory, make_agent: MakeAgent) -> None:
    foreign = GenericFakeChatModel(messages=iter([AIMessage("x")]))
    graph = create_agent(foreign, middleware=[LocasMemoryMiddleware(agent)])
    with pytest.raises(ConfigurationError, match="GenericFakeChatModel, which cannot apply a memory"):
        graph.invoke(asks("One."), {"configurable": {"user_id": "ada"}})
    for other in (LocasMemoryMiddleware(make_agent()), LocasMemoryMiddleware(agent, tenant="other")):
        graph = create_agent(ChatLocas(memory=agent), middleware=[other])
        with pytest.raises(ConfigurationError, match="another memory or tenant"):
            graph.invoke(asks("One."), {"configurable": {"user_id": "ada"}})
    assert agent.users() == []


# Each message once -----------------------------------------------------------------------------------------------------


async def ainvoke(graph: Any, text: str, config: Any) -> None:
    await graph.ainvoke(asks(text), config)


async def astream(graph: Any, text: str, config: Any) -> None:
    [_ async for _ in graph.astream(asks(text), config, stream_mode="messages")]


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
def test_each_message_is_one_turn(agent: AgentMemory, how: str) -> None:
    graph = build(agent)
    for text in ("One.", "Two.", "Three."):
        match how:
            case "invoke":
                graph.invoke(asks(text), thread("ada"))
            case "stream":
                list(graph.stream(asks(text), thread("ada")))
            case "ainvoke":
                asyncio.run(ainvoke(graph, text, thread("ada")))
            case _:
                asyncio.run(astream(graph, text, thread("ada")))
    state = graph.get_state(thread("ada")).values["messages"]
    assert said(agent, "ada") == [("user" if message.type == "human" else "assistant", message.content) for message in state]
    assert len(state) == 6
    assert {turn.session for turn in agent.for_user("ada").turns()} == {"t"}


def test_question_survives_an_error_and_is_not_repeated(agent: AgentMemory) -> None:
    engine = FlakyEngine(agent.backbone)
    agent.engine = engine
    graph = build(agent)
    engine.failures = 1
    with pytest.raises(ConnectionError):
        graph.invoke(asks("One."), thread("ada"))
    assert said(agent, "ada") == [("user", "One.")]
    answer = graph.invoke(None, thread("ada"))["messages"][-1]  # the thread goes on where it broke
    assert said(agent, "ada") == [("user", "One."), ("assistant", answer.content)]
    engine.failures = 1
    with pytest.raises(ConnectionError):
        graph.invoke(asks("Two."), thread("ada"))
    graph.invoke(asks("Three."), thread("ada"))
    assert [text for role, text in said(agent, "ada") if role == "user"] == ["One.", "Two.", "Three."]
    assert len(said(agent, "ada")) == 5


def test_retries_of_the_model_add_nothing(agent: AgentMemory) -> None:
    engine = FlakyEngine(agent.backbone)
    agent.engine = engine
    engine.failures = 2
    graph = build(agent, before=[ModelRetryMiddleware(max_retries=3, initial_delay=0.0)])
    graph.invoke(asks("One."), thread("ada"))
    assert engine.failures == 0
    assert [role for role, _ in said(agent, "ada")] == ["user", "assistant"]


def test_journalling_that_fails_after_the_answer_is_made_up_for(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build(agent)
    append = agent.store.append

    def failing(key: Any, drafts: Any, **options: Any) -> Any:
        if drafts[0].role == "assistant":
            raise OSError("disk")
        return append(key, drafts, **options)

    with monkeypatch.context() as broken:
        broken.setattr(agent.store, "append", failing)
        with pytest.raises(OSError, match="disk"):
            graph.invoke(asks("One."), thread("ada"))
    assert [role for role, _ in said(agent, "ada")] == ["user"]
    graph.invoke(asks("Two."), thread("ada"))
    assert [role for role, _ in said(agent, "ada")] == ["user", "assistant", "user", "assistant"]


def test_thread_resumed_by_another_process_adds_nothing(agent: AgentMemory, make_agent: MakeAgent) -> None:
    saver = InMemorySaver()
    for memory, text in ((agent, "One."), (make_agent(), "Two.")):
        graph = create_agent(ChatLocas(memory=memory), middleware=[LocasMemoryMiddleware(memory)], checkpointer=saver)
        graph.invoke(asks(text), thread("ada"))
    assert [role for role, _ in said(agent, "ada")] == ["user", "assistant", "user", "assistant"]


def test_same_id_in_another_thread_is_another_turn(agent: AgentMemory) -> None:
    graph = build(agent)
    for name in ("t", "u"):
        graph.invoke({"messages": [HumanMessage(f"In {name}.", id="1")]}, thread("ada", name))
    assert [text for role, text in said(agent, "ada") if role == "user"] == ["In t.", "In u."]


def test_a_thread_that_was_there_before_is_journalled_whole(agent: AgentMemory) -> None:
    saver = InMemorySaver()
    bare = create_agent(ChatLocas(memory=agent), checkpointer=saver)
    bare.invoke(asks("One."), thread("ada"))
    graph = create_agent(ChatLocas(memory=agent), middleware=[LocasMemoryMiddleware(agent)], checkpointer=saver)
    graph.invoke(asks("Two."), thread("ada"))
    assert [text for role, text in said(agent, "ada") if role == "user"] == ["One.", "Two."]


def test_without_a_thread_only_the_newest_question_is_journalled(agent: AgentMemory) -> None:
    graph = create_agent(ChatLocas(memory=agent), middleware=[LocasMemoryMiddleware(agent)])
    history: list[BaseMessage] = []
    for text in ("One.", "Two."):
        history.append(HumanMessage(text))  # without ids, all of it each time, as web programs do
        answer = graph.invoke({"messages": list(history)}, {"configurable": {"user_id": "ada"}})["messages"][-1]
        history.append(AIMessage(answer.content))
    assert [text for role, text in said(agent, "ada") if role == "user"] == ["One.", "Two."]
    assert len(said(agent, "ada")) == 4


def test_what_tools_say_and_what_middleware_sums_up_is_no_turn(make_agent: MakeAgent, prompts: list[list[str]]) -> None:
    memory = make_agent(config=LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 200}}))
    memory.engine = ScriptedEngine(memory.backbone)
    graph = build(memory, tools=True)
    summary = HumanMessage("Summary of it.", additional_kwargs={"lc_source": "summarization"})
    answer = graph.invoke({"messages": [summary, HumanMessage("Find 'dog' by search_memory.")]}, thread("ada"))
    assert [message.type for message in answer["messages"]] == ["human", "human", "ai", "tool", "ai"]
    assert answer["messages"][2].tool_calls[0]["args"] == {"query": "dog"}
    assert [role for role, _ in said(memory, "ada")] == ["user", "assistant"]
    assert len(prompts) == 2  # one for each call of the model, and the second shows what the tool returned
    assert "Find 'dog' by search_memory." in prompts[1][-1]


# What the model sees ---------------------------------------------------------------------------------------------------


def test_window_is_kept_and_what_is_learnt_leaves_the_prompt(agent: AgentMemory, teach: Teach, prompts: list[list[str]]) -> None:
    graph = build(agent)
    for number in range(6):
        graph.invoke(asks(f"Number {number} of them."), thread("ada"))
    assert any("Number 0" in text for text in prompts[-1])  # not learnt: it stays while there is room
    before = len(graph.get_state(thread("ada")).values["messages"])
    teach("ada", seed=3)
    graph.invoke(asks("And now?"), thread("ada"))
    assert not any("Number 0" in text for text in prompts[-1])
    assert prompts[-1][-1] == "And now?"
    assert any("Number 5" in text for text in prompts[-1])  # the window
    assert len(graph.get_state(thread("ada")).values["messages"]) == before + 2  # the checkpoint keeps everything


def test_prompt_never_exceeds_the_context(make_agent: MakeAgent, prompts: list[list[str]]) -> None:
    small = tool_backbone()
    small.model.config.max_position_embeddings = 700
    memory = make_agent(backbone=small)
    graph = build(memory, system_prompt="Be brief. " * 10)
    for number in range(8):
        graph.invoke(asks(f"Number {number}: {'x' * 60}"), thread("ada"))
    assert any("Number 7" in text for text in prompts[-1])
    assert not any("Number 0" in text for text in prompts[-1])
    assert prompts[-1][0].startswith("Be brief.")


def test_forgotten_message_is_shown_no_more(agent: AgentMemory, prompts: list[list[str]]) -> None:
    graph = build(agent)
    graph.invoke(asks("My code is 4071."), thread("ada"))
    graph.invoke(asks("Something else."), thread("ada"))
    agent.for_user("ada").forget(1, wait=False)
    graph.invoke(asks("What is my code?"), thread("ada"))
    assert not any("4071" in text for text in prompts[-1])
    assert any("Something else." in text for text in prompts[-1])
    assert not any("4071" in text for _, text in said(agent, "ada"))  # nor does a later run journal it again


def test_calls_go_with_a_forgotten_message(agent: AgentMemory) -> None:
    calling = AIMessage("Let me see.", id="2", tool_calls=[{"name": "search_memory", "args": {}, "id": "c"}])
    messages = [HumanMessage("One.", id="1"), calling, ToolMessage("found", tool_call_id="c", id="3"), AIMessage("Done.", id="4")]
    here = Thread(agent.for_user("ada"), "t")
    record(agent, here, messages)
    here.user.forget(2, wait=False)
    shown = live(agent, here, messages, record(agent, here, messages), lambda _: 0)
    assert [message.id for message in shown] == ["1", "4"]


# Learning --------------------------------------------------------------------------------------------------------------


def test_background_queues_what_left_the_window_and_no_hook_trains(agent: AgentMemory) -> None:
    graph = build(agent)
    for number in range(8):
        graph.invoke(asks(f"Number {number} of them, and some more words."), thread("ada"))
    (job,) = agent.store.queue.jobs()
    assert job.key.user == "ada"
    assert agent.for_user("ada").revisions() == []


def test_inline_leaves_learning_to_the_program(make_agent: MakeAgent) -> None:
    memory = make_agent(consolidation="inline")
    graph = build(memory)
    for number in range(8):
        graph.invoke(asks(f"Number {number} of them, and some more words."), thread("ada"))
    assert memory.for_user("ada").due().due
    assert memory.for_user("ada").revisions() == []
