"""The classic memory: the live window of one session of one user."""

from __future__ import annotations

import asyncio

import pytest
from langchain_classic.chains import ConversationChain
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_locas import ChatLocas, LocasChainMemory
from locas_agent import AgentMemory
from locas_agent.errors import ConfigurationError
from tests.unit.langchain.conftest import Teach

NOISE = "ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"


def test_classic_memory_gives_the_live_window(agent: AgentMemory, teach: Teach) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    assert memory.memory_variables == ["history"]
    assert memory.load_memory_variables({}) == {"history": ""}
    for number in range(4):
        memory.save_context({"input": f"Number {number} of them.", "history": "x"}, {"output": "I see, number it is."})
    whole = memory.load_memory_variables({})["history"]
    assert whole.startswith("Human: Number 0 of them.\nAI: I see")
    teach("ada", seed=1)
    short = memory.load_memory_variables({})["history"]
    assert "Number 0" not in short  # learnt: it is in the weights
    assert "Number 3" in short
    as_messages = LocasChainMemory(memory=agent, user_id="ada", return_messages=True, memory_key="talk")
    assert as_messages.load_memory_variables({})["talk"][-1].content == "I see, number it is."


def test_classic_memory_asks_which_input_was_said(agent: AgentMemory) -> None:
    with pytest.raises(ConfigurationError, match="input_key is None, the chain has a, b"):
        LocasChainMemory(memory=agent, user_id="ada").save_context({"a": "1", "b": "2"}, {"output": "x"})
    LocasChainMemory(memory=agent, user_id="ada", input_key="b", output_key="y").save_context(
        {"a": "1", "b": "2"}, {"x": "3", "y": "4"}
    )
    assert [turn.content for turn in agent.for_user("ada").turns()] == ["2", "4"]
    assert agent.for_user("ben").turns() == []


def test_classic_memory_keeps_the_text_of_messages(agent: AgentMemory) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    blocks: list[str | dict[str, str]] = [{"type": "text", "text": "Tw"}, {"type": "text", "text": "o."}]
    memory.save_context({"input": HumanMessage("One.", name="Ada")}, {"output": AIMessage(blocks)})
    memory.save_context(
        {"input": [SystemMessage("Be brief."), HumanMessage("Three."), HumanMessage("Four.")]},
        {"output": ["Five.", AIMessage("")]},
    )
    turns = [(turn.role, turn.content, turn.name) for turn in agent.for_user("ada").turns()]
    assert turns == [
        ("user", "One.", "Ada"),
        ("assistant", "Two.", None),
        ("user", "Three.", None),
        ("user", "Four.", None),
        ("assistant", "Five.", None),
    ]
    for odd in (None, 5, {"a": "b"}, [None], object()):
        with pytest.raises(ConfigurationError, match="expected a text or messages"):
            memory.save_context({"input": "Six."}, {"output": odd})
    assert len(agent.for_user("ada").turns()) == 5


@pytest.mark.filterwarnings(NOISE)
def test_classic_memory_serves_a_conversation_chain(agent: AgentMemory) -> None:
    memory = LocasChainMemory(memory=agent, user_id="ada", session_id="monday")
    chain = ConversationChain(llm=ChatLocas(memory=agent, user_id="ada"), memory=memory)
    answers = [chain.predict(input="One."), asyncio.run(chain.ainvoke({"input": "Two."}))["response"]]
    turns = [(turn.role, turn.content) for turn in agent.for_user("ada").turns()]
    assert turns == [("user", "One."), ("assistant", answers[0]), ("user", "Two."), ("assistant", answers[1])]
    assert chain.prep_inputs({"input": "Three."})["history"].startswith("Human: One.\nAI: ")


def test_classic_memory_clears_its_session_only(agent: AgentMemory) -> None:
    monday, tuesday = (LocasChainMemory(memory=agent, user_id="ada", session_id=name) for name in ("monday", "tuesday"))
    for memory in (monday, tuesday):
        memory.save_context({"input": "One."}, {"output": "Two."})
    monday.clear()
    assert len(agent.for_user("ada").turns()) == 2
    LocasChainMemory(memory=agent, user_id="ada").clear()
    assert agent.for_user("ada").turns() == []
    tuesday.clear()
