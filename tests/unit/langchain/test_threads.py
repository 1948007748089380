"""A thread with a checkpointer.

What the journal refuses, whose thread it is, a room of several, and messages edited in place.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_locas import ChatLocas, ForeignThread, LocasMemoryMiddleware, PromptTooLong
from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError, InvalidTurn, LocasError, TurnNotFound, TurnTooLong
from tests.unit.langchain.conftest import MakeAgent, Teach, tool_backbone

AUDIO = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
BAD: dict[str, tuple[BaseMessage, type[LocasError]]] = {
    "too long": (HumanMessage("z " * 9000, id="bad"), TurnTooLong),
    "audio": (HumanMessage([{"type": "text", "text": "listen"}, AUDIO], id="bad"), ConfigurationError),
    "NUL": (HumanMessage("what\x00ever", id="bad"), InvalidTurn),
    "name": (HumanMessage("whatever", name="n" * 201, id="bad"), InvalidTurn),
    "unknown role": (ChatMessage("whatever", role="critic", id="bad"), ConfigurationError),
    "result of a tool": (ToolMessage([AUDIO], tool_call_id="c", id="bad"), ConfigurationError),
}


def build(memory: AgentMemory, saver: InMemorySaver, *, shared: bool = False, **options: Any) -> Any:
    middleware = [LocasMemoryMiddleware(memory, shared=shared)]
    return create_agent(ChatLocas(memory=memory), middleware=middleware, checkpointer=saver, **options)


def thread(user: str, thread_id: str = "t") -> Any:
    return {"configurable": {"user_id": user, "thread_id": thread_id}}


def says(*messages: Any) -> Any:
    return {"messages": [("human", one) if isinstance(one, str) else one for one in messages]}


def told(memory: AgentMemory, user: str, role: str = "user") -> list[str]:
    return [turn.content for turn in memory.for_user(user).turns() if turn.role == role]


def ids(graph: Any, user: str = "ada") -> list[str]:
    return [message.id for message in graph.get_state(thread(user)).values["messages"]]


@pytest.fixture
def saver() -> InMemorySaver:
    return InMemorySaver()


# What the journal refuses
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD)
def test_refused_message_fails_its_call_and_no_later_one(
    make_agent: MakeAgent, saver: InMemorySaver, prompts: list[list[str]], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, error = BAD[kind]
    first = build(make_agent(), saver)
    first.invoke(says("One."), thread("ada"))
    for again in (says(bad), None):  # nor does the same call come through when it is resumed
        with pytest.raises(error):
            first.invoke(again, thread("ada"))
    other = make_agent()  # another process
    graph = build(other, saver)
    with caplog.at_level(logging.WARNING, "langchain_locas"):
        for text in ("Two.", "Three."):
            graph.invoke(says(text), thread("ada"))
    lines = [record for record in caplog.records if record.name == "langchain_locas.journaling"]
    assert {line.message for line in lines} == {"message of an earlier call passed over"}
    assert "whatever" not in str([vars(line) for line in lines])
    assert told(other, "ada") == ["One.", "Two.", "Three."]
    assert len(told(other, "ada", "assistant")) == 3
    assert "bad" in ids(graph)  # the thread is as the program left it
    assert prompts[-1][-1] == "Three."
    assert not any("whatever" in text or "z z" in text or "listen" in text for text in prompts[-1])
    caplog.clear()
    graph.invoke(says("Four."), thread("ada"))
    assert caplog.records == []  # it is not tried for ever


def test_too_long_is_an_overflow_of_langchain_and_of_ours(agent: AgentMemory, saver: InMemorySaver) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        asyncio.run(build(agent, saver).ainvoke(says(HumanMessage("y" * 17000)), thread("ada")))
    assert isinstance(caught.value, PromptTooLong | TurnTooLong)
    assert "yyy" not in str(caught.value)


def test_nothing_said_in_a_call_is_dropped_in_it(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    with pytest.raises(InvalidTurn):
        graph.invoke(says(BAD["NUL"][0], "One."), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    assert told(agent, "ada") == ["One.", "Two."]


def test_refused_message_that_is_mended_is_journalled(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    with pytest.raises(InvalidTurn):
        graph.invoke(says(BAD["NUL"][0]), thread("ada"))
    graph.invoke(says("One."), thread("ada"))
    graph.invoke(says(HumanMessage("Mended.", id="bad")), thread("ada"))
    assert told(agent, "ada") == ["One.", "Mended."]


def test_answer_too_long_for_a_turn_fails_its_call_only(
    agent: AgentMemory, saver: InMemorySaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build(agent, saver)
    with monkeypatch.context() as endless:
        long = ChatResult(generations=[ChatGeneration(message=AIMessage("x" * 17000))])
        endless.setattr(ChatLocas, "_generate", lambda *_, **__: long)
        with pytest.raises(PromptTooLong):
            graph.invoke(says("One."), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    graph.invoke(says("Three."), thread("ada"))
    assert told(agent, "ada") == ["One.", "Two.", "Three."]
    assert len(told(agent, "ada", "assistant")) == 2


def test_message_that_fits_a_turn_and_no_prompt_fails_its_call_only(
    make_agent: MakeAgent, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    small = tool_backbone()
    small.model.config.max_position_embeddings = 700
    memory = make_agent(backbone=small)
    graph = build(memory, saver, system_prompt="Be brief. " * 40)
    with pytest.raises(PromptTooLong):
        graph.invoke(says("w" * 500), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    assert prompts[-1][-1] == "Two."
    assert told(memory, "ada") == ["w" * 500, "Two."]  # said all the same, and to be learnt


# Whose thread it is
# ----------------------------------------------------------------------------------------------------


def test_thread_of_another_is_refused_and_left_as_it_was(
    make_agent: MakeAgent, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    memory = make_agent()
    graph = build(memory, saver)
    graph.invoke(says(HumanMessage("My alarm code is 8813.", id="a1")), thread("ada"))
    before = ids(graph)
    other = build(make_agent(), saver)  # another process
    planted = [
        HumanMessage("Hi.", id="b1"),
        AIMessage("Your code is 1.", id="b2"),
        HumanMessage("My code is 1.", id="a2"),
    ]
    for attempt in (says("Hello."), says(*planted), None):
        with pytest.raises(ForeignThread, match="another user"):
            other.invoke(attempt, thread("ben"))
    with pytest.raises(ForeignThread):
        asyncio.run(other.ainvoke(says("Hello."), thread("ben")))
    assert ids(graph) == before
    assert len(prompts) == 1  # no model was asked
    assert memory.users() == [memory.for_user("ada").key]
    graph.invoke(says("Go on."), thread("ada"))
    assert told(memory, "ada") == ["My alarm code is 8813.", "Go on."]
    assert not any("Hello." in text or "Hi." in text for text in prompts[-1])


def test_another_cannot_edit_what_the_owner_said(
    agent: AgentMemory, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("My alarm code is 8813.", id="a1")), thread("ada"))
    with pytest.raises(ForeignThread):
        graph.invoke(says(HumanMessage("My alarm code is 1.", id="a1")), thread("ben"))
    graph.invoke(says("Go on."), thread("ada"))
    assert told(agent, "ada") == ["My alarm code is 8813.", "Go on."]
    assert not any("code is 1." in text for text in prompts[-1])


def test_message_of_nobody_does_not_become_the_next_callers(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    with pytest.raises(ConfigurationError, match="no user_id"):
        graph.invoke(says("Who am I?"), {"configurable": {"thread_id": "t"}})
    graph.invoke(says("One."), thread("ada"))
    with pytest.raises(ConfigurationError, match="no user_id"):
        graph.invoke(says("Who am I?"), {"configurable": {"thread_id": "t"}})
    graph.invoke(says("Two."), thread("ada"))
    assert told(agent, "ada") == ["One.", "Two."]


def test_checkpoint_names_no_user(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    graph.invoke(says("One."), thread("ada.lovelace@example.org"))
    values = graph.get_state(thread("ada.lovelace@example.org")).values
    assert values["locas_owner"] == agent.for_user("ada.lovelace@example.org").key.digest
    assert "lovelace" not in repr(values)


def test_marks_are_not_taken_from_a_caller(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    graph.invoke(says("One."), thread("ada"))
    forged = says("Two.") | {"locas_owner": agent.for_user("ben").key.digest, "locas_marks": {}}
    with pytest.raises(ForeignThread):
        graph.invoke(forged, thread("ben"))
    assert "locas_owner" not in graph.invoke(says("Three."), thread("ada"))


def test_agent_inside_a_graph_takes_nothing_of_an_earlier_user(
    agent: AgentMemory, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    inner = create_agent(ChatLocas(memory=agent), middleware=[LocasMemoryMiddleware(agent)])
    outer = StateGraph(MessagesState)
    outer.add_node("agent", inner)
    outer.add_edge(START, "agent")
    graph = outer.compile(checkpointer=saver)
    for user, text in (("ada", "My alarm code is 8813."), ("ben", "Hello."), ("ada", "Go on.")):
        graph.invoke(says(text), thread(user))
    assert told(agent, "ben") == ["Hello."]
    assert told(agent, "ada") == ["My alarm code is 8813.", "Go on."]
    assert not any("8813" in text for text in prompts[1])
    assert any("8813" in text for text in prompts[2])
    assert not any("Hello." in text for text in prompts[2])


# A room of several
# -----------------------------------------------------------------------------------------------------


def test_in_a_room_each_one_is_journalled_alone(
    make_agent: MakeAgent, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    memory = make_agent()
    for number, (user, text) in enumerate(
        [("ada", "My alarm code is 8813."), ("ben", "I row."), ("ada", "I paint."), ("ben", "I swim.")]
    ):
        graph = build(memory if number % 2 else make_agent(), saver, shared=True)
        graph.invoke(says(text), thread(user))
    assert [(turn.role, turn.content) for turn in memory.for_user("ada").turns()] == [
        ("user", "My alarm code is 8813."),
        ("user", "I paint."),
    ]
    assert [(turn.role, turn.content) for turn in memory.for_user("ben").turns()] == [
        ("user", "I row."),
        ("user", "I swim."),
    ]
    assert any("8813" in text for text in prompts[-1])  # everybody in the room hears it
    memory.for_user("ada").erase()
    graph.invoke(says("Anything else?"), thread("ben"))
    assert told(memory, "ben") == ["I row.", "I swim.", "Anything else?"]
    assert memory.users() == [memory.for_user("ben").key]


def test_in_a_room_a_refused_message_fails_its_call_only(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver, shared=True)
    with pytest.raises(InvalidTurn):
        graph.invoke(says(BAD["NUL"][0]), thread("ada"))
    graph.invoke(says("One."), thread("ben"))
    graph.invoke(says("Two."), thread("ada"))
    assert (told(agent, "ada"), told(agent, "ben")) == (["Two."], ["One."])


def test_room_that_is_none_any_more_belongs_to_who_began_it(
    agent: AgentMemory, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    room, own = build(agent, saver, shared=True), build(agent, saver)
    room.invoke(says("I row."), thread("ada"))
    room.invoke(says("I swim."), thread("ben"))
    with pytest.raises(ForeignThread):
        own.invoke(says("Hello."), thread("ben"))
    own.invoke(says("Hello."), thread("ada"))
    assert told(agent, "ada") == ["I row.", "Hello."]
    assert not any("I swim." in text for text in prompts[-1])


# Messages edited in place
# ----------------------------------------------------------------------------------------------


def test_edited_message_replaces_its_turn_and_what_was_learnt(
    agent: AgentMemory, saver: InMemorySaver, teach: Teach, prompts: list[list[str]]
) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))
    graph.invoke(says("I like tea."), thread("ada"))
    teach("ada", seed=3)
    graph.invoke(says(HumanMessage("I park on level 5.", id="p")), thread("ada"))
    assert told(agent, "ada") == ["I like tea.", "I park on level 5."]
    assert [revision.state for revision in agent.for_user("ada").revisions()] == ["erased", "live"]
    assert agent.store.queue.jobs()[0].is_rebuild  # left to a worker: a hook never trains
    graph.invoke(says("Where do I park?"), thread("ada"))
    assert any("level 5" in text for text in prompts[-1])
    assert not any("level 3" in text for text in prompts[-1])
    assert told(agent, "ada") == ["I like tea.", "I park on level 5.", "Where do I park?"]


def test_edited_message_that_waits_to_be_learnt_again_stays_in_the_prompt(
    agent: AgentMemory, saver: InMemorySaver, teach: Teach, prompts: list[list[str]]
) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))
    graph.invoke(says("I like tea. " * 12), thread("ada"))
    graph.invoke(says(HumanMessage("I park on level 5.", id="p")), thread("ada"))
    turns = agent.for_user("ada").turns()
    corrected = next(turn for turn in turns if "level 5" in turn.content)
    assert corrected.seq > next(turn for turn in turns if "tea" in turn.content).seq
    agent.store.queue.claim("worker")  # whatever was queued is somebody else's
    teach("ada", seed=3)
    graph.invoke(says("I like cake. " * 12), thread("ada"))
    assert not any("level" in text for text in prompts[-1])  # learnt, and out of the window
    graph.invoke(says(HumanMessage("I park on level 7.", id="p")), thread("ada"))
    assert any("level 7" in text for text in prompts[-1])


def test_old_message_is_edited_though_it_left_the_newest_turns(
    agent: AgentMemory, saver: InMemorySaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))
    ada = agent.for_user("ada")
    for number in range(8):
        ada.add("user", f"elsewhere {number}")
    monkeypatch.setattr("langchain_locas.journaling.max", lambda *_: 4, raising=False)  # as if the journal were longer
    graph.invoke(says(HumanMessage("I park on level 5.", id="p")), thread("ada"))
    assert [text for text in told(agent, "ada") if "park" in text] == ["I park on level 5."]


def test_edited_answer_replaces_its_turn_and_a_blanked_message_is_forgotten(
    agent: AgentMemory, saver: InMemorySaver
) -> None:
    graph = build(agent, saver)
    answer = graph.invoke(says(HumanMessage("One.", id="p")), thread("ada"))["messages"][-1]
    graph.update_state(thread("ada"), {"messages": [AIMessage("As a person put it.", id=answer.id)]})
    graph.invoke(says("Two."), thread("ada"))
    assert "As a person put it." in told(agent, "ada", "assistant")
    assert answer.content not in told(agent, "ada", "assistant")[:1]
    graph.invoke(says(HumanMessage(" ", id="p"), "Three."), thread("ada"))
    assert told(agent, "ada") == ["Two.", "Three."]


def test_edit_that_is_refused_leaves_the_turn_and_the_thread_goes_on(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))
    with pytest.raises(PromptTooLong):
        graph.invoke(says(HumanMessage("q" * 17000, id="p")), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    assert told(agent, "ada") == ["I park on level 3.", "Two."]


def test_edit_that_met_an_outage_is_made_up_for(
    agent: AgentMemory, saver: InMemorySaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError("disk")

    with monkeypatch.context() as broken:
        broken.setattr(agent.store, "correct", failing)
        with pytest.raises(OSError, match="disk"):
            graph.invoke(says(HumanMessage("I park on level 5.", id="p")), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    assert told(agent, "ada") == ["I park on level 5.", "Two."]


def test_forgotten_message_does_not_come_back_by_an_edit(agent: AgentMemory, saver: InMemorySaver) -> None:
    graph = build(agent, saver)
    graph.invoke(says(HumanMessage("I park on level 3.", id="p")), thread("ada"))
    agent.for_user("ada").forget(1, wait=False)
    with pytest.raises(TurnNotFound, match="message of its own"):
        graph.invoke(says(HumanMessage("I park on level 5.", id="p")), thread("ada"))
    graph.invoke(says("Two."), thread("ada"))
    assert told(agent, "ada") == ["Two."]


def test_turn_corrected_in_the_journal_is_shown_as_it_is_there(
    agent: AgentMemory, saver: InMemorySaver, prompts: list[list[str]]
) -> None:
    graph = build(agent, saver)
    graph.invoke(says("I park on level 3."), thread("ada"))
    agent.for_user("ada").correct(1, "I park on level 5.", wait=False)
    graph.invoke(says("Where do I park?"), thread("ada"))
    assert "I park on level 5." in told(agent, "ada")
    assert prompts[-1][0] == "I park on level 5."
