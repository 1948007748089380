"""`LocasMemoryMiddleware`.

Who speaks, what the model sees, and that each message becomes one turn, whatever fails on the way.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelRetryMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime, ServerInfo
from langgraph.types import Command
from pydantic import BaseModel

from langchain_locas import ChatLocas, LocasMemoryMiddleware, memory_tools
from langchain_locas.identity import caller
from langchain_locas.journaling import Thread, record, trim_to_window
from locas_agent import AgentMemory, LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_storage import MemoryStore
from tests.unit.langchain.conftest import CONFIG, MakeAgent, Teach, tool_backbone
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


def build(
    memory: AgentMemory,
    *,
    tools: bool = False,
    before: Sequence[Any] = (),
    max_tokens: int | None = None,
    **options: Any,
) -> Any:
    return create_agent(
        ChatLocas(memory=memory, max_tokens=max_tokens),
        tools=memory_tools(memory) if tools else [],
        middleware=[*before, LocasMemoryMiddleware(memory)],
        checkpointer=InMemorySaver(),
        context_schema=Context,
        **options,
    )


def thread(user: str, thread_id: str = "t") -> Any:
    return {"configurable": {"user_id": user, "thread_id": thread_id}}


def asks(text: str) -> Any:
    return {"messages": [("human", text)]}


def said(memory: AgentMemory, user: str) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in memory.for_user(user).turns()]


# Who speaks
# ------------------------------------------------------------------------------------------------------------


def test_context_goes_before_configurable(agent: AgentMemory) -> None:
    graph = build(agent)
    graph.invoke(asks("One."), thread("ben"), context=Context("ada"))
    graph.invoke(asks("Two."), thread("ben", "other"))
    assert next(text for _, text in said(agent, "ada")) == "One."
    assert next(text for _, text in said(agent, "ben")) == "Two."


@pytest.mark.parametrize("context", [Context(), {"user_id": None}, {"user_id": " "}], ids=repr)
def test_nobody_in_the_context_is_not_replaced_by_configurable(agent: AgentMemory, context: Any) -> None:
    graph = create_agent(ChatLocas(memory=agent), middleware=[LocasMemoryMiddleware(agent)])
    with pytest.raises(ConfigurationError, match="user_id in the context"):
        graph.invoke(asks("One."), thread("ben"), context=context)
    assert agent.users() == []


def test_authenticated_user_stands_between_context_and_configurable() -> None:
    server = ServerInfo(assistant_id="a", graph_id="g", user=SimpleNamespace(identity="ada"))  # type: ignore[arg-type]
    assert caller(Runtime(server_info=server), thread("ben")) == "ada"
    assert caller(Runtime(context={"user_id": "cleo"}, server_info=server), thread("ben")) == "cleo"
    assert caller(Runtime(context={"other": 1}), thread("ben")) == "ben"
    nobody = ServerInfo(assistant_id="a", graph_id="g")
    assert caller(Runtime(server_info=nobody), thread("ben")) == "ben"


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


# Each message once
# -----------------------------------------------------------------------------------------------------


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
    assert said(agent, "ada") == [
        ("user" if message.type == "human" else "assistant", message.content) for message in state
    ]
    assert len(state) == 6
    assert {turn.session for turn in agent.for_user("ada").turns()} == {"t"}


def test_question_survives_an_error_and_is_not_repeated(agent: AgentMemory) -> None:
    engine = FlakyEngine(agent.backbone)
    agent.chat.engine = engine
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
    agent.chat.engine = engine
    engine.failures = 2
    graph = build(agent, before=[ModelRetryMiddleware(max_retries=3, initial_delay=0.0)])
    graph.invoke(asks("One."), thread("ada"))
    assert engine.failures == 0
    assert [role for role, _ in said(agent, "ada")] == ["user", "assistant"]


def test_journalling_that_fails_after_the_answer_is_made_up_for(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def unreliable(store: MemoryStore, draw: random.Random) -> Callable[..., Any]:
    """`append` of a store that loses its connection now and then, before the turns are written or after."""
    append = store.append

    def appending(key: Any, drafts: Any, **options: Any) -> Any:
        if draw.random() < 0.3:
            raise OSError("before")
        turns = append(key, drafts, **options)
        if draw.random() < 0.3:
            raise OSError("after")
        return turns

    return appending


def talk(memory: AgentMemory, engine: FlakyEngine, draw: random.Random, *, is_async: bool) -> list[tuple[str, str]]:
    """Hold a conversation of four questions, each resumed until it comes through; return what the thread holds."""
    graph = build(memory)
    for number in range(4):
        given = asks(f"Number {number}.")
        for _ in range(60):
            engine.failures = int(draw.random() < 0.3)
            try:
                if is_async:
                    asyncio.run(graph.ainvoke(given, thread("ada")))
                else:
                    graph.invoke(given, thread("ada"))
                break
            except OSError:  # a connection that broke is one, too
                given = None  # go on where the thread broke off
        else:
            pytest.fail("it never came through")
    return [
        ("user" if message.type == "human" else "assistant", message.content)
        for message in graph.get_state(thread("ada")).values["messages"]
    ]


@pytest.mark.parametrize(("seed", "is_async"), [(0, False), (1, False), (2, True), (3, True)])
def test_whatever_fails_each_message_is_one_turn(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch, seed: int, is_async: bool
) -> None:
    draw = random.Random(seed)
    agent.chat.engine = engine = FlakyEngine(agent.backbone)
    monkeypatch.setattr(agent.store, "append", unreliable(agent.store, draw))
    held = talk(agent, engine, draw, is_async=is_async)
    assert len(held) == 8
    assert said(agent, "ada") == held


def test_without_keys_it_would_be_several(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Thread, "key_of", lambda self, message: uuid.uuid4().hex)
    build(agent).invoke(asks("One."), thread("ada"))
    assert said(agent, "ada").count(("user", "One.")) == 2  # before the model and after


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
    memory.chat.engine = ScriptedEngine(memory.backbone)
    graph = build(memory, tools=True)
    summary = HumanMessage("Summary of it.", additional_kwargs={"lc_source": "summarization"})
    answer = graph.invoke({"messages": [summary, HumanMessage("Find 'dog' by search_memory.")]}, thread("ada"))
    assert [message.type for message in answer["messages"]] == ["human", "human", "ai", "tool", "ai"]
    assert answer["messages"][2].tool_calls[0]["args"] == {"query": "dog"}
    assert [role for role, _ in said(memory, "ada")] == ["user", "assistant"]
    assert len(prompts) == 2  # one for each call of the model, and the second shows what the tool returned
    assert "Find 'dog' by search_memory." in prompts[1][-1]


def test_tool_that_a_person_approves_forgets_and_the_question_stays_one_turn(make_agent: MakeAgent) -> None:
    memory = make_agent(config=LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 200}}))
    memory.chat.engine = ScriptedEngine(memory.backbone)
    for text in ("My code is 4071.", "My dog is Rex."):
        memory.for_user("ada").add("user", text)
    approving = HumanInTheLoopMiddleware(interrupt_on={"forget_memory": True})
    graph = build(memory, tools=True, before=[approving])
    for decision, left in (("reject", ["My code is 4071.", "My dog is Rex."]), ("approve", ["My dog is Rex."])):
        waiting = graph.invoke(asks("Please forget_memory turn 1."), thread("ada", decision))
        assert waiting["__interrupt__"]
        graph.invoke(Command(resume={"decisions": [{"type": decision}]}), thread("ada", decision))
        texts = [text for _, text in said(memory, "ada")]
        assert [text for text in texts if text.startswith("My")] == left
    assert texts.count("Please forget_memory turn 1.") == 2  # one in each thread


class Pet(BaseModel):
    """A pet somebody has."""

    name: str
    age: int


def test_agent_answers_in_a_given_form(make_agent: MakeAgent) -> None:
    memory = make_agent(config=LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 200}}))
    memory.chat.engine = ScriptedEngine(memory.backbone)
    answer = build(memory, response_format=Pet).invoke(asks("My pet 'Rex' is 3."), thread("ada"))
    assert answer["structured_response"] == Pet(name="Rex", age=3)
    assert said(memory, "ada") == [("user", "My pet 'Rex' is 3.")]  # the form is a call of a tool, which nobody said


# What the model sees
# ---------------------------------------------------------------------------------------------------


def test_window_is_kept_and_what_is_learnt_leaves_the_prompt(
    agent: AgentMemory, teach: Teach, prompts: list[list[str]]
) -> None:
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


@pytest.mark.parametrize("max_tokens", [None, 150])
def test_prompt_leaves_room_for_the_answer(
    make_agent: MakeAgent, prompts: list[list[str]], max_tokens: int | None
) -> None:
    small = tool_backbone()
    small.model.config.max_position_embeddings = 700
    memory = make_agent(backbone=small)
    memory.chat.engine = ScriptedEngine(small)  # short answers: it is the room that counts
    graph = build(memory, system_prompt="Be brief. " * 10, max_tokens=max_tokens)
    for number in range(8):
        answer = graph.invoke(asks(f"Number {number}: {'x' * 60}"), thread("ada"))["messages"][-1]
        assert answer.usage_metadata["input_tokens"] + (max_tokens or CONFIG.window.max_new_tokens) <= 700
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
    messages = [
        HumanMessage("One.", id="1"),
        calling,
        ToolMessage("found", tool_call_id="c", id="3"),
        AIMessage("Done.", id="4"),
    ]
    here = Thread(agent.for_user("ada"), "t")
    record(agent, here, messages)
    here.user.forget(2, wait=False)
    shown = trim_to_window(agent, here, messages, record(agent, here, messages), answer_tokens=12, count=lambda _: 0)
    assert [message.id for message in shown] == ["1", "4"]


# Learning
# --------------------------------------------------------------------------------------------------------------


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
    assert memory.for_user("ada").consolidation_due().is_due
    assert memory.for_user("ada").revisions() == []
